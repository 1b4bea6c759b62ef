"""A task: the network to compile, with the inputs, data, loss, metrics and training settings that go with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ...ir.errors import UsageError
from ..data import Batch, Data, Inputs, Rows, Stream, add_tensor, apply, as_data, described, seeded, tensors_of
from ..losses import Loss, default_loss
from ..network import Network
from ..supervision import Supervision
from ..training_settings import TrainingSettings
from .user_code import Surroundings, blaming

Split: TypeAlias = Literal["train", "validation", "test", "calibration"]
SPLITS: tuple[Split, ...] = get_args(Split)


class ExampleInputs(NamedTuple):
    """The inputs a network is traced with: positional tensors and keyword tensors."""

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]

    @property
    def inputs(self) -> Inputs:
        """The same as one value: a tensor if there is one positional input, else a tuple or a dict."""
        return self.kwargs or (self.args[0] if len(self.args) == 1 else self.args)


class LazyData:
    """Data as a model file names them: looked at on first use, once, and then kept."""

    def __init__(self, value: object, name: str, surroundings: Surroundings | None, example: ExampleInputs) -> None:
        self._value, self._name, self._surroundings, self._example = value, name, surroundings, example
        self._lock = RLock()
        self._data: Data | None = None

    def get(self) -> Data:
        """The data; a function is called under seed 0, so its random numbers do not depend on who asks first."""
        with self._lock:
            if self._data is None:
                reading = partial(blaming, self._name, self._surroundings)
                with reading(), seeded(0):
                    data = as_data(_called(self._value), self._name)
                if isinstance(data, Stream):
                    data = replace(data, reading=reading)
                _expect_like(data, self._example, self._name)
                self._data, self._value = data, None
            return self._data


@dataclass(frozen=True, eq=False)
class Task:
    """What a model file says, checked.

    Args:
        name: short name of the network, for the graph and for files.
        source: where it came from: the model file's path, `package.module:attribute`, or `python`.
        model: the network, in eval mode.
        example_inputs: inputs it runs on.
        splits: the data that are named, looked at on first use.
        loss: mean loss of a batch of outputs and labels.
        metrics: the file's own measures of quality by name, as `nasc.search.quality` reads them.
        training: how to train the network; None if the file does not say.
        checkpoint: the file whose weights `model` has; or the one that was named and is not there (`untrained`).
        untrained: a checkpoint is named and not there yet: `trained_checkpoint` makes one.
        classes: names of the classes, in order of their labels.
        code: text that says what the network computes and how it is made; part of the key of a trained checkpoint.
        make: makes the network anew with initial weights from a seed; None where only one instance was given.
        surroundings: the folder the model's code imports from.
        folder: the folder of the model file; None where there is none.
        lowered: gives the network where `model` is not what is lowered: it was lowered or exported before.
        words: what the command line says beside the source: `--input 1x3x64x64`.
    """

    name: str
    source: str
    model: nn.Module
    example_inputs: ExampleInputs
    splits: Mapping[Split, LazyData] = field(default_factory=dict)
    loss: Loss = default_loss
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingSettings | None = None
    checkpoint: Path | None = None
    untrained: bool = False
    classes: tuple[str, ...] | None = None
    code: str = ""
    make: Callable[[int], nn.Module] | None = None
    surroundings: Surroundings | None = None
    folder: Path | None = None
    lowered: Callable[[], Network] | None = None
    words: tuple[str, ...] = ()

    @property
    def has_data(self) -> bool:
        """Whether the file names validation data: without them quality is fidelity to this network."""
        return "validation" in self.splits

    def data(self, split: Split) -> Data | None:
        """The rows or the stream of a split; None if the file does not name it.

        Raises:
            UsageError: what the file gives is no data, or does not look like the example inputs.
            NascError: the file's function raised.
        """
        lazy = self.splits.get(split)
        return None if lazy is None else lazy.get()

    def required(self, split: Split) -> Data:
        """The data of a split that cannot be done without.

        Raises:
            UsageError: the file does not name it.
        """
        if (data := self.data(split)) is None:
            raise UsageError(f"{self.source} names no {split}_data", mend=f"Write {split}_data = (x, y) in it.")
        return data

    @property
    def supervision(self) -> Supervision | None:
        """What networks can be trained by; None where the file names no training data."""
        if "train" not in self.splits:
            return None
        settings = self.training or TrainingSettings()
        return Supervision(lambda: self.required("train"), self.loss, settings, self.importing)

    def batches(self, split: Split, size: int) -> Iterator[Batch]:
        """The samples of a split in order, `size` at a time, as (inputs, labels or None)."""
        return self.required(split).batches(size)

    @property
    def calibration_source(self) -> str:
        """Where `calibration_batches` come from: the first of calibration, train and validation data, else examples."""
        order: tuple[Split, ...] = ("calibration", "train", "validation")
        return next((f"{split}_data" for split in order if split in self.splits), "example_inputs")

    def calibration_batches(self, samples: int = 512, size: int = 256) -> Iterator[Inputs]:
        """Inputs to calibrate with, never test data: the first `samples` of `calibration_source`."""
        source = self.calibration_source
        data: Data = Rows(self.example_inputs.inputs)
        for split in SPLITS:
            if source == f"{split}_data":
                data = self.required(split)
        count = min(samples, len(data))
        for start in range(0, count, size):
            yield data.take(slice(start, min(start + size, count)))[0]

    def data_digest(self, split: Split) -> str:
        """sha256 over the tensors of a split (kept after the first time)."""
        return self.required(split).digest

    def weights_digest(self) -> str:
        """sha256 over names, types, shapes and bytes of the model's parameters and buffers as they are now."""
        return weights_digest(self.model)

    def with_seed(self, seed: int) -> Task:
        """The task as if its model file said `training = {"seed": seed}`: other initial weights, another order.

        A network whose weights come from a checkpoint that is there keeps them.

        Raises:
            UsageError: the initial weights cannot be made anew.
        """
        training = None if self.training is None else replace(self.training, seed=seed)
        if self.checkpoint is not None and not self.untrained:
            return replace(self, training=training)
        if self.make is None:
            raise UsageError(
                f"{self.source}: `model` is one finished network: it has no initial weights to draw from seed {seed}",
                mend="Give a function (or the class) that makes the network.",
            )
        return replace(self, model=self.make(seed), training=training)

    def importing(self) -> AbstractContextManager[None]:
        """A context in which imports in the model's own code find the modules of its folder."""
        return nullcontext() if self.surroundings is None else self.surroundings.importable()


def weights_digest(model: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of a module's parameters and buffers, saved with it or not."""
    digest = hashlib.sha256(b"weights")
    for name, held in (dict(model.state_dict()) | dict(model.named_buffers())).items():
        add_tensor(digest, name, held)
    return digest.hexdigest()


def check_runs(model: nn.Module, example: ExampleInputs, what: str, surroundings: Surroundings | None) -> None:
    """Run the network once on its example inputs, so that an error shows at the person's own line.

    Raises:
        NascError: it raised.
    """
    with blaming(f"{what} on example_inputs {described(example.inputs)}", surroundings), torch.no_grad():
        apply(model, example.inputs)


def _expect_like(data: Data, example: ExampleInputs, name: str) -> None:
    """Data rows must be what the network reads: as the example inputs, but for the number of rows."""
    inputs = data.take(slice(0, 1))[0]
    expected, found = described(example.inputs), described(inputs)
    if expected != found:
        types = [held.dtype for held in tensors_of(inputs)] != [held.dtype for held in tensors_of(example.inputs)]
        mend = "Convert them, for example with x.float()." if types else "Give data of the shape the network reads."
        raise UsageError(f"{name} has inputs {found} per sample, example_inputs has {expected}", mend=mend)


def _called(value: object) -> object:
    """What a function gives; other values as they are (a Dataset may be callable too)."""
    return value() if callable(value) and not hasattr(value, "__getitem__") else value
