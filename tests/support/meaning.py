"""What an axis term means, written out index by index: the reference that faster code is held against."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product as pairs

from nasc.ir import Product, Sum
from nasc.ir.axes import Axis, Batch, Const, Width

Label = tuple[tuple[str, int], ...]
"""The width entries that one index of an axis is made of, outermost first; an index of a constant has none."""


def labels(axis: Axis, sizes: Mapping[str, int], batch: int = 2) -> list[Label]:
    """The label of each index along an axis."""
    match axis:
        case Const(value=value):
            return [()] * value
        case Batch():
            return [(("N", i),) for i in range(batch)]
        case Width(name):
            return [((name, i),) for i in range(sizes[name])]
        case Product(inner):
            result: list[Label] = [()]
            for term in inner:
                result = [a + b for a, b in pairs(result, labels(term, sizes, batch))]
            return result
        case Sum(inner):
            return [entry for term in inner for entry in labels(term, sizes, batch)]
