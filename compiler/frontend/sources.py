"""Tasks from what is no model file: an attribute of a package, a timm name, an exported program, a lowered network."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from ...ir import Graph, operand
from ...ir.axes import size
from ...ir.errors import NascError, UsageError, did_you_mean
from ...ir.types import Type
from ..checkpoint import load_weights, read_checkpoint
from ..data import Inputs, seeded
from ..execution import batch_of
from ..network import Network
from .example_text import TYPES, WHOLE, InputText, drawn
from .given import Given
from .model_values import task_of
from .task import ExampleInputs, Task
from .user_code import Surroundings, blaming

Reader = Callable[[Path], Network]
ROWS = 16
"""Samples of the random inputs that stand in for a lowered network's batch."""
TIMM = "timm"
FORMS = (
    "a model file (model.py), package.module:attribute (torchvision.models:resnet18), timm:NAME (timm:resnet18), "
    "a program of torch.export.save (model.pt2), an ONNX file (model.onnx), or a lowered network (model.nasc)"
)
"""The forms that MODEL takes, for errors and help."""


def from_attribute(text: str, given: Given) -> Task:
    """The task of `package.module:attribute`: a module, or what makes one; the arguments given are passed to it.

    Raises:
        UsageError: there is no such attribute, it is no module, or its inputs are not given.
        NascError: the package raised.
    """
    name, _, attribute = text.partition(":")
    surroundings = Surroundings(Path.cwd())
    if not name or not attribute or not all(part.isidentifier() for part in (*name.split("."), attribute)):
        raise UsageError(f"{text!r} names no model", mend=f"Give {FORMS}.")
    if name == TIMM:
        return _from_timm(attribute, given)
    with blaming(f"import {name}", surroundings), seeded(0):
        module = importlib.import_module(name)
    if not hasattr(module, attribute):
        known = [known for known in dir(module) if not known.startswith("_")]
        raise UsageError(f"{name} has no attribute {attribute!r}", mend=did_you_mean(attribute, known))
    example = given.example()
    if example is None:
        raise UsageError(
            f"{text}: what are its inputs?", mend="Give the shape with the batch first: --input 1x3x224x224"
        )
    return given_task({"model": getattr(module, attribute), "example_inputs": example}, text, attribute, given)


def _from_timm(name: str, given: Given) -> Task:
    """The task of a model of timm, with random weights; inputs are those of its own configuration."""
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != TIMM:
            raise
        raise UsageError(f"timm:{name}: timm is not installed here", mend="pip install timm") from error
    known = cast("list[str]", timm.list_models())
    if name.partition(".")[0] not in known:
        raise UsageError(f"timm has no model {name!r}", mend=did_you_mean(name, known))
    made: dict[str, Any] = {"pretrained": False, **given.arguments}

    def model() -> nn.Module:
        return timm.create_model(name, **made)

    example = given.example()
    if example is None:
        with blaming(f"timm.create_model({name!r})", None), seeded(0):
            channels, height, width = cast("Any", model()).default_cfg["input_size"]
        side: Any = made.get("img_size", (height, width))
        height, width = (side, side) if isinstance(side, int) else side
        example = drawn([InputText((1, made.get("in_chans", channels), height, width))])
    rest = Given(given.input, given.weights)
    return given_task({"model": model, "example_inputs": example}, f"{TIMM}:{name}", name, rest)


def given_task(values: Mapping[str, Any], source: str, name: str, given: Given) -> Task:
    """A task of a model that code of an installed package makes."""
    found = dict(values)
    if (checkpoint := given.checkpoint()) is not None:
        found["checkpoint"] = checkpoint
    surroundings = Surroundings(Path.cwd())
    return task_of(found, name=name, source=source, surroundings=surroundings, arguments=given.arguments)


def from_program(path: Path, given: Given) -> Task:
    """The task of a program that `torch.export.save` wrote.

    Raises:
        UsageError: there is no such file, or it was exported in training mode.
        NascError: torch cannot read it, or it cannot be lowered.
    """
    from .exported import examples_of, load_program, lower_exported, module_of

    given.refuse(str(path), "an exported program", "arguments")
    program = load_program(path)
    module = module_of(program)
    if (checkpoint := given.checkpoint()) is not None:
        load_weights(module, read_checkpoint(checkpoint), str(given.weights))
        program.state_dict.update(module.state_dict(keep_vars=True))
    inputs = given.example()
    args, kwargs = examples_of(program, str(path)) if inputs is None else _apart(inputs)
    example = ExampleInputs(args, kwargs)
    try:
        module(*args, **kwargs)
    except Exception as error:  # the program's own checks of its inputs raise what they like
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"{path}: the program does not take these inputs: {first}") from error
    name = path.stem

    def lowered() -> Network:
        return lower_exported(program, args, kwargs, name=name, source=str(path))

    return Task(name=name, source=str(path), model=module, example_inputs=example, lowered=lowered)


def from_network(path: Path, given: Given, read: Reader) -> Task:
    """The task of a network that was lowered before, or that a reader makes of a file.

    Raises:
        UsageError: it is quantized already, or the inputs given are not those it reads.
        NascError: the file cannot be read.
    """
    given.refuse(str(path), "a lowered network", "weights", "arguments")
    network = read(path)
    graph = network.graph
    if graph.quantized:
        raise UsageError(
            f"{path}: the network is quantized already: there is no float network to compare with",
            mend="Give the network as it was before `quantize`.",
        )
    args = inputs_of(network, given, path)
    return Task(
        name=graph.name,
        source=str(path),
        model=network.module().eval(),
        example_inputs=ExampleInputs(args, {}),
        lowered=lambda: network,
    )


def inputs_of(network: Network, given: Given, path: Path) -> tuple[Tensor, ...]:
    """Example inputs of a network that names none: those given, otherwise random ones of the shapes it reads.

    Raises:
        UsageError: the inputs given are not those it reads.
    """
    graph = network.graph
    inputs = given.example()
    if inputs is None:
        inputs = drawn([_input_of(graph, i.name, i.type) for i in graph.inputs])
    args, kwargs = _apart(inputs)
    if kwargs:
        unknown = [name for name in kwargs if name not in {i.name for i in graph.inputs}]
        if unknown or len(kwargs) != len(graph.inputs):
            raise UsageError(
                f"{path}: its inputs are {', '.join(i.name for i in graph.inputs)}, not {', '.join(kwargs)}"
            )
        args = tuple(kwargs[i.name] for i in graph.inputs)
    if len(args) != len(graph.inputs):
        raise UsageError(f"{path}: it has {len(graph.inputs)} inputs, {len(args)} are given")
    try:
        if graph.quantized:  # it may not be calibrated yet
            batch_of(graph, args)
        else:
            network(*args)
    except NascError as error:
        raise UsageError(f"{path}: the network does not take these inputs: {error.message}") from error
    return args


def _apart(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _input_of(graph: Graph, name: str, type: Type) -> InputText:
    """A random input for a graph: whole numbers below the length of every table they are looked up in."""
    shape = tuple(size(axis, graph.sizes, ROWS) for axis in type.axes)
    kind = str(type.format)
    if kind not in TYPES:
        raise UsageError(f"input %{name} holds {kind} values", mend="Give inputs: --input SHAPE:TYPE.")
    tables = [operand(op, "weight") for op in graph.readers.get(name, ()) if op.kind == "embedding"]
    rows = [size(graph.types[table].axes[0], graph.sizes) for table in tables if table is not None]
    return InputText(shape, kind, WHOLE[0], min([WHOLE[1], *(n - 1 for n in rows)]))
