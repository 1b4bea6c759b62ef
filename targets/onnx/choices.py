"""Ops that choose elements by a condition: where, masked_fill, the triangles of matrices."""

from __future__ import annotations

import numpy as np

from ...ir import Op
from ...ir.formats import BOOL
from .arithmetic import pair
from .elements import computing
from .pieces import moved_number
from .registry import emits
from .writer import Writer


@emits("where")
def where(writer: Writer, op: Op) -> None:
    """Elements of one of two operands, or numbers in their place."""
    format = computing("Where", op.type.format)
    condition, *rest = op.inputs
    chosen = pair(writer, Op(op.kind, op.results, op.types, tuple(rest), op.attributes), format)
    writer.node("Where", [writer.real(condition, BOOL), *chosen], writer.result_in(op, format))
    writer.settle(op, format)


@emits("masked_fill")
def masked_fill(writer: Writer, op: Op) -> None:
    """A number where a mask holds."""
    given, format = writer.held(op, "Where")
    value = writer.number(moved_number(writer, op, writer.floating(op, "value")), format)
    writer.node("Where", [writer.real(op.inputs[1], BOOL), value, given], writer.result_in(op, format))
    writer.settle(op, format)


@emits("tril", "triu")
def triangle(writer: Writer, op: Op) -> None:
    """Zero on one side of a diagonal; codes become that of zero."""
    diagonal = writer.integer(op, "diagonal")
    if not op.type.quantized:
        given, format = writer.held(op, "Trilu")
        inputs = [given, writer.scalar(diagonal)]
        writer.node("Trilu", inputs, writer.result_in(op, format), upper=int(op.kind == "triu"))
        writer.settle(op, format)
        return
    given, format = writer.held(op, "Where")
    rows, columns = writer.lengths(op.name)[-2:]
    kept = np.tri(rows, columns, diagonal if op.kind == "tril" else diagonal - 1, dtype=np.bool_)
    mask = writer.initializer(f"{op.name}/kept", kept if op.kind == "tril" else ~kept, BOOL)
    zero = writer.number(moved_number(writer, op, 0.0), format)
    writer.node("Where", [mask, given, zero], writer.result_in(op, format))
    writer.settle(op, format)
