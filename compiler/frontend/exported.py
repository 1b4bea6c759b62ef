"""Programs of torch.export: saved ones (`model.pt2`) read and lowered, with the batch they were exported with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ...ir.errors import NascError, UsageError
from ..network import Network
from .export import Traced, one_line, silenced
from .lower import check, lower_program

_AGAIN = (
    "Export it again with this version of torch: "
    "torch.export.save(torch.export.export(model.eval(), inputs), 'model.pt2')."
)


def load_program(path: Path) -> ExportedProgram:
    """Read what `torch.export.save` wrote.

    torch unpickles parts of such a file: load only files you trust.

    Raises:
        UsageError: there is no such file.
        NascError: torch cannot read it.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file", mend="Give the path of a file that torch.export.save wrote.")
    try:
        with warnings.catch_warnings(), silenced():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # whatever its readers of archives, JSON and pickles raise
        raise NascError(f"{path}: torch.export.load cannot read it: {one_line(error)}", mend=_AGAIN) from error


def examples_of(program: ExportedProgram, source: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs a program was exported with.

    Raises:
        UsageError: it was saved without them.
    """
    if program.example_inputs is None:
        raise UsageError(f"{source}: the program holds no example inputs", mend="Give their shape: --input 1x3x224x224")
    args, kwargs = program.example_inputs
    return tuple(args), dict(kwargs)


def lower_exported(
    program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any], *, name: str, source: str = "python"
) -> Network:
    """Lower an exported program and check the result against it. Its batch is dynamic where it was exported so.

    Args:
        program: a program exported in evaluation mode.
        args: inputs to check with.
        kwargs: keyword inputs to check with.
        name: the graph's name.
        source: what errors call the place.

    Raises:
        UsageError: it was exported in training mode.
        NascError: an axis other than the batch is dynamic, or the graph does not compute what the program does.
    """
    _refuse_training(program, source)
    with warnings.catch_warnings(), torch.no_grad(), silenced():
        warnings.simplefilter("ignore")
        plain = program.run_decompositions({})
    network = lower_program(Traced(plain, dynamic=_has_dynamic_axis(plain)), name)
    check(network, module_of(program), args, kwargs)
    return network


def module_of(program: ExportedProgram) -> nn.Module:
    """The program as a module; its mode is that of the export, and `eval` leaves it so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = program.module()

    def stays(mode: bool = True) -> nn.Module:
        return module

    for method in ("train", "eval"):  # torch lets them raise
        setattr(module, method, stays)
    return module


def _has_dynamic_axis(program: ExportedProgram) -> bool:
    values = [n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"]
    return any(isinstance(s, torch.SymInt) for v in values if isinstance(v, Tensor) for s in v.shape)


_TRAINED_FLAG = {"aten.dropout.default": 2, "aten.batch_norm.default": 5}
"""Where the flag for training mode stands among the arguments."""


def _refuse_training(program: ExportedProgram, source: str) -> None:
    for node in program.graph.nodes:
        at = _TRAINED_FLAG.get(str(node.target))
        if at is not None and len(node.args) > at and cast(object, node.args[at]) is True:
            raise UsageError(
                f"{source}: the program was exported in training mode: {node.name} acts as in training",
                mend="Export it in evaluation mode: torch.export.export(model.eval(), inputs).",
            )
