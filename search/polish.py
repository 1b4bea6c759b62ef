"""Train the finalists: the cheapest candidates of the front, which lose too much as they are, but less when trained.

A search without training finds out how much each choice of bits hurts; a few epochs of quantization-aware training give
most of it back (Jacob et al., CVPR 2018, section 3). So they are spent where they decide: on the candidates that cost
less than the one that would win untrained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .evaluate import Ladder, failed
from .front import Rule
from .observer import Observer
from .protocols import Problem
from .records import TRAINED, Record
from .study import OpenStudy

FINALISTS = 8
"""How many candidates are trained at most."""


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
    """

    problem: Problem
    study: OpenStudy
    ladder: Ladder
    rule: Rule
    observer: Observer
    epochs: int

    def run(self, feasible: Sequence[Record]) -> list[Record]:
        """The finalists after training, those that still keep the constraints."""
        if not self.epochs or self.ladder.epochs or not self.problem.builder.trainable or self.rule.quality is None:
            return []
        chosen = self.finalists(feasible)
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
        name = f"trained:{self.epochs}:{record.pipeline}"
        if (kept := self.study.recall(name)) is not None:
            return Record.of(kept)
        self.observer.stage(f"training finalist {number} of {of} (trial {record.number}) for {self.epochs} epochs")
        start = time.perf_counter()
        told = replace(
            record,
            number=TRAINED + record.number,
            origin=f"trial {record.number}, trained for {self.epochs} epochs",
            epochs=self.epochs,
            duplicate_of=None,
        )
        builder = self.problem.builder
        try:
            network = builder.finish(builder.structure(record.pipeline), record.pipeline)
            network = builder.train(network, self.epochs, lambda epoch, figures: False)
            figures = {**record.figures, **self.problem.judge.quality(network, "validation")}
        except Exception as error:  # as in Ladder.climb: a candidate that fails is a result
            told = failed(told, error)
        else:
            missed = {
                str(c): c.violation(figures[c.metric.name], self.ladder.baseline[c.metric.name], self.ladder.confidence)
                for c in self.ladder.constraints
            }
            told = replace(told, figures=figures, violations=missed)
        told = replace(told, rungs={"train": time.perf_counter() - start})
        self.study.remember(name, told.as_dict())
        return told
