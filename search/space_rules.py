"""The language of search spaces: `linear: weights=[i2, i4, i8], activations=u4..u8` and what it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..ir import (
    Graph,
    Op,
    UsageError,
    chosen_layers,
    layers,
    output_axis,
    parse_encoding,
    width_named,
    widths_in,
)
from ..ir.errors import did_you_mean
from .sizing import Sizing
from .space_formats import OFFERED, encoding_offered

DEFAULT = ("default",)
LOW = ("low",)
"""The default formats and those below them, in which only trained networks do anything."""
PARTS = ("weights", "activations", "biases", "width", "block")
WEIGHTS = ("i2", "i3", "i4", "i5", "i6", "i8")
"""Default formats of weights: beyond 6 bits one more saves little, and 8 is what integer kernels hold."""
ACTIVATIONS = ("u3", "u4", "u5", "u6", "u7", "u8")
FIRST_ACTIVATIONS = ("u6", "u7", "u8")
"""Default formats of what the first layers read: raw features lose most when they are rounded."""
LOW_ACTIVATIONS = ("u2", *ACTIVATIONS)
LOW_FIRST_ACTIVATIONS = ("u4", "u5", *FIRST_ACTIVATIONS)
BIASES = ("i2", "i4", "i6", "i8")
KEEP, DROP = "keep", "drop"
"""What a block may choose."""

_RULE = re.compile(r"\s*(each\s+|grouped\s+)?(.+?)\s*:\s*(.+?)\s*", re.DOTALL)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_RANGE = re.compile(r"([iu]?)(\d+)\.\.([iu]?)(\d+)(?:/(\d+))?")
_WRITE = (
    "Write PATTERN: weights=[i4, i8], activations=u4..u8, with `each` in front for a choice per layer, "
    "`grouped` for one per role and stage."
)


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
        width: sizes of the layers' output widths: numbers, or shares of their own (`50%`).
        block: `keep`, `drop`: whether residual branches of these names stay.
        grouped: layers and widths of one role and stage share a choice.

    Raises:
        UsageError: it names no layers, offers nothing, or something that no network has.
    """

    layers: tuple[str, ...]
    each: bool = False
    weights: tuple[str, ...] | None = None
    activations: tuple[str, ...] | None = None
    biases: tuple[str, ...] | None = None
    width: tuple[str, ...] | None = None
    block: tuple[str, ...] | None = None
    grouped: bool = False

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("a rule of the search space names no layers", mend=_WRITE)
        if all(getattr(self, part) is None for part in PARTS):
            raise UsageError(f"the rule for {', '.join(self.layers)} offers nothing", mend=_WRITE)
        if self.each and self.grouped:
            raise UsageError(f"the rule for {', '.join(self.layers)}: either each or grouped", mend=_WRITE)
        for part in OFFERED:
            for text in getattr(self, part) or ():
                if text not in (*DEFAULT, *LOW):
                    encoding_offered(text, part)
        for text in self.width or ():
            amount_of(text)
        block_choices(self.block or ())

    def __str__(self) -> str:
        named = self.layers[0] if len(self.layers) == 1 else f"[{', '.join(self.layers)}]"
        options = [
            f"{part}=default" if choices == DEFAULT else f"{part}=[{', '.join(choices)}]"
            for part in PARTS
            if (choices := getattr(self, part)) is not None
        ]
        return f"{'each ' if self.each else 'grouped ' if self.grouped else ''}{named}: {', '.join(options)}"


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
    how = (match[1] or "").strip()
    return Rule(tuple(_items(match[2])), how == "each", grouped=how == "grouped", **options)


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
        raise UsageError(
            f"search space: an empty list of choices in {whole or text!r}", mend="Write [i4, i8], u4..u8 or 16..64/8."
        )
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


def format_rules(weights: str | None, activations: str | None) -> tuple[Rule, ...]:
    """The space of formats alone, each layer for itself; where neither part is given, the default one.

    Args:
        weights: formats as a rule lists them: `i2..i8`, `[i4, i8]`.
        activations: formats of layers' inputs.

    Raises:
        UsageError: a format does not exist.
    """
    w, a = (None if formats is None else choices(formats) for formats in (weights, activations))
    return default_rules(widths=False) if w is a is None else (Rule(("*",), each=True, weights=w, activations=a),)


def default_rules(*, widths: bool, low: bool = False) -> tuple[Rule, ...]:
    """The default space: each layer's weights and input; where `widths`, widths in groups and blocks as well."""
    bits = LOW if low else DEFAULT
    formats = Rule(("*",), each=True, weights=bits, activations=bits)
    if not widths:
        return (formats,)
    return (formats, Rule(("*",), grouped=True, width=DEFAULT), Rule(("*",), each=True, block=DEFAULT))


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
        found.append(str(encoding_offered(text, part)))
    return tuple(sorted(dict.fromkeys(found), key=lambda t: (parse_encoding(t, part).format.bits, t)))


def amount_of(text: str) -> int | float | None:
    """What a word says of a width: its size, a share of its own, or None for nasc's own choice.

    Raises:
        UsageError: a size is not a positive number, or no share.
    """
    if text in DEFAULT:
        return None
    if (match := _SHARE.fullmatch(text)) is not None and float(match[1]) > 0:
        return float(match[1]) / 100
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(
        f"search space: {text!r} is no size of a width", mend="Write width=[16, 24], 16..64/8 or [50%, 100%]."
    )


def width_choices(
    graph: Graph, widths: Sequence[str], wanted: tuple[str, ...], sizing: Sizing
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The choices a rule offers to some widths together, in order, and what each stands for by width.

    Widths of one size choose a size; widths of several choose a share of their own (`50%`).

    Raises:
        UsageError: a size is not a positive number, or no share.
    """
    sizes: set[int] = set()
    shares: set[float] = set()
    for text in wanted:
        amount = amount_of(text)
        if amount is None:
            shares.update(sizing.shares)
        elif isinstance(amount, float):
            shares.add(amount)
        else:
            sizes.add(amount)
    alike = {graph.sizes[w] for w in widths}
    if len(alike) == 1 or not shares:
        found = sizes | {sizing.at(graph, widths[0], share) for share in shares}
        names = tuple(map(str, sorted(found)))
        return names, (names,) * len(widths)
    if sizes:
        raise UsageError(
            f"search space: widths of {', '.join(map(str, sorted(alike)))} share either sizes or shares, not both",
            mend="Write [50%, 100%] alone, or `each` in front.",
        )
    ordered = sorted(shares)
    by_width = tuple(tuple(str(sizing.at(graph, w, share)) for share in ordered) for w in widths)
    return tuple(f"{100 * share:g}%" for share in ordered), by_width


def block_choices(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """What a rule offers to residual branches: to go, to stay, or both.

    Raises:
        UsageError: another word.
    """
    if unknown := set(wanted) - {KEEP, DROP, "default"}:
        raise UsageError(f"search space: a block cannot be {min(unknown)!r}", mend="Write block=[drop, keep].")
    return tuple(choice for choice in (DROP, KEEP) if choice in wanted or "default" in wanted)


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
        for layer in named:  # a pattern also meets layers whose width is fixed, such as the last one
            found += widths_in(output_axis(graph, layer))
        found += [width for width in graph.sizes if fnmatchcase(width, pattern)]
    return tuple(width for width in graph.sizes if width in found)
