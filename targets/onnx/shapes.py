"""Ops that move, join or reduce elements."""

from __future__ import annotations

from ...ir import Op
from ...ir.axes import has_batch
from .registry import EmissionError, emits
from .writer import Writer


@emits("reshape")
def reshape(writer: Writer, op: Op) -> None:
    """Reshape; an axis that holds the batch is copied (0) or left to be inferred (-1).

    Raises:
        EmissionError: the batch stands in several axes of the result that are not copies.
    """
    source, target = writer.type(op.inputs[0]).axes, op.type.axes
    lengths = list(writer.lengths(op.name))
    open_at: list[int] = []
    for i, axis in enumerate(target):
        if not has_batch(axis):
            continue
        if i < len(source) and source[i] == axis:
            lengths[i] = 0
        else:
            lengths[i] = -1
            open_at.append(i)
    if len(open_at) > 1:
        shown = ", ".join(map(str, target))
        raise EmissionError(op, f"ONNX can infer one length of [{shown}], and {len(open_at)} depend on the batch")
    result = [writer.moved(op), writer.integers(lengths)]
    writer.node("Reshape", result, op.name)


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


REDUCE = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin"}


@emits(*REDUCE)
def reduce(writer: Writer, op: Op) -> None:
    """One value for all along some axes, all axes where none is named."""
    dims = writer.attribute(op, "dim")
    assert isinstance(dims, tuple)
    inputs = [writer.real(op.inputs[0], op.type.format)]
    if dims:
        inputs.append(writer.integers([d for d in dims if isinstance(d, int)]))
    writer.node(REDUCE[op.kind], inputs, op.name, keepdims=int(bool(writer.attribute(op, "keepdim"))))
