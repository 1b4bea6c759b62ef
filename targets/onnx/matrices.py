"""What is linear along each of the last axes: products with one constant matrix per axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir import Op
from .elements import Array, element
from .writer import Writer


def along_axes(writer: Writer, op: Op, given: str, matrices: Sequence[Array]) -> None:
    """Write the products of a value's last axes with matrices `[result, input]`, the first of the axes first."""
    format, rank = op.type.format, op.type.rank
    for i, weights in enumerate(matrices):
        axis, last = rank - len(matrices) + i, i == len(matrices) - 1
        name = op.name if last else f"{op.name}/along{i}"
        if last:
            columns = np.ascontiguousarray(weights.T, element(format)[1])
            writer.node("MatMul", [given, writer.initializer(f"{op.name}/columns", columns, format)], name)
            return
        rows = np.ascontiguousarray(weights, element(format)[1])
        matrix = writer.initializer(f"{op.name}/rows{i}", rows, format)
        if axis == rank - 2:
            given = writer.node("MatMul", [matrix, given], name)
            continue
        order = list(range(rank))
        order[axis], order[rank - 2] = rank - 2, axis
        turned = writer.node("Transpose", [given], f"{op.name}/turned{i}", perm=order)
        summed = writer.node("MatMul", [matrix, turned], f"{op.name}/summed{i}")
        given = writer.node("Transpose", [summed], name, perm=order)
