"""Nodes that take or replace parts of values, by place or by position."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from ....ir import Const
from ....ir.axes import ONE, has_batch
from .base import Reader, reads


@reads("Split")
def split(reader: Reader, node: NodeProto) -> None:
    """Consecutive parts of an axis."""
    dim = reader.axis(0)
    axis, count = reader.type(0).axes[dim], len(node.output)
    if not isinstance(axis, Const):
        raise reader.error("it divides an axis that depends on the batch")
    if reader.there(1):
        sizes = [int(n) for n in reader.numbers(1)]
    else:
        part = -(-axis.value // count)
        sizes = [part] * (axis.value // part) + ([axis.value % part] if axis.value % part else [])
    wanted = [name or f"{node.name}.{i}" for i, name in enumerate(node.output)]
    found = reader.op("split", [reader.value(0)], None, wanted, sizes=tuple(sizes), dim=dim)
    for name, made in zip(wanted, found, strict=True):
        reader.values[name] = made


@reads("Slice")
def slice_(reader: Reader, node: NodeProto) -> None:
    """Parts of axes, one after the other; all of an axis backwards is a flip."""
    starts, ends = ([int(n) for n in reader.numbers(i)] for i in (1, 2))
    dims = reader.axes(3) if reader.there(3) else list(range(len(starts)))
    steps = [int(n) for n in reader.numbers(4)] if reader.there(4) else [1] * len(starts)
    given = reader.value(0)
    flipped = [d for d, s, step in zip(dims, starts, steps, strict=True) if step == -1 and s == -1]
    if flipped:
        (given,) = reader.op("flip", [given], dims=tuple(flipped))
    for dim, start, end, step in zip(dims, starts, ends, steps, strict=True):
        if dim in flipped:
            continue
        axis = reader.types[given].axes[dim]
        if has_batch(axis):
            if start == 0 and end >= 2**31 - 1 and step == 1:
                continue
            raise reader.error("it takes a part of an axis that depends on the batch")
        assert isinstance(axis, Const)
        first, behind, step = slice(start, end, step).indices(axis.value)
        if step < 0:
            raise reader.error("it runs backwards over a part of an axis")
        if (first, behind, step) == (0, axis.value, 1):
            continue
        if step == 1:
            (given,) = reader.op("narrow", [given], dim=dim, start=first, length=max(0, behind - first))
        else:
            (given,) = reader.op("slice", [given], dim=dim, start=first, end=behind, step=step)
    named(reader, given)


def named(reader: Reader, value: str) -> None:
    """Say that the node's result is a value, which takes the result's name if it was made for it."""
    if len(reader.ops) > reader.mark and reader.ops[-1].results == (value,):
        last = reader.ops.pop()
        reader.taken.discard(value)
        reader.types.pop(value)
        reader.give(last.kind, last.inputs, last.type, **dict(last.attributes))
    else:
        reader.alias(value)


@reads("Gather")
def gather(reader: Reader, node: NodeProto) -> None:
    """Indices of an axis by position: one constant is a select, rows of a stored table are an embedding."""
    dim = reader.axis(0)
    at = reader.constants.get(node.input[1])
    axis = reader.type(0).axes[dim]
    if at is not None and at.ndim == 0:
        index = int(at)
        index += axis.value if index < 0 and isinstance(axis, Const) else 0
        reader.give("select", [reader.value(0)], dim=dim, index=index)
    elif node.input[0] in reader.constants and reader.rank() == 2 and dim == 0 and at is None:
        reader.give("embedding", [reader.value(1), reader.value(0)])
    else:
        reader.give("index", [reader.value(0), reader.value(1)], dims=(dim,))


@reads("GatherElements")
def gather_elements(reader: Reader, node: NodeProto) -> None:
    """One value per position."""
    reader.give("gather", [reader.value(0), reader.value(1)], dim=reader.axis(0))


@reads("GatherND")
def gather_nd(reader: Reader, node: NodeProto) -> None:
    """Elements by their positions along the first axes."""
    if reader.attribute("batch_dims", 0):
        raise reader.error("it keeps leading axes apart (batch_dims)")
    last = reader.rank(1) - 1
    if parts := joined(reader, last):
        reader.give("index", [reader.value(0), *parts], dims=tuple(range(len(parts))))
        return
    if (held := reader.constants.get(node.input[1])) is not None:
        count = held.shape[-1]
        parts = [reader.stored(f"{node.input[1]}.{i}", np.ascontiguousarray(held[..., i])) for i in range(count)]
    else:
        axis = reader.type(1).axes[-1]
        if not isinstance(axis, Const):
            raise reader.error("the number of its positions depends on the batch")
        count = axis.value
        parts = [reader.op("select", [reader.value(1)], dim=last, index=i)[0] for i in range(count)]
    reader.give("index", [reader.value(0), *parts], dims=tuple(range(count)))


def joined(reader: Reader, last: int) -> list[str]:
    """The positions along each axis, where they were joined right before; else nothing."""
    made = reader.producer(reader.node.input[1])
    if made is None or made.kind != "cat" or made.attribute("dim", 0) != last:
        return []
    found: list[str] = []
    for name in made.inputs:
        op = next((op for op in reversed(reader.ops) if name in op.results), None)
        if op is None or op.kind != "reshape" or (*reader.types[op.inputs[0]].axes, ONE) != op.type.axes:
            return []
        found.append(op.inputs[0])
    return found


@reads("ScatterND")
def scatter_nd(reader: Reader, node: NodeProto) -> None:
    """The first axis with every few of its indices replaced."""
    at = reader.constants.get(node.input[1])
    if at is None or at.ndim != 2 or at.shape[1] != 1 or len(at) < 1 or reader.attribute("reduction", "none") != "none":
        raise reader.error("its positions must be constants along one axis")
    rows = at[:, 0].tolist()
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    if step < 1 or rows != list(range(rows[0], rows[-1] + 1, step)):
        raise reader.error("its positions must be evenly spaced")
    bounds = {"dim": 0, "start": rows[0], "end": rows[-1] + 1, "step": step}
    reader.give("slice_scatter", [reader.value(0), reader.value(2)], None, **bounds)


MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@reads("Pad")
def pad(reader: Reader, node: NodeProto) -> None:
    """More indices before and after axes."""
    mode = str(reader.attribute("mode", "constant"))
    if mode not in MODES:
        raise reader.error(f"PyTorch has no way of padding called {mode!r}")
    rank = reader.rank()
    amounts = [int(n) for n in reader.numbers(1)]
    dims = reader.axes(3) if reader.there(3) else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for i, dim in enumerate(dims):
        before[dim], after[dim] = amounts[i], amounts[i + len(dims)]
    wide: list[int] = []
    for i in reversed(range(rank)):
        wide += [before[i], after[i]]
    while wide and wide[-2:] == [0, 0]:
        wide = wide[:-2]
    if not wide:
        reader.alias(reader.value(0))
        return
    value = reader.scalar(2) if reader.there(2) else 0.0
    if value is None:
        raise reader.error(f"its operand {node.input[2]!r} must be a constant")
    step = reader.type(0).step
    if step is not None and step.value is not None:
        value = (value - (step.zero or 0)) * step.value
    more = {"value": float(value)} if mode == "constant" else {}
    reader.give("pad", [reader.value(0)], None, pad=tuple(wide), mode=MODES[mode], **more)


@reads("Col2Im")
def fold(reader: Reader, node: NodeProto) -> None:
    """Columns summed back into an image."""
    size, kernel = (tuple(int(n) for n in reader.numbers(i)) for i in (1, 2))
    rank = len(kernel)
    stride, dilation = (tuple(reader.attribute(n, [1] * rank)) for n in ("strides", "dilations"))
    pads = list(reader.attribute("pads", [0] * 2 * rank))
    if rank != 2 or pads[:rank] != pads[rank:]:
        raise reader.error("it must be over two axes with the same padding on both sides")
    reader.give(
        "fold", [reader.value(0)], output_size=size, kernel_size=kernel, stride=stride, padding=tuple(pads[:rank]),
        dilation=dilation,
    )  # fmt: skip
