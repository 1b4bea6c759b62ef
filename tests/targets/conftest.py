"""What the tests of targets share: a store over a dictionary, random weights for any graph, and small graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from nasc.ir import Graph, Op, parse, verify
from nasc.ir.axes import size
from nasc.ir.formats import BF16, F8E4M3, F8E5M2, F16, F32, F64
from numpy.typing import NDArray

Array = NDArray[Any]

FLOATS = {
    F32: np.float32,
    F16: np.float16,
    F64: np.float64,
    BF16: ml_dtypes.bfloat16,
    F8E4M3: ml_dtypes.float8_e4m3fn,
    F8E5M2: ml_dtypes.float8_e5m2,
}


class Dictionary:
    """A `Weights` over two dictionaries."""

    def __init__(self, arrays: Mapping[str, Array], steps: Mapping[str, Array] | None = None) -> None:
        self.arrays = dict(arrays)
        self.per_axis = dict(steps or {})

    def array(self, name: str) -> Array:
        return self.arrays[name]

    def steps(self, name: str) -> Array:
        return self.per_axis[name]

    def zeros(self, name: str) -> Array:
        raise KeyError(name)

    def real(self, graph: Graph, name: str) -> Array:
        """A stored tensor as real numbers in binary64."""
        type, codes = graph.types[name], self.arrays[name].astype(np.float64)
        if type.step is None:
            return codes
        if type.step.axis is None:
            assert type.step.value is not None
            return type.step.value * (codes - (type.step.zero or 0))
        shape = [1] * codes.ndim
        shape[type.step.axis] = -1
        return codes * self.per_axis[name].astype(np.float64).reshape(shape)


def lengths(graph: Graph, name: str, batch: int = 1) -> tuple[int, ...]:
    """The shape of a value for a batch."""
    return tuple(size(a, graph.sizes, batch) for a in graph.types[name].axes)


def random_weights(graph: Graph, seed: int = 0) -> Dictionary:
    """Weights of the size of trained ones: fan-in scaled floats, codes over the format's whole range, biases in step.

    The bias of a layer whose input and weight are quantized counts in the product of their steps.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    steps: dict[str, Array] = {}
    for op in graph.stored:
        type, shape = op.type, lengths(graph, op.name)
        fan_in = int(np.prod(shape[1:])) or 1
        if type.format.is_float:
            values = rng.normal(0, 1 / np.sqrt(fan_in), shape)
            if "var" in op.name:
                values = rng.uniform(0.5, 2, shape)
            arrays[op.name] = values.astype(FLOATS[type.format])
            continue
        low, high = (-1000, 1000) if type.format.bits > 16 else (type.format.low, type.format.high)
        if type.format.signed and type.format.bits <= 16:
            low = -high
        bits = 8 if type.format.bits <= 8 else 16 if type.format.bits <= 16 else 32
        dtype = np.dtype(f"{'' if type.format.signed else 'u'}int{bits}")
        arrays[op.name] = rng.integers(low, high, shape, endpoint=True).astype(dtype)
        if type.step is not None and type.step.axis is not None:
            count = shape[type.step.axis]
            unit = 1.7 / (max(high, 1) * np.sqrt(fan_in))
            steps[op.name] = (unit * rng.uniform(0.5, 1.5, count)).astype(np.float32)
    weights = Dictionary(arrays, steps)
    for op in graph.ops:
        bias_in_step(graph, weights, op)
    return weights


def bias_in_step(graph: Graph, weights: Dictionary, op: Op) -> None:
    """Let the codes of a layer's bias count in the product of the steps of input and weight, where those are known."""
    if len(op.inputs) != 3 or op.kind not in ("linear", "conv1d", "conv2d", "conv3d"):
        return
    given, weight, bias = (graph.types[n] for n in op.inputs)
    if bias.step is None or bias.format.bits != 32 or weight.step is None or given.step is None or not given.step.known:
        return
    of_weight = weights.per_axis.get(op.inputs[1], np.float32(weight.step.value or 1))
    weights.per_axis[op.inputs[2]] = np.float32(given.step.value or 1) * of_weight


def graph_of(text: str) -> Graph:
    """The verified graph of a text; the version line may be left out."""
    graph = parse(text if text.lstrip().startswith("nasc") else "nasc 1\n" + text)
    verify(graph)
    return graph


def calibrated(graph: Graph, *inputs: Array) -> tuple[Graph, Dictionary]:
    """The graph with the steps of its quantizes taken from the range of what they read, and random weights to it.

    Unsigned formats get a zero where values are negative; biases count in the step of their products.
    """
    from . import reference

    weights = random_weights(graph)
    return reference.calibrate(graph, weights, *inputs), weights


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
