"""Names for sameness: two graphs with the same digest are the same network, wherever their lines came from."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from .graph import Graph
from .printer import text
from .types import Type


def graph_digest(graph: Graph) -> str:
    """SHA-256 (hex) of the graph's text without the user's lines and the graph's name: equal for equal meaning."""
    return hashlib.sha256(text(replace(graph.without_locations(), name="_")).encode()).hexdigest()


def structure_digest(graph: Graph) -> str:
    """As `graph_digest`, with all steps forgotten: what static costs and latency depend on."""
    inputs = tuple(replace(i, type=_without_step(i.type)) for i in graph.inputs)
    ops = tuple(replace(op, types=tuple(map(_without_step, op.types))) for op in graph.ops)
    return graph_digest(replace(graph, inputs=inputs, ops=ops))


def _without_step(type: Type) -> Type:
    """The type before calibration; that a step happens to be a power of two is part of the step."""
    return replace(type, step=replace(type.step.forget(), power_of_two=False) if type.step else None)
