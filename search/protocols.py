"""The two things a search needs from below: who makes a network of a candidate, and who says what it costs and does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from ..ir import Encoding, Graph, NascError
from ..targets.base import Role, Support
from ..targets.latency_model import OpWork
from .figures import Figures, Metric
from .sensitivity import Sensitivity
from .space import Space

Split = Literal["validation", "confirmation", "test"]
"""Which samples a quality is taken on.

`validation` is what the search sees. `confirmation` are samples that neither the search nor the candidates' training
looked at; only the few candidates that may win are run on them, so that luck on `validation` decides less. `test` is
for the winner and the networks it is compared with, once, at the end.
"""


class Network(Protocol):
    """A network as far as the search looks into it."""

    @property
    def graph(self) -> Graph: ...
    @property
    def key(self) -> str:
        """Equal keys compute the same."""
        ...


NetworkT = TypeVar("NetworkT", bound=Network)
JudgedT = TypeVar("JudgedT", bound=Network, contravariant=True)
Report = Callable[[int, Figures], bool]
"""Takes an epoch, counted from 1, and the quality after it on validation samples; True stops the training."""


class Builder(Protocol[NetworkT]):
    """Turns candidates into networks."""

    @property
    def digest(self) -> str:
        """Names all that candidates depend on beside their text: source weights, data, the way of training."""
        ...

    @property
    def graph(self) -> Graph:
        """The source network after the passes that all candidates share: what the space is made of."""
        ...

    @property
    def teachable(self) -> bool:
        """Whether there are samples with labels to train on."""
        ...

    @property
    def trainable(self) -> bool:
        """Whether the user has said how to train the network, and on what."""
        ...

    def source(self) -> NetworkT:
        """The source network: the baseline."""
        ...

    def structure(self, pipeline: str) -> NetworkT:
        """The network of a pipeline up to the first pass that needs data: enough to count costs, in milliseconds.

        Raises:
            NascError: a pass refuses it.
        """
        ...

    def finish(self, network: NetworkT, pipeline: str) -> NetworkT:
        """What `structure` gave, with the rest of the pipeline applied but its training: ready to run.

        Raises:
            NascError: a pass refuses it.
        """
        ...

    def trained(self, pipeline: str, epochs: int) -> str:
        """The pipeline with so many epochs of training, in place of any that it has."""
        ...

    def train(self, network: NetworkT, pipeline: str, report: Report | None = None) -> NetworkT:
        """What `finish` gave, after the training that the pipeline asks for; itself where it asks for none.

        Raises:
            NascError: there is no training data, or training diverges.
        """
        ...

    def train_all(self, networks: Sequence[NetworkT], pipelines: Sequence[str]) -> Sequence[NetworkT | NascError]:
        """Several networks after the same training; those that diverge as the error they gave.

        Raises:
            NascError: there is no training data.
        """
        ...

    def keep(self, network: NetworkT, path: Path) -> None:
        """Write what `train` made, for `load`."""
        ...

    def load(self, path: Path, pipeline: str) -> NetworkT:
        """What `keep` wrote, as the pipeline's passes for the target leave it.

        Raises:
            NascError: the files are missing or damaged.
        """
        ...

    def save(self, network: NetworkT, path: Path) -> None:
        """Write `model.nasc` and the `model.safetensors` beside it, each atomically."""
        ...


UNCHECKED = "unchecked"
"""The key of a check that could not be made; its value says why."""


@dataclass(frozen=True)
class Deployed:
    """What became of a network on the target.

    Args:
        artifact: digest of the file's bytes.
        check: the comparison of the file's outputs with the network's: `agrees`, figures, number of samples; or
            `UNCHECKED` alone and why there was none.
        quality: by running the file itself: figures on the test samples.
        tensor_bytes: of the tensors in the file and beside it; None: not known.
    """

    artifact: str
    check: Mapping[str, Any]
    quality: Figures = field(default_factory=dict[str, Any])
    tensor_bytes: int | None = None


class Judge(Protocol[JudgedT]):
    """Says what networks cost and how well they do."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """What it can tell, the model file's own metrics included; the first quality is the one that counts."""
        ...

    @property
    def splits(self) -> frozenset[Split]:
        """The samples there are."""
        ...

    @property
    def unavailable(self) -> Mapping[str, str]:
        """Metrics that cannot be had here, each with the reason and the mend."""
        ...

    def static(self, network: JudgedT) -> Figures:
        """What can be counted without running it."""
        ...

    def layers(self, network: JudgedT) -> Mapping[str, Mapping[str, float]]:
        """Counted costs of each layer by its name: `macs`, `bit_operations`, `size` in bytes."""
        ...

    def supports(self, encoding: Encoding, role: Role) -> Support:
        """How the target runs values of a format."""
        ...

    def quality(self, network: JudgedT, split: Split) -> Figures:
        """How well it does on some samples, with paired differences to the source network.

        Raises:
            NascError: it cannot be run.
        """
        ...

    def measure(self, network: JudgedT, metrics: Sequence[str]) -> Figures:
        """Latency and energy on the target, in pairs with the source network.

        Raises:
            NascError: the target refuses it.
        """
        ...

    def work(self, network: JudgedT) -> Sequence[OpWork]:
        """What each op of a network has to do on the target: what its latency can be forecast from."""
        ...

    def spent(self, network: JudgedT) -> Mapping[str, float]:
        """The seconds that each op of a network took on the target, by the runtime's own profiler.

        Raises:
            NascError: the target refuses it.
        """
        ...

    def overhead_bound(self) -> str | None:
        """Why time on this target says nothing about the source network's size, as a sentence; None where it does."""
        ...

    def timing_key(self, network: JudgedT) -> str:
        """Networks with equal keys run the same kernels on the same shapes, so that one measurement serves all."""
        ...

    def deploy(self, network: JudgedT, path: Path, metadata: Mapping[str, str]) -> Deployed:
        """Write the target's file atomically, check it against the network, and take its quality on test samples.

        Raises:
            NascError: the file does not compute what the network does.
        """
        ...


@dataclass(frozen=True)
class Problem:
    """What is searched.

    Args:
        name: of the network.
        source: what the user named: a file, or a module's attribute.
        builder: makes networks.
        judge: judges them.
        target: the runtime the result is for.
        words: what the command line said beside the source, `--input 1x3x64x64`.
        command: the words that start this search again, without `--output`.
        versions: of what took part, by name.
        sensitivity: measures what each choice of a space hurts alone, on so many samples; None: nobody can.
    """

    name: str
    source: str
    builder: Builder[Any]
    judge: Judge[Any]
    target: str
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    sensitivity: Callable[[Space, int], Sensitivity] | None = None

    @property
    def quality(self) -> Metric:
        """The quality that counts."""
        return next(m for m in self.judge.metrics if m.is_quality)
