"""Nodes that give the same elements another shape or order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from ....ir import Attribute, Axis, Const, Type, product
from ....ir.axes import ONE
from ..elements import format_of
from .base import Reader, reads
from .sizes import as_axis, resolved


def reshape_to(reader: Reader, shape: tuple[Attribute, ...]) -> None:
    """A reshape, or the value itself where its shape stays."""
    if tuple(map(as_axis, shape)) == reader.type(0).axes:
        reader.alias(reader.value(0))
    else:
        reader.give("reshape", [reader.value(0)], shape=shape)


@reads("Reshape")
def reshape(reader: Reader, node: NodeProto) -> None:
    """The same elements in row-major order under another shape."""
    zero_copies = not reader.attribute("allowzero", 0)
    shape = resolved(reader, reader.type(0).axes, reader.lengths(1), zero_copies=zero_copies)
    if not layer_over_rows(reader, tuple(map(as_axis, shape))):
        reshape_to(reader, shape)


def layer_over_rows(reader: Reader, axes: Sequence[Axis]) -> bool:
    """Give a linear layer between two reshapes, which made rows of all axes but the last, these axes. Whether it was
    one."""
    layer = reader.producer(reader.node.input[0])
    if layer is None or layer.kind != "linear":
        return False
    rows = next((op for op in reversed(reader.ops) if layer.inputs[0] in op.results), None)
    if rows is None or rows.kind != "reshape":
        return False
    before = reader.types[rows.inputs[0]].axes
    if rows.type.axes[-1:] != before[-1:] or (*before[:-1], layer.type.axes[-1]) != tuple(axes):
        return False
    if reader.replace_last(reader.node.input[0]) is None:
        return False
    reader.give("linear", (rows.inputs[0], *layer.inputs[1:]))
    return True


@reads("Flatten")
def flatten(reader: Reader, node: NodeProto) -> None:
    """All axes as two."""
    axes, at = reader.type(0).axes, reader.axis(1)
    parts = (product(axes[:at]), product(axes[at:]))
    reshape_to(reader, tuple(p.value if isinstance(p, Const) else p for p in parts))


def _plain(axes: Sequence[Axis]) -> tuple[Attribute, ...]:
    return tuple(a.value if isinstance(a, Const) else a for a in axes)


@reads("Unsqueeze")
def unsqueeze(reader: Reader, node: NodeProto) -> None:
    """Axes of length 1 put in."""
    axes: list[Axis] = list(reader.type(0).axes)
    for at in sorted(reader.axes(1, len(axes) + len(reader.axes(1)))):
        axes.insert(at, ONE)
    reader.give("reshape", [reader.value(0)], shape=_plain(axes))


@reads("Squeeze")
def squeeze(reader: Reader, node: NodeProto) -> None:
    """Axes of length 1 taken out."""
    axes, gone = reader.type(0).axes, reader.axes(1)
    gone = gone or [i for i, a in enumerate(axes) if a == ONE]
    reader.give("reshape", [reader.value(0)], shape=_plain([a for i, a in enumerate(axes) if i not in gone]))


@reads("Transpose")
def transpose(reader: Reader, node: NodeProto) -> None:
    """Axes in another order."""
    rank = reader.rank()
    order = tuple(reader.attribute("perm", list(reversed(range(rank)))))
    if order == tuple(range(rank)):
        reader.alias(reader.value(0))
    else:
        reader.give("permute", [reader.value(0)], dims=order)


@reads("Concat")
def concat(reader: Reader, node: NodeProto) -> None:
    """Operands laid end to end."""
    kept = [i for i, n in enumerate(node.input) if n not in reader.constants or reader.constants[n].size]
    values = [reader.value(i) for i in kept]
    dim = reader.axis(rank=reader.rank(kept[0]))
    if len(values) == 1:
        reader.alias(values[0])
    else:
        reader.give("cat", values, dim=dim)


@reads("Expand")
def expand(reader: Reader, node: NodeProto) -> None:
    """Axes of length 1 stretched; a number stretched to a shape is a `full`."""
    wanted = [as_axis(v) for v in reader.lengths(1)]
    number = reader.constants.get(node.input[0])
    if number is not None and number.size == 1:
        axes = [ONE] * max(0, number.ndim - len(wanted)) + wanted
        value = number.reshape(-1)[0].item()
        reader.give("full", [], Type(format_of(number.dtype), ()), shape=_plain(axes), value=value)
        return
    source = reader.type(0).axes
    rank = max(len(source), len(wanted))
    axes = [ONE] * (rank - len(wanted)) + wanted
    for i, axis in enumerate(source):
        at = rank - len(source) + i
        axes[at] = axis if axes[at] == ONE or axis != ONE else axes[at]
    if tuple(axes) == source:
        reader.alias(reader.value(0))
    else:
        reader.give("expand", [reader.value(0)], shape=_plain(axes))


@reads("ConstantOfShape")
def full(reader: Reader, node: NodeProto) -> None:
    """One number everywhere."""
    held: TensorProto | None = reader.attribute("value")
    number = np.zeros(1, np.float32) if held is None else numpy_helper.to_array(held)
    shape = _plain([as_axis(v) for v in reader.lengths(0)])
    reader.give("full", [], Type(format_of(number.dtype), ()), shape=shape, value=number.reshape(-1)[0].item())


@reads("Range")
def arange(reader: Reader, node: NodeProto) -> None:
    """The numbers from 0 on."""
    start, step = reader.scalar(0), reader.scalar(2)
    if start != 0 or step != 1:
        raise reader.error(f"it starts at {start} with steps of {step}, expected 0 and 1")
    (end,) = reader.lengths(1)
    dtype = reader.constants[node.input[0]].dtype
    reader.give("arange", [], Type(format_of(dtype), ()), end=end if not isinstance(end, float) else int(end))


@reads("Tile")
def tile(reader: Reader, node: NodeProto) -> None:
    """Whole axes laid end to end."""
    reader.give("repeat", [reader.value(0)], repeats=tuple(reader.lengths(1)))


@reads("DepthToSpace")
def depth_to_space(reader: Reader, node: NodeProto) -> None:
    """Channels to pixels."""
    if reader.attribute("mode", "DCR") != "CRD":
        raise reader.error("its channels are in the order DCR, which PyTorch does not have")
    reader.give("pixel_shuffle", [reader.value(0)], upscale_factor=int(reader.attribute("blocksize")))


@reads("Trilu")
def triangle(reader: Reader, node: NodeProto) -> None:
    """Zero on one side of a diagonal."""
    diagonal = int(reader.numbers(1)[0]) if reader.there(1) else 0
    reader.give("triu" if reader.attribute("upper", 1) else "tril", [reader.value(0)], diagonal=diagonal)
