"""Estimate a quality better than its own samples can: by what the loss of the same candidate says, and the others'.

An accuracy on some thousand samples wavers by a third of a point; the mean loss on the same samples hardly does, and
over the candidates of one search the two go together. So the difference in accuracy is estimated twice, by counting and
by a line through zero over the difference in loss, and both are weighted by their errors. It decides which candidates
are tried and looked at again, and never what is reported, or whether a network is good enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .figures import Figure, Figures

LEAST = 8
"""Candidates that a line needs."""
FAR = 4.0
"""Candidates whose loss changes more than this many times the median are left out: the line is for small changes."""
FLOOR = 0.1
"""The line is trusted no further than to this share of the typical error of counting."""


class Told(Protocol):
    """A candidate that was evaluated."""

    @property
    def figures(self) -> Figures: ...
    @property
    def number(self) -> int: ...


@dataclass(frozen=True)
class Line:
    """Difference in quality over difference in loss.

    Args:
        slope: of the line through zero.
        error: standard deviation of candidates around the line, beyond what counting explains.
    """

    slope: float
    error: float

    def estimate(self, quality: Figure, loss: Figure) -> Figure:
        """The quality with its difference, and the error of that, from both sources."""
        if quality.difference is None or not quality.error or loss.difference is None:
            return quality
        counted, drawn = quality.error**-2, self.error**-2
        difference = (counted * quality.difference + drawn * self.slope * loss.difference) / (counted + drawn)
        baseline = quality.value - quality.difference
        return Figure(baseline + difference, "estimated", difference=difference, error=math.sqrt(1 / (counted + drawn)))


def line(candidates: Iterable[Told], quality: str, loss: str = "loss") -> Line | None:
    """The line that fits the candidates; None where there are too few, or loss says nothing of quality."""
    rows: list[tuple[float, float, float]] = []
    for candidate in candidates:
        q, x = candidate.figures.get(quality), candidate.figures.get(loss)
        if q is not None and x is not None and q.difference is not None and x.difference is not None and q.error:
            rows.append((x.difference, q.difference, q.error))
    if quality == loss or len(rows) < LEAST:
        return None
    middle = sorted(abs(x) for x, _, _ in rows)[len(rows) // 2]
    rows = [row for row in rows if abs(row[0]) <= FAR * middle]
    spread = sum((x / e) ** 2 for x, _, e in rows)
    if len(rows) < LEAST or spread <= 0:
        return None
    slope = sum(x * q / e**2 for x, q, e in rows) / spread
    left = sum((q - slope * x) ** 2 for x, q, _ in rows) / len(rows)
    counting = sum(e**2 for _, _, e in rows) / len(rows)
    total = sum(q**2 for _, q, _ in rows) / len(rows)
    if left > 0.5 * total:
        return None
    return Line(slope, math.sqrt(max(left - counting, FLOOR**2 * counting)))


def smoothed(figures: Figures, quality: str, fitted: Line | None) -> Mapping[str, Figure]:
    """The figures with the quality as both sources estimate it."""
    if fitted is None or quality not in figures or "loss" not in figures:
        return figures
    return {**figures, quality: fitted.estimate(figures[quality], figures["loss"])}
