"""Pipelines of passes with a record: what `nasc opt` runs, and how a pass that fails is run again on its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .ir import NascError, UsageError
from .ir.files import check_writable
from .loading import load_task, resolved

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compiler.dumps import Dumps
    from .compiler.frontend.task import Task
    from .compiler.network import Network
    from .compiler.passes import Context, Data, Pass


@dataclass(frozen=True)
class Step:
    """One pass of a pipeline that has run: its text, its time in seconds, and whether it changed the graph."""

    text: str
    seconds: float
    changed: bool


@dataclass(frozen=True)
class Trace:
    """What a pipeline gave, and how it went."""

    network: Network
    steps: tuple[Step, ...]


def rewrite(
    network: Network | partial[Network],
    passes: str,
    *,
    data: str | Task | Data = None,
    seed: int = 0,
    dump: Path | Dumps | None = None,
    output: Path | None = None,
    reproducer: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Trace:
    """Apply a pipeline and keep a record.

    Args:
        network: where to start, or what loads it once the pipeline is read.
        passes: the pipeline as text.
        data: calibration inputs, or the task or the path of a model file that names them.
        seed: for passes that draw at random.
        dump: which networks to write down; a folder: the source network and the one after every pass.
        output: where the result will be saved; refused before any pass runs where that would replace a checkpoint.
        reproducer: where to write what a failing pass was given, so that it runs again on its own.
        tell: called with a sentence where a pass leaves out what one might expect of it.

    Raises:
        UsageError: the text is no pipeline; an output is no place for a network; the model file's data are not what
            the network takes.
        PassError: a pass refuses the network.
        NascError: a pass fails in a way it should not.
    """
    from .compiler.dumps import Dumps
    from .compiler.execution import InputError
    from .compiler.files import check_names
    from .compiler.frontend.model_file import expect_model_file
    from .compiler.pipeline import Pipeline, parse_pipeline

    pipeline = parse_pipeline(passes)
    dumps = Dumps(every=True, folder=dump) if isinstance(dump, Path) else dump or Dumps()
    dumps.check(pipeline)
    outputs = [path for path in (output, reproducer) if path is not None]
    check_names(outputs)
    if output is not None:
        check_writable(output, makes_folders=True)
    if isinstance(data, str) and data.endswith(".py"):
        expect_model_file(data)
    network = resolved(network)
    context = _context(network, data, seed, outputs, tell)
    steps: list[Step] = []
    left = [network]

    def observe(index: int, step: Pass, result: Network, seconds: float) -> None:
        changed = result.graph != left[-1].graph
        steps.append(Step(str(step), seconds, changed))
        left.append(result)
        dumps.take(index + 1, step.name, str(step), result.graph, changed=changed)

    dumps.take(0, "source", "lowering", network.graph, changed=False)
    try:
        result = pipeline.run(network, context, observe=observe)
    except UsageError:
        raise
    except InputError as error:
        if (named := _source(data)) is None:
            raise
        raise other_data(error, named) from error
    except Exception as error:  # a pass that fails in any way is worth a reproducer
        rest = Pipeline(pipeline.passes[len(steps) :])
        ours = error if isinstance(error, NascError) else _fault(error, str(rest.passes[0]))
        if reproducer is not None:
            _reproduce(ours, left[-1], str(rest), data, seed, reproducer)
        raise ours from error
    return Trace(result, tuple(steps))


def other_data(error: NascError, source: str) -> UsageError:
    """What to say where a model file's data do not go with a network."""
    mend = "Name with --data the model file that the network was lowered from, or another whose data have this shape."
    return UsageError(
        f"{source}: its data do not go with the network: {error.message.removeprefix('error: ')}",
        mend=f"{mend} {error.mend}" if error.mend else mend,
    )


def _fault(error: Exception, step: str) -> NascError:
    text = " ".join(str(error).split())
    return NascError(f"error: {step} failed with {type(error).__name__}: {text}", mend="This is a fault of nasc.")


def _source(data: str | Task | Data) -> str | None:
    """The model file that data come from, as `load_task` takes it; None where they cannot be had by a name alone."""
    from .compiler.frontend.task import Task

    if isinstance(data, Task):
        return None if data.words or data.source == "python" else data.source
    return data if isinstance(data, str) else None


def _reproduce(error: NascError, network: Network, rest: str, data: str | Task | Data, seed: int, path: Path) -> None:
    """Write a reproducer, and say so in a note to the error."""
    from .api import versions
    from .compiler.reproducer import PYTHON, Reproducer

    source = None if data is None else _source(data) or PYTHON
    try:
        Reproducer(network, rest, source, seed, error.message, versions()).save(path)
    except NascError as refused:
        error.add_note(f"no reproducer was written: {refused.message}")
    else:
        error.add_note(f"wrote {path}: `nasc opt {path} --run-reproducer` runs it again")


def rewrite_again(
    path: Path,
    *,
    data: str | Data = None,
    dump: Path | Dumps | None = None,
    output: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Trace:
    """Run what a reproducer holds.

    Args:
        path: the file that a failing pass left.
        data: takes the place of the data that it names.
        dump: see `rewrite`.
        output: see `rewrite`.
        tell: see `rewrite`.

    Raises:
        UsageError: it is no reproducer, or its data were given from Python and are not given now.
        NascError: what it was written for.
    """
    from .compiler.reproducer import PYTHON, Reproducer

    held = Reproducer.load(path)
    if held.data == PYTHON and data is None:
        raise UsageError(f"{path}: its data were given from Python", mend="Name them: --data model.py")
    data = data if data is not None else held.data
    return rewrite(held.network, held.pipeline, data=data, seed=held.seed, dump=dump, output=output, tell=tell)


def _context(
    network: Network, data: str | Task | Data, seed: int, outputs: list[Path], tell: Callable[[str], None] | None
) -> Context:
    """What passes may look at; data from a model file, whose checkpoint no output may replace.

    Raises:
        UsageError: there is no such model file, or an output is no place for a network.
    """
    from .compiler.files import check_places
    from .compiler.frontend.task import Task
    from .compiler.passes import Context

    if not isinstance(data, str | Task):
        check_places(outputs)
        return Context.of(data, seed=seed, tell=tell, network=network)
    task = load_task(data) if isinstance(data, str) else data
    check_places(outputs, task.checkpoint, task.source)
    batches = partial(task.calibration_batches, samples=sys.maxsize)
    return Context.of(batches, seed=seed, tell=tell, supervision=task.supervision, network=network)
