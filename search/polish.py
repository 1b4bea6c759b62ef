"""Train the finalists: the cheapest candidates of the front, which lose too much as they are, but less when trained.

A search without training finds out how much each choice of bits hurts; a few epochs of quantization-aware training give
most of it back (Jacob et al., CVPR 2018, section 3). So they are spent where they decide: on the candidates that cost
less than the one that would win untrained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..compiler.training_settings import epochs_text
from .evaluate import Ladder, failed
from .figures import Figures
from .front import Rule
from .generations import Generations, evaluated
from .observer import Observer
from .protocols import Builder, Problem
from .records import TRAINED, Record
from .study import OpenStudy

FINALISTS = 8
"""How many candidates are trained at most."""
FOLDER = "finalists"
"""Where in the output folder the networks lie that were trained as one: alone, training would give other weights."""


@dataclass
class Polish:
    """The training of finalists. What it finds out is kept with the study, so that nothing is paid for twice.

    Args:
        problem: makes, trains and judges candidates.
        study: where the outcome is kept.
        ladder: knows the baseline and the constraints.
        rule: by which the winner will be chosen.
        observer: is told.
        epochs: of training, from the candidate's own weights; 0: none is trained.
        generations: candidates that are bred and trained before the finalists are chosen from them; None: there are
            none, and the finalists are trials.
        bred: the candidates of all generations, once they are known.
    """

    problem: Problem
    study: OpenStudy
    ladder: Ladder
    rule: Rule
    observer: Observer
    epochs: int
    generations: Generations | None = None
    bred: tuple[Record, ...] = ()

    def run(self, feasible: Sequence[Record]) -> list[Record]:
        """The finalists after training, those that still keep the constraints."""
        if not self.epochs or self.ladder.epochs or not self.problem.builder.trainable or self.rule.quality is None:
            return []
        chosen = self.finalists(feasible)
        if self.generations is not None:
            self.bred = tuple(self.generations.run(chosen))
            return [record for record in self.together(self.generations.finalists(self.bred)) if record.feasible]
        trained = [self.trained(record, i, len(chosen)) for i, record in enumerate(chosen, 1)]
        return [record for record in trained if record.feasible]

    def finalists(self, feasible: Sequence[Record]) -> list[Record]:
        """Candidates of the front that cost no more than the one that would win untrained, from the cheapest up."""
        quality = self.rule.quality
        assert quality is not None
        baseline = self.ladder.baseline
        sign = 1.0 if quality.direction == "max" else -1.0
        costs = {r.number: tuple(r.figures[m.name].value for m in self.rule.decide) for r in feasible}
        untrained = [r for r in self.rule.ranked(feasible, baseline, strict=True) if isinstance(r, Record)]
        limit = costs[untrained[0].number] if untrained else None
        stairs: list[Record] = []
        for record in sorted(feasible, key=lambda r: (costs[r.number], r.number)):
            if limit is not None and costs[record.number] > limit:
                break
            value = sign * record.figures[quality.name].value
            if not stairs or value > sign * stairs[-1].figures[quality.name].value:
                stairs.append(record)
        if len(stairs) <= FINALISTS:
            return stairs
        return [stairs[round(i * (len(stairs) - 1) / (FINALISTS - 1))] for i in range(FINALISTS)]

    def trained(self, record: Record, number: int, of: int) -> Record:
        """One finalist after training, as a record of its own."""
        told = self.to_train(record)
        name = f"trained:{told.pipeline}"
        if (kept := self.study.recall(name)) is not None:
            return Record.of(kept)
        self.observer.stage(
            f"training finalist {number} of {of} (trial {record.number}) for {epochs_text(self.epochs)}"
        )
        start = time.perf_counter()
        try:
            network = made(self.problem.builder, told.pipeline)
            figures = {**record.figures, **self.problem.judge.quality(network, "validation")}
        except Exception as error:  # as in Ladder.climb: a candidate that fails is a result
            told = failed(told, error)
        else:
            told = replace(told, figures=figures, violations=self.violations(figures))
        told = replace(told, rungs={"train": time.perf_counter() - start})
        self.study.remember(name, told.as_dict())
        return told

    def together(self, chosen: Sequence[Record]) -> list[Record]:
        """The finalists of the generations after training, as records of their own, and their networks on disk."""
        name = f"trained together: {self.epochs}: {[record.number for record in chosen]}"
        kept = self.study.recall(name)
        records = [self.to_train(record) for record in chosen]
        if kept is not None:
            told = [Record.of(entry) for entry in kept]
            if all(self.path(record).exists() for record in told if record.state == "complete"):
                return told
        self.observer.stage(f"training {len(chosen)} finalists for {epochs_text(self.epochs)}")
        start = time.perf_counter()
        found = evaluated(self.problem, records, self.violations)
        spent = (time.perf_counter() - start) / max(1, len(records))
        told = [replace(record, rungs={"train": spent}) for record, _ in found]
        for record, network in found:
            if network is not None:
                self.problem.builder.keep(network, self.path(record))
        self.study.remember(name, [record.as_dict() for record in told])
        return told

    def to_train(self, record: Record) -> Record:
        """What a candidate is called once it is trained."""
        return replace(
            record,
            number=TRAINED + record.number,
            origin=f"trial {record.label}, trained for {epochs_text(self.epochs)}",
            pipeline=self.problem.builder.trained(record.pipeline, self.epochs),
            epochs=self.epochs,
            duplicate_of=None,
        )

    def violations(self, figures: Figures) -> dict[str, float]:
        """By how much each constraint is missed."""
        ladder = self.ladder
        return {
            str(c): c.violation(figures[c.metric.name], ladder.baseline[c.metric.name], ladder.confidence)
            for c in ladder.constraints
        }

    def path(self, record: Record) -> Path:
        """Where a finalist that was trained with others lies."""
        return self.study.output / FOLDER / f"{record.label.replace(' ', '-')}.nasc"

    def network(self, record: Record) -> Any:
        """A candidate's network, made again from its text, or read where it was trained with others."""
        builder = self.problem.builder
        if record.bred:
            return builder.load(self.path(record), record.pipeline)
        return made(builder, record.pipeline)


def made(builder: Builder[Any], pipeline: str) -> Any:
    """The network of a pipeline, trained if it asks for that."""
    return builder.train(builder.finish(builder.structure(pipeline), pipeline), pipeline)
