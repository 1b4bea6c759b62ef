"""The loop: propose, recognise, evaluate, tell."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..ir.errors import NascError
from .allocation import Proposals
from .evaluate import Ladder, failed
from .objectives import values
from .observer import Observer
from .records import Record
from .seeds import Plan
from .space import Assignment, Space
from .strategies import PATIENCE, assignment_of, distributions, parameters, sampler, unseen
from .study import OpenStudy, Running

FAILURES = 8
"""So many failures in a row, or nothing but failures among the first ones, are a fault and no bad luck."""
FIRST_FAILURES = 3
SETTLED = 100
"""So many known candidates in a row, untried configurations among them, end a search: its space holds few networks."""


@dataclass
class Trials:
    """The trials of one search.

    Args:
        study: where they are kept.
        space: where candidates come from.
        ladder: how they are evaluated.
        strategy: who proposes them.
        seed: of all that is random.
        trials: how many candidates may be paid for.
        plan: what is tried before the strategy is asked; None: nothing.
        observer: is told.
        deadline: when to stop, on `time.monotonic`; None: never.
        proposals: who proposes in place of Optuna (the strategy `ilp`); None: nobody.
    """

    study: OpenStudy
    space: Space
    ladder: Ladder
    strategy: str
    seed: int
    trials: int
    plan: Plan | None
    observer: Observer
    deadline: float | None = None
    proposals: Proposals | None = None
    tried: set[int] = field(default_factory=set[int])

    def __post_init__(self) -> None:
        self.tried = {self.space.index(r.assignment) for r in self.study.records}

    @property
    def paid(self) -> int:
        """How many candidates have been paid for."""
        return sum(r.paid for r in self.study.records)

    def run(self) -> None:
        """Go on until as many candidates are paid for as asked, the space holds no other networks, or time is up.

        Raises:
            NascError: candidates fail one after the other.
            KeyboardInterrupt: passed on, after the running trial was ended.
        """
        while self.paid < self.trials:
            if len(self.tried) >= self.space.size:
                self.observer.notice(
                    f"all {self.space.size:,} configurations of the space have been tried; the search ends"
                )
                return
            if self._repeats() >= SETTLED:
                self.observer.notice(
                    f"{SETTLED} configurations in a row gave networks that are known already; the search ends after "
                    f"{self.paid} of {self.trials} candidates"
                )
                return
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.observer.notice(f"the time is up after {self.paid} of {self.trials} candidates")
                return
            self._one()
            self._check_failures()

    def _one(self) -> None:
        running = self._propose()
        try:
            record, asked = self._evaluated(running)
        except BaseException:
            self.study.interrupt(running)
            raise
        self.tried.add(self.space.index(record.assignment))
        self.study.tell(running, record, asked)
        if self.ladder.forecast is not None and record.paid:
            self.ladder.forecast.told(record)
        self.observer.trial_finished(record, self.paid)

    def _propose(self) -> Running:
        """The next trial: what was interrupted, then the seeds, then the strategy, then whatever is left."""
        told = len(self.study.records)
        how = sampler(self.strategy, self.space, self.seed, told)
        known = distributions(self.space)

        def ask(origin: str, assignment: Assignment | None = None) -> Running:
            wanted = None if assignment is None else parameters(self.space, assignment)
            return self.study.ask(how, known, origin, wanted)

        baseline = self.ladder.baseline
        if self.plan is not None and (
            seed := self.plan.next(self.study.records, baseline[self.plan.quality.name].value)
        ):
            return ask(seed.origin, seed.assignment)
        if (stopped := self._interrupted(known)) is not None:
            return ask(self.strategy, stopped)
        if self.proposals is not None and (found := self.proposals.next(self.study.records, self.tried)) is not None:
            return ask(self.strategy, found)
        if self._repeats() < PATIENCE:
            return ask(self.strategy)
        self.observer.notice(
            f"{self.strategy} proposed {PATIENCE} known candidates in a row; picking one that was not tried"
        )
        return ask("unseen", next(unseen(self.space, self.tried, self.seed, told)))

    def _interrupted(self, known: Mapping[str, Any]) -> Assignment | None:
        """A proposal of the strategy that an earlier process took with it."""
        while self.study.interrupted:
            stopped, origin = self.study.interrupted.pop(0)
            if origin == self.strategy and stopped.keys() == known.keys():
                return assignment_of(self.space, stopped)
        return None

    def _repeats(self) -> int:
        """How many of the last trials were known candidates."""
        count = 0
        for record in reversed(self.study.records):
            if record.paid:
                break
            count += 1
        return count

    def _evaluated(self, running: Running) -> tuple[Record, list[float] | None]:
        assignment = assignment_of(self.space, running.parameters)
        pipeline = self.ladder.text(self.space.pipeline(assignment))
        record = Record(running.number, "failed", running.origin, pipeline, assignment)
        self.observer.trial_started(running.number, running.origin, pipeline)
        before = next((r for r in self.study.records if r.pipeline == pipeline), None)
        if before is None:
            start = time.perf_counter()
            try:
                network = self.ladder.builder.structure(pipeline)
                record = replace(record, key=network.key, rungs={"build": time.perf_counter() - start})
            except Exception as error:  # as in Ladder.climb
                return failed(record, error), None
            before = next((r for r in self.study.records if r.paid and r.key == record.key), None)
            if before is None:
                record = self.ladder.climb(
                    record, network, self.study.records, lambda name: self.observer.rung(running.number, name)
                )
        if before is not None:
            record = before.repeated(running.number, running.origin, pipeline, assignment)
        if record.state != "complete":
            return record, None
        return record, values(self.ladder.objectives, record.figures, self.ladder.baseline)

    def _check_failures(self) -> None:
        """Stop where failing is the rule.

        Raises:
            NascError: it is; with the last reason.
        """
        paid = [r for r in self.study.records if r.paid]
        if paid[-1:] and paid[-1].state != "failed":
            return
        last = paid[-FAILURES:]
        every = len(paid) >= FIRST_FAILURES and all(r.state == "failed" for r in paid)
        if every or (len(last) == FAILURES and all(r.state == "failed" for r in last)):
            raise NascError(
                f"{len(paid) if every else FAILURES} candidates in a row failed; the last one because of: "
                f"{paid[-1].reason}\n{paid[-1].trace or ''}".rstrip(),
                mend=f"The candidate was: {paid[-1].pipeline}",
            )
