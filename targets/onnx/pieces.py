"""Ops that take parts of values: split, narrow, select, pad and their like."""

from __future__ import annotations

from typing import cast

import numpy as np

from ...ir import Op
from .clamps import code_of
from .lengths import positions
from .registry import EmissionError, emits
from .writer import Writer

END = 2**63 - 1
"""An end of a Slice that is behind the last index."""


@emits("split")
def split(writer: Writer, op: Op) -> None:
    """Consecutive parts."""
    sizes = cast(tuple[int, ...], writer.attribute(op, "sizes"))
    dim = writer.integer(op, "dim")
    writer.nodes("Split", [writer.moved(op), writer.integers(sizes)], op.results, axis=dim)


@emits("unbind")
def unbind(writer: Writer, op: Op) -> None:
    """Parts of length 1 without their axis."""
    dim = writer.integer(op, "dim")
    parts = [f"{name}/part" for name in op.results]
    writer.nodes("Split", [writer.moved(op), writer.integers((1,) * len(parts))], parts, axis=dim)
    for part, name in zip(parts, op.results, strict=True):
        writer.node("Squeeze", [part, writer.integers((dim,))], name)


def sliced(writer: Writer, given: str, dim: int, start: int, end: int, result: str, step: int = 1) -> str:
    """Write a Slice along one axis."""
    bounds = [writer.integers((v,)) for v in (start, end, dim, *([step] if step != 1 else []))]
    return writer.node("Slice", [given, *bounds], result)


@emits("narrow")
def narrow(writer: Writer, op: Op) -> None:
    """A part of an axis."""
    start, length = writer.integer(op, "start"), writer.integer(op, "length")
    sliced(writer, writer.moved(op), writer.integer(op, "dim"), start, start + length, op.name)


@emits("slice")
def slice_(writer: Writer, op: Op) -> None:
    """Every few indices of an axis."""
    dim, start, end, step = (writer.integer(op, n) for n in ("dim", "start", "end", "step"))
    sliced(writer, writer.moved(op), dim, start, end, op.name, step)


@emits("select")
def select(writer: Writer, op: Op) -> None:
    """One index of an axis, which goes."""
    index = writer.scalar(writer.integer(op, "index"))
    writer.node("Gather", [writer.moved(op), index], op.name, axis=writer.integer(op, "dim"))


@emits("glu")
def glu(writer: Writer, op: Op) -> None:
    """The first half times the sigmoid of the second."""
    given, dim = writer.real(op.inputs[0], op.type.format), writer.integer(op, "dim")
    half = writer.lengths(op.name)[dim]
    halves = (f"{op.name}/value", f"{op.name}/gate")
    writer.nodes("Split", [given, writer.integers((half, half))], halves, axis=dim)
    gate = writer.node("Sigmoid", [halves[1]], f"{op.name}/open")
    writer.node("Mul", [halves[0], gate], op.name)


MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@emits("pad")
def pad(writer: Writer, op: Op) -> None:
    """More indices before and after axes; a negative amount takes indices away.

    Codes are padded by the code of the number, 16-bit ones as 32-bit integers, for which ONNX Runtime has a Pad.
    """
    amounts = cast(tuple[int, ...], writer.attribute(op, "pad"))
    rank, mode = op.type.rank, str(writer.attribute(op, "mode"))
    if mode not in MODES:
        raise EmissionError(op, f"ONNX has no way of padding called {mode!r}")
    before, after = [0] * rank, [0] * rank
    for k in range(len(amounts) // 2):
        before[rank - 1 - k], after[rank - 1 - k] = amounts[2 * k : 2 * k + 2]
    given, format = writer.held(op, "Pad")
    given = cut(writer, op, given, before, after)
    inputs = [given, writer.integers([*(max(n, 0) for n in before), *(max(n, 0) for n in after)])]
    if mode == "constant":
        inputs.append(writer.number(moved_number(writer, op, writer.floating(op, "value")), format))
    writer.node("Pad", inputs, writer.result_in(op, format), mode=MODES[mode])
    writer.settle(op, format)


def cut(writer: Writer, op: Op, given: str, before: list[int], after: list[int]) -> str:
    """A value without the indices that negative amounts take away."""
    dims = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b < 0 or a < 0]
    if not dims:
        return given
    starts = [max(-before[d], 0) for d in dims]
    ends = [after[d] if after[d] < 0 else END for d in dims]
    bounds = [writer.integers(v) for v in (starts, ends, dims)]
    return writer.node("Slice", [given, *bounds], f"{op.name}/cut")


def moved_number(writer: Writer, op: Op, value: float) -> float:
    """A number as a moved value holds it: its code where the value is quantized."""
    return code_of(value, op.type) if op.type.step is not None else value


@emits("slice_scatter")
def slice_scatter(writer: Writer, op: Op) -> None:
    """The input with a part of one axis replaced: what is before, the source, and what is behind; with a step, by
    position."""
    given, source = (writer.real(n, op.type.format) for n in op.inputs)
    dim, start, end, step = (writer.integer(op, n) for n in ("dim", "start", "end", "step"))
    if step == 1:
        replaced(writer, op, given, source, dim, start, end)
        return
    order = (dim, *(i for i in range(op.type.rank) if i != dim))
    back = tuple(order.index(i) for i in range(op.type.rank))
    chosen = np.arange(writer.lengths(op.name)[dim])[start:end:step, None]
    at = positions(writer, f"{op.name}/positions", chosen)
    if dim == 0:
        writer.node("ScatterND", [given, at, source], op.name)
        return
    first = writer.node("Transpose", [given], f"{op.name}/first", perm=order)
    updates = writer.node("Transpose", [source], f"{op.name}/updates", perm=order)
    found = writer.node("ScatterND", [first, at, updates], f"{op.name}/scattered")
    writer.node("Transpose", [found], op.name, perm=back)


@emits("select_scatter")
def select_scatter(writer: Writer, op: Op) -> None:
    """The input with one index of an axis replaced."""
    given, source = (writer.real(n, op.type.format) for n in op.inputs)
    dim, index = writer.integer(op, "dim"), writer.integer(op, "index")
    index += writer.lengths(op.name)[dim] if index < 0 else 0
    source = writer.node("Unsqueeze", [source, writer.integers((dim,))], f"{op.name}/source")
    replaced(writer, op, given, source, dim, index, index + 1)


def replaced(writer: Writer, op: Op, given: str, source: str, dim: int, start: int, end: int) -> None:
    """A value with the indices from `start` on and before `end` of an axis replaced."""
    parts = [source]
    if start > 0:
        parts.insert(0, sliced(writer, given, dim, 0, start, f"{op.name}/before"))
    if end < writer.lengths(op.name)[dim]:
        parts.append(sliced(writer, given, dim, end, END, f"{op.name}/behind"))
    writer.node("Concat", parts, op.name, axis=dim)
