"""From what a user has to a network or a task: modules, model files, ONNX files, lowered networks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .ir import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from .compiler.frontend.task import Task
    from .compiler.network import Network

T = TypeVar("T")


def resolved(source: T | partial[T]) -> T:
    """What a deferred call of `load_network` or `load_task` loads; anything else as it is."""
    return cast("partial[T]", source)() if isinstance(source, partial) else source


def lower(
    model: nn.Module | ExportedProgram | str | Path, example_inputs: Any = None, *, name: str | None = None
) -> Network:
    """Lower a PyTorch module to a network: a typed graph with symbolic widths, and its weights.

    Args:
        model: the module (its evaluation mode is lowered, its own mode is left as it is), a program of
            `torch.export.export`, or whatever `load_network` takes.
        example_inputs: a tensor, a tuple of positional inputs, or a dict of keyword inputs; axis 0 is the batch. An
            exported program has its own.
        name: the graph's name, by default made of the class's.

    Raises:
        UsageError: there are no example inputs, or they are not tensors.
        NascError: torch.export refuses the model, or the lowered graph does not compute what the module does.
    """
    from .compiler.frontend.modules import lower_given

    if isinstance(model, str | Path):
        if example_inputs is not None or name is not None:
            raise UsageError("lower: a file has its own inputs and name", mend="Write load_network(path, input=…).")
        return load_network(model)
    return lower_given(model, example_inputs, name)


def read_onnx(source: str | Path | bytes, *, name: str | None = None) -> Network:
    """A network from an ONNX model: the ops that nasc writes, and what other exporters write with them.

    Args:
        source: a file, with the tensors that may lie beside it, or a model's bytes.
        name: the graph's name, by default what the model calls it.

    Raises:
        UsageError: there is no such file, or it is no ONNX model.
        NascError: it holds something that nasc cannot read; the message names the node and its type.
    """
    from .compiler.arrays import network_from
    from .targets.onnx.reader import read

    found = read(source, name=name)
    place = "model" if isinstance(source, bytes) else str(source)
    return network_from(found.graph, found.arrays, found.steps, found.zeros, place)


def load_network(
    source: str | Path,
    *,
    input: str | Sequence[str] | None = None,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | Sequence[str] | None = None,
    outputs: Sequence[str | Path] = (),
    tell: Callable[[str], None] | None = None,
) -> Network:
    """A network of any form that `load_task` takes; a `.nasc` file may be quantized.

    Args:
        source: what to load.
        input: shape and type of the example inputs as text: `1x3x224x224`, `2x24:i64`; several with commas.
        weights: a checkpoint for the model.
        arguments: keyword arguments of what makes the model.
        outputs: where networks will be saved; refused before lowering where that would replace the model's checkpoint.
        tell: called with a sentence where weights are untrained: the file names a checkpoint that is not there, and no
            `compile` or `sensitivity` has trained one yet. By default it is a warning.

    Raises:
        UsageError: there is no such file, or it is no model; an output is no place for a network.
        NascError: the model cannot be lowered.
    """
    from .compiler.files import check_names, check_places

    check_names(outputs)
    return loaded(source, input, weights, arguments, check=partial(check_places, outputs), tell=tell).network


@dataclass(frozen=True)
class Loaded:
    """A network with what it comes from.

    Args:
        network: the network.
        task: what it was lowered from; None: a lowered network or an ONNX file, read as it stands.
        drawn: random inputs of the shapes that were given beside such a file; None: there were none.
    """

    network: Network
    task: Task | None
    drawn: tuple[Tensor, ...] | None = None


def loaded(
    source: str | Path,
    input: str | Sequence[str] | None,
    weights: str | Path | None,
    arguments: Mapping[str, Any] | Sequence[str] | None,
    *,
    check: Callable[[Path | None, str], None],
    tell: Callable[[str], None] | None = None,
) -> Loaded:
    """What `load_network` gives, with its task.

    Args:
        source: see `load_network`, as are `input`, `weights` and `arguments`.
        input: see there.
        weights: see there.
        arguments: see there.
        check: called before lowering with the model's checkpoint and the model's name, to refuse places for outputs.
        tell: see `load_network`.

    Raises:
        UsageError: see `load_network`.
        NascError: see there.
    """
    from .compiler.frontend.given import Given
    from .compiler.frontend.sources import inputs_of
    from .compiler.network import Network

    path = Path(source)
    if path.suffix in (".nasc", ".onnx") and weights is None and not arguments:
        check(None, "")
        network = Network.load(path) if path.suffix == ".nasc" else read_onnx(path)
        return Loaded(network, None, None if input is None else inputs_of(network, Given.of(input), path))
    from .compiler.frontend.lower import lower_task
    from .compiler.training import with_kept_weights

    task = load_task(source, input=input, weights=weights, arguments=arguments)
    check(task.checkpoint, task.source)
    task = with_kept_weights(task)
    if task.untrained:
        told = f"{source}: its checkpoint {task.checkpoint} is not there yet: weights are untrained"
        warnings.warn(told, stacklevel=3) if tell is None else tell(told)
    return Loaded(lower_task(task), task)


def load_task(
    source: str | Path,
    *,
    input: str | Sequence[str] | None = None,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | Sequence[str] | None = None,
) -> Task:
    """Load a model file, or another form of a model. A model file is Python code and runs as code.

    Args:
        source: a model file, `package.module:attribute`, `timm:NAME`, `model.pt2` of `torch.export.save`, or
            `model.onnx`, `model.nasc`.
        input: shape and type of random example inputs as text, in place of the source's own: `1x3x224x224`,
            `2x24:i64:0..999`; several with commas, by keyword as `tokens=2x24:i64`.
        weights: a checkpoint whose tensors take the place of the model's.
        arguments: keyword arguments of the function or class that makes the model, by name or as `NAME=VALUE`.

    Raises:
        UsageError: there is no such file, or it does not define what it must.
        NascError: the file raised an error.
    """
    from .compiler.frontend.given import Given
    from .compiler.frontend.model_file import load_task as load

    given = Given.of(input, weights, arguments)
    given.check()
    return load(source, given=given, readers={".onnx": read_onnx})


def load_task_again(source: str, words: Sequence[str]) -> Task:
    """The task that a manifest names: its source and what the command line said beside it.

    Raises:
        NascError: see `load_task`.
    """
    from .compiler.frontend.given import Given
    from .compiler.frontend.model_file import load_task as load

    return load(source, given=Given.of_words(words), readers={".onnx": read_onnx})
