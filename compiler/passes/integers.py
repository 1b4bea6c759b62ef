"""Where integers come from and who reads them, between integer layers: what integer kernels of runtimes can pass on."""

from __future__ import annotations

from ...ir import STORED, Graph, Op, Type, layers
from .quantize import MOVERS

CLAMPS = ("relu", "relu6", "hardtanh", "clamp")
"""Ops that runtimes do on codes: a layer's `quantize` comes behind them."""
CARRIERS = ("add", "mul", "cat", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
            "adaptive_avg_pool2d", "adaptive_avg_pool3d", "leaky_relu", "sigmoid", "softmax")  # fmt: skip
"""Ops without weights that have integer kernels if all that they read and give is integers."""


def integer_layers(graph: Graph) -> tuple[Op, ...]:
    """The layers that integer kernels can run: input and weight are integers of at most 8 bits, and the weight's zero
    is 0."""
    return tuple(op for op in layers(graph) if multiplies(graph, op))


def multiplies(graph: Graph, layer: Op) -> bool:
    """See `integer_layers`."""
    given, weight = (graph.types[name] for name in layer.inputs[:2])
    return narrow(given) and narrow(weight) and weight.multiplied


def narrow(type: Type) -> bool:
    return type.integer and type.format.bits <= 8


def carriers(graph: Graph) -> frozenset[str]:
    """The ops between integer layers that can run on integers: all they read comes as integers, and what they give is
    read as integers. Found by taking away what cannot until nothing changes."""
    born = {op.name for op in integer_layers(graph)}
    found = {
        op.name
        for op in graph.ops
        if op.kind in CARRIERS and op.attribute("other") is None and op.attribute("input") is None
    }
    while True:
        kept = {
            name
            for name in found
            if all(comes_as_integers(graph, value, born | found) for value in graph.producers[name].inputs)
            and read_as_integers(graph, name, found)
        }
        if kept == found:
            return frozenset(found)
        found = kept


def comes_as_integers(graph: Graph, name: str, sources: set[str]) -> bool:
    """Whether a value is integers, is rounded for somebody anyway, or an integer kernel gives it."""
    if narrow(graph.types[name]) or any(takes_codes(reader) for reader in graph.readers.get(name, ())):
        return True
    op = graph.producers.get(name)
    if op is None:
        return False
    if op.name in sources:
        return True
    return op.kind in (*CLAMPS, *MOVERS) and comes_as_integers(graph, op.inputs[0], sources)


def read_as_integers(graph: Graph, name: str, carried: set[str]) -> bool:
    """Whether anything reads a value as integers, behind clamps and moves."""
    for reader in graph.readers.get(name, ()):
        if takes_codes(reader) or reader.name in carried:
            return True
        if reader.kind in (*CLAMPS, *MOVERS) and read_as_integers(graph, reader.name, carried):
            return True
    return False


def takes_codes(op: Op) -> bool:
    return op.kind == "quantize" and narrow(op.type) and op.type.format.family == "int"


def settled(graph: Graph, name: str) -> str:
    """The value that stands for a result behind the clamps and moves that alone read it: where it is rounded."""
    readers = graph.readers.get(name, ())
    if name in graph.outputs or len(readers) != 1 or readers[0].kind not in (*CLAMPS, *MOVERS):
        return name
    return settled(graph, readers[0].name)


def numbers(graph: Graph, name: str) -> str:
    """The value that stands behind roundings to codes."""
    op = graph.producers.get(name)
    return numbers(graph, op.inputs[0]) if op is not None and takes_codes(op) else name


def is_stored(graph: Graph, name: str) -> bool:
    """Whether a value lies in the weights' store."""
    return (op := graph.producers.get(name)) is not None and op.kind in STORED
