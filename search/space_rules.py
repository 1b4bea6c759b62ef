"""The language of search spaces: `linear: weights=[i2, i4, i8], activations=u4..u8` and what it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir import Graph, Op, ParseError, UsageError, chosen_layers, format_named, layers, parse_encoding, width_named
from ..ir.errors import did_you_mean

DEFAULT = ("default",)
LOW = ("low",)
"""The default formats and those below them, in which only trained networks do anything."""
PARTS = ("weights", "activations", "biases", "width")
WEIGHTS = ("i2", "i3", "i4", "i5", "i6", "i8")
"""Default formats of weights: beyond 6 bits one more saves little, and 8 is what integer kernels hold."""
ACTIVATIONS = ("u3", "u4", "u5", "u6", "u7", "u8")
FIRST_ACTIVATIONS = ("u6", "u7", "u8")
"""Default formats of what the first layers read: raw features lose most when they are rounded."""
LOW_ACTIVATIONS = ("u2", *ACTIVATIONS)
LOW_FIRST_ACTIVATIONS = ("u4", "u5", *FIRST_ACTIVATIONS)
BIASES = ("i2", "i4", "i6", "i8")
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Default sizes of a width, as shares of its size."""
MULTIPLE = 8
"""Default sizes of widths from 16 up are multiples of this, which suits vector units."""

_RULE = re.compile(r"\s*(each\s+)?(.+?)\s*:\s*(.+?)\s*", re.DOTALL)
_RANGE = re.compile(r"([iu]?)(\d+)\.\.([iu]?)(\d+)(?:/(\d+))?")
_WRITE = "Write PATTERN: weights=[i4, i8], activations=u4..u8, with `each` in front for a choice per layer."


@dataclass(frozen=True)
class Rule:
    """What some layers may choose from.

    Args:
        layers: names of layers, patterns (`fc*`) or kinds (`linear`).
        each: every layer chooses for itself; otherwise all of them share one choice.
        weights: formats as text, `("default",)` for nasc's own choice, `("low",)` for its choice where candidates are
            trained; None: not spoken of.
        activations: formats of the layers' inputs.
        biases: formats of the biases.
        width: sizes of the layers' output widths.
    """

    layers: tuple[str, ...]
    each: bool = False
    weights: tuple[str, ...] | None = None
    activations: tuple[str, ...] | None = None
    biases: tuple[str, ...] | None = None
    width: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("a rule of the search space names no layers", mend=_WRITE)
        if all(getattr(self, part) is None for part in PARTS):
            raise UsageError(f"the rule for {', '.join(self.layers)} offers nothing", mend=_WRITE)

    def __str__(self) -> str:
        named = self.layers[0] if len(self.layers) == 1 else f"[{', '.join(self.layers)}]"
        options = [
            f"{part}=default" if choices == DEFAULT else f"{part}=[{', '.join(choices)}]"
            for part in PARTS
            if (choices := getattr(self, part)) is not None
        ]
        return f"{'each ' if self.each else ''}{named}: {', '.join(options)}"


def parse_rule(text: str) -> Rule:
    """Read a rule.

    Raises:
        UsageError: the text is none; says what to write.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise UsageError(f"search space: {text!r} cannot be read", mend=_WRITE)
    options: dict[str, tuple[str, ...]] = {}
    for part in _outside_brackets(match[3]):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise UsageError(f"search space: expected PART=CHOICES in {text!r}, found {part!r}", mend=_WRITE)
        if key not in PARTS:
            raise UsageError(f"search space: there is no part {key!r}", mend=did_you_mean(key, list(PARTS)))
        if key in options:
            raise UsageError(f"search space: {key} is given twice in {text!r}")
        options[key] = choices(value, text)
    return Rule(tuple(_items(match[2])), bool(match[1]), **options)


def choices(text: str, whole: str = "") -> tuple[str, ...]:
    """The choices that a text lists: `i4`, `[i4, i8]`, `u4..u8`, `16..64/8`, `default`.

    Raises:
        UsageError: an empty list, or a range that runs backwards.
    """
    found: list[str] = []
    for item in _items(text):
        match = _RANGE.fullmatch(item)
        if match is None:
            found.append(item)
            continue
        low, high, step = int(match[2]), int(match[4]), int(match[5] or 1)
        if match[1] != match[3] or low > high or step < 1:
            raise UsageError(f"search space: the range {item!r} is empty or mixed", mend="Write i2..i8 or 16..64/8.")
        found += [f"{match[1]}{n}" for n in range(low, high + 1, step)]
    if not found:
        raise UsageError(f"search space: an empty list of choices in {whole or text!r}", mend=_WRITE)
    return tuple(dict.fromkeys(found))


def _items(text: str) -> list[str]:
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    return [item.strip() for item in _outside_brackets(inner) if item.strip()]


def _outside_brackets(text: str) -> list[str]:
    """The parts between commas that stand outside of brackets (`i8<2^-6>` and `[…]` may hold commas)."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "[<") - (character in "]>")
        if character == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def default_rules(*, widths: bool, low: bool = False) -> tuple[Rule, ...]:
    """The default space: each layer's weights and input for themselves, and its width where `widths`."""
    bits = LOW if low else DEFAULT
    return (Rule(("*",), True, bits, bits, None, DEFAULT if widths else None),)


def first_layers(graph: Graph) -> frozenset[str]:
    """The layers that no other layer stands before."""
    kinds = {op.name for op in layers(graph)}
    after: set[str] = set()
    for op in graph.ops:
        if any(name in after or name in kinds for name in op.inputs):
            after.update(op.results)
    return frozenset(kinds - after)


def format_choices(graph: Graph, part: str, wanted: tuple[str, ...], members: Sequence[Op]) -> tuple[str, ...]:
    """The formats a rule offers to some layers, in order of bits; `f32` leaves things as they are.

    Raises:
        UsageError: no such format, or not one for this part.
    """
    found: list[str] = []
    for text in wanted:
        if text in (*DEFAULT, *LOW):
            first = first_layers(graph) & {op.name for op in members}
            inputs = FIRST_ACTIVATIONS if first else ACTIVATIONS
            if text in LOW:
                inputs = LOW_FIRST_ACTIVATIONS if first else LOW_ACTIVATIONS
            found += {"weights": WEIGHTS, "activations": inputs, "biases": BIASES}[part]
            continue
        try:
            format = parse_encoding(text, "space").format
        except ParseError as error:
            raise UsageError(f"search space: {part}: {text!r} is no format", mend=error.mend) from error
        if format != format_named("f32") and not (format.is_int and format.bits <= 16):
            raise UsageError(f"search space: {part} may be integers of 2 to 16 bits or f32; found {text}")
        if part == "weights" and not format.signed:
            raise UsageError(f"search space: weights are signed; found {text}", mend=f"Write i{format.bits}.")
        found.append(text)
    return tuple(sorted(dict.fromkeys(found), key=lambda t: (parse_encoding(t, part).format.bits, t)))


def width_choices(graph: Graph, width: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The sizes a rule offers to a width, in order.

    Raises:
        UsageError: a size is not a positive number.
    """
    size = graph.sizes[width]
    found: set[int] = set()
    for text in wanted:
        if text == "default":
            for share in SHARES:
                around = round(size * share / MULTIPLE) * MULTIPLE if size >= 2 * MULTIPLE else round(size * share)
                found.add(max(around, 1))
            found.add(size)
        elif text.isdecimal() and int(text) > 0:
            found.add(int(text))
        else:
            raise UsageError(f"search space: {text!r} is no size of a width", mend="Write width=[16, 24] or 16..64/8.")
    return tuple(map(str, sorted(found)))


def width_members(graph: Graph, rule: Rule) -> tuple[str, ...]:
    """The free widths that a rule's patterns name, in the order of the header.

    Raises:
        UsageError: a name stands for no width, or for one that is fixed.
    """
    found: list[str] = []
    for pattern in rule.layers:
        if pattern in graph.sizes:
            found.append(pattern)
            continue
        named = chosen_layers(graph, pattern)
        if len(named) == 1 and named[0].name == pattern:
            found.append(width_named(graph, pattern))
            continue
        for layer in named:
            try:
                found.append(width_named(graph, layer.name))
            except UsageError:  # a pattern also meets layers whose width is fixed, such as the last one
                continue
    return tuple(width for width in graph.sizes if width in found)
