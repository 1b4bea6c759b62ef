"""Where copies of a channel would change what a network computes, however they are divided among their readers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import cast

from ...ir import SPECS, STORED, Axis, Graph, Op, widths_in


def spoilers(graph: Graph, width: str, *, uniform: bool) -> Iterator[tuple[Op, str]]:
    """The ops through which copies of a width's channels show, each with the reason.

    Copies are divided along the axis by which a layer's weight reads them; that keeps the function only if the weight
    is stored and serves layers alone. A statistic along the width sees the copies: means and layer norms do not if all
    channels are copied equally often, sums and softmax always do, a maximum never.

    Args:
        graph: the graph.
        width: the width that grows.
        uniform: whether every channel gets the same number of copies.
    """
    divided = {
        op.inputs[SPECS[op.kind].index("weight")]
        for op in graph.ops
        if op.kind in SPECS and SPECS[op.kind].is_layer and _reads(graph, op, width)
    }
    for op in graph.ops:
        if op.kind not in SPECS or op.kind in STORED:
            continue
        reads_weight = SPECS[op.kind].is_layer and op.inputs[1] in divided
        if reads_weight and (maker := graph.producers.get(op.inputs[1])) is not None and maker.kind not in STORED:
            yield op, f"its weight %{maker.name} is computed"
        for name in op.inputs:
            if name in divided and not (reads_weight and name == op.inputs[1]):
                yield op, f"it reads %{name}, whose copies are divided for a layer"
        along = _statistic(graph, op)
        if along and not uniform and any(width in widths_in(axis) for axis in along):
            yield op, "its mean is over channels that are not copied equally often"
        if any(width in widths_in(axis) for axis in _total(graph, op)):
            yield op, "it adds up over the channels"


def _reads(graph: Graph, layer: Op, width: str) -> bool:
    """Whether a layer reads its input along this width."""
    spec = SPECS[layer.kind]
    assert spec.input_axis is not None
    return width in widths_in(graph.types[layer.inputs[spec.index("weight")]].axes[spec.input_axis])


def _statistic(graph: Graph, op: Op) -> Collection[Axis]:
    """The axes over which an op takes a mean."""
    axes = graph.types[op.inputs[0]].axes if op.inputs else ()
    if op.kind == "mean":
        return _reduced(op, axes)
    if op.kind == "layer_norm":
        return axes[len(axes) - len(cast("tuple[object, ...]", op.attribute("normalized_shape"))) :]
    return ()


def _total(graph: Graph, op: Op) -> Collection[Axis]:
    """The axes along which an op's result depends on the sum of the elements."""
    axes = graph.types[op.inputs[0]].axes if op.inputs else ()
    if op.kind == "sum":
        return _reduced(op, axes)
    if op.kind in ("softmax", "log_softmax"):
        return (axes[cast(int, op.attribute("dim"))],)
    return ()


def _reduced(op: Op, axes: Collection[Axis]) -> Collection[Axis]:
    dims = cast("tuple[int, ...]", op.attribute("dim", ())) or tuple(range(len(axes)))
    return [axis for i, axis in enumerate(axes) if i in dims]
