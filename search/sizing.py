"""The sizes that a width may choose from: shares of its own, rounded to what suits the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from ..ir import Axis, Graph, Product, Sum, UsageError, Width, widths_in
from ..ir.axes import size


@dataclass(frozen=True)
class Sizing:
    """How sizes of widths are chosen.

    Args:
        low: the smallest, as a share of the width's own size.
        high: the largest; above 1 widths grow.
        steps: how many sizes, evenly spaced.
        multiple: sizes are multiples of this, the number of channels that the target computes at once.
    """

    low: float = 0.25
    high: float = 1.0
    steps: int = 4
    multiple: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise UsageError(
                f"the bounds of widths are empty: from {self.low:g} to {self.high:g} of their size",
                mend="Write low..high as shares of a width's own size: 0.25..1.",
            )
        if self.steps < 1 or self.multiple < 1:
            raise UsageError(f"widths need at least 1 size and a multiple of 1; found {self.steps} and {self.multiple}")

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares offered, in order; the whole is always among them where it lies between the bounds."""
        if self.steps == 1:
            return (self.high,)
        spaced = {self.low + i * (self.high - self.low) / (self.steps - 1) for i in range(self.steps)}
        return tuple(sorted(spaced | ({1.0} if self.low <= 1 <= self.high else set())))

    def multiple_of(self, graph: Graph, width: str) -> int:
        """What a width's sizes are multiples of: smaller where each of its indices stands for several channels.

        The heads of an attention count as many channels each as a head is large: 8 heads of 64 may become 5. A width of
        fewer than two multiples is not rounded.
        """
        if graph.sizes[width] < 2 * self.multiple:
            return 1
        needed = {
            self.multiple // gcd(self.multiple, inner)
            for op in graph.stored
            for axis in op.type.axes
            for inner in _inner(axis, width, graph.sizes)
        }
        return max(needed, default=self.multiple)

    def at(self, graph: Graph, width: str, share: float) -> int:
        """The size of a width at a share of its own."""
        own, multiple = graph.sizes[width], self.multiple_of(graph, width)
        if share == 1:
            return own
        return max(round(own * share / multiple) * multiple, multiple)

    def sizes(self, graph: Graph, width: str) -> tuple[int, ...]:
        """The sizes of a width, in order."""
        return tuple(sorted({self.at(graph, width, share) for share in self.shares}))


def _inner(axis: Axis, width: str, sizes: Mapping[str, int]) -> list[int]:
    """How many channels one index of a width stands for, wherever it stands in an axis."""
    if isinstance(axis, Width):
        return [1] if axis.name == width else []
    if isinstance(axis, Sum):
        return [n for term in axis.terms for n in _inner(term, width, sizes)]
    if not isinstance(axis, Product):
        return []
    found: list[int] = []
    for i, term in enumerate(axis.terms):
        if width in widths_in(term):
            behind = 1
            for other in axis.terms[i + 1 :]:
                behind *= size(other, sizes)
            found += [n * behind for n in _inner(term, width, sizes)]
    return found
