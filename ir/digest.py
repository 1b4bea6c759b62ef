"""Names for sameness: two graphs with the same digest are the same network, wherever their lines came from."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from .graph import Graph, Op
from .printer import text


def graph_digest(graph: Graph) -> str:
    """SHA-256 (hex) of the graph's text without the user's lines and the graph's name: equal for equal meaning."""
    return hashlib.sha256(text(replace(graph.without_locations(), name="_")).encode()).hexdigest()


def structure_digest(graph: Graph) -> str:
    """As `graph_digest`, with all steps forgotten: what static costs and latency depend on."""
    ops = tuple(_without_step(op) for op in graph.ops)
    return graph_digest(replace(graph, ops=ops))


def _without_step(op: Op) -> Op:
    return replace(op, types=tuple(replace(t, step=t.step.forget() if t.step else None) for t in op.types))
