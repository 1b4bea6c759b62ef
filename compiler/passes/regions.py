"""Which layers are worth their integers: the cheapest way to divide a graph into real numbers and codes.

Every op is on one of two sides. What it costs there is its own; what a value costs that is made on one side and read on
the other is paid once, however many read it. The division that costs least in all is a minimum cut (Picard and Ratliff,
Minimum cuts and related problems, Networks 5, 1975), so a region of layers with all that stands between them is kept or
given up as a whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from ...ir import STORED, Graph, Op, fresh_name, operand, rebuilt
from ...ir.formats import F32
from ..network import Network
from .integers import CARRIERS, CLAMPS, MOVERS, integer_layers, is_stored, numbers, takes_codes
from .pays import ALONE, CONVOLUTIONS, between_ns, keeps_weights, layer_ns, read_ns, round_ns

REAL, CODES = "in real numbers", "in codes"
"""The two ends of a cut; no value has such a name."""
KERNELS = ("linear", *CONVOLUTIONS)
"""Layers that have integer kernels."""
LARGEST = 1 << 28
"""What all links together may cost: capacities are whole numbers of 32 bits, and some of them stand for no limit."""

Links: TypeAlias = "dict[tuple[str, str], float | None]"
"""What it costs that the first op is in real numbers and the second in codes; None: it cannot be."""


def without_losses(network: Network) -> Network:
    """The network with the layers in real numbers that do not pay in integers; the same one where all do."""
    real = in_real(network.graph)
    return as_real(network, real) if any(op.name in real for op in integer_layers(network.graph)) else network


def in_real(graph: Graph) -> frozenset[str]:
    """The ops that are cheaper in real numbers; where both cost the same, codes stay."""
    return nearest(priced(graph), REAL) & frozenset(graph.producers)


def priced(graph: Graph) -> Links:
    """What a division of a graph costs."""
    links: Links = {}

    def pays(one: str, other: str, price_ns: float | None) -> None:
        """Add to what it costs."""
        before = links.get((one, other), 0.0)
        links[one, other] = None if price_ns is None or before is None else before + price_ns

    layers = {op.name for op in integer_layers(graph)}
    kept = keeps_weights(graph)
    for op in graph.ops:
        if op.kind in STORED or takes_codes(op):
            continue
        makers = dict.fromkeys(maker(graph, name) for name in op.inputs if not is_stored(graph, name))
        if op.name in layers and any(len(graph.readers[name]) > 1 for name in parameters(op)):
            pays(op.name, CODES, None)  # what it shares has one format for all
        elif op.name in layers and op.kind in KERNELS:
            pays(op.name, CODES, layer_ns(graph, op, "real", kept=kept))
            pays(REAL, op.name, layer_ns(graph, op, "codes", kept=kept))
        elif op.kind in CLAMPS:
            for one in makers:
                pays(one, op.name, None)
                pays(op.name, one, None)
        elif op.kind in (*MOVERS, *CARRIERS, *ALONE):
            carried = carries(graph, op)
            real_ns, codes_ns = between_ns(graph, op, carried)
            pays(op.name, CODES, real_ns)
            pays(REAL, op.name, codes_ns)
            if op.kind.startswith("max_pool") or carried:
                for one in makers:
                    pays(one, op.name, None)  # codes that are rounded for it alone have no fast kernel
        else:
            pays(REAL, op.name, None)
    for name in (*(i.name for i in graph.inputs), *(n for op in graph.ops for n in op.results)):
        op = graph.producers.get(name)
        if op is not None and (op.kind in STORED or takes_codes(op)):
            continue
        one = CODES if op is None and graph.types[name].integer else REAL if op is None else op.name
        rounding, reading = f"{name} rounded", f"{name} read"
        pays(one, rounding, round_ns(graph, name))
        pays(reading, one, read_ns(graph, name))
        for other in users(graph, name):
            pays(rounding, other, None)
            pays(other, reading, None)
    return links


def maker(graph: Graph, name: str) -> str:
    """The op that makes a value, behind roundings; an end for inputs."""
    name = numbers(graph, name)
    if (op := graph.producers.get(name)) is not None:
        return op.name
    return CODES if graph.types[name].integer else REAL


def users(graph: Graph, name: str) -> dict[str, None]:
    """Who reads a value, directly or rounded: ops by name; an end for outputs, by their type."""
    found: dict[str, None] = {}
    if name in graph.outputs:
        found[CODES if graph.types[name].integer else REAL] = None
    for reader in graph.readers.get(name, ()):
        found.update(users(graph, reader.name) if takes_codes(reader) else {reader.name: None})
    return found


def parameters(layer: Op) -> list[str]:
    """The stored tensors that are given the layer's format."""
    return [name for name in (operand(layer, "weight"), operand(layer, "bias")) if name is not None]


def carries(graph: Graph, op: Op) -> bool:
    """Whether an op has an integer kernel for what it reads."""
    tensors = not any(is_stored(graph, name) for name in op.inputs)
    return op.kind in CARRIERS and tensors and op.attribute("other") is None and op.attribute("input") is None


def nearest(links: Links, end: str) -> frozenset[str]:
    """The names that stay with an end where the links that cost least are cut; the fewest of several such sets."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    names = {name: i for i, name in enumerate(dict.fromkeys((REAL, CODES, *(n for pair in links for n in pair))))}
    unit = max(1.0, sum(price or 0.0 for price in links.values()) / LARGEST)
    price = [2 * LARGEST if p is None else round(p / unit) for p in links.values()]
    at = ([names[one] for one, _ in links], [names[other] for _, other in links])
    shape = (len(names), len(names))
    capacity = coo_array((np.array(price, np.int32), at), shape=shape).tocsr()
    left = capacity - maximum_flow(capacity, names[REAL], names[CODES]).flow
    left.eliminate_zeros()
    reached = set(breadth_first_order(left, names[end], return_predecessors=False).tolist())
    return frozenset(name for name, i in names.items() if i in reached)


def as_real(network: Network, real: frozenset[str]) -> Network:
    """The network with these ops in real numbers; what they give is rounded for those who read codes behind them."""
    graph = network.graph
    layers = {op.name for op in integer_layers(graph)}
    stored = [name for op in graph.ops if op.name in layers & real for name in parameters(op)]
    whole = {i.name for i in graph.inputs if i.type.integer}
    codes: dict[str, str] = {}
    ops: list[Op] = []

    def rounded(name: str) -> str:
        """A value in the codes that it had."""
        if not graph.types[name].integer or name in whole:
            return name
        if name not in codes:
            new = Op("quantize", (fresh_name(f"{name}.q", graph.types),), (graph.types[name],), (name,))
            codes[name] = new.name
            ops.append(new)
        return codes[name]

    for op in graph.ops:
        if op.name in stored:
            op = op.with_type(replace(op.type, format=F32, step=None))
        elif op.kind in MOVERS or op.name in layers:
            given = numbers(graph, op.inputs[0]) if op.name in real else rounded(op.inputs[0])
            op = replace(op, inputs=(given, *op.inputs[1:]))
        ops.append(op)
        if takes_codes(op) or (op.kind in MOVERS and op.inputs[0] in whole | set(codes.values())):
            whole.add(op.name)
    outputs = tuple(rounded(name) for name in graph.outputs)
    recipes = {name: network.weights.unrounded(name) for name in stored}
    return Network(rebuilt(graph, ops, outputs), network.weights.with_recipes(recipes))
