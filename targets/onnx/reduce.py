"""Ops that look along an axis: sums, means, spreads, norms, largest values, orders."""

from __future__ import annotations

from math import inf
from typing import cast

from ...ir import Format, Op
from ...ir.axes import has_batch
from ...ir.formats import BOOL, F32, I32, I64
from .elements import computing
from .lengths import length, times
from .registry import emits
from .writer import Writer

PLAIN = {"mean": "ReduceMean", "sum": "ReduceSum", "prod": "ReduceProd", "logsumexp": "ReduceLogSumExp"}


def dims_of(writer: Writer, op: Op) -> tuple[int, ...]:
    """The axes that go; all where none is named."""
    dims = cast(tuple[int, ...], writer.attribute(op, "dim"))
    return dims or tuple(range(writer.type(op.inputs[0]).rank))


def reduced(writer: Writer, op: Op, kind: str, given: str, result: str, *, keep: bool | None = None) -> str:
    """Write a reduction along the op's axes."""
    keep = bool(writer.attribute(op, "keepdim")) if keep is None else keep
    dims = cast(tuple[int, ...], writer.attribute(op, "dim"))
    inputs = [given, *([writer.integers(dims)] if dims else [])]
    return writer.node(kind, inputs, result, keepdims=int(keep))


@emits(*PLAIN)
def plain(writer: Writer, op: Op) -> None:
    """One value for all along some axes, all axes where none is named."""
    reduced(writer, op, PLAIN[op.kind], writer.real(op.inputs[0], op.type.format), op.name)


@emits("amax", "amin")
def extreme(writer: Writer, op: Op) -> None:
    """The largest or smallest value."""
    format = computing("ReduceMax", op.type.format)
    kind = "ReduceMax" if op.kind == "amax" else "ReduceMin"
    reduced(writer, op, kind, writer.real(op.inputs[0], format), writer.result_in(op, format))
    writer.settle(op, format)


@emits("any", "all")
def truth(writer: Writer, op: Op) -> None:
    """Whether it holds anywhere, or everywhere."""
    given = writer.real(op.inputs[0], BOOL)
    counted = writer.cast(given, f"{op.name}/counted", I32)
    found = reduced(writer, op, "ReduceMax" if op.kind == "any" else "ReduceMin", counted, f"{op.name}/found")
    writer.cast(found, op.name, BOOL)


@emits("var", "std")
def spread(writer: Writer, op: Op) -> None:
    """The mean square distance from the mean, or its root; `correction` is taken off the count that divides."""
    format, dims = op.type.format, dims_of(writer, op)
    given, correction = writer.real(op.inputs[0], format), writer.integer(op, "correction")
    mean = reduced(writer, op, "ReduceMean", given, f"{op.name}/mean", keep=True)
    apart = writer.node("Sub", [given, mean], f"{op.name}/apart")
    squares = writer.node("Mul", [apart, apart], f"{op.name}/squares")
    last = f"{op.name}/variance" if op.kind == "std" else op.name
    if not correction:
        reduced(writer, op, "ReduceMean", squares, last)
    else:
        total = reduced(writer, op, "ReduceSum", squares, f"{op.name}/total")
        count = less(writer, op, dims, correction, format)
        writer.node("Div", [total, count], last)
    if op.kind == "std":
        writer.node("Sqrt", [last], op.name)


def less(writer: Writer, op: Op, dims: tuple[int, ...], correction: int, format: Format) -> str:
    """How many values are taken together, less the correction, as a number without axes."""
    whole = times(*(writer.type(op.inputs[0]).axes[d] for d in dims))
    if not has_batch(whole):
        return writer.number(float(max(writer.size(whole) - correction, 0)), format)
    counted = writer.node("Squeeze", [length(writer, whole)], f"{op.name}/all")
    counted = writer.node("Sub", [counted, writer.scalar(correction)], f"{op.name}/fewer")
    return writer.cast(counted, f"{op.name}/count", format)


@emits("norm")
def norm(writer: Writer, op: Op) -> None:
    """`(sum |x|^p)^(1/p)`; the largest or smallest size for infinite p, how many are not 0 for p = 0."""
    format, order = op.type.format, writer.floating(op, "ord")
    given = writer.real(op.inputs[0], format)
    if order in (1, 2):
        reduced(writer, op, f"ReduceL{int(order)}", given, op.name)
        return
    sizes = writer.node("Abs", [given], f"{op.name}/sizes")
    if order in (inf, -inf):
        reduced(writer, op, "ReduceMax" if order > 0 else "ReduceMin", sizes, op.name)
    elif order == 0:
        there = writer.cast(given, f"{op.name}/there", BOOL)
        reduced(writer, op, "ReduceSum", writer.cast(there, f"{op.name}/ones", format), op.name)
    else:
        powers = writer.node("Pow", [sizes, writer.number(order, format)], f"{op.name}/powers")
        total = reduced(writer, op, "ReduceSum", powers, f"{op.name}/total")
        writer.node("Pow", [total, writer.number(1 / order, format)], op.name)


@emits("cumsum")
def cumsum(writer: Writer, op: Op) -> None:
    """Running sums."""
    axis = writer.scalar(writer.integer(op, "dim"))
    writer.node("CumSum", [writer.real(op.inputs[0], op.type.format), axis], op.name)


@emits("argmax", "argmin")
def position(writer: Writer, op: Op) -> None:
    """Where the largest or smallest value stands, among all elements where no axis is named."""
    type, dim = writer.type(op.inputs[0]), writer.attribute(op, "dim")
    format = computing("ArgMax", F32 if type.quantized else type.format)
    given, keep = writer.real(op.inputs[0], format), bool(writer.attribute(op, "keepdim"))
    kind = "ArgMax" if op.kind == "argmax" else "ArgMin"
    if dim is not None:
        writer.node(kind, [given], op.name, axis=cast(int, dim), keepdims=int(keep))
        return
    flat = writer.node("Reshape", [given, writer.integers((-1,))], f"{op.name}/flat")
    found = writer.node(kind, [flat], f"{op.name}/found" if keep else op.name, axis=0, keepdims=int(keep))
    if keep:
        writer.node("Reshape", [found, writer.integers((1,) * type.rank)], op.name)


@emits("max", "min")
def extreme_along(writer: Writer, op: Op) -> None:
    """The largest or smallest values along an axis, and where they stand."""
    dim, keep = writer.integer(op, "dim"), bool(writer.attribute(op, "keepdim"))
    given, format = writer.held(op, "ReduceMax")
    kind = "Max" if op.kind == "max" else "Min"
    inputs = [given, writer.integers((dim,))]
    writer.node(f"Reduce{kind}", inputs, writer.result_in(op, format), keepdims=int(keep))
    writer.settle(op, format)
    given, format = writer.held(op, "ArgMax") if op.type.format == I64 else (given, format)
    writer.node(f"Arg{kind}", [given], op.results[1], axis=dim, keepdims=int(keep))


@emits("topk")
def topk(writer: Writer, op: Op) -> None:
    """The largest or smallest values along an axis, and where they stand."""
    count, largest = writer.integer(op, "k"), bool(writer.attribute(op, "largest"))
    ordered(writer, op, count, largest=largest, sorted=bool(writer.attribute(op, "sorted")))


@emits("sort")
def sort(writer: Writer, op: Op) -> None:
    """All values along an axis in order; ONNX Runtime's TopK leaves equal ones in theirs."""
    count = writer.lengths(op.name)[writer.integer(op, "dim")]
    ordered(writer, op, count, largest=bool(writer.attribute(op, "descending")), sorted=True)


def ordered(writer: Writer, op: Op, count: int, *, largest: bool, sorted: bool) -> None:
    """Write a TopK."""
    given, format = writer.held(op, "TopK")
    results = [writer.result_in(op, format), op.results[1]]
    inputs = [given, writer.integers((count,))]
    dim = writer.integer(op, "dim")
    writer.nodes("TopK", inputs, results, axis=dim, largest=int(largest), sorted=int(sorted))
    writer.settle(op, format)
