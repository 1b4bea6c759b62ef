"""Who wins: candidates are looked at again on samples that had no part in choosing them, the likeliest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .figures import Figure, Figures
from .front import Point, Rule
from .records import Record
from .smooth import line, smoothed

SURE = 3
"""Second looks after which it is known how far validation deceives."""
HOPE, GROWING = 0.3, 0.1
"""Share of the error that an expected figure must keep from the tolerance to be looked at, and what each refusal adds:
so that not every one of many like candidates gets its chance to be lucky, and the safer ones come in sight."""
CONFIRMED = 16
"""How many candidates are looked at a second time, at most, before the search is content with the best quality."""


@dataclass(frozen=True)
class Choice:
    """Who won, and what chose it.

    Args:
        record: the winner.
        kept: whether it surely keeps the tolerance, so that the rule chose it; else the best quality did.
        confirmation: its quality on samples that the search did not see; empty where there are none.
        refused: the same of the trials that were to win before it and were not good enough.
    """

    record: Record
    kept: bool
    confirmation: Figures
    refused: Mapping[int, Figures]


@dataclass(frozen=True)
class Choosing:
    """The choice of the winner.

    Args:
        name: of the quality that counts.
        rule: by which it is chosen.
        baseline: the source network's figures.
        trials: all trials, which say how quality depends on loss.
        look: a candidate's quality on confirmation samples; None: there are none.
        source_tested: gives the source network's quality on test samples.
        say: a sentence for the watcher and the report.
    """

    name: str
    rule: Rule
    baseline: Figures
    trials: Sequence[Record]
    look: Callable[[Record], Figures] | None
    source_tested: Callable[[], Figures]
    say: Callable[[str], None]

    def winner(self, feasible: Sequence[Record]) -> Choice:
        """The winner, its quality on confirmation samples where there are any, and that of those refused before it.

        Many candidates lie near the tolerance, and the luckiest of them on validation samples would win too often.
        So where there are other samples, the candidates are taken in the rule's order as validation estimates them
        (`smooth`), and the first wins that is good enough at the lower bound of its quality on those. Where there are
        none, validation's own lower bound must do.
        """
        records = {r.number: r for r in feasible}
        if not self.confirming:
            chosen = self.rule.ranked(feasible, self.baseline, strict=True)
            return Choice(records[chosen[0].number], True, {}, {}) if chosen else self.best(feasible, {})
        fitted = line(self.trials, self.name)
        points = [
            Estimated(r.number, r.figures if r.epochs else smoothed(r.figures, self.name, fitted)) for r in feasible
        ]
        chosen = self.rule.ranked(points, self.baseline, strict=False)
        refused: dict[int, Figures] = {}
        for point in chosen:
            if len(refused) >= CONFIRMED:
                break
            record = records[point.number]
            alike = [p for p in chosen if records[p.number].epochs == record.epochs]
            if self.hopeless(point, alike, refused):
                continue
            again = self.confirmed(record)
            if self.rule.keeps_quality(self.as_new_samples(again), self.baseline):
                return Choice(record, True, again, refused)
            refused[point.number] = again
        return self.best(feasible, refused)

    @property
    def confirming(self) -> bool:
        """Whether there are samples to look at candidates again, and something to hold them against."""
        return self.look is not None and self.rule.tolerance is not None

    def best(self, feasible: Sequence[Record], refused: Mapping[int, Figures]) -> Choice:
        """The one of the best quality, where none surely keeps the tolerance."""
        found = next(r for r in self.rule.best_quality(feasible, self.baseline) if isinstance(r, Record))
        self.say(f"no candidate surely keeps {self.rule.tolerance}; the best quality wins instead")
        return Choice(found, False, self.confirmed(found) if self.confirming else {}, refused)

    def confirmed(self, record: Record) -> Figures:
        """A candidate's quality on samples that had no part in choosing it.

        What training made of a finalist was not chosen by validation samples, so these count as well, unless it is one
        of many that were trained and chosen by them.
        """
        assert self.look is not None
        again = self.look(record)
        if not record.epochs or record.bred:
            return again
        return {**again, self.name: pooled(again[self.name], record.figures[self.name])}

    def hopeless(self, point: Point, all: Sequence[Point], refused: Mapping[int, Figures]) -> bool:
        """Whether a candidate would be refused too, judging by how those refused fell short of what was expected.

        The source network's own luck on validation samples moves all candidates alike; after a few second looks it is
        known, and candidates that would only just have been good enough need not be looked at.
        """
        name = self.name
        seen = [(p.figures[name].difference, refused[p.number][name]) for p in all if p.number in refused]
        mine = point.figures[name].difference
        pairs = [(d, f.difference) for d, f in seen if d is not None and f.difference is not None]
        if len(pairs) < SURE or mine is None:
            return False
        expected = sum(d for d, _ in pairs)
        if expected == 0:
            return False
        again = mine * sum(d for _, d in pairs) / expected
        figure = replace(seen[-1][1], difference=again, value=self.baseline[name].value + again)
        demand = min(HOPE + GROWING * len(pairs), 1.0)
        hopeful = replace(figure, error=None if figure.error is None else demand * figure.error)
        return not self.rule.keeps_quality(self.as_new_samples({name: hopeful}), self.baseline)

    def as_new_samples(self, figures: Figures) -> Figures:
        """Figures with the error at which as many new samples as the test has will show them.

        The winner shall keep the tolerance on samples that come, so their luck counts beside that of the samples it
        was looked at: the error of a prediction, sqrt(1 + n / m) times that of the estimate for n seen and m to come.
        """
        name = self.name
        seen, to_come = figures[name], self.source_tested().get(name)
        if seen.error is None or seen.samples is None or to_come is None or to_come.samples is None:
            return figures
        wider = seen.error * math.sqrt(1 + seen.samples / to_come.samples)
        return {**figures, name: replace(seen, error=wider)}


@dataclass(frozen=True)
class Estimated:
    """A candidate with its quality as all that was told estimates it."""

    number: int
    figures: Figures


def pooled(a: Figure, b: Figure) -> Figure:
    """One figure of two on different samples: means over both, each by its number of samples."""
    if None in (a.samples, b.samples, a.difference, b.difference, a.error, b.error):
        return a
    assert a.samples and b.samples
    count = a.samples + b.samples
    share, rest = a.samples / count, b.samples / count
    value = share * a.value + rest * b.value
    difference = share * (a.difference or 0.0) + rest * (b.difference or 0.0)
    error = math.hypot(share * (a.error or 0.0), rest * (b.error or 0.0))
    low = (
        None
        if a.low is None or b.low is None
        else value - math.hypot(share * (a.value - a.low), rest * (b.value - b.low))
    )
    high = None if low is None else 2 * value - low
    return Figure(value, a.kind, low, high, difference, error, samples=count)
