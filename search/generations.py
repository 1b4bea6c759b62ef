"""Search with training: generations of candidates, each bred from the front so far and trained for a few epochs.

Untrained, a network in two or three bits tells nothing of what training makes of it. So after the trials, which are
cheap, candidates are trained, many at once. A generation is chosen at costs that are spread over the part of the front
that matters, from some hundred variations of the front's members, by a surrogate that guesses how much each would hurt.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..compiler.training_settings import epochs_text
from ..ir import NascError
from .config import FineTuning
from .evaluate import Ladder, failed
from .figures import Figures, Metric
from .front import Rule
from .observer import Observer
from .protocols import Problem
from .records import BRED, Record
from .smooth import line
from .space import Assignment, Knob, Space
from .strategies import seed_of
from .study import OpenStudy
from .surrogate import Surrogate

FOUNDERS = ((6, 6), (5, 5), (4, 4), (4, 3), (3, 4), (3, 3), (2, 3), (2, 2))
"""Bits of weights and activations that the first generation has everywhere."""
SHARES = (1.0, 0.6)
"""Shares of all widths that it has them at."""
VARIATIONS = 240
"""Variations of the front among which a generation is chosen."""
FAR = 0.2
"""Share of moves that go anywhere; the others go to the next choice of a knob."""
NEAR, NEVER_MIND = 2.5, 0.15
"""The part of the front that matters: where between these shares of the tolerance is lost."""
BAND = 1.25
"""By what factor a candidate may cost less than what it is chosen for."""
BOLD = 1.0
"""Standard deviations that a guess may be lucky by."""


@dataclass(frozen=True)
class Tried:
    """A candidate that was trained.

    Args:
        record: what was told.
        cost: by the metric that decides.
        hurt: how bad it is as all candidates together say; small is good.
    """

    record: Record
    cost: float
    hurt: float


@dataclass
class Generations:
    """The breeding of candidates. What is told is kept with the study, so that no generation is paid for twice.

    Args:
        problem: makes, trains and judges candidates.
        study: where the outcome is kept.
        ladder: knows the baseline and the constraints.
        rule: by which the winner will be chosen.
        observer: is told.
        space: where candidates come from.
        tuning: how many generations, how large, how long trained.
        seed: of variations.
        deadline: when to begin no more generations, on `time.monotonic`; None: never.
    """

    problem: Problem
    study: OpenStudy
    ladder: Ladder
    rule: Rule
    observer: Observer
    space: Space
    tuning: FineTuning
    seed: int
    deadline: float | None = None

    def run(self, parents: Sequence[Record]) -> list[Record]:
        """All candidates that were trained.

        Args:
            parents: the front before training.
        """
        told: list[Record] = []
        for generation in range(self.tuning.generations + 1):
            name = f"generation {generation} of {self.tuning.model_dump_json()}"
            kept = self.study.recall(name)
            if kept is None:
                if self.deadline is not None and time.monotonic() >= self.deadline:
                    self.observer.notice(f"the time is up after {generation} of {self.tuning.generations} generations")
                    break
                chosen = self.founders(parents) if generation == 0 else self.bred(told, generation)
                kept = [record.as_dict() for record in self.trained(chosen, generation, len(told))]
                self.study.remember(name, kept)
            told += [Record.of(entry) for entry in kept]
        return told

    def finalists(self, told: Sequence[Record]) -> list[Record]:
        """Candidates worth a longer training: the front's part that matters, evenly, and those next to it."""
        tried = self.tried(told)
        low, high = self.limits(told, tried)
        found: list[Tried] = []
        wanted = max(1, self.tuning.cohort // 2)
        while tried and len(found) < wanted:
            front = [t for t in stairs(tried) if low / BAND <= t.cost <= high * BAND]
            if not front:
                break
            missing = wanted - len(found)
            found += front if len(front) <= missing else [front[i * len(front) // missing] for i in range(missing)]
            tried = [t for t in tried if all(t.record.number != f.record.number for f in front)]
        return [t.record for t in sorted(found, key=lambda t: t.cost)]

    @cached_property
    def cost(self) -> Metric:
        """What decides among candidates that are good enough, as far as it is counted."""
        return next(m for m in self.rule.decide if m.rung == "static")

    @property
    def quality(self) -> Metric:
        """The quality that must not suffer."""
        assert self.rule.quality is not None
        return self.rule.quality

    def founders(self, parents: Sequence[Record]) -> list[Assignment]:
        """The first generation: the front before training, and equal bits everywhere at some widths."""
        found = [self.own(record) for record in parents]
        for share in SHARES:
            for weights, activations in FOUNDERS:
                found.append(self.space.nearest(lambda k, w=weights, a=activations, s=share: _uniform(k, w, a, s)))
        unique = {self.space.index(a): a for a in found}
        return list(unique.values())

    def own(self, record: Record) -> Assignment:
        """A trial's choices in the space of generations; what it had no choice of stays as it is."""
        whole = self.space.nearest(lambda knob: _uniform(knob, 8, 8, 1.0))
        given = record.assignment
        return {k.name: given[k.name] if given.get(k.name) in k.choices else whole[k.name] for k in self.space.knobs}

    def bred(self, told: Sequence[Record], generation: int) -> list[Assignment]:
        """The next generation, at costs spread over the part of the front that matters."""
        tried = self.tried(told)
        draw = random.Random(seed_of(self.seed, "generation", generation))
        known = {self.space.index(r.assignment) for r in told}
        priced = list(self.priced(self.varied(stairs(tried), draw), known))
        if not priced:
            return []
        model = self.model(told)
        expected, spread = model.guess([self.place(a) for a, _ in priced])
        hope = {self.space.index(a): float(e - BOLD * s) for (a, _), e, s in zip(priced, expected, spread, strict=True)}
        low, high = self.limits(told, tried)
        chosen: list[Assignment] = []
        for i in range(self.tuning.cohort):
            share = (i + draw.random()) / self.tuning.cohort
            aim = low * (high / low) ** share
            left = [(a, c) for a, c in priced if a not in chosen]
            if not left:
                break
            near = [(a, c) for a, c in left if aim / BAND <= c <= aim]
            if near:
                chosen.append(min(near, key=lambda entry: hope[self.space.index(entry[0])])[0])
            else:
                chosen.append(min(left, key=lambda entry: abs(math.log(entry[1] / aim)))[0])
        return chosen

    def varied(self, front: Sequence[Tried], draw: random.Random) -> Iterator[Assignment]:
        """Variations of the front's members: a few knobs moved, mostly by one choice."""
        for _ in range(VARIATIONS):
            found = dict(draw.choice(front).record.assignment)
            for _ in range(1 + min(int(draw.expovariate(0.7)), 4)):
                knob = draw.choice(self.space.free)
                at, last = knob.choices.index(found[knob.name]), len(knob.choices) - 1
                to = draw.randint(0, last) if draw.random() < FAR else min(max(at + draw.choice((-1, 1)), 0), last)
                found[knob.name] = knob.choices[to]
            yield found

    def priced(self, candidates: Iterator[Assignment], known: set[int]) -> Iterator[tuple[Assignment, float]]:
        """The candidates that are new and keep what can be counted, with what they cost."""
        builder, judge = self.problem.builder, self.problem.judge
        seen = set(known)
        for assignment in candidates:
            index = self.space.index(assignment)
            if index in seen:
                continue
            seen.add(index)
            try:
                figures = judge.static(builder.structure(self.space.pipeline(assignment)))
            except NascError:
                continue
            if all(violation <= 0 for violation in self.violations(figures).values()):
                yield assignment, figures[self.cost.name].value

    def trained(self, chosen: Sequence[Assignment], generation: int, before: int) -> list[Record]:
        """A generation after training, as records."""
        epochs = self.tuning.generation_epochs
        self.observer.stage(f"generation {generation}: training {len(chosen)} candidates for {epochs_text(epochs)}")
        start = time.perf_counter()
        texts = [self.problem.builder.trained(self.space.pipeline(a), epochs) for a in chosen]
        records = [
            Record(BRED + before + i, "failed", f"generation {generation}", text, a, epochs=epochs)
            for i, (text, a) in enumerate(zip(texts, chosen, strict=True))
        ]
        found = evaluated(self.problem, records, self.violations)
        spent = (time.perf_counter() - start) / max(1, len(records))
        return [replace(record, rungs={"train": spent}) for record, _ in found]

    def violations(self, figures: Figures) -> dict[str, float]:
        """By how much each constraint is missed whose metric is known."""
        ladder = self.ladder
        return {
            str(c): c.violation(figures[c.metric.name], ladder.baseline[c.metric.name], ladder.confidence)
            for c in ladder.constraints
            if c.metric.name in figures and not (c.metric.is_quality and self.quality == c.metric)
        }

    def place(self, assignment: Assignment) -> list[float]:
        """The places of the free knobs' choices, between 0 and 1."""
        return [k.choices.index(assignment[k.name]) / (len(k.choices) - 1) for k in self.space.free]

    def model(self, told: Sequence[Record]) -> Surrogate:
        """The surrogate for the logarithm of what candidates hurt."""
        known = [r for r in told if r.state == "complete"]
        return Surrogate.fitted([self.place(r.assignment) for r in known], [math.log(self.hurt(r)) for r in known])

    def tried(self, told: Sequence[Record]) -> list[Tried]:
        """What was trained, with what it hurts as the surrogate smooths it.

        Raises:
            NascError: no candidate of the first generation could be trained.
        """
        known = [r for r in told if r.state == "complete"]
        if not known:
            last = told[-1].reason if told else "there was none"
            raise NascError(f"no candidate of the first generation could be trained: {last}")
        expected, _ = self.model(told).guess([self.place(r.assignment) for r in known])
        return [
            Tried(r, r.figures[self.cost.name].value, math.exp(float(e)))
            for r, e in zip(known, expected, strict=True)
            if r.feasible
        ]

    def hurt(self, record: Record) -> float:
        """How bad a candidate is: what its loss exceeds the source network's by, else the quality it lacks.

        It is positive: differences that chance explains count as half of their error.
        """
        figure = record.figures.get("loss", record.figures[self.quality.name])
        if self.quality.dimension == "decibel":
            return 10 ** (-record.figures[self.quality.name].value / 10)
        name = "loss" if "loss" in record.figures else self.quality.name
        base = self.ladder.baseline[name].value
        worse = figure.value - base if figure.difference is None else figure.difference
        worse = worse if name == "loss" or self.quality.direction == "min" else -worse
        return max(worse, 0.5 * (figure.error or 0.0), 1e-4 * abs(base), 1e-12)

    def limits(self, told: Sequence[Record], tried: Sequence[Tried]) -> tuple[float, float]:
        """The least and the largest cost that matter: between them the front loses what the tolerance allows."""
        front = stairs(tried)
        most, least = self.hurt_at(NEAR, told), self.hurt_at(NEVER_MIND, told)
        low = min((t.cost for t in front if t.hurt <= most), default=front[-1].cost)
        high = min((t.cost for t in front if t.hurt <= least), default=front[-1].cost)
        return low, max(high, low * BAND)

    def hurt_at(self, level: float, told: Sequence[Record]) -> float:
        """The hurt at which so much of the tolerance is lost."""
        assert self.rule.tolerance is not None
        base = self.ladder.baseline[self.quality.name].value
        bound = self.rule.tolerance.bound.at(base)
        if self.quality.dimension == "decibel":
            return level * 10 ** (-bound / 10)
        lost = level * abs(base - bound)
        if self.quality.name == "loss" or not any("loss" in r.figures for r in told):
            return lost
        fitted = line(told, self.quality.name)
        return lost / abs(fitted.slope) if fitted is not None and fitted.slope else lost


def evaluated(problem: Problem, records: Sequence[Record], violations: Any) -> list[tuple[Record, Any | None]]:
    """Candidates after the training that they all ask for, each with its network; without one where that failed.

    Args:
        problem: makes, trains and judges them.
        records: the candidates.
        violations: takes figures, gives by how much each constraint is missed.
    """
    builder, judge = problem.builder, problem.judge
    made: list[Any] = []
    for record in records:
        try:
            made.append(builder.finish(builder.structure(record.pipeline), record.pipeline))
        except Exception as error:  # as in Ladder.climb: a candidate that fails is a result
            made.append(error)
    ready = [at for at, network in enumerate(made) if not isinstance(network, Exception)]
    trained = builder.train_all([made[at] for at in ready], [records[at].pipeline for at in ready])
    for at, network in zip(ready, trained, strict=True):
        made[at] = network
    found: list[tuple[Record, Any | None]] = []
    for record, network in zip(records, made, strict=True):
        if isinstance(network, Exception):
            found.append((failed(record, network), None))
            continue
        try:
            figures = {**record.figures, **judge.static(network), **judge.quality(network, "validation")}
        except Exception as error:  # as above
            found.append((failed(record, error), None))
            continue
        told = replace(record, state="complete", figures=figures, violations=violations(figures), reason=None)
        found.append((told, network))
    return found


def stairs(tried: Sequence[Tried]) -> list[Tried]:
    """The candidates that nothing both costs and hurts less than, from the cheapest up."""
    found: list[Tried] = []
    for one in sorted(tried, key=lambda t: (t.cost, t.hurt)):
        if not found or one.hurt < found[-1].hurt:
            found.append(one)
    return found


def _uniform(knob: Knob, weights: int, activations: int, share: float) -> int | None:
    """Bits or size of a knob in a network that has the same bits everywhere; None for the largest choice."""
    match knob.part:
        case "weights":
            return weights
        case "activations":
            return activations
        case "biases" | "block":
            return None
        case "width":
            return max(1, round(share * int(knob.defaults[0])))
