"""Which candidates are worth keeping: the Pareto front with its intervals, and the rule that names the winner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .figures import Figure, Figures, Metric, clearly_better, pessimistic_difference
from .objectives import Constraint, Objective, is_scalar, values

SAME = 0.02
"""Relative difference in time up to which two networks count as equally fast."""


class Point(Protocol):
    """A candidate that was evaluated: its number and what is known of it."""

    @property
    def number(self) -> int: ...
    @property
    def figures(self) -> Figures: ...


@dataclass(frozen=True)
class Member:
    """A candidate on the front.

    Args:
        number: the trial's.
        ties: trials that are better at nothing by more than chance explains, and at nothing clearly worse; the front
            shows one for all of them.
    """

    number: int
    ties: tuple[int, ...] = ()


def dominates(a: Figures, b: Figures, objectives: Sequence[Objective], confidence: float) -> bool:
    """Whether `a` is clearly better than `b` at something, and `b` not clearly better than `a` at anything."""
    return _better(a, b, objectives, confidence) and not _better(b, a, objectives, confidence)


def _better(a: Figures, b: Figures, objectives: Sequence[Objective], confidence: float) -> bool:
    return any(clearly_better(a[o.metric.name], b[o.metric.name], o.direction, confidence) for o in objectives)


def pareto(points: Iterable[Point], objectives: Sequence[Objective], confidence: float) -> tuple[Member, ...]:
    """The front, from the best value of the first objective down: every other candidate is dominated by one of it.

    An advantage counts only where it is larger than its interval. That relation is not transitive (A may be within
    noise of B, and B of C, while A is clearly better than C), so it is not enough to leave out what is dominated:
    whole stretches would vanish, each candidate behind the next. Instead candidates that nothing dominates are kept,
    then the others in order of cost unless one that is kept dominates them, or does not differ from them at all.

    Args:
        points: evaluated candidates; those that lack an objective are left out.
        objectives: at least one.
        confidence: of one-sided comparisons.
    """
    names = [o.metric.name for o in objectives]
    known = [p for p in points if all(name in p.figures for name in names)]

    def order(point: Point) -> tuple[float, ...]:
        """Costs before qualities, since these are the noisier."""
        values = dict(zip(names, _signed(point.figures, objectives), strict=True))
        noisy = {o.metric.name: o.metric.is_quality for o in objectives}
        return (*(values[n] for n in sorted(names, key=lambda n: noisy[n])), point.number)

    def beaten(point: Point, by: Iterable[Point]) -> bool:
        return any(dominates(other.figures, point.figures, objectives, confidence) for other in by)

    known.sort(key=order)
    kept: list[Point] = []
    ties: dict[int, list[int]] = {}
    for point in [p for p in known if not beaten(p, known)] + known:
        if any(point.number == other.number or point.number in ties[other.number] for other in kept):
            continue
        if beaten(point, kept):
            continue
        equal = next((k for k in kept if _alike(k.figures, point.figures, objectives, confidence)), None)
        if equal is None:
            kept.append(point)
            ties[point.number] = []
        else:
            ties[equal.number].append(point.number)
    kept.sort(key=lambda p: (*_signed(p.figures, objectives), p.number))
    return tuple(Member(p.number, tuple(sorted(ties[p.number]))) for p in kept)


def _alike(a: Figures, b: Figures, objectives: Sequence[Objective], confidence: float) -> bool:
    return not _better(a, b, objectives, confidence) and not _better(b, a, objectives, confidence)


def _signed(figures: Figures, objectives: Sequence[Objective]) -> list[float]:
    """The values with the sign at which small is good."""
    return [figures[o.metric.name].value * (-1 if o.direction == "max" else 1) for o in objectives]


@dataclass(frozen=True)
class Rule:
    """How the winner is chosen.

    Args:
        quality: the quality metric it looks at; None where no quality is among the objectives.
        tolerance: how much of it may be lost.
        objectives: the search's.
        decide: what decides among those that are good enough, in this order; the smallest wins.
        watch_latency: whether networks that are slower than the fastest of them are out.
        confidence: of one-sided bounds.
    """

    quality: Metric | None
    tolerance: Constraint | None
    objectives: tuple[Objective, ...]
    decide: tuple[Metric, ...]
    watch_latency: bool
    confidence: float

    def __str__(self) -> str:
        """The rule as a sentence."""
        return self.sentence({})

    def sentence(self, figures: Figures) -> str:
        """The rule as a sentence, which says of a metric that figures of it are estimated."""
        if is_scalar(self.objectives):
            return "the feasible network with the largest weighted sum of the objectives"
        if self.quality is None:
            return f"the feasible network with the best {_called(self.objectives[0].metric, figures)}"
        if len(self.objectives) == 1 and self.objectives[0].metric.is_quality:
            return f"the feasible network with the best {self.quality.label}"
        slow = ", not slower than the fastest of them," if self.watch_latency else ""
        return f"of the networks with {self.tolerance} (at its lower bound){slow} the one with the least " + (
            " then ".join(_called(metric, figures) for metric in self.decide)
        )

    @property
    def otherwise(self) -> str:
        """What chooses where no network surely keeps the tolerance, as a sentence."""
        assert self.quality is not None
        return (
            f"since no network surely keeps {self.tolerance}, the feasible one with the best {self.quality.label} "
            "(at its lower bound)"
        )

    def ranked(self, points: Iterable[Point], baseline: Figures, *, strict: bool) -> list[Point]:
        """The candidates that may win, best first.

        Args:
            points: evaluated candidates that keep the constraints.
            baseline: the baseline's figures.
            strict: whether quality counts at its lower bound, or as estimated (where a second look follows).
        """
        names = [o.metric.name for o in self.objectives]
        known = [p for p in points if all(name in p.figures for name in names)]
        if is_scalar(self.objectives):
            return sorted(known, key=lambda p: (-values(self.objectives, p.figures, baseline)[0], p.number))
        if self.quality is None or (len(self.objectives) == 1 and self.objectives[0].metric.is_quality):
            return sorted(known, key=lambda p: (*_signed(p.figures, self.objectives), p.number))
        good = [p for p in known if self.keeps_quality(p.figures, baseline, strict=strict)]
        if self.watch_latency:
            good = [p for p in good if not _slower_than_fastest(p, good)]
        return sorted(good, key=lambda p: (*(p.figures[m.name].value for m in self.decide), p.number))

    def keeps_quality(self, figures: Figures, baseline: Figures, *, strict: bool = True) -> bool:
        """Whether a network loses no more quality than is tolerated."""
        if self.quality is None or self.tolerance is None:
            return True
        name = self.quality.name
        confidence = self.confidence if strict else 0.5
        return self.tolerance.violation(_central(figures[name], strict), baseline[name], confidence) <= 0

    def best_quality(self, points: Iterable[Point], baseline: Figures) -> list[Point]:
        """The candidates by quality at its lower bound: what is left to offer where none is within the tolerance."""
        assert self.quality is not None
        name, direction = self.quality.name, self.quality.direction
        sign = -1.0 if direction == "max" else 1.0

        def worst(point: Point) -> float:
            return sign * pessimistic_difference(point.figures[name], baseline[name], direction, self.confidence)

        return sorted((p for p in points if name in p.figures), key=lambda p: (worst(p), p.number))


def _called(metric: Metric, figures: Figures) -> str:
    figure = figures.get(metric.name)
    return f"estimated {metric.label}" if figure is not None and figure.kind == "estimated" else metric.label


def _central(figure: Figure, strict: bool) -> Figure:
    """The figure without its interval, unless it counts."""
    return figure if strict else replace(figure, low=None, high=None)


def _slower_than_fastest(point: Point, among: Sequence[Point]) -> bool:
    """Whether a network is slower than the fastest of some, by more than its interval and more than `SAME`."""
    timed = [p.figures["latency"] for p in among if "latency" in p.figures]
    mine = point.figures.get("latency")
    if mine is None or not timed:
        return False
    fastest = min(timed, key=_time)
    return clearly_better(fastest, mine, "min", 0.95) and _time(mine) > (1 + SAME) * _time(fastest)


def _time(figure: Figure) -> float:
    """Latency over the baseline's where that was measured in pairs, else latency."""
    return figure.value if figure.ratio is None else figure.ratio
