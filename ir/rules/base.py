"""What every op kind declares: its operands, its attributes with their defaults, and its one rule over axis terms.

From a rule come shape inference, the coupling of widths, the slicing of weights and the values of width-dependent
attributes. A rule reads axes and attributes from its `Site`, unifies what must agree, and returns the axes of its
results; it never looks at numbers beyond sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from ..axes import Axes, Axis, Const, Product, has_batch, polynomial, product, size
from ..errors import NascError
from ..formats import BOOL, F32, FLOATS, I64, Format
from ..graph import Attribute, Op, canonical, is_axis
from ..printer import attribute_text
from ..solver import Mismatch, Reason, Solver
from ..types import Encoding, Type

REQUIRED = "required"
"""Default of an attribute that must be given."""


class Fault(NascError):
    """An op breaks its rule: operands that do not fit each other, or attributes that do not fit the operands.

    Args:
        message: what was found against what was expected.
        operand: the value name to underline in a report, if one is to blame.
    """

    def __init__(self, message: str, operand: str | None = None) -> None:
        super().__init__(message)
        self.operand = operand


@dataclass(frozen=True)
class Spec:
    """The declaration of an op kind.

    Args:
        kind: the op's name.
        operands: their names; `bias?` may be left out, `tensors*` takes any number.
        rule: gives the axes of each result, and unifies on the way.
        attributes: names and defaults in canonical order.
        weight_axis: for layers, the axis of operand `weight` that is the layer's output.
        input_axis: for layers, the axis of operand `weight` along which it reads its input.
        encoding: gives how the results are stored, all alike or one by one; by default as arithmetic on the operands
            gives it, see `Site.promoted`.
    """

    kind: str
    operands: tuple[str, ...]
    rule: Callable[[Site], Sequence[Axes]]
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    weight_axis: int | None = None
    input_axis: int | None = None
    encoding: Callable[[Site], Encoding | Sequence[Encoding]] | None = None

    @property
    def is_layer(self) -> bool:
        """Whether the op multiplies its input with a weight."""
        return self.weight_axis is not None

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The position of each operand, by its plain name."""
        return {name.rstrip("?*"): i for i, name in enumerate(self.operands)}

    def index(self, operand: str) -> int:
        """The position of an operand, by its plain name."""
        return self.positions[operand]

    @cached_property
    def arity(self) -> tuple[int, int | None]:
        """The least and the greatest number of operands (None: no limit)."""
        least = sum(not name.endswith(("?", "*")) for name in self.operands)
        return least, None if any(name.endswith("*") for name in self.operands) else len(self.operands)


SPECS: dict[str, Spec] = {}


def op(
    kind: str,
    *operands: str,
    weight_axis: int | None = None,
    input_axis: int | None = None,
    encoding: Callable[[Site], Encoding | Sequence[Encoding]] | None = None,
    **attributes: Attribute,
) -> Callable[[Callable[[Site], Sequence[Axes]]], Callable[[Site], Sequence[Axes]]]:
    """Declare an op kind; the decorated function is its rule."""

    def declare(rule: Callable[[Site], Sequence[Axes]]) -> Callable[[Site], Sequence[Axes]]:
        SPECS[kind] = Spec(kind, operands, rule, attributes, weight_axis, input_axis, encoding)
        return rule

    return declare


def attributes(kind: str, given: Mapping[str, Attribute]) -> tuple[tuple[str, Attribute], ...]:
    """Attributes in canonical form: in the declared order, without those at their default, constants as integers.

    Raises:
        Fault: an attribute that this kind does not have, or a required one that is missing.
    """
    values = {name: canonical(value) for name, value in given.items()}
    if (spec := SPECS.get(kind)) is None:
        return tuple(values.items())
    if unknown := [name for name in values if name not in spec.attributes]:
        raise Fault(f"{kind} has no attribute {unknown[0]!r}; it has {', '.join(spec.attributes) or 'none'}")
    if missing := [n for n, default in spec.attributes.items() if default is REQUIRED and n not in values]:
        raise Fault(f"{kind} needs the attribute {missing[0]!r}")
    return tuple((n, values[n]) for n, default in spec.attributes.items() if n in values and values[n] != default)


class Site:
    """One op with its operands, as its rule sees it.

    Args:
        op: the op.
        spec: the declaration of its kind.
        types: the types of its operands.
        solver: what is known of the axes.
        infer: whether sizes in attributes may turn out to be widths.
    """

    def __init__(self, op: Op, spec: Spec, types: Sequence[Type], solver: Solver, *, infer: bool) -> None:
        self.op = op
        self.spec = spec
        self.solver = solver
        self.solved: dict[str, Attribute] = {}
        self.types = types
        self.infers = infer
        least, most = spec.arity
        if len(types) < least or (most is not None and len(types) > most):
            names = ", ".join(spec.operands) or "none"
            raise Fault(f"it takes the operands {names}; found {len(types)}")

    def has(self, operand: str) -> bool:
        """Whether an optional operand is there."""
        return self.spec.index(operand) < len(self.types)

    def type(self, operand: str) -> Type:
        """An operand's type as the graph has it; its axes may be out of date: see `axes`."""
        return self.types[self.spec.index(operand)]

    def axes(self, operand: str, rank: int | None = None) -> Axes:
        """An operand's axes with all that is known by now.

        Raises:
            Fault: it does not have `rank` axes.
        """
        axes = tuple(map(self.solver.resolve, self.type(operand).axes))
        if rank is not None and len(axes) != rank:
            raise Fault(f"{self._called(operand)} has {len(axes)} axes, expected {rank}", self._value(operand))
        return axes

    def all_axes(self) -> list[Axes]:
        """The axes of every operand, in order."""
        return [tuple(map(self.solver.resolve, t.axes)) for t in self.types]

    def attribute(self, name: str) -> Attribute:
        """An attribute, or its default."""
        return self.op.attribute(name, self.spec.attributes[name])

    def integer(self, name: str) -> int:
        """An integer attribute."""
        if not isinstance(value := self.attribute(name), int):
            raise Fault(f"attribute {name} must be an integer, found {attribute_text(value)}")
        return value

    def integers(self, name: str, length: int | None = None) -> tuple[int, ...]:
        """A list of integers; a single one is repeated to `length`."""
        value = self.attribute(name)
        if isinstance(value, int) and length is not None:
            return (value,) * length
        found = value if isinstance(value, tuple) else ()
        if not isinstance(value, tuple) or not all(isinstance(v, int) for v in found):
            raise Fault(f"attribute {name} must be a list of integers, found {attribute_text(value)}")
        if length is not None and len(found) == 1:
            found = found * length
        if length is not None and len(found) != length:
            raise Fault(f"attribute {name} must have {length} entries, found {len(found)}")
        return cast(tuple[int, ...], found)

    def term(self, name: str) -> Axis:
        """A size attribute as an axis term: the width inference may choose, or what the graph says."""
        return self._as_term(self.attribute(name), name)

    def terms(self, name: str) -> Axes:
        """A list of size attributes as axis terms."""
        value = self.attribute(name)
        if not isinstance(value, tuple):
            raise Fault(f"attribute {name} must be a list of sizes, found {attribute_text(value)}")
        return tuple(self._as_term(v, name) for v in value)

    def _as_term(self, value: Attribute, name: str) -> Axis:
        if is_axis(value):
            axis = self.solver.resolve(cast(Axis, value))
            if self.infers and isinstance(axis, Product):
                return product(self.fresh(t.value) if isinstance(t, Const) else t for t in axis.terms)
            return axis
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise Fault(f"attribute {name} must hold sizes, found {attribute_text(value)}")
        return self.solver.fresh(value) if self.infers and value > 1 else Const(value)

    def put(self, name: str, value: Attribute) -> None:
        """Write an attribute back in terms of widths; resolved when inference is done."""
        self.solved[name] = value

    def fresh(self, size: int) -> Axis:
        """An axis that the rule knows to exist, and nothing else of."""
        return self.solver.fresh(size)

    def call(self, axis: Axis, hint: str) -> None:
        """Say what a width is, for its name."""
        self.solver.call(axis, hint)

    def by_size(self) -> bool:
        """Whether lengths alone count, and not which index belongs to which width; see `solver`. A rule that asks has
        an axis that it must else fix."""
        self.solver.strained = True
        return not self.solver.ordered

    def alike(self, left: Axis, right: Axis) -> bool:
        """Whether two terms are the same as they stand, in the reading at hand."""
        return left == right or (not self.solver.ordered and polynomial(left) == polynomial(right))

    def size(self, axis: Axis) -> int:
        """An axis's length, with 1 for the batch."""
        return self.solver.size(axis)

    def fixed(self, axis: Axis, why: str) -> int:
        """The length of an axis that this op cannot let change.

        Raises:
            Fault: the axis may change, as a graph under check says, or it is the batch.
        """
        if has_batch(self.solver.resolve(axis)):
            raise Fault(f"{why}: found {self.show(axis)}, which depends on the batch")
        try:
            return self.solver.freeze(axis, self.reason(why))
        except Mismatch as mismatch:
            raise Fault(f"{why}: found {self.show(mismatch.left)}, which may change") from None

    def unify(self, left: Axis, right: Axis, sentence: str) -> None:
        """Make two axes the same.

        Args:
            left: one axis.
            right: the other.
            sentence: what to say where they differ; `{left}` and `{right}` are the two axes, `{input}` and other
                operands' names become the operand with its value.

        Raises:
            Fault: they cannot be the same.
        """
        try:
            self.solver.unify(left, right, self.reason(""))
        except Mismatch:
            names = {name.rstrip("?*"): name.rstrip("?*") for name in self.spec.operands}
            first = next((n for n in names if "{" + n + "}" in sentence), None)
            shown = {n: self._called(n) if "{" + n + "}" in sentence else n for n in names}
            text = sentence.format(**shown, left=self.show(left), right=self.show(right))
            raise Fault(text, self._value(first) if first else None) from None

    def reason(self, why: str) -> Reason:
        """This op as the reason for a frozen width."""
        return Reason(f"{self.op.kind} %{self.op.name}" + (f": {why}" if why else ""), self.op.name, self.op.location)

    def show(self, axis: Axis) -> str:
        """A term with its size: `$stem = 24`, `$a*64 = 1024`, `16`."""
        resolved = self.solver.resolve(axis)
        plain = isinstance(resolved, Const) or has_batch(resolved)
        return str(resolved) if plain else f"{resolved} = {self.solver.shown_size(resolved)}"

    def _value(self, operand: str) -> str:
        return self.op.inputs[self.spec.index(operand)]

    def _called(self, operand: str) -> str:
        return f"{operand} %{self._value(operand)}"

    def float_format(self) -> Format:
        """The widest float format among the operands; what has a step counts as `f32`."""
        found = [F32 if t.quantized else t.format for t in self.types if t.format.is_float or t.quantized]
        return min(found, key=FLOATS.index, default=F32)

    def promoted(self, *numbers: Attribute) -> Format:
        """The format of arithmetic on the operands and on some numbers: floats before integers before truth values,
        then the widest (torch's type promotion)."""
        if any(t.format.is_float or t.quantized for t in self.types):
            return self.float_format()
        if any(isinstance(n, float) for n in numbers):
            return F32
        found = [t.format for t in self.types if t.format.is_int]
        if not found and any(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
            return I64
        return max(found, key=lambda f: f.bits, default=BOOL if self.types else F32)


def encodings(site: Site, count: int) -> Sequence[Encoding]:
    """How each of an op's results is stored."""
    given = site.spec.encoding(site) if site.spec.encoding else Encoding(site.promoted())
    return [given] * count if isinstance(given, Encoding) else given


def sizes_of(axes: Axes, widths: Mapping[str, int]) -> tuple[int, ...]:
    """The lengths of several axes, with 1 for the batch."""
    return tuple(size(axis, widths) for axis in axes)
