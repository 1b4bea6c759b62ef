"""Layers that would lose more time by rounding around them than integer arithmetic saves."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...ir import Graph, Op, operand, rebuilt
from ...ir.axes import size
from ...ir.formats import F32
from ..network import Network
from .integers import CARRIERS, CLAMPS, MOVERS, carriers, integer_layers, settled

SAVED_NS = 0.02
"""What a multiply-addition saves in 8 bits: about two thirds of 0.03 ns, one thread of a processor with AVX-512."""
ROUNDING_NS = 0.7
"""What rounding an element, or reading it back, costs on the same processor."""


def without_losses(network: Network) -> Network:
    """The network with the layers in real numbers that do not pay in integers; the same one where all do.

    One after the other: what a layer in real numbers gives must be rounded for those behind it.
    """
    kept: set[str] = set()
    while True:
        lost = next(
            (op for op in integer_layers(network.graph) if op.name not in kept and loss(network.graph, op)), None
        )
        if lost is None:
            return network
        found = as_real(network, lost)
        kept.add(lost.name)
        network = found or network


def loss(graph: Graph, layer: Op) -> bool:
    """Whether a layer saves less time in integers than the rounding costs that it alone asks for; by counting."""
    weight = [size(axis, graph.sizes) for axis in graph.types[layer.inputs[1]].axes]
    results = elements(graph, layer.name)
    macs = prod(weight[1:]) * results
    depthwise = layer.kind != "linear" and weight[1] == 1
    saved = 0.0 if depthwise else SAVED_NS * macs
    return saved < ROUNDING_NS * (rounded_for(graph, layer) + read_back(graph, layer))


def elements(graph: Graph, name: str) -> int:
    """The elements of a value, per sample."""
    return prod(size(axis, graph.sizes) for axis in graph.types[name].axes)


def rounded_for(graph: Graph, layer: Op) -> int:
    """Elements that are rounded for this layer alone, since they come as real numbers."""
    source = rounding(graph, layer)
    if source is None or len(graph.readers[source.name]) > 1:
        return 0
    born = {op.name for op in integer_layers(graph)} | carriers(graph)
    given = graph.producers.get(source.inputs[0])
    while given is not None and given.kind in (*CLAMPS, *MOVERS):
        given = graph.producers.get(given.inputs[0])
    return 0 if given is not None and given.name in born else elements(graph, source.name)


def read_back(graph: Graph, layer: Op) -> int:
    """Elements that are rounded behind a convolution and read as real numbers all the same, twice each."""
    last = settled(graph, layer.name)
    if layer.kind == "linear":
        return 0
    readers = graph.readers.get(last, ())
    passed = all(r.kind == "quantize" or (r.kind in CARRIERS and r.name in carriers(graph)) for r in readers)
    return 0 if readers and passed and last not in graph.outputs else 2 * elements(graph, last)


def rounding(graph: Graph, layer: Op) -> Op | None:
    """The `quantize` that a layer reads through, behind moves."""
    op = graph.producers.get(layer.inputs[0])
    while op is not None and op.kind in MOVERS:
        op = graph.producers.get(op.inputs[0])
    return op if op is not None and op.kind == "quantize" else None


def as_real(network: Network, layer: Op) -> Network | None:
    """The network with one layer in real numbers; None where its weight or moved input serves others too."""
    graph = network.graph
    source = graph.producers.get(layer.inputs[0])
    stored = [name for name in (layer.inputs[1], operand(layer, "bias")) if name is not None]
    if source is None or source.kind != "quantize" or any(graph.readers[n] != (layer,) for n in stored):
        return None
    ops: list[Op] = []
    for op in graph.ops:
        if op is layer:
            op = replace(op, inputs=(source.inputs[0], *op.inputs[1:]))
        elif op.name in stored:
            op = op.with_type(replace(op.type, format=F32, step=None))
        ops.append(op)
    recipes = {name: network.weights.unrounded(name) for name in stored}
    made = rebuilt(graph, ops)
    return Network(made, network.weights.with_recipes(recipes))
