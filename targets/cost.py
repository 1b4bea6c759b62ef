"""Costs as facts with a kind, and those that are counted from a graph alone: sizes, multiplications, bits, memory.

Nothing here sees a tensor or runs anything. Lengths are taken for a batch of 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Literal

from ..ir import STORED, Axis, Const, Graph, Op, Type
from ..ir.axes import size
from ..ir.layers import layers, operand
from ..ir.types import stored_bits
from .counting import operations, products
from .memory import live_bytes

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
class NodeCost:
    """What one op costs, for a batch of 1.

    Args:
        name: the op's name.
        kind: its kind.
        location: the user's line, where there is one.
        parameters: elements of the trained tensors that it reads; a tensor that several ops read counts with the first.
        weight_bits: bits of all stored tensors that it reads, their steps included, counted likewise.
        macs: multiplications, each with an addition.
        bit_operations: multiplications times the bits of both factors.
        factors: the formats of both factors; empty where nothing is multiplied.
        operations: additions, comparisons and functions of single elements, each as 1.
        read_bytes: of activations that it reads.
        written_bytes: of its results.
        stored_bytes: of stored tensors that it reads, whoever reads them first.
        live_bytes: activations that are held while it runs.
    """

    name: str
    kind: str
    location: str
    parameters: int
    weight_bits: int
    macs: int
    bit_operations: int
    factors: tuple[str, ...]
    operations: int
    read_bytes: int
    written_bytes: int
    stored_bytes: int
    live_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes read and written, stored tensors among them."""
        return self.read_bytes + self.written_bytes + self.stored_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: operations per byte read or written, a multiply-addition as two (Williams et al.,
        Roofline, CACM 2009)."""
        return (2 * self.macs + self.operations) / self.bytes if self.bytes else 0.0


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
        nodes: one entry per op that computes or moves something, in order.
        parameters: elements of all trained tensors; biases and norms among them, running statistics not.
        weight_bits: bits of all stored tensors (statistics too) in their formats, steps included.
        average_bits: mean bits per element over all stored tensors, each by its number of elements; the steps of blocks
            are shared among their elements, all others are apart.
        peak_activation_bytes: the most bytes of activations held at once, see `memory.peak_activation_bytes`.
    """

    layers: tuple[LayerCost, ...]
    nodes: tuple[NodeCost, ...]
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
        """Multiply-additions of all ops: layers, matrix products, attention."""
        return sum(node.macs for node in self.nodes)

    @cached_property
    def bit_operations(self) -> int:
        """Sum over ops of multiplications times the bits of both factors; `f32` counts 32 bits."""
        return sum(node.bit_operations for node in self.nodes)

    @cached_property
    def operations(self) -> int:
        """Operations on single elements, beside the multiply-additions."""
        return sum(node.operations for node in self.nodes)

    @cached_property
    def traffic_bytes(self) -> int:
        """Bytes that all ops read and write if none is fused with another."""
        return sum(node.bytes for node in self.nodes)

    @property
    def intensity(self) -> float:
        """Operations per byte over the whole network; see `NodeCost.intensity`."""
        return (2 * self.macs + self.operations) / self.traffic_bytes if self.traffic_bytes else 0.0

    def records(self) -> tuple[Cost, ...]:
        """The totals as records."""
        return (
            Cost("parameters", self.parameters, "", "exact"),
            Cost("weight_bytes", self.weight_bytes, "B", "exact"),
            Cost("macs", self.macs, "", "exact"),
            Cost("bit_operations", self.bit_operations, "", "exact"),
            Cost("operations", self.operations, "", "exact"),
            Cost("average_bits", float(self.average_bits), "bit", "exact"),
            Cost("peak_activation_bytes", self.peak_activation_bytes, "B", "exact"),
            Cost("intensity", self.intensity, "/B", "exact"),
        )


def static_cost(graph: Graph) -> StaticCost:
    """Count what a graph costs for a batch of 1."""
    counts = {op.name: elements(op.type, graph.sizes) for op in graph.stored}
    bits = sum(stored_bits(graph.types[name], graph.sizes) for name in counts)
    live = live_bytes(graph)
    return StaticCost(
        layers=tuple(layer_cost(graph, op) for op in layers(graph)),
        nodes=node_costs(graph, live),
        parameters=sum(counts[op.name] for op in graph.stored if op.kind == "weight"),
        weight_bits=bits + stored_step_bits(graph),
        average_bits=Fraction(bits, sum(counts.values()) or 1),
        peak_activation_bytes=max(live.values(), default=0),
    )


def node_costs(graph: Graph, live: Mapping[str, int]) -> tuple[NodeCost, ...]:
    """What each op costs that is not a stored tensor.

    Args:
        graph: the graph.
        live: bytes held while each op runs.
    """
    stored = {op.name: op for op in graph.stored}
    told: set[str] = set()
    found: list[NodeCost] = []
    for op in graph.ops:
        if op.kind in STORED:
            continue
        reads = tuple(dict.fromkeys(op.inputs))
        fresh = [stored[n] for n in reads if n in stored and n not in told]
        told.update(entry.name for entry in fresh)
        multiplied = products(graph, op)
        macs = [(prod(size(a, graph.sizes) for a in p.axes), p.bits) for p in multiplied]
        steps = sum(size(axis, graph.sizes) * bits for entry in (*fresh, op) for axis, bits in steps_of(entry))
        found.append(
            NodeCost(
                name=op.name,
                kind=op.kind,
                location=str(op.location or ""),
                parameters=sum(elements(e.type, graph.sizes) for e in fresh if e.kind == "weight"),
                weight_bits=sum(stored_bits(e.type, graph.sizes) for e in fresh) + steps,
                macs=sum(count for count, _ in macs),
                bit_operations=sum(count * bits for count, bits in macs),
                factors=tuple(f.name for f in multiplied[0].formats) if multiplied else (),
                operations=operations(graph, op),
                read_bytes=sum(packed_bytes(graph.types[n], graph.sizes) for n in reads if n not in stored),
                written_bytes=sum(packed_bytes(t, graph.sizes) for t in op.types),
                stored_bytes=sum(packed_bytes(graph.types[n], graph.sizes) for n in reads if n in stored),
                live_bytes=live[op.name],
            )
        )
    return tuple(found)


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
        macs=sum(prod(size(a, sizes) for a in p.axes) for p in products(graph, layer)),
        weight_bits=weight.format.bits,
        activation_bits=given.format.bits,
    )


def stored_step_bits(graph: Graph) -> int:
    """Bits of the steps that a file must hold, each a binary32 number, and of the zeros of stored tensors; those of
    blocks are with the elements they belong to."""
    return sum(size(axis, graph.sizes) * bits for axis, bits in stored_steps_of(graph))


def stored_steps_of(graph: Graph) -> Iterator[tuple[Axis, int]]:
    """The steps a file must hold, those of stored tensors and of activations: axes with one step per index, and the
    bits of one."""
    for op in graph.ops:
        yield from steps_of(op)


def steps_of(op: Op) -> Iterator[tuple[Axis, int]]:
    """The steps that one op brings: an axis with one step per index, and the bits of one with its zero.

    The steps of an `i32` bias are products of two that are counted already.
    """
    step = op.type.step if op.kind in (*STORED, "quantize") and op.type.format.bits <= 16 else None
    if step is not None and step.block is None:
        bits = op.type.encoding.step_bits if op.kind in STORED else step.bits
        yield Const(1) if step.axis is None else op.type.axes[step.axis], bits


def shape(type: Type, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The lengths of a value's axes for a batch of 1."""
    return tuple(size(axis, sizes) for axis in type.axes)


def elements(type: Type, sizes: Mapping[str, int]) -> int:
    """The number of elements of a value for a batch of 1."""
    return prod(shape(type, sizes))


def packed_bytes(type: Type, sizes: Mapping[str, int]) -> int:
    """The bytes of a value for a batch of 1, with formats of fewer than 8 bits packed."""
    return -(-stored_bits(type, sizes) // 8)
