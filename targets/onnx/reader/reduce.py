"""Nodes that look along an axis."""

from __future__ import annotations

from onnx import NodeProto

from ....ir import Const
from .base import Reader, reads

REDUCE = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceProd": "prod", "ReduceMax": "amax", "ReduceMin": "amin",
    "ReduceLogSumExp": "logsumexp", "ReduceL1": "norm", "ReduceL2": "norm", "ReduceSumSquare": "sum",
}  # fmt: skip


@reads(*REDUCE)
def reduce(reader: Reader, node: NodeProto) -> None:
    """One value for all along some axes."""
    dims = tuple(reader.axes(1))
    if not dims and reader.attribute("noop_with_empty_axes", 0):
        reader.alias(reader.value(0))
        return
    given = reader.value(0)
    more: dict[str, float] = {"ord": float(node.op_type[-1])} if REDUCE[node.op_type] == "norm" else {}
    if node.op_type == "ReduceSumSquare":
        (given,) = reader.op("square", [given])
    keep = bool(reader.attribute("keepdims", 1))
    reader.give(REDUCE[node.op_type], [given], None, dim=dims, keepdim=keep, **more)


@reads("CumSum")
def cumsum(reader: Reader, node: NodeProto) -> None:
    """Running sums."""
    if reader.attribute("exclusive", 0) or reader.attribute("reverse", 0):
        raise reader.error("its sums are exclusive or run backwards")
    dim = int(reader.numbers(1)[0])
    reader.give("cumsum", [reader.value(0)], dim=dim + reader.rank() if dim < 0 else dim)


@reads("ArgMax", "ArgMin")
def position(reader: Reader, node: NodeProto) -> None:
    """Where the largest or smallest value stands."""
    keep = bool(reader.attribute("keepdims", 1))
    reader.give(node.op_type.lower(), [reader.value(0)], dim=reader.axis(0), keepdim=keep)


@reads("TopK")
def topk(reader: Reader, node: NodeProto) -> None:
    """The largest or smallest values along an axis, and where they stand; of all of them it is a sort."""
    count, dim = int(reader.numbers(1)[0]), reader.axis(-1)
    largest, ordered = bool(reader.attribute("largest", 1)), bool(reader.attribute("sorted", 1))
    wanted = [name or f"{node.name}.{i}" for i, name in enumerate((*node.output, "", "")[:2])]
    given = [reader.value(0)]
    if reader.type(0).axes[dim] == Const(count) and ordered:
        found = reader.op("sort", given, None, wanted, dim=dim, descending=largest, stable=True)
    else:
        found = reader.op("topk", given, None, wanted, k=count, dim=dim, largest=largest, sorted=ordered)
    for name, made in zip(wanted, found, strict=True):
        reader.values[name] = made
