"""From the widths that a person names to those that weights are gathered by, where channels are permuted."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir import Axis, Graph, widths_in
from ...ir.axes import size


def ordered_sizes(graph: Graph, ordered: Graph, wanted: Mapping[str, int]) -> dict[str, int] | None:
    """The sizes of the widths of the ordered reading under which all axes have the lengths asked for.

    Args:
        graph: the graph, its widths read by size.
        ordered: its ordered reading.
        wanted: new sizes of some widths of `graph`.

    Returns:
        All sizes, or None where no sizes give these lengths: then weights cannot follow exactly.
    """
    new = {**graph.sizes, **wanted}
    pairs: list[tuple[Axis, int, int]] = []
    for name, type in graph.types.items():
        for axis, exact in zip(type.axes, ordered.types[name].axes, strict=True):
            pairs.append((exact, size(axis, graph.sizes), size(axis, new)))
    pairs = sorted(dict.fromkeys(pairs), key=lambda p: len(set(widths_in(p[0]))))
    found: dict[str, int] = {}
    for exact, before, after in pairs:
        for width in widths_in(exact):
            if width not in found:
                scaled, rest = divmod(ordered.sizes[width] * after, before)
                found[width] = scaled if not rest else 0
    fits = all(size(exact, found) == after for exact, _, after in pairs)
    return found if fits and all(found.values()) else None
