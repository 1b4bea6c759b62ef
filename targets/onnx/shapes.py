"""Ops that give the same elements another shape or order, and those that join them."""

from __future__ import annotations

from typing import cast

from ...ir import Op
from ...ir.axes import Axis, has_batch
from ...ir.graph import is_axis
from .lengths import length, reshaped, shape, times
from .registry import emits
from .writer import Writer

LAST = -(2**63)
"""An end of a Slice that is before the first index."""


@emits("reshape")
def reshape(writer: Writer, op: Op) -> None:
    """Reshape; the batch is copied, inferred, or computed where neither is enough."""
    reshaped(writer, writer.moved(op), writer.type(op.inputs[0]).axes, op.type.axes, op.name)


@emits("permute")
def permute(writer: Writer, op: Op) -> None:
    """Axes in another order."""
    dims = writer.window(op, "dims", op.type.rank)
    writer.node("Transpose", [writer.moved(op)], op.name, perm=dims)


@emits("cat")
def cat(writer: Writer, op: Op) -> None:
    """Operands laid end to end."""
    operands = [writer.real(name, op.type.format) for name in op.inputs]
    writer.node("Concat", operands, op.name, axis=writer.integer(op, "dim"))


@emits("stack")
def stack(writer: Writer, op: Op) -> None:
    """Operands along a new axis."""
    dim = writer.integer(op, "dim")
    at = writer.integers((dim,))
    wide = [
        writer.node("Unsqueeze", [writer.real(name, op.type.format), at], f"{op.name}/{i}")
        for i, name in enumerate(op.inputs)
    ]
    writer.node("Concat", wide, op.name, axis=dim)


@emits("expand")
def expand(writer: Writer, op: Op) -> None:
    """Expand; axes that stay are asked for with length 1, which ONNX lets stretch the other way."""
    source = writer.type(op.inputs[0]).axes
    new = op.type.rank - len(source)
    kept = [i >= new and source[i - new] == axis for i, axis in enumerate(op.type.axes)]
    if all(kept):
        writer.node("Identity", [writer.moved(op)], op.name)
        return
    lengths = [times(1) if k else axis for k, axis in zip(kept, op.type.axes, strict=True)]
    writer.node("Expand", [writer.moved(op), shape(writer, lengths)], op.name)


@emits("repeat")
def repeat(writer: Writer, op: Op) -> None:
    """Tile, of an input with as many axes as are asked for."""
    counts = [as_axis(v) for v in cast(tuple[object, ...], writer.attribute(op, "repeats"))]
    given = widened(writer, op, writer.moved(op), len(counts) - writer.type(op.inputs[0]).rank)
    writer.node("Tile", [given, shape(writer, counts)], op.name)


def widened(writer: Writer, op: Op, given: str, count: int) -> str:
    """A value with `count` axes of length 1 in front."""
    if not count:
        return given
    return writer.node("Unsqueeze", [given, writer.integers(range(count))], f"{op.name}/widened")


def as_axis(value: object) -> Axis:
    """A length as a term."""
    return cast(Axis, value) if is_axis(value) else times(cast(int, value))


@emits("repeat_interleave")
def repeat_interleave(writer: Writer, op: Op) -> None:
    """Each index on a new axis, stretched, and merged with the one before."""
    dim, times_ = writer.integer(op, "dim"), as_axis(writer.attribute(op, "repeats"))
    source = writer.type(op.inputs[0]).axes
    wide = writer.node("Unsqueeze", [writer.moved(op), writer.integers((dim + 1,))], f"{op.name}/apart")
    counts = [times(1)] * len(source)
    counts.insert(dim + 1, times_)
    many = writer.node("Expand", [wide, shape(writer, counts)], f"{op.name}/many")
    axes = (*source[: dim + 1], times_, *source[dim + 1 :])
    reshaped(writer, many, axes, op.type.axes, op.name)


@emits("flip")
def flip(writer: Writer, op: Op) -> None:
    """A Slice with steps of -1."""
    dims = cast(tuple[int, ...], writer.attribute(op, "dims")) or tuple(range(op.type.rank))
    bounds = [writer.integers((value,) * len(dims)) for value in (-1, LAST)]
    steps = writer.integers((-1,) * len(dims))
    writer.node("Slice", [writer.moved(op), *bounds, writer.integers(dims), steps], op.name)


@emits("roll")
def roll(writer: Writer, op: Op) -> None:
    """The end of each axis put before its beginning; all axes as one where none is named."""
    shifts, dims = (cast(tuple[int, ...], writer.attribute(op, n)) for n in ("shifts", "dims"))
    given, axes = writer.moved(op), op.type.axes
    flat = not dims
    if flat:
        dims, whole = (0,), times(*axes)
        given, axes = reshaped(writer, given, None, (whole,), f"{op.name}/flat"), (whole,)
    turns = [(d, s % writer.size(axes[d])) for d, s in zip(dims, shifts, strict=True)]
    turns = [(d, s) for d, s in turns if s]
    for number, (dim, shift) in enumerate(turns):
        at, cut = writer.integers((dim,)), writer.integers((-shift,))
        ends = writer.integers((2**63 - 1,))
        tail = writer.node("Slice", [given, cut, ends, at], f"{op.name}/tail{number}")
        head = writer.node("Slice", [given, writer.integers((0,)), cut, at], f"{op.name}/head{number}")
        last = number == len(turns) - 1 and not flat
        given = writer.node("Concat", [tail, head], op.name if last else f"{op.name}/turned{number}", axis=dim)
    if flat:
        reshaped(writer, given, None, op.type.axes, op.name)
    elif not turns:
        writer.node("Identity", [given], op.name)


@emits("pixel_shuffle")
def pixel_shuffle(writer: Writer, op: Op) -> None:
    """Channels `C*r*r` over `H x W` as channels `C` over `H*r x W*r`."""
    r = writer.integer(op, "upscale_factor")
    if op.type.rank == 4:
        writer.node("DepthToSpace", [writer.moved(op)], op.name, blocksize=r, mode="CRD")
        return
    *lead, _, height, width = writer.type(op.inputs[0]).axes
    k = len(lead)
    rearranged(
        writer, op, (*lead, op.type.axes[k], times(r), times(r), height, width),
        (*range(k), k, k + 3, k + 1, k + 4, k + 2),
    )  # fmt: skip


@emits("pixel_unshuffle")
def pixel_unshuffle(writer: Writer, op: Op) -> None:
    """Channels `C` over `H*r x W*r` as channels `C*r*r` over `H x W`; ONNX's SpaceToDepth has another order."""
    r = writer.integer(op, "downscale_factor")
    *lead, channels, _, _ = writer.type(op.inputs[0]).axes
    height, width = op.type.axes[-2:]
    k = len(lead)
    rearranged(
        writer, op, (*lead, channels, height, times(r), width, times(r)),
        (*range(k), k, k + 2, k + 4, k + 1, k + 3),
    )  # fmt: skip


@emits("channel_shuffle")
def channel_shuffle(writer: Writer, op: Op) -> None:
    """Channels `g*c` as `c*g`."""
    batch, channels, *space = writer.type(op.inputs[0]).axes
    groups = writer.integer(op, "groups")
    each = writer.size(channels) // groups
    rearranged(writer, op, (batch, times(groups), times(each), *space), (0, 2, 1, *range(3, 3 + len(space))))


def rearranged(writer: Writer, op: Op, split: tuple[Axis, ...], order: tuple[int, ...]) -> None:
    """Split axes, order them anew, and merge them to the shape of the result."""
    apart = reshaped(writer, writer.moved(op), writer.type(op.inputs[0]).axes, split, f"{op.name}/apart")
    turned = writer.node("Transpose", [apart], f"{op.name}/turned", perm=order)
    reshaped(writer, turned, tuple(split[i] for i in order), op.type.axes, op.name)


@emits("full")
def full(writer: Writer, op: Op) -> None:
    """One number stretched to a shape."""
    format, value = op.type.format, writer.attribute(op, "value")
    number = writer.number(cast(float, value), format)
    writer.node("Expand", [number, shape(writer, op.type.axes)], op.name)


@emits("arange")
def arange(writer: Writer, op: Op) -> None:
    """The numbers from 0 on and before `end`."""
    from ...ir.formats import F32, F64, I32, I64

    format = op.type.format if op.type.format in (F32, F64, I32, I64) else F32
    axis = op.type.axes[0]
    end = writer.number(writer.size(axis), format)
    if has_batch(axis):
        end = writer.node("Squeeze", [length(writer, axis)], f"{op.name}/end")
        if format != I64:
            end = writer.cast(end, f"{op.name}/limit", format)
    found = writer.result_in(op, format)
    writer.node("Range", [writer.number(0, format), end, writer.number(1, format)], found)
    writer.settle(op, format)
