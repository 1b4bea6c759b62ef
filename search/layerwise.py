"""Whether torch's simulation and the deployed network give the same integers, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..compiler.execution import rounded, run
from ..compiler.network import Network
from ..ir import Graph, Op, Type
from ..ir.layers import is_layer
from ..targets import Placement, Target
from ..targets.agree import sqnr_db
from ..targets.onnx.showing import showing
from ..targets.plan import INTEGER_KERNELS
from .artifacts import artifact_of
from .layer_values import LayerValue

SAME = 0.999
"""Share of a value's integers that must be the same: the rest may be ties that went the other way."""


@dataclass(frozen=True)
class ValueAgreement:
    """One quantized activation on both sides.

    Args:
        value: its name.
        place: the user's line of what it rounds, or empty.
        same: share of integers that are equal.
        largest: the largest difference in integers.
        count: how many integers were compared.
    """

    value: str
    place: str
    same: float
    largest: int
    count: int


@dataclass(frozen=True)
class LayerwiseAgreement:
    """All quantized activations, in order.

    Args:
        values: one entry each.
        results: the last layers before the outputs, which no activation behind them shows; in dB.
        kernels_differ: whether the copy that shows its integers runs other integer kernels than the deployed file.
        missing: the first activation that the deployed file does not have; then nothing was compared.
    """

    values: tuple[ValueAgreement, ...]
    results: tuple[LayerValue, ...] = ()
    kernels_differ: bool = False
    missing: str = ""

    @property
    def first_below(self) -> ValueAgreement | None:
        """The first value with fewer equal integers than `SAME`."""
        return next((v for v in self.values if v.same < SAME), None)

    @property
    def first_result_below(self) -> LayerValue | None:
        """The first of the last layers whose numbers agree less than a deployed file's must."""
        return next((v for v in self.results if not v.agrees), None)

    @property
    def same(self) -> float:
        """Share of equal integers over all values."""
        count = sum(v.count for v in self.values)
        return sum(v.same * v.count for v in self.values) / count if count else 1.0

    @property
    def holds(self) -> bool:
        """Whether every value has at least `SAME` equal integers, and the outputs follow from them."""
        return self.first_below is None and self.first_result_below is None and not self.missing

    def __str__(self) -> str:
        if self.missing:
            return f"the file has no quantized activation %{self.missing}: it is not this network's"
        if not self.values:
            return "nothing is quantized"
        count = sum(v.count for v in self.values)
        text = f"{self.same:.3%} of {count:,} integers in {len(self.values)} activations are the same"
        if (first := self.first_below) is not None:
            at = f" ({first.place})" if first.place else ""
            text += (
                f"; the first below {SAME:.1%} is %{first.value}{at}: {first.same:.2%}, apart by up to {first.largest}"
            )
        else:
            worst = min(self.values, key=lambda v: v.same)
            text += f", at least {worst.same:.3%} in each (%{worst.value})"
        if (last := self.first_result_below) is not None:
            text += f"; but behind them the last layer {last.named} gives other numbers: {last.sqnr_db:.1f} dB"
        return text + ("; the copy that shows its integers runs other kernels" if self.kernels_differ else "")


def layerwise(
    network: Network, target: Target, inputs: Sequence[Tensor], deployed: Path | None = None
) -> LayerwiseAgreement:
    """Compare the integers of every quantized activation; torch goes on with the target's integers after each.

    So a difference is blamed on the layer that made it, and not on those behind it. The target runs a copy of the
    deployed file that returns all its quantized activations.

    Args:
        network: a legalized network.
        target: what deploys it.
        inputs: real ones, one tensor per input.
        deployed: the file; None: what the target emits.
    """
    graph = network.graph
    watched = tuple(op.name for op in graph.ops if op.kind == "quantize")
    if not watched:
        return LayerwiseAgreement(())
    if deployed is None:
        copy = replace(graph, outputs=tuple(dict.fromkeys([*graph.outputs, *watched])))
        names, shown = copy.outputs, artifact_of(target, replace(network, graph=copy))
        plain = target.load(artifact_of(target, network), placed=True)
    else:
        names = watched
        shown, missing = showing(deployed, watched)
        if missing:
            return LayerwiseAgreement((), missing=missing)
        plain = target.load(deployed, placed=True)
    session = target.load(shown, placed=True)
    arrays = session.run([t.numpy() for t in inputs])
    theirs = {name: torch.from_numpy(array) for name, array in zip(names, arrays[-len(names) :], strict=True)}
    found: list[ValueAgreement] = []

    def compare(op: Op, x: Tensor) -> Tensor:
        found.append(compared(op, rounded(x, op.type), theirs[op.name], place(graph, op)))
        return theirs[op.name]

    with torch.no_grad():
        outputs = run(graph, network.values, inputs, quantize=compare)
    results = tuple(
        LayerValue(layer.name, str(layer.location or ""), sqnr_db(ours.double().numpy(), array.astype("float64")))
        for name, ours, array in zip(graph.outputs, outputs, arrays, strict=False)
        if (layer := last_layer(graph, name)) is not None
    )
    same = integer_kernels(session.placement()) == integer_kernels(plain.placement())
    return LayerwiseAgreement(tuple(found), results, not same)


def last_layer(graph: Graph, value: str) -> Op | None:
    """The nearest layer before a value with no `quantize` between them; None where there is none."""
    waiting, seen = [value], set[str]()
    while waiting:
        name = waiting.pop(0)
        op = graph.producers.get(name)
        if op is None or op.kind == "quantize" or op.name in seen:
            continue
        if is_layer(op):
            return op
        seen.add(op.name)
        waiting += op.inputs
    return None


def compared(op: Op, ours: Tensor, theirs: Tensor, place: str) -> ValueAgreement:
    """How far two sides of a quantized activation agree; both as the real numbers that their codes stand for."""
    distance = ((ours.double() - theirs.double()) / step_of(op.type)).abs().round()
    equal = float((distance == 0).double().mean()) if distance.numel() else 1.0
    return ValueAgreement(op.name, place, equal, int(distance.max()) if distance.numel() else 0, distance.numel())


def step_of(type: Type) -> float:
    """The step of an activation."""
    assert type.step is not None
    assert type.step.value is not None
    return type.step.value


def place(graph: Graph, op: Op) -> str:
    """The user's line of what a `quantize` rounds."""
    source = graph.producers.get(op.inputs[0])
    location = op.location or (source.location if source is not None else None)
    return str(location) if location is not None else ""


def integer_kernels(placement: Placement) -> dict[str, int]:
    """How often each integer kernel runs."""
    return {kind: n for kind, n in placement.kernels.items() if kind in INTEGER_KERNELS}
