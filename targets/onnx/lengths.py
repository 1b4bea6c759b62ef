"""Shapes that depend on the batch: computed in the model from the shape of an input, so that the batch stays free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir import Axes, Axis, Batch, Const, Graph, NascError, Op
from ...ir.axes import factors, has_batch, polynomial, product, size, substitute
from ...ir.formats import I64
from .writer import Writer

BATCH = "/batch"
"""What the length of the batch is called in a model; no value of the IR can be called so."""


def batch(writer: Writer) -> str:
    """The length of the batch, as a vector of one integer.

    Raises:
        NascError: no input of the graph has an axis to read it from.
    """

    def write() -> None:
        for entry in writer.graph.inputs:
            for i, axis in enumerate(entry.type.axes):
                if any(isinstance(f, Batch) for f in factors(axis)) and sum(map(has_batch, factors(axis))) == 1:
                    rest = size(axis, writer.graph.sizes)
                    whole = f"{BATCH}/all" if rest > 1 else BATCH
                    writer.node("Shape", [entry.name], whole, start=i, end=i + 1)
                    if rest > 1:
                        writer.node("Div", [whole, writer.integers((rest,))], BATCH)
                    return
        raise NascError(f"graph @{writer.graph.name} has the batch in a shape, and no input that says how long it is")

    return writer.once(BATCH, write)


def length(writer: Writer, axis: Axis) -> str:
    """The length of an axis as a vector of one integer, a constant where it does not depend on the batch."""
    if not has_batch(axis):
        return writer.integers((size(axis, writer.graph.sizes),))
    plain = substitute(axis, {name: Const(value) for name, value in writer.graph.sizes.items()})
    if isinstance(plain, Batch):
        return batch(writer)
    name = f"{BATCH}/{plain}"

    def write() -> None:
        terms = list(polynomial(plain).items())
        given = batch(writer)
        parts: list[str] = []
        for number, (powers, count) in enumerate(terms):
            part = writer.integers((count,))
            for power in range(len(powers)):
                last = power == len(powers) - 1 and len(terms) == 1
                part = writer.node("Mul", [part, given], name if last else f"{name}/{number}.{power}")
            parts.append(part)
        while len(parts) > 1:
            left, right, *parts = parts
            parts.append(writer.node("Add", [left, right], f"{name}/sum{len(parts)}" if parts else name))

    return writer.once(name, write)


def shape(writer: Writer, axes: Sequence[Axis]) -> str:
    """Lengths of axes as a vector, a constant where none depends on the batch."""
    if not any(map(has_batch, axes)):
        return writer.integers([size(axis, writer.graph.sizes) for axis in axes])
    if len(axes) == 1:
        return length(writer, axes[0])
    plain = [substitute(a, {n: Const(v) for n, v in writer.graph.sizes.items()}) for a in axes]
    name = f"{BATCH}/[{','.join(map(str, plain))}]"

    def write() -> None:
        writer.node("Concat", [length(writer, axis) for axis in plain], name, axis=0)

    return writer.once(name, write)


def target(writer: Writer, source: Axes | None, axes: Axes) -> str:
    """A shape for Reshape: axes that hold the batch are copied (0) or inferred (-1), where that is enough.

    Args:
        writer: the writer.
        source: the axes of what is reshaped; None: they are not known.
        axes: the axes of the result.
    """
    lengths: list[int] = []
    for i, axis in enumerate(axes):
        if not has_batch(axis):
            lengths.append(size(axis, writer.graph.sizes))
        elif source is not None and i < len(source) and source[i] == axis:
            lengths.append(0)
        else:
            lengths.append(-1)
    if lengths.count(-1) > 1:
        return shape(writer, axes)
    return writer.integers(lengths)


def reshaped(writer: Writer, given: str, source: Axes | None, axes: Axes, result: str) -> str:
    """Write a Reshape to some axes."""
    return writer.node("Reshape", [given, target(writer, source, axes)], result)


def times(*axes: Axis | int) -> Axis:
    """A product of terms, as an axis; only its length counts."""
    return product(Const(a) if isinstance(a, int) else a for a in axes)


def positions(writer: Writer, name: str, values: np.ndarray) -> str:
    """A constant tensor of positions."""
    return writer.initializer(name, np.ascontiguousarray(values, np.int64), I64)


def unflattened(graph: Graph, op: Op) -> tuple[int, ...] | None:
    """The shape of a linear layer's result for a Reshape, or None where two axes depend on the batch."""
    held = [has_batch(axis) for axis in op.type.axes]
    if sum(held) > 1:
        return None
    return tuple(-1 if h else size(axis, graph.sizes) for h, axis in zip(held, op.type.axes, strict=True))
