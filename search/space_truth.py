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
NAMED = 3
"""Knobs that a sentence names; it counts the others."""


def suspects(space: Space) -> bool:
    """Whether the space offers integers of more than 8 bits, or 8-bit floats, for which kernels are rare."""
    offered = (_format(knob, c) for knob in space.knobs if knob.part in FORMAT_PARTS for c in knob.choices)
    return any(format.bits > 8 if format.is_int else format in FLOATS for format in offered)


def latency_counts(objectives: Sequence[str]) -> bool:
    """Whether time is an objective; by default it is."""
    return not objectives or any(text.partition(":")[0] == "latency" for text in objectives)


def without_slow(space: Space, graph: Graph, truth: Truth) -> Space:
    """The space without formats that are slower than `f32` for every layer of a knob, wherever they were timed.

    A knob that would be left with nothing but `f32` keeps what it has: then few bits are wanted for their size. Knobs
    that are without the same formats for the same reason are told of in one sentence.
    """
    knobs: list[Knob] = []
    without: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for knob in space.knobs:
        kinds = sorted({graph.producers[name].kind for name in knob.targets if knob.part in FORMAT_PARTS})
        slow = tuple(c for c in knob.choices if kinds and all(_slow(truth, knob, kind, c) for kind in kinds))
        kept = tuple(c for c in knob.choices if c not in slow)
        if not slow or all(c == "f32" for c in kept):
            knobs.append(knob)
            continue
        knobs.append(replace(knob, choices=kept))
        without.setdefault((slow, tuple(kinds)), []).append(knob.name)
    if not without:
        return space
    told = tuple(_told(names, slow, kinds, truth) for (slow, kinds), names in without.items())
    return replace(space, knobs=tuple(knobs), left_out=told)


def _told(names: Sequence[str], slow: Sequence[str], kinds: Sequence[str], truth: Truth) -> str:
    """One sentence for all knobs that are without some formats."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    who = f"{', '.join(names[:NAMED])}{more} {'is' if len(names) == 1 else 'are'}"
    why = f"slower than f32 for {', '.join(kinds)} on {truth.device} with {truth.runtime}"
    return f"{who} not offered {', '.join(slow)}: {why} (`nasc targets --probe`)"


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
