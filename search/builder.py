"""Make networks of candidates: the compiler's side of a search over one task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..compiler.cohort import Cohort, cohorts
from ..compiler.data import Inputs, Rows
from ..compiler.distillation import Teacher
from ..compiler.execution import InputError
from ..compiler.frontend.task import Task
from ..compiler.network import Network
from ..compiler.passes import Context
from ..compiler.passes.base import Batch
from ..compiler.pipeline import Pipeline, parse_pipeline
from ..compiler.training import Epoch, train
from ..compiler.training_settings import TrainingSettings
from ..ir import Graph, NascError, UsageError
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
SLOWER = 0.25
"""Learning rate of fine-tuning over that of the model file's training: the weights are near their goal already."""


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
    rest: Pipeline | None = None
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
        lines = [self.network.key, *splits, str(self.training), str(self.seed)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

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
        return Context(data=self._calibration, seed=self.seed)

    @property
    def trainable(self) -> bool:
        """See `Builder.trainable`."""
        return self.task.training is not None and "train" in self.task.splits

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
        rest = network.rest or Pipeline(())
        body, tail = _without_target(rest)
        made = body.run(network.network, self.context)
        return Candidate(made, tail.run(made, self.context), tail)

    def train(self, network: Candidate, epochs: int, report: Report) -> Candidate:
        """See `Builder.train`."""
        module = network.network.module(learn_steps=self.tuning.learn_steps)

        def after(epoch: Epoch) -> bool:
            return report(epoch.number, self.assess(evaluating(module, network.network)))

        self._train(module, network.network, epochs, stop=after)
        return self._trained(network, network.network.with_trained(module))

    def train_all(self, networks: Sequence[Candidate], epochs: int) -> list[Candidate | NascError]:
        """See `Builder.train_all`: networks of like structure are trained as one (`compiler.cohort`)."""
        found: dict[int, Candidate | NascError] = {}
        for together in cohorts([n.network for n in networks], self.tuning.cohort):
            members = [networks[at] for at in together]
            made = self._train_cohort(members, epochs) if len(members) > 1 else [self._train_one(members[0], epochs)]
            found.update(zip(together, made, strict=True))
        return [found[at] for at in range(len(networks))]

    def _train_one(self, network: Candidate, epochs: int) -> Candidate | NascError:
        try:
            return self.train(network, epochs, lambda epoch, figures: False)
        except NascError as error:  # of one among several: the others go on
            return error

    def _train_cohort(self, members: Sequence[Candidate], epochs: int) -> list[Candidate | NascError]:
        module = Cohort([m.network for m in members], learn_steps=self.tuning.learn_steps)
        self._train(module, members[0].network, epochs, together=True)
        made = zip(members, module.networks(), module.finite(), strict=True)
        diverged = NascError(
            f"training for {epochs} epochs diverged (learning rate {self.training.learning_rate:g})",
            mend="Lower training.learning_rate.",
        )
        return [self._trained(member, network) if finite else diverged for member, network, finite in made]

    def _train(
        self,
        module: nn.Module,
        network: Network,
        epochs: int,
        *,
        together: bool = False,
        stop: Callable[[Epoch], bool] | None = None,
    ) -> None:
        """Train a module of a network, or of a cohort of networks that take the same inputs, in place."""
        data = self.trained_on
        if data is None:
            raise UsageError(
                f"{self.task.source} names no train_data, so candidates cannot be trained",
                mend="Write train_data = (x, y) in it, or search without training.",
            )
        settings = replace(self.training, epochs=epochs, seed=self.seed, patience=None)
        teacher = Teacher(runs(self.network), self.tuning.distillation)
        with self.task.importing():
            train(
                _Positional(module, network),
                data,
                settings,
                loss=self.task.loss,
                teacher=teacher,
                together=together,
                stop=stop,
            )

    def _trained(self, network: Candidate, made: Network) -> Candidate:
        tail = network.rest or Pipeline(())
        return Candidate(made, tail.run(made, self.context), tail, trained=True)

    def load(self, path: Path, pipeline: str) -> Candidate:
        """See `Builder.load`."""
        _, tail = _without_target(parse_pipeline(pipeline).split()[1])
        made = Network.load(path)
        return Candidate(made, tail.run(made, self.context), tail, trained=True)

    def keep(self, network: Candidate, path: Path) -> None:
        """See `Builder.keep`."""
        network.network.save(path)

    def save(self, network: Candidate, path: Path) -> None:
        """See `Builder.save`."""
        network.deployable.save(path)

    @cached_property
    def training(self) -> TrainingSettings:
        """How candidates are trained: as the settings say, else as the model file does.

        For some epochs from near the goal a lower learning rate does; to find its way to few bits a network needs the
        model file's own.
        """
        own = self.task.training or TrainingSettings()
        slower = 1.0 if self.tuning.generations else SLOWER
        return replace(
            own,
            learning_rate=self.tuning.learning_rate or own.learning_rate * slower,
            batch_size=self.tuning.batch_size or own.batch_size,
        )

    @cached_property
    def trained_on(self) -> Any:
        """The training data that candidates may train on: without the samples that confirm the finalists."""
        data = self.task.data("train")
        if not isinstance(data, Rows):
            return data
        kept = len(data) - self._held_out(data)
        x, y = data.take(slice(0, kept))
        return Rows(x, y)

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
            yield positional(inputs, self.network)


def _without_target(pipeline: Pipeline) -> tuple[Pipeline, Pipeline]:
    """The passes up to the last that is not `legalize`, and the `legalize` behind them."""
    at = len(pipeline.passes)
    while at and pipeline.passes[at - 1].name == "legalize":
        at -= 1
    return Pipeline(pipeline.passes[:at]), Pipeline(pipeline.passes[at:])


def positional(inputs: Inputs, network: Network) -> Batch:
    """Inputs as the graph takes them, in order.

    Raises:
        InputError: one is missing.
    """
    if isinstance(inputs, Tensor):
        return (inputs,)
    if isinstance(inputs, dict):
        missing = [i.name for i in network.graph.inputs if i.name not in inputs]
        if missing:
            raise InputError(f"the inputs lack {missing[0]!r}; found {', '.join(inputs)}")
        return tuple(inputs[i.name] for i in network.graph.inputs)
    return tuple(inputs)


def runs(network: Network) -> Callable[..., Any]:
    """A network that takes positional or keyword inputs."""

    def run(*args: Tensor, **kwargs: Tensor) -> Any:
        return network(*(positional(dict(kwargs), network) if kwargs else args))

    return run


class _Positional(nn.Module):
    """A module whose forward also takes keyword inputs, by the graph's names."""

    def __init__(self, module: nn.Module, network: Network) -> None:
        super().__init__()
        self.module = module
        self.network = network

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Run the module."""
        return self.module(*(positional(dict(kwargs), self.network) if kwargs else args))


def evaluating(module: nn.Module, network: Network) -> Callable[..., Any]:
    """The module as a run in evaluation mode, whatever mode it is in."""
    wrapped = _Positional(module, network)

    def run(*args: Tensor, **kwargs: Tensor) -> Any:
        was = module.training
        module.eval()
        try:
            with torch.no_grad():
                return wrapped(*args, **kwargs)
        finally:
            module.train(was)

    return run
