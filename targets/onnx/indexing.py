"""Ops that look values up by their position."""

from __future__ import annotations

from typing import cast

from ...ir import Op
from ...ir.formats import I64
from .lengths import shape
from .registry import EmissionError, emits
from .writer import Writer


def numbers(writer: Writer, name: str) -> str:
    """Positions as 64-bit integers."""
    return writer.real(name, I64)


@emits("embedding")
def embedding(writer: Writer, op: Op) -> None:
    """Rows of a table.

    Raises:
        EmissionError: a table with one step per row, whose rows have no step in common.
    """
    rows, table = op.inputs
    step = writer.type(table).step
    if op.type.quantized and step is not None and step.axis is not None:
        raise EmissionError(
            op,
            f"the table %{table} has one step per index of axis {step.axis}, and its rows are not told apart",
            mend="Quantize the table with one step for all of it.",
        )
    given = writer.value(table) if op.type.quantized else writer.real(table, op.type.format)
    writer.node("Gather", [given, numbers(writer, rows)], op.name, axis=0)


@emits("index_select")
def index_select(writer: Writer, op: Op) -> None:
    """Some indices of one axis."""
    writer.node("Gather", [writer.moved(op), numbers(writer, op.inputs[1])], op.name, axis=writer.integer(op, "dim"))


@emits("gather")
def gather(writer: Writer, op: Op) -> None:
    """One value per position."""
    inputs = [writer.moved(op), numbers(writer, op.inputs[1])]
    writer.node("GatherElements", inputs, op.name, axis=writer.integer(op, "dim"))


@emits("index")
def index(writer: Writer, op: Op) -> None:
    """Elements by their positions along some axes: a Gather along one, a GatherND along several.

    For that the axes come to the front, and the positions are stretched to their common shape and joined.
    """
    dims = cast(tuple[int, ...], writer.attribute(op, "dims"))
    given = writer.moved(op)
    if len(dims) == 1:
        writer.node("Gather", [given, numbers(writer, op.inputs[1])], op.name, axis=dims[0])
        return
    rank = writer.type(op.inputs[0]).rank
    neighbours = list(dims) == list(range(dims[0], dims[0] + len(dims)))
    at = dims[0] if neighbours else 0
    wide = max(writer.type(name).rank for name in op.inputs[1:])
    found = op.type.axes[at : at + wide]
    last = writer.integers((wide,))
    parts: list[str] = []
    for i, name in enumerate(op.inputs[1:]):
        part = numbers(writer, name)
        if writer.type(name).axes != found:
            part = writer.node("Expand", [part, shape(writer, found)], f"{op.name}/stretched{i}")
        parts.append(writer.node("Unsqueeze", [part, last], f"{op.name}/at{i}"))
    where = writer.node("Concat", parts, f"{op.name}/at", axis=wide)
    order = (*dims, *(i for i in range(rank) if i not in dims))
    if order != tuple(range(rank)):
        given = writer.node("Transpose", [given], f"{op.name}/front", perm=order)
    if not at:
        writer.node("GatherND", [given, where], op.name)
        return
    taken = writer.node("GatherND", [given, where], f"{op.name}/taken")
    total = op.type.rank
    back = (*range(wide, wide + at), *range(wide), *range(wide + at, total))
    writer.node("Transpose", [taken], op.name, perm=back)
