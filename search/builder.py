"""Make networks of candidates: the compiler's side of a search over one task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..compiler.cohort import Cohort, cohorts
from ..compiler.data import Rows
from ..compiler.execution import positional
from ..compiler.frontend.task import Task
from ..compiler.network import Network
from ..compiler.passes import Context, Train
from ..compiler.passes.base import Batch
from ..compiler.passes.train import SLOWER
from ..compiler.pipeline import Pipeline, parse_pipeline
from ..compiler.training import Epoch
from ..compiler.training_settings import TrainingSettings
from ..ir import Graph, NascError
from .config import FineTuning
from .figures import Figures
from .protocols import Report

SHARED = "cleanup | fold-batch-norm | merge-linear"
"""The passes that every candidate goes through: the space is made of the layers that they leave."""
HELD_OUT = 5
"""One in so many training samples is kept from the candidates' training, to confirm the finalists on."""
MOST_HELD_OUT = 10_000
MOST_CONFIRMING = 50_000
"""Training samples that finalists which are not trained are confirmed on, at most."""
NOTHING = Pipeline(())


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network on its way from a pipeline to a target.

    Args:
        network: trainable: all passes but those that suit it to the target.
        deployable: what runs on the target.
        rest: the passes that need data and have not run yet.
        trained: whether its weights have seen the task's training samples beyond what the source network has.
    """

    network: Network
    deployable: Network
    rest: Pipeline = NOTHING
    trained: bool = False

    @property
    def graph(self) -> Graph:
        """What costs are counted of."""
        return self.deployable.graph

    @property
    def key(self) -> str:
        """Equal keys compute the same, once the same `rest` has run."""
        return self.deployable.key


@dataclass(frozen=True, eq=False)
class TaskBuilder:
    """Candidates of one task; implements `Builder`.

    Args:
        task: trained.
        network: the lowered source network.
        seed: for passes that draw at random, and for training.
        assess: the quality of a run on validation samples.
        tuning: training of candidates.
    """

    task: Task
    network: Network
    seed: int
    assess: Callable[[Callable[..., Any]], Figures]
    tuning: FineTuning = field(default_factory=FineTuning)

    @property
    def digest(self) -> str:
        """See `Builder.digest`."""
        splits = [f"{split}={self.task.data_digest(split)}" for split in sorted(self.task.splits) if split != "test"]
        lines = [self.network.key, *splits, str(self.task.training), self.training(1).text(complete=True)]
        return hashlib.sha256("\n".join([*lines, str(self.seed)]).encode()).hexdigest()

    @property
    def graph(self) -> Graph:
        """See `Builder.graph`."""
        return self._shared.graph

    @cached_property
    def _shared(self) -> Network:
        return self.network.apply(SHARED)

    @cached_property
    def context(self) -> Context:
        """What the candidates' passes may look at; remembers what depends on the source network and the data only."""
        return Context(data=self._calibration, seed=self.seed, supervision=self.task.supervision, source=self.network)

    @property
    def teachable(self) -> bool:
        """See `Builder.teachable`."""
        return "train" in self.task.splits

    @property
    def trainable(self) -> bool:
        """See `Builder.trainable`."""
        return self.task.training is not None and self.teachable

    def source(self) -> Candidate:
        """See `Builder.source`."""
        return Candidate(self.network, self.network)

    def structure(self, pipeline: str) -> Candidate:
        """See `Builder.structure`."""
        first, rest = parse_pipeline(pipeline).split()
        made = first.run(self.network, self.context)
        return Candidate(made, made, rest)

    def finish(self, network: Candidate, pipeline: str) -> Candidate:
        """See `Builder.finish`."""
        body, _, tail = _parts(network.rest)
        made = body.run(network.network, self.context)
        return Candidate(made, tail.run(made, self.context), tail)

    def trained(self, pipeline: str, epochs: int) -> str:
        """See `Builder.trained`."""
        body, _, tail = _parts(parse_pipeline(pipeline))
        return str(body + Pipeline((self.training(epochs),)) + tail)

    def train(self, network: Candidate, pipeline: str, report: Report | None = None) -> Candidate:
        """See `Builder.train`."""
        _, training, _ = _parts(parse_pipeline(pipeline))
        if training is None:
            return network
        module = network.network.module(learn_steps=training.learn_steps)

        def after(epoch: Epoch) -> bool:
            return report is not None and report(epoch.number, self.assess(evaluating(module)))

        training.fit(module, self.context, stop=after)
        return self._deployable(network.network.with_trained(module), network.rest)

    def train_all(self, networks: Sequence[Candidate], pipelines: Sequence[str]) -> list[Candidate | NascError]:
        """See `Builder.train_all`: networks of like structure are trained as one (`compiler.cohort`)."""
        found: dict[int, Candidate | NascError] = {}
        for together in cohorts([n.network for n in networks], self.tuning.cohort):
            members, texts = [networks[at] for at in together], [pipelines[at] for at in together]
            found.update(zip(together, self._train_cohort(members, texts[0]), strict=True))
        return [found[at] for at in range(len(networks))]

    def _train_one(self, network: Candidate, pipeline: str) -> Candidate | NascError:
        try:
            return self.train(network, pipeline)
        except NascError as error:  # of one among several: the others go on
            return error

    def _train_cohort(self, members: Sequence[Candidate], pipeline: str) -> list[Candidate | NascError]:
        """Candidates that ask for the same training, trained as one."""
        if len(members) == 1:
            return [self._train_one(members[0], pipeline)]
        _, training, _ = _parts(parse_pipeline(pipeline))
        assert training is not None
        module = Cohort([m.network for m in members], learn_steps=training.learn_steps)
        training.fit(module, self.context, together=True)
        diverged = NascError(f"{training} diverged", mend="Lower training.learning_rate.")
        made = zip(members, module.networks(), module.finite(), strict=True)
        return [self._deployable(network, member.rest) if finite else diverged for member, network, finite in made]

    def load(self, path: Path, pipeline: str) -> Candidate:
        """See `Builder.load`."""
        _, _, tail = _parts(parse_pipeline(pipeline))
        return self._deployable(Network.load(path), tail)

    def _deployable(self, made: Network, tail: Pipeline) -> Candidate:
        """A trained network, with what suits it to the target."""
        return Candidate(made, tail.run(made, self.context), tail, trained=True)

    def keep(self, network: Candidate, path: Path) -> None:
        """See `Builder.keep`."""
        network.network.save(path)

    def save(self, network: Candidate, path: Path) -> None:
        """See `Builder.save`."""
        network.deployable.save(path)

    def training(self, epochs: int) -> Train:
        """How candidates are trained: as the settings say, on training data without those that confirm the finalists.

        For some epochs from near the goal a lower learning rate does; to find its way to few bits, with generations, a
        network needs the model file's own.
        """
        own, tuning = self.task.training or TrainingSettings(), self.tuning
        data = self.task.data("train")
        held_out = self._held_out(data) if isinstance(data, Rows) else 0
        return Train(
            epochs,
            tuning.learning_rate or own.learning_rate * (1.0 if tuning.generations else SLOWER),
            tuning.batch_size or own.batch_size,
            tuning.distillation,
            tuning.learn_steps,
            len(data) - held_out if data is not None and held_out else None,
        )

    def confirmation(self, trained: bool) -> Rows | None:
        """Training samples that a candidate has not been trained on; None where there are none to spare.

        The source network has seen them; see `TaskJudge.splits` on when they still tell something.

        Args:
            trained: whether the candidate was trained at all; if not, all training samples are new to its rounding.
        """
        data = self.task.data("train")
        if not isinstance(data, Rows) or data.y is None:
            return None
        count = self._held_out(data) if trained else min(len(data), MOST_CONFIRMING)
        if not count:
            return None
        x, y = data.take(slice(len(data) - count, None))
        return Rows(x, y)

    @staticmethod
    def _held_out(data: Rows) -> int:
        return min(len(data) // HELD_OUT, MOST_HELD_OUT)

    def _calibration(self) -> Iterable[Batch]:
        for inputs in self.task.calibration_batches(samples=4096):
            yield positional(inputs, self.network.graph)


def _parts(pipeline: Pipeline) -> tuple[Pipeline, Train | None, Pipeline]:
    """The passes that make a network, its training if there is one, and the `legalize` behind them."""
    at = len(pipeline.passes)
    while at and pipeline.passes[at - 1].name == "legalize":
        at -= 1
    body, tail = pipeline.passes[:at], Pipeline(pipeline.passes[at:])
    if body and isinstance(training := body[-1], Train):
        return Pipeline(body[:-1]), training, tail
    return Pipeline(body), None, tail


def evaluating(module: nn.Module) -> Callable[..., Any]:
    """The module as a run in evaluation mode, whatever mode it is in."""

    def run(*args: Tensor, **kwargs: Tensor) -> Any:
        was = module.training
        module.eval()
        try:
            with torch.no_grad():
                return module(*args, **kwargs)
        finally:
            module.train(was)

    return run
