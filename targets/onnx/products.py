"""Products of two activations: matrix products, einsum, attention."""

from __future__ import annotations

from math import inf

import numpy as np

from ...ir import Op
from ...ir.formats import BOOL
from .elements import computing, stored
from .lengths import reshaped, shape, times
from .registry import EmissionError, emits
from .writer import Writer


@emits("matmul")
def matmul(writer: Writer, op: Op) -> None:
    """Matrix products; ONNX's broadcast as PyTorch's do."""
    format = computing("Compare", op.type.format)
    operands = [writer.real(name, format) for name in op.inputs]
    writer.node("MatMul", operands, writer.result_in(op, format))
    writer.settle(op, format)


@emits("einsum")
def einsum(writer: Writer, op: Op) -> None:
    """Sums of products by letters."""
    operands = [writer.real(name, op.type.format) for name in op.inputs]
    writer.node("Einsum", operands, op.name, equation=str(writer.attribute(op, "equation")))


@emits("scaled_dot_product_attention")
def attention(writer: Writer, op: Op) -> None:
    """`softmax(scale * query key^T + mask) value` written out: opset 20 has no op for it.

    Where a truth mask is not known to leave something in every row, its gaps are set to 0 once more behind the softmax:
    PyTorch gives 0 for rows without anything, and a softmax of nothing is no number.

    Raises:
        EmissionError: a causal mask over rows or columns that depend on the batch.
    """
    format, name = op.type.format, op.name
    query, key, value = (writer.real(n, format) for n in op.inputs[:3])
    if writer.attribute(op, "enable_gqa"):
        key, value = (repeated(writer, op, v, i) for i, v in ((1, key), (2, value)))
    rank = writer.type(op.inputs[1]).rank
    turned = writer.node("Transpose", [key], f"{name}/turned", perm=(*range(rank - 2), rank - 1, rank - 2))
    scaled = writer.node("Mul", [query, writer.number(writer.floating(op, "scale"), format)], f"{name}/scaled")
    scores = writer.node("MatMul", [scaled, turned], f"{name}/scores")
    gaps = ""
    if writer.attribute(op, "is_causal"):
        mask = causal(writer, op)
        scores = writer.node("Where", [mask, scores, writer.number(-inf, format)], f"{name}/causal")
    if len(op.inputs) > 3:
        mask = op.inputs[3]
        if writer.type(mask).format == BOOL:
            there = writer.value(mask)
            scores = writer.node("Where", [there, scores, writer.number(-inf, format)], f"{name}/masked")
            gaps = "" if leaves_something(writer, mask) else there
        else:
            scores = writer.node("Add", [scores, writer.real(mask, format)], f"{name}/masked")
    shares = writer.node("Softmax", [scores], f"{name}/shares", axis=-1)
    if gaps:
        shares = writer.node("Where", [gaps, shares, writer.number(0.0, format)], f"{name}/filled")
    writer.node("MatMul", [shares, value], name)


def causal(writer: Writer, op: Op) -> str:
    """The mask that lets each row see itself and what is before it."""
    rows, columns = (writer.type(op.inputs[i]).axes[-2] for i in (0, 1))
    lengths = [writer.size(a) for a in (rows, columns)]
    from ...ir.axes import has_batch

    if has_batch(rows) or has_batch(columns):
        raise EmissionError(op, f"its rows [{rows}, {columns}] depend on the batch, and a causal mask needs numbers")
    return writer.initializer(f"/causal/{lengths[0]}x{lengths[1]}", np.tri(*lengths, dtype=np.bool_), BOOL)


def leaves_something(writer: Writer, mask: str) -> bool:
    """Whether a mask is stored and holds somewhere in every row."""
    if not writer.is_stored(mask):
        return False
    array = stored(writer.weights.array(mask), BOOL, mask)
    return bool(array.any(axis=-1).all())


def repeated(writer: Writer, op: Op, value: str, index: int) -> str:
    """Keys or values with each head as often as queries share it."""
    axes = writer.type(op.inputs[index]).axes
    heads = writer.size(axes[-3])
    each = writer.size(writer.type(op.inputs[0]).axes[-3]) // heads
    if each == 1:
        return value
    rank, name = len(axes), f"{op.name}/{'key' if index == 1 else 'value'}"
    apart = writer.node("Unsqueeze", [value, writer.integers((rank - 2,))], f"{name}.apart")
    counts = [times(1)] * (rank + 1)
    counts[rank - 2] = times(each)
    many = writer.node("Expand", [apart, shape(writer, counts)], f"{name}.many")
    merged = (*axes[:-3], times(heads * each), *axes[-2:])
    return reshaped(writer, many, (*axes[:-2], times(each), *axes[-2:]), merged, f"{name}.repeated")
