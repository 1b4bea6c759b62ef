"""Models given from Python: a module or an exported program, and inputs in the forms people have them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torch.export import ExportedProgram

from ...ir.errors import UsageError
from ..network import Network
from .exported import examples_of, lower_exported
from .lower import lower_module


def lower_given(model: object, example_inputs: Any, name: str | None) -> Network:
    """Lower a module or an exported program.

    Args:
        model: the module, or what torch.export made of one.
        example_inputs: a tensor, a tuple of positional inputs, or a dict of keyword inputs; an exported program has
            its own.
        name: the graph's name, by default made of the class's.

    Raises:
        UsageError: it is neither, or there are no example inputs.
        NascError: torch.export refuses the module, or the lowered graph does not compute what it does.
    """
    args, kwargs = _apart(example_inputs)
    if isinstance(model, ExportedProgram):
        if example_inputs is None:
            args, kwargs = examples_of(model, "python")
        return lower_exported(model, args, kwargs, name=name or "exported")
    module = expected_module(model)
    if example_inputs is None:
        raise UsageError(
            f"lower: {type(module).__name__} needs example inputs",
            mend="Write nasc.lower(model, torch.randn(1, 3, 64, 64)).",
        )
    return lower_module(module, args, kwargs, name=name)


def expected_module(model: object) -> nn.Module:
    """The model, if it is a module.

    Raises:
        UsageError: it is none; says what to give instead.
    """
    if isinstance(model, nn.Module):
        return model
    made = isinstance(model, type) and issubclass(model, nn.Module)
    found = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise UsageError(
        f"expected an nn.Module or an exported program, found {found}",
        mend=f"Make one: {cast('type', model).__name__}()." if made else None,
    )


def _apart(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(cast("Mapping[str, Any]", inputs))
    return (tuple(cast("tuple[Any, ...]", inputs)) if isinstance(inputs, tuple | list) else (inputs,)), {}
