"""Edits that passes share: each takes a graph and gives a new one with its types recomputed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .graph import Graph, Op
from .verify import retype


def reading(op: Op, names: Mapping[str, str]) -> Op:
    """The op reading other values where `names` says so."""
    return replace(op, inputs=tuple(names.get(n, n) for n in op.inputs)) if any(n in names for n in op.inputs) else op


def rewired(ops: Iterable[Op], names: Mapping[str, str]) -> tuple[Op, ...]:
    """All ops reading other values where `names` says so."""
    return tuple(reading(op, names) for op in ops)


def rebuilt(graph: Graph, ops: Iterable[Op], outputs: tuple[str, ...] | None = None) -> Graph:
    """A valid graph with other ops: dead code gone, types recomputed, widths that nothing carries dropped.

    Raises:
        InvalidGraph: an op breaks its rule.
    """
    return retype(without_dead_code(replace(graph, ops=tuple(ops), outputs=outputs or graph.outputs)), graph)


def without_dead_code(graph: Graph) -> Graph:
    """The graph without ops that no output needs; the same object where there are none."""
    needed = set(graph.outputs)
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if needed.intersection(op.results):
            kept.append(op)
            needed.update(op.inputs)
    return graph if len(kept) == len(graph.ops) else replace(graph, ops=tuple(reversed(kept)))
