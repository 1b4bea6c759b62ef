"""What converters read and give.

A converter reads the call's arguments by their names in ATen's schema and gives the IR op's kind, operands and
attributes; an operand may be an op of its own. Ops without a converter, and calls that a converter declines with None,
stay `aten.*`: they run and export, and their axes are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from ....ir import Format
from ....ir.graph import Attribute


@dataclass(frozen=True)
class Converted:
    """An IR op without names and types.

    Args:
        kind: the op's kind.
        operands: what it reads.
        attributes: its attributes.
        format: how its result is stored, where the rule leaves that to the graph (`cast`, `full`).
        results: how many of the call's results it gives, where it is not all of them.
    """

    kind: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    format: Format | None = None
    results: int | None = None


Operand: TypeAlias = "fx.Node | Converted"


@dataclass(frozen=True)
class Call:
    """A call of an ATen op, its arguments by name with the schema's defaults filled in.

    Args:
        name: the op, `aten.linear.default`.
        arguments: the arguments.
        values: the results, without numbers.
        shape: the shape of the (first) result, as attributes.
        constants: the tensors that no input changes, by node.
        format: the format of the (first) result.
        axis: a length as an attribute: a number, or a term with the batch.
    """

    name: str
    arguments: Mapping[str, Any]
    values: tuple[Tensor, ...]
    shape: tuple[Attribute, ...]
    constants: Mapping[fx.Node, Any]
    format: Format
    axis: Callable[[Any], Attribute]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def value(self) -> Tensor:
        """The (first) result, without numbers."""
        return self.values[0]

    @property
    def kind(self) -> str:
        """The op without its overload: `linear`."""
        return self.name.split(".")[1]

    @property
    def rank(self) -> int:
        """The number of axes of the (first) result."""
        return self.value.dim()

    @property
    def first(self) -> fx.Node:
        """The tensor that comes first in the schema."""
        found = next(iter(self.arguments.values()))
        assert isinstance(found, fx.Node)
        return found

    def nodes(self, *names: str) -> tuple[fx.Node, ...]:
        """Operands that are there, in order."""
        return tuple(self.arguments[n] for n in names if isinstance(self.arguments.get(n), fx.Node))

    def tensor(self, node: fx.Node | str) -> Tensor:
        """An operand without its numbers: shape and format."""
        return (self.arguments[node] if isinstance(node, str) else node).meta["val"]

    def dim(self, value: int, rank: int | None = None) -> int:
        """An axis of the first operand counted from the front."""
        rank = self.tensor(self.first).dim() if rank is None else rank
        return value + rank if value < 0 else value

    def dims(self, name: str) -> tuple[int, ...]:
        """A list of axes of the first operand, counted from the front; empty for none given."""
        found = self.arguments.get(name)
        found = () if found is None else (found,) if isinstance(found, int) else found
        return tuple(self.dim(d) for d in found)

    def number(self, name: str) -> int | float | bool | None:
        """An operand's value where it is a number, or a tensor without axes that no input changes."""
        found = self.arguments[name]
        if isinstance(found, bool | int | float):
            return found
        if isinstance(found, fx.Node) and isinstance(held := self.constants.get(found), Tensor) and not held.dim():
            return held.item()
        return None

    def same_length(self, operand: str, axis: int) -> bool:
        """Whether an axis of an operand has a length that is known."""
        return known(self.tensor(operand).shape[axis])


def known(length: Any) -> bool:
    """Whether a length is a number; one that depends on the input is a `SymInt`, which torch's annotations call int."""
    return isinstance(length, int)


Converter = Callable[[Call], "Operand | None"]
CONVERTERS: dict[str, Converter] = {}
IDENTITIES = frozenset({
    "aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default", "aten.contiguous.default",
    "aten.clone.default", "aten.detach.default", "aten.alias.default", "aten.detach_.default",
    "aten.lift_fresh_copy.default", "aten.feature_alpha_dropout.default", "aten.positive.default",
    "aten.resolve_conj.default", "aten.resolve_neg.default",
})  # fmt: skip
"""Ops that inference does not need: their value is their first operand."""


def convert(*names: str) -> Callable[[Converter], Converter]:
    """Register a converter for ATen ops by `name.overload`."""

    def register(function: Converter) -> Converter:
        for name in names:
            CONVERTERS[f"aten.{name}"] = function
        return function

    return register


def spread(value: Any, rank: int) -> tuple[int, ...]:
    """A list of `rank` integers; a single one is repeated."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


def real(value: Any) -> Any:
    """A number as a float, where the IR writes floats."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def is_float(tensor: Tensor) -> bool:
    """Whether a tensor holds real numbers."""
    return tensor.dtype.is_floating_point or tensor.dtype in (torch.float16, torch.bfloat16)
