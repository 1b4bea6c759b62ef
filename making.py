"""From a model and a pipeline to a network that a target runs, with inputs to look at it with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ir import NascError
from .loading import Loaded, load_task, loaded
from .rewriting import other_data, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from torch import Tensor

    from .compiler.frontend.task import Task
    from .compiler.network import Network
    from .compiler.passes import Data
    from .compiler.pipeline import Pipeline
    from .ir import Graph
    from .targets import Target

SAMPLES, MOST_ELEMENTS = 256, 1 << 27
"""How many samples are looked at, and how many elements of all values between ops they may have, at most."""
RANDOM = "random inputs"
"""What inputs are that nobody named."""
FILES = (".py", ".nasc", ".onnx", ".pt2")
"""Suffixes of models that are files."""


@dataclass(frozen=True)
class Source:
    """What is to be made.

    Args:
        model: a network, or what `load_network` takes.
        passes: the pipeline behind it, as text.
        data: for passes, and to look at the network with: inputs, or a model file that names them; None: the model's.
        input: of the model, see `load_network`.
        weights: of the model.
        arguments: of the model.
        seed: for passes that draw at random.
        legalize: whether quantized layers are brought into the form that a target runs, where the pipeline does not.
    """

    model: str | Path | Network
    passes: str = ""
    data: str | Data = None
    input: str | Sequence[str] | None = None
    weights: str | Path | None = None
    arguments: Mapping[str, Any] | Sequence[str] | None = None
    seed: int = 0
    legalize: bool = True

    @property
    def name(self) -> str:
        """The model's name: that of its file, or of the attribute behind the package."""
        if not isinstance(self.model, str | Path):
            return self.model.graph.name
        path = Path(self.model)
        return path.stem if path.suffix in FILES else str(self.model).rpartition(":")[2]


@dataclass(frozen=True)
class Made:
    """A network as a target runs it.

    Args:
        network: the network.
        pipeline: all passes that made it.
        added: those of them that were added for the target and changed something.
        inputs: one tensor per input.
        inputs_from: what they are: `train_data`, `random inputs`.
    """

    network: Network
    pipeline: str
    added: str
    inputs: tuple[Tensor, ...]
    inputs_from: str


def make(
    source: Source,
    target: Target,
    *,
    check: Callable[[Mapping[Path, str]], None] | None = None,
    reproducer: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Made:
    """Lower a model, apply a pipeline, and bring quantized layers into the form that the target runs.

    Args:
        source: what to make.
        target: what it is for.
        check: called before anything is computed with the files that no output may replace, each with what it is.
        reproducer: where to write what a failing pass was given.
        tell: called with sentences on what one might not expect.

    Raises:
        UsageError: there is no such model, the text is no pipeline, or an output is no place for its file.
        PassError: a pass refuses the network.
        NascError: the model cannot be lowered, or the passes leave steps unknown.
    """
    from .compiler.files import check_places
    from .compiler.pipeline import parse_pipeline
    from .search.artifacts import passes_for

    asked = parse_pipeline(source.passes)

    def check_all(checkpoint: Path | None, owner: str) -> None:
        check_places([] if reproducer is None else [reproducer], checkpoint, owner)
        kept = {} if checkpoint is None else {checkpoint: f"the checkpoint of {owner}"}
        if isinstance(source.model, str | Path):
            kept[Path(source.model)] = "the model itself"
        if check is not None:
            check(kept)

    start = _start(source, check_all, tell)
    data = _data(source, start, check_all)
    inputs, origin = _inputs(start, data)
    given = _watched(start, data) if origin == RANDOM else None
    run = partial(rewrite, data=given or data, seed=source.seed, reproducer=reproducer, tell=tell)
    network, pipeline, added = run(start.network, source.passes).network, asked, ""
    if source.legalize and network.graph.quantized:
        suiting = parse_pipeline(passes_for(target.name))
        with adding(suiting, target):
            suited = run(network, str(suiting))
        if suited.network is not network:
            network, pipeline = suited.network, asked + suiting
            added = " | ".join(step.text for step in suited.steps if step.changed)
    _expect_steps(network, source)
    if tell is not None and added:
        tell(f"quantized layers were not in the form that {target.name} runs: added {added}")
    if tell is not None and given is not None and given.seen:
        tell("the passes have seen random inputs alone: name a model file with real ones, --data model.py")
    return Made(network, str(pipeline), added, inputs, origin)


def _expect_steps(network: Network, source: Source) -> None:
    """Refuse a network that cannot run yet.

    Raises:
        NascError: steps are unknown; names the first, and the passes that find them.
    """
    unknown = [op for op in network.graph.ops if op.type.step is not None and not op.type.step.known]
    if not unknown:
        return
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    left = "the passes leave steps unknown" if source.passes else "steps of the network are unknown"
    mend = "Add `calibrate` to the passes, behind what leaves steps unknown: `quantize`, `place`, `resize`."
    if not source.legalize:
        mend += " --no-legalize leaves out what is added for the target: drop it where the file was made without it."
    raise NascError(f"{left}: %{unknown[0].name}{more}", mend=mend)


@contextmanager
def adding(passes: Pipeline, target: Target) -> Generator[None]:
    """Say of an error that it stands in passes that nobody wrote."""
    try:
        yield
    except NascError as error:
        error.add_note(f"in {passes}, added for {target.name}; --no-legalize leaves them out")
        raise


class Watched:
    """Random inputs that know whether any pass has looked at them."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = tuple(inputs)
        self.seen = False

    def __call__(self) -> Iterable[tuple[Tensor, ...]]:
        """One batch."""
        self.seen = True
        return [self._inputs]


def _watched(start: Loaded, data: Task | Data) -> Watched | None:
    """All random inputs that passes may learn from; None: there are none."""
    from .compiler.execution import positional
    from .compiler.frontend.task import Task

    if isinstance(data, Task):
        return Watched(positional(data.example_inputs.inputs, start.network.graph))
    return None if start.drawn is None else Watched(start.drawn)


def _start(source: Source, check: Callable[[Path | None, str], None], tell: Callable[[str], None] | None) -> Loaded:
    """The network that the passes begin with, and what it comes from."""
    if not isinstance(source.model, str | Path):
        check(None, "")
        return Loaded(source.model, None)
    start = loaded(source.model, source.input, source.weights, source.arguments, check=check, tell=tell)
    return start if source.data is None else replace(start, drawn=None)


def _data(source: Source, start: Loaded, check: Callable[[Path | None, str], None]) -> Task | Data:
    """What passes may look at: the data named, else the model's own, else the random inputs that were asked for."""
    if isinstance(source.data, str):
        task = load_task(source.data)
        check(task.checkpoint, task.source)
        return task
    if source.data is not None:
        return source.data
    return start.task or (None if start.drawn is None else [start.drawn])


def _inputs(start: Loaded, data: Task | Data) -> tuple[tuple[Tensor, ...], str]:
    """Inputs to look at the network with, and what they are.

    Raises:
        UsageError: a model file's are not what the network takes.
        InputError: those given are not.
    """
    from .compiler.execution import InputError, batch_of, positional
    from .compiler.frontend.given import Given
    from .compiler.frontend.sources import inputs_of
    from .compiler.frontend.task import Task
    from .compiler.passes import Context

    network, count = start.network, samples_of(start.network.graph)
    if data is None:
        return inputs_of(network, Given(), Path(network.graph.name)), RANDOM
    try:
        if isinstance(data, Task):
            origin = RANDOM if _drawn(data) else data.calibration_source
            inputs = positional(next(iter(data.calibration_batches(samples=count, size=count))), network.graph)
        else:
            origin = "the data given" if start.drawn is None else RANDOM
            inputs = Context.of(data, network=network).samples(count, "comparing")[0]
        batch_of(network.graph, inputs)
    except InputError as error:
        if isinstance(data, Task):
            raise other_data(error, data.source) from error
        raise
    return inputs, origin


def samples_of(graph: Graph) -> int:
    """How many samples to look at: `SAMPLES`, fewer of large networks; all there are where the batch is fixed."""
    from math import prod

    from .ir import STORED
    from .ir.axes import has_batch, size

    axes = graph.inputs[0].type.axes if graph.inputs else ()
    if not any(has_batch(axis) for entry in graph.inputs for axis in entry.type.axes):
        return size(axes[0], graph.sizes) if axes else 1
    made = (type for op in graph.ops if op.kind not in STORED for type in op.types)
    elements = sum(prod(size(axis, graph.sizes) for axis in type.axes) for type in made)
    return max(1, min(SAMPLES, MOST_ELEMENTS // max(1, elements)))


def _drawn(task: Task) -> bool:
    """Whether a task's inputs are random: of a shape that was given, or of a package's model that has none."""
    names_its_own = task.folder is not None or task.source.endswith(".pt2")
    return task.calibration_source == "example_inputs" and ("--input" in task.words or not names_its_own)
