"""The evaluation ladder: from what can be counted to what must be trained, each rung dearer, each free to say no."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..ir.errors import NascError
from .figures import Figure, Figures, clearly_better, value_text
from .forecast import Forecast, beaten, missed
from .objectives import Constraint, Objective
from .protocols import Builder, Judge
from .records import Record


@dataclass(frozen=True)
class Ladder:
    """How candidates are evaluated.

    Args:
        builder: makes networks.
        judge: judges them.
        objectives: what must be known in the end.
        constraints: what ends a candidate as soon as it is known to miss it.
        baseline: the source network's figures.
        confidence: of one-sided bounds.
        epochs: of training that every candidate asks for; 0: none.
        forecast: says what latency to expect, so that hopeless candidates are not measured; None: all are measured.
    """

    builder: Builder[Any]
    judge: Judge[Any]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    baseline: Figures
    confidence: float
    epochs: int = 0
    forecast: Forecast | None = None

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics that must be measured on the target."""
        wanted = [o.metric for o in self.objectives] + [c.metric for c in self.constraints]
        return tuple(dict.fromkeys(m.name for m in wanted if m.rung == "measure"))

    def text(self, pipeline: str) -> str:
        """A candidate of the space as it is evaluated: with the training that every candidate asks for."""
        return self.builder.trained(pipeline, self.epochs) if self.epochs else pipeline

    def climb(self, record: Record, network: Any, known: Sequence[Record], entered: Callable[[str], None]) -> Record:
        """Evaluate a candidate.

        Args:
            record: the trial so far.
            network: its structure.
            known: the trials told before, for what need not be measured or trained again.
            entered: called with the name of each rung.

        Returns:
            The record: complete, ended early, or failed with the reason. A candidate that fails is a result of the
            search, whatever the cause; who runs the trials sees to it that failing does not become the rule.
        """
        climb = _Climb(self, record, known, entered)
        try:
            self._climb(climb, network)
        except Exception as error:
            return failed(climb.record, error)
        return climb.record if climb.ended else replace(climb.record, state="complete")

    def _climb(self, climb: _Climb, network: Any) -> None:
        with climb.rung("static"):
            climb.learn(self.judge.static(network))
        if climb.ended:
            return
        with climb.rung("calibrate"):
            network = self.builder.finish(network, climb.record.pipeline)
        if self.forecast is not None and "latency" in self.measured:
            with climb.rung("forecast"):
                climb.foresee(network, self.forecast)
            if climb.ended:
                return
        with climb.rung("quality"):
            climb.learn(self.judge.quality(network, "validation"), final=self.epochs == 0)
        climb.compare()
        if not climb.ended and self.measured:
            with climb.rung("measure"):
                climb.time(network)
        if not climb.ended and self.epochs:
            with climb.rung("train"):
                network = self.builder.train(network, climb.record.pipeline, climb.report)
            if not climb.ended:
                with climb.rung("quality"):
                    climb.learn(self.judge.quality(network, "validation"))


def failed(record: Record, error: Exception) -> Record:
    """The record of a candidate that could not be evaluated; faults of nasc or a library come with their traceback."""
    if isinstance(error, NascError):
        return replace(record, state="failed", reason=str(error))
    trace = "".join(traceback.format_exception(error))
    return replace(record, state="failed", reason=f"{type(error).__name__}: {error}", trace=trace)


class _Climb:
    """One candidate on its way up; keeps its record."""

    def __init__(self, ladder: Ladder, record: Record, known: Sequence[Record], entered: Callable[[str], None]) -> None:
        self.ladder = ladder
        self.record = record
        self.known = [r for r in known if r.paid]
        self.entered = entered
        self.ended = False

    @contextmanager
    def rung(self, name: str) -> Generator[None]:
        """Note what a rung costs, also where it fails."""
        self.entered(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.record.rungs.get(name, 0.0) + time.perf_counter() - start
            self.record = replace(self.record, rungs={**self.record.rungs, name: spent})

    def end(self, reason: str) -> None:
        """Go no further."""
        self.ended = True
        self.record = replace(self.record, state="pruned", reason=reason)

    def learn(self, figures: Figures, *, final: bool = True) -> None:
        """Take in new figures and see whether a constraint is missed; those that training will change do not count."""
        self.record = replace(self.record, figures={**self.record.figures, **figures})
        if not final:
            return
        violations = dict(self.record.violations)
        for constraint in self.ladder.constraints:
            name = constraint.metric.name
            if name not in figures:
                continue
            missed = constraint.violation(figures[name], self.ladder.baseline[name], self.ladder.confidence)
            violations[str(constraint)] = missed
            if missed > 0 and not self.ended:
                self.end(f"{constraint}: {value_text(constraint.metric, figures[name].value)}")
        self.record = replace(self.record, violations=violations)

    def foresee(self, network: Any, forecast: Forecast) -> None:
        """Note the latency to expect, and end what would miss a constraint on it for sure."""
        figure = forecast.foresee(self.ladder.judge.work(network))
        self.record = replace(self.record, forecast=figure)
        if figure is not None:
            ladder = self.ladder
            reason = missed(ladder.constraints, figure, ladder.baseline["latency"], ladder.confidence)
            if reason is not None:
                self.end(reason)

    def compare(self) -> None:
        """End what is beaten already if its latency is what it is expected to be; not where training comes later."""
        if self.ended or self.record.forecast is None or self.ladder.epochs:
            return
        ladder = self.ladder
        baseline = ladder.baseline["latency"]
        reason = beaten(self.record, self.record.forecast, self.known, ladder.objectives, baseline, ladder.confidence)
        if reason is not None:
            self.end(reason)

    def time(self, network: Any) -> None:
        """Measure on the target, or take over what was measured of a network that runs the same kernels."""
        key, wanted = self.ladder.judge.timing_key(network), self.ladder.measured
        same = next((r for r in self.known if r.timing == key and all(m in r.figures for m in wanted)), None)
        self.record = replace(self.record, timing=key)
        if same is None:
            self.learn(self.ladder.judge.measure(network, wanted))
            self.teach(network)
            return
        note = f"taken over from trial {same.number}, which runs the same kernels"
        shared = {m: same.figures[m] for m in wanted}
        self.learn({m: replace(f, notes=(*(n for n in f.notes if n != note), note)) for m, f in shared.items()})

    def teach(self, network: Any) -> None:
        """Let the forecast learn from a candidate that was measured, op by op."""
        forecast, latency = self.ladder.forecast, self.record.figures.get("latency")
        if forecast is None or latency is None:
            return
        judge = self.ladder.judge
        forecast.learn(judge.work(network), judge.spent(network), latency)

    def report(self, epoch: int, figures: Figures) -> bool:
        """Whether to stop training: after as many epochs another network of no greater cost was clearly better.

        Works for several objectives, since costs do not change in training and quality is compared at equal epochs.
        """
        quality = next((o for o in self.ladder.objectives if o.metric.is_quality), None)
        if quality is None or quality.metric.name not in figures:
            return False
        now = figures[quality.metric.name]
        self.record = replace(self.record, curve=(*self.record.curve, now))
        for other in self.known:
            if len(other.curve) < epoch or other.state != "complete":
                continue
            if clearly_better(other.curve[epoch - 1], now, quality.direction, self.ladder.confidence) and not any(
                self._cheaper_than(other, o) for o in self.ladder.objectives if not o.metric.is_quality
            ):
                self.end(f"training stopped after epoch {epoch}: trial {other.number} was better, and costs no more")
                return True
        return False

    def _cheaper_than(self, other: Record, objective: Objective) -> bool:
        name = objective.metric.name
        mine: Figure | None = self.record.figures.get(name)
        theirs = other.figures.get(name)
        if mine is None or theirs is None:
            return True
        return mine.value < theirs.value if objective.direction == "min" else mine.value > theirs.value
