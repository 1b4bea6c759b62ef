"""Groups of widths and layers that choose together: those of one role in the blocks of one stage.

A role is the name without the numbers of the blocks (`layer1.0.conv1` and `layer1.1.conv1`), a stage is what has one
size and one length of its maps or sequences. The numbers at a name's end stay: they tell layers of one block apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..ir import Graph, Op, aliases, operand, widths_in
from ..ir.axes import has_batch, size

HINTS = ("heads", "head_size", "groups")
"""What may stand behind a layer's name in the name of a width that is one factor of its output."""

_NUMBER = re.compile(r"\d+$")


def grouped_widths(graph: Graph, widths: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Widths in groups of one role and stage, in the order of their first."""
    carrying = aliases(graph)
    found: dict[tuple[object, ...], list[str]] = {}
    for width in widths:
        carriers = carrying[width]
        place = _stage(graph, graph.producers[carriers[0]], width) if carriers else ()
        found.setdefault((role(width), graph.sizes[width], place), []).append(width)
    return tuple(map(tuple, found.values()))


def grouped_layers(graph: Graph, layers: Sequence[Op]) -> tuple[tuple[Op, ...], ...]:
    """Layers in groups of one role and shape of weights, in the order of their first."""
    found: dict[tuple[object, ...], list[Op]] = {}
    for op in layers:
        weight = graph.types[operand(op, "weight") or ""]
        shape = tuple(size(axis, graph.sizes) for axis in weight.axes)
        found.setdefault((role(op.name), op.kind, shape), []).append(op)
    return tuple(map(tuple, found.values()))


def role(name: str) -> str:
    """A name with `*` for the numbers of blocks: all but those of its last part."""
    *blocks, last = name.split(".")
    if blocks and last in HINTS:
        last = f"{blocks.pop()}.{last}"
    return ".".join([*(_NUMBER.sub("*", part) for part in blocks), last])


def group_name(names: Sequence[str]) -> str:
    """What a group is called: its members' name, with `*` where they differ."""
    parts = [name.split(".") for name in names]
    if len({len(p) for p in parts}) > 1:
        return role(names[0])
    return ".".join(_merged(column) for column in zip(*parts, strict=True))


def _merged(texts: Sequence[str]) -> str:
    if len(set(texts)) == 1:
        return texts[0]
    stems = {_NUMBER.sub("", text) for text in texts}
    return f"{stems.pop()}*" if len(stems) == 1 else "*"


def _stage(graph: Graph, layer: Op, width: str) -> tuple[int, ...]:
    """The lengths of a layer's result along what is neither the batch nor the width."""
    axes = layer.type.axes
    return tuple(size(a, graph.sizes) for a in axes if not has_batch(a) and width not in widths_in(a))
