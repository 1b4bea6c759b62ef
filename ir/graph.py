"""Graphs: frozen, comparable structure. Ops in order of definition, types on every value, widths in a header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from .axes import Axis, Batch, Const, Product, Sum, Width
from .formats import Format
from .types import Type

Scalar: TypeAlias = bool | int | float | str | Format | Axis | None
Attribute: TypeAlias = "Scalar | tuple[Attribute, ...]"


@dataclass(frozen=True, slots=True)
class Location:
    """The user's line an op came from."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a graph: a value that nothing defines."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Op:
    """One line of a graph: the values it defines, how, and where that stands in the user's source.

    Args:
        kind: what it computes, by PyTorch's name (`conv2d`, `add`), or `aten.*` where the IR has no rule.
        results: the names of the values it defines, at least one.
        types: one type per result.
        inputs: the names of the values it reads, in the order of its operands.
        attributes: names and values, without those at their default; see `rules.attributes`.
        location: the user's line; does not take part in digests.
    """

    kind: str
    results: tuple[str, ...]
    types: tuple[Type, ...]
    inputs: tuple[str, ...] = ()
    attributes: tuple[tuple[str, Attribute], ...] = ()
    location: Location | None = None

    @property
    def name(self) -> str:
        """The name of its first result, by which the op is called."""
        return self.results[0]

    @property
    def type(self) -> Type:
        """The type of its first result."""
        return self.types[0]

    def attribute(self, name: str, default: Attribute = None) -> Attribute:
        """The attribute as written, or `default` where it is not."""
        return next((value for key, value in self.attributes if key == name), default)

    def with_type(self, type: Type) -> Op:
        """The same op with another type for its one result."""
        return replace(self, types=(type, *self.types[1:]))


CHECKED = "_checked"
"""Mark of a graph that the verifier found valid. It was so for all sizes of the widths: rules are checked with lengths
that stand for any (see `Solver`)."""
STORED = ("weight", "buffer")
"""Kinds of ops whose value lies in the weights' store: trained parameters, and fixed tensors such as running means."""


@dataclass(frozen=True)
class Graph:
    """A network without its numbers.

    Args:
        name: the network's name.
        inputs: its inputs in order.
        widths: names and sizes of the free widths; every `$name` in a type stands here.
        ops: in an order in which each reads only what stands before it.
        outputs: the names of the values it returns, in order.
    """

    name: str
    inputs: tuple[Input, ...]
    widths: tuple[tuple[str, int], ...]
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The size of each width."""
        return dict(self.widths)

    @cached_property
    def types(self) -> Mapping[str, Type]:
        """The type of each value."""
        found = {i.name: i.type for i in self.inputs}
        for op in self.ops:
            found.update(zip(op.results, op.types, strict=True))
        return found

    @cached_property
    def producers(self) -> Mapping[str, Op]:
        """The op that defines each value (inputs have none)."""
        return {result: op for op in self.ops for result in op.results}

    @cached_property
    def readers(self) -> Mapping[str, tuple[Op, ...]]:
        """The ops that read each value, in order, each once; values nobody reads are absent."""
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                found.setdefault(name, []).append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    @cached_property
    def stored(self) -> tuple[Op, ...]:
        """The ops whose values lie in the weights' store."""
        return tuple(op for op in self.ops if op.kind in STORED)

    @cached_property
    def quantized(self) -> bool:
        """Whether any value holds codes, with a step that is known or not."""
        return any(type.quantized for type in self.types.values())

    def __str__(self) -> str:
        from .printer import text

        return text(self)

    def with_sizes(self, sizes: Mapping[str, int]) -> Graph:
        """The same graph with other sizes for some of its widths; valid if this one is known to be."""
        new = replace(self, widths=tuple((name, sizes.get(name, size)) for name, size in self.widths))
        if CHECKED in self.__dict__ and all(size >= 1 for _, size in new.widths):
            object.__setattr__(new, CHECKED, True)
        return new

    def without_locations(self) -> Graph:
        """The same graph without the user's lines."""
        return replace(self, ops=tuple(replace(op, location=None) for op in self.ops))


def is_axis(value: object) -> bool:
    """Whether an attribute's value is an axis term."""
    return isinstance(value, Const | Batch | Width | Product | Sum)


def canonical(value: Attribute) -> Attribute:
    """An attribute's value in the one form that is stored: constant axis terms as integers, lists as tuples."""
    if isinstance(value, Const):
        return value.value
    if isinstance(value, tuple | list):
        return tuple(canonical(v) for v in value)
    return value


def fresh_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, or with the smallest number behind it that is not taken."""
    used = taken if isinstance(taken, set | frozenset | dict) else set(taken)
    if wanted not in used:
        return wanted
    number = 1
    while f"{wanted}_{number}" in used:
        number += 1
    return f"{wanted}_{number}"
