"""Leave formats out of a search space that the target's truth table knows to slow things down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ir import Format, Graph, parse_encoding
from ..ir.formats import F8E4M3, F8E5M2
from ..targets.truth import Truth
from .space import FORMAT_PARTS, Knob, Space

TABLE_BITS = (4, 8, 16)
"""Bits of the integers that the table holds; a format counts as the next larger one."""
FLOATS = (F8E4M3, F8E5M2)
"""Floats of 8 bits, which count as the first of them."""


def suspects(space: Space) -> bool:
    """Whether the space offers integers of more than 8 bits, or 8-bit floats, for which kernels are rare."""
    offered = (_format(knob, c) for knob in space.knobs if knob.part in FORMAT_PARTS for c in knob.choices)
    return any(format.bits > 8 if format.is_int else format in FLOATS for format in offered)


def latency_counts(objectives: Sequence[str]) -> bool:
    """Whether time is an objective; by default it is."""
    return not objectives or any(text.partition(":")[0] == "latency" for text in objectives)


def without_slow(space: Space, graph: Graph, truth: Truth) -> Space:
    """The space without formats that are slower than `f32` for every layer of a knob, wherever they were timed.

    A knob that would be left with nothing but `f32` keeps what it has: then few bits are wanted for their size.
    """
    knobs: list[Knob] = []
    left_out: list[str] = []
    for knob in space.knobs:
        kinds = sorted({graph.producers[name].kind for name in knob.targets if knob.part in FORMAT_PARTS})
        slow = [c for c in knob.choices if kinds and all(_slow(truth, knob, kind, c) for kind in kinds)]
        kept = tuple(c for c in knob.choices if c not in slow)
        if not slow or all(c == "f32" for c in kept):
            knobs.append(knob)
            continue
        knobs.append(replace(knob, choices=kept))
        left_out.append(
            f"{knob.name} is not offered {', '.join(slow)}: slower than f32 for {', '.join(kinds)} on {truth.device}"
            f" with {truth.runtime} (`nasc targets --probe`)"
        )
    return replace(space, knobs=tuple(knobs), left_out=tuple(left_out)) if left_out else space


def _format(knob: Knob, choice: str) -> Format:
    return parse_encoding(choice, knob.name).format


def _slow(truth: Truth, knob: Knob, kind: str, choice: str) -> bool:
    """Whether the format that stands in the table for a choice is slower for an op, as weights or as inputs."""
    format = _format(knob, choice)
    if format.is_int:
        bits = next((b for b in TABLE_BITS if format.bits <= b), None)
        weights, activations = f"i{bits}", f"u{bits}"
    else:
        weights = activations = F8E4M3.name if format in FLOATS else format.name
    if knob.part == "weights":
        return truth.only_slower(kind, weights=weights)
    return knob.part == "activations" and truth.only_slower(kind, activations=activations)
