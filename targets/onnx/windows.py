"""Overlapping windows as axes of their own: unfold, fold, and unfold of one axis."""

from __future__ import annotations

import numpy as np

from ...ir import Op
from ...ir.formats import F32
from .lengths import positions, reshaped, times
from .registry import EmissionError, emits
from .writer import Writer


@emits("unfold")
def unfold(writer: Writer, op: Op) -> None:
    """Windows of an image as columns: rows and columns of the padded image gathered by position, any format."""
    kernel, stride, padding, dilation = (
        writer.window(op, n, 2) for n in ("kernel_size", "stride", "padding", "dilation")
    )
    batch, channels, *space = writer.type(op.inputs[0]).axes
    given, name = writer.moved(op), op.name
    if any(padding):
        inputs = [given, writer.integers((0, 0, *padding, 0, 0, *padding))]
        if op.type.step is not None and op.type.step.zero:
            inputs.append(writer.number(op.type.step.zero, op.type.format))
        given = writer.node("Pad", inputs, f"{name}/padded")
    counts: list[int] = []
    for i, (axis, k, s, p, d) in enumerate(zip(space, kernel, stride, padding, dilation, strict=True)):
        count = (writer.size(axis) + 2 * p - d * (k - 1) - 1) // s + 1
        at = positions(writer, f"{name}/at{i}", np.arange(k)[:, None] * d + np.arange(count) * s)
        given = writer.node("Gather", [given, at], f"{name}/along{i}", axis=2 + 2 * i)
        counts.append(count)
    turned = writer.node("Transpose", [given], f"{name}/turned", perm=(0, 1, 2, 4, 3, 5))
    source = (batch, channels, *(times(n) for n in (*kernel, *counts)))
    reshaped(writer, turned, source, op.type.axes, name)


@emits("fold")
def fold(writer: Writer, op: Op) -> None:
    """Columns summed back into an image: Col2Im.

    Raises:
        EmissionError: a result that is declared as codes, which a sum of codes is not.
    """
    if op.type.quantized:
        raise EmissionError(op, "it adds numbers up, so its result is not quantized", mend="Quantize it afterwards.")
    format = F32
    size, kernel, stride, padding, dilation = (
        writer.window(op, n, 2) for n in ("output_size", "kernel_size", "stride", "padding", "dilation")
    )
    inputs = [writer.real(op.inputs[0], format), writer.integers(size), writer.integers(kernel)]
    writer.node(
        "Col2Im", inputs, writer.result_in(op, format), strides=stride, pads=padding + padding, dilations=dilation
    )
    writer.settle(op, format)


@emits("tensor_unfold")
def tensor_unfold(writer: Writer, op: Op) -> None:
    """Overlapping parts of one axis, gathered by position, their inside moved to the end."""
    dim, size, step = (writer.integer(op, n) for n in ("dim", "size", "step"))
    count = writer.lengths(op.name)[dim]
    at = positions(writer, f"{op.name}/at", np.arange(count)[:, None] * step + np.arange(size))
    if dim == op.type.rank - 2:
        writer.node("Gather", [writer.moved(op), at], op.name, axis=dim)
        return
    taken = writer.node("Gather", [writer.moved(op), at], f"{op.name}/taken", axis=dim)
    order = (*(i for i in range(op.type.rank) if i != dim + 1), dim + 1)
    writer.node("Transpose", [taken], op.name, perm=order)
