"""Predict a network's latency op by op, from profiles of other networks that were measured on the same device.

Every op is of a class: its kind, and what decides which kernel runs it, such as whether its layer is planned on
integers. Within a class the time is a sum of what an op has to do (multiply-additions, bytes, the call itself), each
with its own price; prices are never negative, and fitted to the relative error (non-negative least squares, Lawson and
Hanson, Solving Least Squares Problems, 1974, chapter 23). A prediction ranks candidates before they are measured. It
is marked estimated, and never stands in for a measured figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log, prod
from typing import Any

import numpy as np

from ..ir import SPECS, STORED, Graph, Op
from ..ir.axes import size
from ..ir.layers import operand
from .counting import operations
from .plan import Plan
from .profile import KernelProfile

BLOCK = 16
"""Channels that kernels compute at once: 16 numbers of 32 bits in a register of 512."""
LEAST_S = 2e-6
"""Times below are as good as this: the profiler counts microseconds."""

OpClass = tuple[str, ...]
"""What decides how an op is run, from its kind to details."""


@dataclass(frozen=True)
class OpWork:
    """What one op has to do.

    Args:
        name: the op.
        kind: its class.
        amounts: how much of each thing that has a price; the first is 1, for the call itself.
    """

    name: str
    kind: OpClass
    amounts: tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """A network that was measured.

    Args:
        work: what its ops have to do.
        times_s: the time of each op that has any, by name.
        latency_s: of the whole, without a profiler.
    """

    work: tuple[OpWork, ...]
    times_s: Mapping[str, float]
    latency_s: float


DISTURBED = 1.5
"""Kernels that together take so many times the latency were held up: such a profile teaches nothing."""


def disturbed(times_s: Mapping[str, float], latency_s: float) -> bool:
    """Whether a profile was taken while something else held the network up.

    Args:
        times_s: of the ops, by the profiler.
        latency_s: of the whole, measured at about the same time without it.
    """
    return sum(times_s.values()) > DISTURBED * latency_s


@dataclass(frozen=True)
class Prediction:
    """A predicted latency.

    Args:
        seconds: the prediction.
        low: lower end of where nine of ten measurements lie, as far as networks that were left out of fitting tell.
        high: upper end.
        unknown: kinds of ops that no example had; they count as the roughest class that is known, or as nothing.
        ops_s: by op.
    """

    seconds: float
    low: float
    high: float
    unknown: tuple[str, ...]
    ops_s: Mapping[str, float]


def work_of(graph: Graph, plan: Plan, batch: int = 1) -> tuple[OpWork, ...]:
    """What every op of a graph has to do, and what decides how it is run.

    Args:
        graph: the graph.
        plan: what the target will do with its layers.
        batch: length of the batch axis.
    """
    kernels = dict.fromkeys(plan.integer, "integer") | dict.fromkeys(plan.f8, "f8")
    modes = {op.name: mode(graph, op, kernels) for op in graph.ops if op.kind in SPECS and SPECS[op.kind].is_layer}
    found: list[OpWork] = []
    for op in graph.ops:
        if op.kind in STORED:
            continue
        if op.name in modes:
            found.append(layer_work(graph, op, modes[op.name], batch))
        else:
            found.append(other_work(graph, op, modes, batch))
    return tuple(found)


def mode(graph: Graph, layer: Op, kernels: Mapping[str, str]) -> str:
    """How a layer is run: on integers or 8-bit floats, or on numbers after its input or its weight was read back from
    codes."""
    if (kernel := kernels.get(layer.name)) is not None:
        return kernel
    read = [graph.types[name].quantized for name in layer.inputs[:2]]
    return {
        (False, False): "float",
        (True, False): "float, input in codes",
        (False, True): "float, weight in codes",
    }.get((read[0], read[1]), "float, both in codes")


def layer_work(graph: Graph, op: Op, how: str, batch: int) -> OpWork:
    """A layer: multiply-additions with channels in whole blocks, results, operands, weights, windows laid out."""
    weight = lengths(graph, operand(op, "weight") or "")
    given, result = lengths(graph, op.inputs[0], batch), lengths(graph, op.name, batch)
    at = SPECS[op.kind].weight_axis or 0
    groups = op.attribute("groups", 1)
    several = groups != 1
    outputs = weight[at]
    inner = prod(weight) // outputs
    places = prod(result) // outputs
    shape = "one channel per group" if several and weight[1] == 1 else "groups" if several else ""
    channels = blocks(outputs)
    window = prod(weight[2:])
    read = blocks(inner // window) * window if not several and how != "integer" else inner
    amounts = (
        1.0,
        places * channels * read,
        places * channels,
        places * inner if window > 1 or how != "float" else 0,
        prod(given),
        prod(weight),
    )
    kernel = "pointwise" if window == 1 else "window"
    return OpWork(op.name, (op.kind, how, shape, kernel), tuple(map(float, amounts)))


def other_work(graph: Graph, op: Op, modes: Mapping[str, str], batch: int) -> OpWork:
    """Any other op: by what stands before it and behind it, which decides whether it is merged with a layer."""
    before = sorted({modes.get(through(graph, name), "") for name in op.inputs if name in graph.types})
    behind = sorted({modes.get(reader.name, reader.kind) for reader in graph.readers.get(op.name, ())})
    coded = "codes" if any(graph.types[n].quantized for n in op.inputs) else "numbers"
    read = sum(prod(lengths(graph, n, batch)) for n in dict.fromkeys(op.inputs) if n not in stored_names(graph))
    given = sum(prod(lengths(graph, n, batch)) for n in op.results)
    kind = (op.kind, coded, "after " + ", ".join(before), "before " + ", ".join(behind))
    return OpWork(op.name, kind, (1.0, float(read), float(given), float(operations(graph, op) * batch)))


def through(graph: Graph, name: str) -> str:
    """The op that a value comes from, behind those that a runtime merges with it."""
    op = graph.producers.get(name)
    while op is not None and op.kind in ("relu", "relu6", "clamp", "hardtanh", "quantize", "add") and op.inputs:
        name = op.inputs[0]
        op = graph.producers.get(name)
    return name if op is None else op.name


def stored_names(graph: Graph) -> set[str]:
    """The names of stored tensors."""
    return {op.name for op in graph.stored}


def lengths(graph: Graph, name: str, batch: int = 1) -> tuple[int, ...]:
    """The lengths of a value's axes."""
    return tuple(size(axis, graph.sizes, batch) for axis in graph.types[name].axes)


def blocks(channels: int) -> int:
    """Channels in whole blocks."""
    return -(-channels // BLOCK) * BLOCK


def spent(graph: Graph, kernels: Sequence[KernelProfile], latency_s: float | None = None) -> dict[str, float]:
    """The time of each op from the kernels that ran.

    Args:
        graph: the network.
        kernels: of its profile.
        latency_s: what they are to add up to, so that what happened to the machine meanwhile drops out; None: what they
            took.
    """
    owners = {result: op.name for op in graph.ops for result in op.results}
    found: dict[str, float] = {}
    for kernel in kernels:
        owner = owners.get(kernel.layer, kernel.layer)
        found[owner] = found.get(owner, 0.0) + kernel.time_s
    scale = 1.0 if latency_s is None else latency_s / (sum(found.values()) or 1.0)
    return {name: time_s * scale for name, time_s in found.items()}


@dataclass(frozen=True)
class LatencyModel:
    """Prices by class of op; made by `fit`.

    Args:
        prices: of each class and of each shorter class that it belongs to.
        spread: of measured over predicted, as logarithms: their 5th and 95th percentile over networks left out of
            fitting.
        error: median relative error over those networks; None where there were too few to leave any out.
        rank: Spearman's rank correlation over those networks; None likewise.
        examples: networks it was fitted on.
        whole: the logarithm of a factor and an exponent that lead from the sum of all ops to the latency. Large
            networks take longer than their ops' prices add up to, small ones less: ResNet-18's candidates take the
            power 1.3 of it.
    """

    prices: Mapping[OpClass, tuple[float, ...]]
    spread: tuple[float, float]
    error: float | None
    rank: float | None
    examples: int
    whole: tuple[float, float] = (0.0, 1.0)

    def predict(self, work: Sequence[OpWork]) -> Prediction:
        """The latency of a network from what its ops have to do."""
        ops_s: dict[str, float] = {}
        unknown: list[str] = []
        for entry in work:
            prices = next((self.prices[k] for k in shorter(entry.kind) if k in self.prices), None)
            if prices is None or len(prices) != len(entry.amounts):
                unknown.append(entry.kind[0])
                continue
            ops_s[entry.name] = float(np.dot(prices, entry.amounts))
        sum_s = sum(ops_s.values())
        factor, exponent = self.whole
        total_s = float(np.exp(factor) * sum_s**exponent)
        ops_s = {name: time_s * total_s / sum_s for name, time_s in ops_s.items()} if sum_s else ops_s
        low, high = (total_s * float(np.exp(end)) for end in self.spread)
        return Prediction(total_s, low, high, tuple(dict.fromkeys(unknown)), ops_s)


def shorter(kind: OpClass) -> Iterable[OpClass]:
    """A class and the wider ones that it belongs to, the narrowest first."""
    return (kind[:n] for n in range(len(kind), 0, -1))


ROUNDS = 8
"""Rounds of fitting, each with weights from the one before."""
NEAR = 0.15
"""Relative differences up to which a row counts in full."""
FOLDS = 5
"""Parts that examples are divided into, to predict each part from the others."""
FEWEST = 6
"""Examples from which on a model says how wrong it is."""
ALIKE = 0.2
"""Logarithm of the ratio between the slowest and the fastest example up to which sizes say nothing of exponents."""
EXPONENTS = (0.7, 1.5)
"""Exponents of `LatencyModel.whole` that are believed."""
UNTOLD = (-log(1.5), log(1.5))
"""The spread of a model that had too few examples to tell."""


def fit(examples: Sequence[Example]) -> LatencyModel:
    """Fit prices to networks that were measured, and find out how wrong predictions of others are.

    Args:
        examples: at least one.

    Raises:
        ValueError: there are none.
    """
    if not examples:
        raise ValueError("a latency model needs examples; found none")
    model = untold(examples)
    if len(examples) < FEWEST:
        return model
    predicted = left_out(examples)
    measured = np.array([e.latency_s for e in examples])
    ratios = np.log(measured / predicted)
    # The extremes are taken a little wider than they are: few examples see few of them.
    low, high = np.quantile(ratios, [0.05, 0.95])
    margin = 1 + 2 / np.sqrt(len(examples))
    error = float(np.median(np.abs(predicted / measured - 1)))
    spread = (float(min(0.0, low) * margin), float(max(0.0, high) * margin))
    return replace(model, spread=spread, error=error, rank=spearman(predicted, measured))


def untold(examples: Sequence[Example]) -> LatencyModel:
    """A model that does not say how wrong it is."""
    model = LatencyModel(fitted(examples), UNTOLD, None, None, len(examples))
    sums = np.log([max(model.predict(e.work).seconds, 1e-9) for e in examples])
    if len(examples) < FEWEST or np.ptp(sums) < ALIKE:
        return model
    from scipy.stats import theilslopes

    measured = np.log([e.latency_s for e in examples])
    exponent = float(np.clip(np.asarray(theilslopes(measured, sums))[0], *EXPONENTS))
    return replace(model, whole=(float(np.median(measured - exponent * sums)), exponent))


def left_out(examples: Sequence[Example]) -> Any:
    """The predicted latency of each example by models that have not seen it."""
    predicted = np.zeros(len(examples))
    for part in range(min(FOLDS, len(examples))):
        others = [e for i, e in enumerate(examples) if i % FOLDS != part]
        model = untold(others)
        for i in range(part, len(examples), FOLDS):
            predicted[i] = model.predict(examples[i].work).seconds
    return np.maximum(predicted, 1e-9)


def fitted(examples: Sequence[Example]) -> dict[OpClass, tuple[float, ...]]:
    """Prices of every class and of the wider ones, from all ops of all examples."""
    rows: dict[OpClass, list[tuple[tuple[float, ...], float]]] = {}
    for example in examples:
        for entry in example.work:
            for kind in shorter(entry.kind):
                rows.setdefault(kind, []).append((entry.amounts, example.times_s.get(entry.name, 0.0)))
    return {kind: priced(found) for kind, found in rows.items()}


def priced(rows: Sequence[tuple[tuple[float, ...], float]]) -> tuple[float, ...]:
    """Non-negative prices that fit relative errors, and are not led astray by times that something disturbed.

    Errors are taken relative to what the last round predicted, since relative to what was measured the least squares
    would favour prices that are too low. Rows far off count by Huber's weights (Robust Estimation of a Location
    Parameter, Ann. Math. Statist. 35, 1964), on ratios above and logarithms below.
    """
    from scipy.optimize import nnls

    amounts = np.array([a for a, _ in rows])
    times_s = np.array([t for _, t in rows])
    scales = np.abs(amounts).max(0)
    scales[scales == 0] = 1.0
    scaled = amounts / scales
    expected = np.maximum(times_s, LEAST_S)
    trust = np.ones(len(rows))
    found = np.zeros(amounts.shape[1])
    for _ in range(ROUNDS):
        weights, last = trust / expected, found
        found, _ = nnls(scaled * weights[:, None], times_s * weights)
        if np.allclose(found, last, rtol=1e-3, atol=0.0):
            break
        expected = np.maximum(scaled @ found, LEAST_S)
        ratio = np.maximum(times_s, LEAST_S) / expected
        off = np.maximum(np.abs(np.log(ratio)), ratio - 1)
        trust = np.sqrt(np.minimum(1.0, NEAR / np.maximum(off, NEAR)))
    return tuple(float(p) for p in found / scales)


def spearman(first: Any, second: Any) -> float:
    """Spearman's rank correlation; ties share their mean rank."""
    from scipy.stats import rankdata

    if len(first) < 2:
        return 1.0
    ranks = [rankdata(np.asarray(values)) for values in (first, second)]
    if any(r.std() == 0 for r in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
