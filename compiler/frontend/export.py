"""Trace a module with torch.export: functional, layer-level ATen ops, a dynamic batch where the model allows one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ...ir import NascError

SMALLEST_HINT = 3
"""torch.export takes a length of 0 or 1 for a constant, and 2 for an accident; so the batch is traced with 3."""


class ExportError(NascError):
    """torch.export refuses the model."""


@dataclass(frozen=True)
class Traced:
    """An exported program and how its batch was treated.

    Args:
        program: after `run_decompositions({})`, which keeps layers whole and removes in-place ops.
        dynamic: whether the batch is an axis of its own.
        why_static: what torch.export said against a dynamic batch.
    """

    program: ExportedProgram
    dynamic: bool
    why_static: str = ""


def trace(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, dynamic: bool = True) -> Traced:
    """Export a module in evaluation mode.

    Args:
        module: the network; its mode is put back afterwards.
        args: example inputs; the batch is axis 0 of every tensor as long as the first tensor's.
        kwargs: example keyword inputs.
        dynamic: whether to try a batch of any length first.

    Raises:
        ExportError: torch.export refuses the model, with or without a dynamic batch.
    """
    batch = batch_size(args, kwargs)
    hints = max(batch, SMALLEST_HINT)
    wide_args = tuple(_grown(a, batch, hints) for a in args)
    wide_kwargs = {k: _grown(v, batch, hints) for k, v in kwargs.items()}
    shapes = (
        tuple(_dynamic(a, hints) for a in wide_args),
        {k: _dynamic(v, hints) for k, v in wide_kwargs.items()},
    )
    was_training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        if batch and dynamic:
            try:
                positional = shapes[0] if not kwargs else (*shapes[0], *shapes[1].values())
                return Traced(_export(module, wide_args, wide_kwargs, positional), dynamic=True)
            except Exception as error:  # torch.export raises whatever the traced code and its own checks raise
                refused = one_line(error)
        else:
            refused = (
                "no input is a tensor with a batch axis" if dynamic else "an axis depends on the batch in other ways"
            )
        try:
            return Traced(_export(module, args, dict(kwargs), None), dynamic=False, why_static=refused)
        except Exception as error:
            raise ExportError(
                f"{_place(error)}error: torch.export refuses this model: {one_line(error)}",
                mend="The model must be traceable: no Python branches on tensor values, no data-dependent shapes. "
                "`--debug` shows the whole of torch's report.",
            ) from error
    finally:
        for part, mode in was_training.items():
            part.training = mode


def _export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad(), silenced():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, args, kwargs or None, dynamic_shapes=shapes, strict=False)
        return program.run_decompositions({})


@contextmanager
def silenced() -> Generator[None]:
    """Keep torch from printing its reports; what counts of them is in the error it raises."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def batch_size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """The length of axis 0 of the first tensor among the inputs, 0 where there is none."""
    tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
    return tensors[0].shape[0] if tensors and tensors[0].dim() else 0


def _grown(value: Any, batch: int, hint: int) -> Any:
    """An input with its batch repeated up to the hint."""
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == batch and 0 < batch < hint:
        return value[torch.arange(hint) % batch]
    return value


def _dynamic(value: Any, hint: int) -> Any:
    return {0: Dim.DYNAMIC} if isinstance(value, Tensor) and value.dim() and value.shape[0] == hint else None


def one_line(error: BaseException) -> str:
    """An exception in one line: its class and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _place(error: BaseException) -> str:
    """The deepest frame of the user's own code in an error's traceback, as `file:line: `."""
    import os
    import traceback

    own = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    return f"{os.path.relpath(own[-1].filename)}:{own[-1].lineno}: " if own else ""


def is_users(filename: str) -> bool:
    """Whether a source file is the user's: neither torch's, nor nasc's, nor Python's own."""
    import sysconfig
    from pathlib import Path

    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    house = Path(__file__).resolve().parents[1]
    torch_home = Path(torch.__file__).resolve().parent
    library = Path(sysconfig.get_paths()["stdlib"]).resolve()
    inside = [house, torch_home, library / "importlib"]
    if any(path.is_relative_to(p) for p in inside):
        return False
    return not (path.is_relative_to(library) and "site-packages" not in path.parts)
