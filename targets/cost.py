"""Costs as facts with a kind, and those that are counted from a graph alone: sizes, multiplications, bits, memory.

Nothing here sees a tensor or runs anything. Lengths are taken for a batch of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Literal

from ..ir import STORED, Axis, Const, Graph, Op, Type
from ..ir.axes import size
from ..ir.layers import layers, operand, output_axis
from ..ir.types import stored_bits
from .memory import peak_activation_bytes

Kind = Literal["exact", "measured", "estimated"]


@dataclass(frozen=True)
class Cost:
    """One figure, and what kind of fact it is.

    Args:
        name: what it is: `macs`, `latency`, `energy`.
        value: the figure.
        unit: its unit: `s`, `J`, `B`, `bit`, or empty for counts.
        kind: `exact` (counted), `measured` (on a device) or `estimated` (by a model).
        low: lower end of the 95 % interval of a measured or estimated figure.
        high: upper end of that interval.
        samples: how many measurements it stands on.
        source: the device that was measured, or the model that estimates.
    """

    name: str
    value: float
    unit: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind != "exact" and not self.source:
            raise ValueError(f"a cost that is {self.kind} names its source: the device, or the model")


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs.

    Args:
        layer: its name.
        kind: its op.
        weight: shape of its weight.
        output: shape of its result.
        parameters: elements of its weight and bias.
        macs: multiplications, each with an addition.
        weight_bits: bits of one weight, without its share of a step: what a multiplier takes.
        activation_bits: bits of one value it reads.
    """

    layer: str
    kind: str
    weight: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    macs: int
    weight_bits: int
    activation_bits: int

    @property
    def bit_operations(self) -> int:
        """Multiplications times the bits of both factors."""
        return self.macs * self.weight_bits * self.activation_bits


@dataclass(frozen=True)
class StaticCost:
    """What a network costs by counting.

    Args:
        layers: one entry per layer, in order.
        parameters: elements of all trained tensors; biases and norms among them, running statistics not.
        weight_bits: bits of all stored tensors (statistics too) in their formats, steps included.
        average_bits: mean bits per element over all stored tensors, each by its number of elements; the steps of blocks
            are shared among their elements, all others are apart.
        peak_activation_bytes: the most bytes of activations held at once, see `memory.peak_activation_bytes`.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    weight_bits: int
    average_bits: Fraction
    peak_activation_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all stored tensors when formats of fewer than 8 bits are packed."""
        return -(-self.weight_bits // 8)

    @cached_property
    def macs(self) -> int:
        """Multiply-additions of all layers."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def bit_operations(self) -> int:
        """Sum over layers of multiplications times bits of weight times bits of activation; `f32` counts 32 bits."""
        return sum(layer.bit_operations for layer in self.layers)

    def records(self) -> tuple[Cost, ...]:
        """The totals as records."""
        return (
            Cost("parameters", self.parameters, "", "exact"),
            Cost("weight_bytes", self.weight_bytes, "B", "exact"),
            Cost("macs", self.macs, "", "exact"),
            Cost("bit_operations", self.bit_operations, "", "exact"),
            Cost("average_bits", float(self.average_bits), "bit", "exact"),
            Cost("peak_activation_bytes", self.peak_activation_bytes, "B", "exact"),
        )


def static_cost(graph: Graph) -> StaticCost:
    """Count what a graph costs for a batch of 1."""
    counts = {op.name: elements(op.type, graph.sizes) for op in graph.stored}
    bits = sum(stored_bits(graph.types[name], graph.sizes) for name in counts)
    return StaticCost(
        layers=tuple(layer_cost(graph, op) for op in layers(graph)),
        parameters=sum(counts[op.name] for op in graph.stored if op.kind == "weight"),
        weight_bits=bits + 32 * stored_steps(graph),
        average_bits=Fraction(bits, sum(counts.values()) or 1),
        peak_activation_bytes=peak_activation_bytes(graph),
    )


def layer_cost(graph: Graph, layer: Op) -> LayerCost:
    """What one layer costs for a batch of 1."""
    types, sizes = graph.types, graph.sizes
    weight, given = types[operand(layer, "weight") or ""], types[layer.inputs[0]]
    stored = [types[name] for n in ("weight", "bias") if (name := operand(layer, n)) is not None]
    return LayerCost(
        layer=layer.name,
        kind=layer.kind,
        weight=shape(weight, sizes),
        output=shape(layer.type, sizes),
        parameters=sum(elements(t, sizes) for t in stored),
        macs=MACS.get(layer.kind, macs_per_output)(graph, layer),
        weight_bits=weight.format.bits,
        activation_bits=given.format.bits,
    )


def macs_per_output(graph: Graph, layer: Op) -> int:
    """Each element of the result is a sum over all weights of its output: elements times weights per output.

    For `linear` that is outputs x inputs for each row, for a convolution `H' W' O (C / groups) k_h k_w`, as torchvision
    counts (`weights.meta["_ops"]`) and as in Sze et al., Proc. IEEE 2017, section III.
    """
    weight = graph.types[operand(layer, "weight") or ""]
    per_output = elements(weight, graph.sizes) // size(output_axis(graph, layer), graph.sizes)
    return elements(layer.type, graph.sizes) * per_output


MACS: dict[str, Callable[[Graph, Op], int]] = {}
"""Counts of the layers that `macs_per_output` does not describe, by kind."""


def stored_steps(graph: Graph) -> int:
    """How many steps a file must hold, each a binary32 number; those of blocks are with the elements they belong to."""
    return sum(size(axis, graph.sizes) for axis in stored_steps_of(graph))


def stored_steps_of(graph: Graph) -> Iterator[Axis]:
    """The steps a file must hold, those of stored tensors and of activations, as axes with one step per index.

    The steps of an `i32` bias are products of two that are counted already.
    """
    for op in graph.ops:
        if op.kind in (*STORED, "quantize") and (step := op.type.step) is not None and op.type.format.bits <= 16:
            if step.block is not None:
                continue
            yield Const(1) if step.axis is None else op.type.axes[step.axis]


def shape(type: Type, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The lengths of a value's axes for a batch of 1."""
    return tuple(size(axis, sizes) for axis in type.axes)


def elements(type: Type, sizes: Mapping[str, int]) -> int:
    """The number of elements of a value for a batch of 1."""
    return prod(shape(type, sizes))
