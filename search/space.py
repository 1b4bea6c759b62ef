"""Search spaces: named choices over a graph, and the one pipeline that each assignment of them stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

from ..compiler.pipeline import Pipeline, parse_pipeline
from ..ir import Graph, UsageError, chosen_layers, fresh_name, layers, operand, parse_encoding
from .space_rules import Rule, choices, default_rules, format_choices, width_choices, width_members

Part = Literal["weights", "activations", "biases", "width"]
Assignment = Mapping[str, str]
"""The choice of each knob, by the knob's name."""
LEFT_ALONE = "f32"
FORMAT_PARTS: tuple[Part, ...] = ("weights", "activations", "biases")


@dataclass(frozen=True)
class Knob:
    """One choice of a candidate.

    Args:
        name: such as `fc1.weights`.
        part: what is chosen.
        targets: the layers (for `width`: the widths) it holds for together.
        choices: as text, from the smallest to the largest.
        defaults: the baseline's for each target, which need not be among the choices.
    """

    name: str
    part: Part
    targets: tuple[str, ...]
    choices: tuple[str, ...]
    defaults: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """The candidates of a search.

    Args:
        knobs: in order; those with one choice are fixed.
        order: the layers of the graph in order, by which pipelines are written.
        before: passes before widths change.
        between: passes between widths and formats.
        after: passes behind formats.
        left_out: what was not offered, and why, as sentences.
    """

    knobs: tuple[Knob, ...]
    order: tuple[str, ...]
    before: str = "cleanup"
    between: str = "fold-batch-norm | merge-linear"
    after: str = "place | calibrate | legalize"
    left_out: tuple[str, ...] = ()

    @cached_property
    def free(self) -> tuple[Knob, ...]:
        """The knobs that leave a choice."""
        return tuple(k for k in self.knobs if len(k.choices) > 1)

    @property
    def size(self) -> int:
        """The exact number of assignments."""
        return prod(len(k.choices) for k in self.knobs)

    @property
    def smallest(self) -> Assignment:
        """The corner with the first choice everywhere."""
        return {k.name: k.choices[0] for k in self.knobs}

    @property
    def largest(self) -> Assignment:
        """The corner with the last choice everywhere."""
        return {k.name: k.choices[-1] for k in self.knobs}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides which candidates there are."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        """The space on a few lines: one per knob, and the passes around them."""
        lines = [f"{k.name} [{', '.join(k.targets)}]: {', '.join(k.choices)}" for k in self.knobs]
        return "\n".join([*lines, f"{self.before} | … | {self.between} | … | {self.after}"])

    def at(self, index: int) -> Assignment:
        """The assignment of that number: the last knob changes fastest.

        Raises:
            IndexError: the space is smaller.
        """
        if not 0 <= index < self.size:
            raise IndexError(index)
        found: dict[str, str] = {}
        for knob in reversed(self.knobs):
            index, choice = divmod(index, len(knob.choices))
            found[knob.name] = knob.choices[choice]
        return {k.name: found[k.name] for k in self.knobs}

    def index(self, assignment: Assignment) -> int:
        """The number of an assignment; the inverse of `at`."""
        number = 0
        for knob in self.knobs:
            number = number * len(knob.choices) + knob.choices.index(assignment[knob.name])
        return number

    def __iter__(self) -> Iterator[Assignment]:
        return map(self.at, range(self.size))

    def holds(self, assignment: Assignment) -> bool:
        """Whether every knob has one of its choices."""
        return len(assignment) == len(self.knobs) and all(assignment.get(k.name) in k.choices for k in self.knobs)

    def nearest(self, wanted: Callable[[Knob], int | None]) -> Assignment:
        """The assignment whose bits (sizes of widths) are nearest to what is wanted of each knob, larger ones first.

        Args:
            wanted: bits or size for a knob; None for its largest choice.
        """
        found: dict[str, str] = {}
        for knob in self.knobs:
            goal = wanted(knob)
            if goal is None:
                found[knob.name] = knob.choices[-1]
            else:
                found[knob.name] = min(reversed(knob.choices), key=lambda c, k=knob, g=goal: abs(amount(k, c) - g))
        return found

    def pipeline(self, assignment: Assignment) -> str:
        """The canonical text of the pipeline that an assignment stands for.

        Layers with equal formats share one `quantize`; what stays as it is is not mentioned.

        Raises:
            UsageError: a knob is missing, unknown, or has no such choice.
        """
        self._check(assignment)
        sizes: dict[str, str] = {}
        formats: dict[str, dict[str, str]] = {}
        for knob in self.knobs:
            choice = assignment[knob.name]
            for target, default in zip(knob.targets, knob.defaults, strict=True):
                if choice == default:
                    continue
                if knob.part == "width":
                    sizes[target] = choice
                else:
                    formats.setdefault(target, {})[knob.part] = choice
        grouped: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for layer in (name for name in self.order if name in formats):
            options = tuple((part, formats[layer][part]) for part in FORMAT_PARTS if part in formats[layer])
            grouped.setdefault(options, []).append(layer)
        resize = "resize{" + ", ".join(f"{w}={n}" for w, n in sizes.items()) + "}" if sizes else ""
        quantize = [
            f"quantize{{layers=[{', '.join(names)}], {', '.join(f'{part}={text}' for part, text in options)}}}"
            for options, names in grouped.items()
        ]
        texts = [self.before, resize, self.between, *quantize, self.after if grouped else ""]
        return str(parse_pipeline(" | ".join(text for text in texts if text)))

    def assignment(self, pipeline: str | Pipeline) -> Assignment:
        """The assignment that a pipeline stands for: the inverse of `pipeline`.

        Raises:
            UsageError: the pipeline is not one of this space.
        """
        parsed = parse_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
        chosen: dict[tuple[str, str], str] = {}
        for step in parsed.passes:
            options = step.options()
            if step.name == "resize":
                chosen.update({(width, "width"): size for width, size in options.items()})
            elif step.name == "quantize":
                for layer in choices(options.get("layers", "*")):
                    chosen.update({(layer, part): options[part] for part in FORMAT_PARTS if part in options})
        found = {k.name: self._chosen(k, chosen) for k in self.knobs}
        if not self.holds(found) or self.pipeline(found) != str(parsed):
            raise UsageError(f"the pipeline is not one of this search space: {parsed}")
        return found

    @staticmethod
    def _chosen(knob: Knob, chosen: Mapping[tuple[str, str], str]) -> str:
        """What a pipeline's options say of a knob: that of its first target that is mentioned, else the default."""
        mentioned = [chosen[t, knob.part] for t in knob.targets if (t, knob.part) in chosen]
        return mentioned[0] if mentioned else knob.defaults[0]

    def _check(self, assignment: Assignment) -> None:
        for knob in self.knobs:
            if knob.name not in assignment:
                raise UsageError(f"the candidate says nothing of {knob.name}")
            if assignment[knob.name] not in knob.choices:
                raise UsageError(
                    f"{knob.name} cannot be {assignment[knob.name]}", mend=f"Choose of {', '.join(knob.choices)}."
                )
        if unknown := assignment.keys() - {k.name for k in self.knobs}:
            raise UsageError(f"the search space has no knob {min(unknown)!r}")


def amount(knob: Knob, choice: str) -> int:
    """Bits of a format, or the size of a width."""
    return int(choice) if knob.part == "width" else parse_encoding(choice, knob.name).format.bits


def build_space(
    graph: Graph,
    rules: Sequence[Rule] = (),
    *,
    widths: bool = False,
    low: bool = False,
    before: str = "cleanup",
    between: str = "fold-batch-norm | merge-linear",
    after: str = "place | calibrate | legalize",
) -> Space:
    """The space of a graph: nasc's default, or what the rules offer; a later rule overrides an earlier one.

    Args:
        graph: the source network after `before` and `between`, whose layers and widths the rules name.
        rules: none for the default; layers that no rule names stay as they are.
        widths: whether the default space offers widths.
        low: whether it offers formats that only trained candidates do anything in.
        before: passes before widths change.
        between: passes between widths and formats.
        after: passes behind formats.

    Raises:
        UsageError: a rule names no layer, an unknown format or size, or nothing is left to choose.
    """
    knobs: dict[tuple[str, Part], Knob] = {}
    for rule in rules or default_rules(widths=widths, low=low):
        for knob in _offered(graph, rule):
            for target in knob.targets:
                knobs[target, knob.part] = knob
    order = tuple(op.name for op in layers(graph))
    found = _disjoint(knobs, order, tuple(graph.sizes))
    if not found:
        raise UsageError(
            f"the search space of @{graph.name} is empty: no layer has anything to choose",
            mend="`nasc space` shows what can change, and why the rest cannot.",
        )
    return Space(found, order, before, between, after)


def _offered(graph: Graph, rule: Rule) -> Iterator[Knob]:
    """The knobs of one rule."""
    members = () if _only_widths(rule) else chosen_layers(graph, rule.layers)
    groups = [(op,) for op in members] if rule.each else [members] if members else []
    for group in groups:
        label = group[0].name if rule.each or len(group) == 1 else "+".join(rule.layers)
        for part in FORMAT_PARTS:
            wanted: tuple[str, ...] | None = getattr(rule, part)
            carrying = tuple(op for op in group if part != "biases" or _has_bias(graph, op.name))
            if wanted is not None and carrying:
                chosen = format_choices(graph, part, wanted, carrying)
                names = tuple(op.name for op in carrying)
                yield Knob(f"{label}.{part}", part, names, chosen, (LEFT_ALONE,) * len(names))
    if rule.width is not None:
        named = width_members(graph, rule)
        for width in named if rule.each else named[:1]:
            targets = (width,) if rule.each else named
            label = width if len(targets) == 1 else "+".join(rule.layers)
            sizes = width_choices(graph, width, rule.width)
            defaults = tuple(str(graph.sizes[t]) for t in targets)
            yield Knob(f"{label}.width", "width", targets, sizes, defaults)


def _only_widths(rule: Rule) -> bool:
    return rule.weights is None and rule.activations is None and rule.biases is None


def _has_bias(graph: Graph, name: str) -> bool:
    return operand(graph.producers[name], "bias") is not None


def _disjoint(chosen: Mapping[tuple[str, Part], Knob], order: Sequence[str], widths: Sequence[str]) -> tuple[Knob, ...]:
    """The knobs as the last rules left them, each with the targets that still are its own, in the graph's order."""
    places = {name: at for at, name in enumerate([*widths, *order])}
    kept: dict[Knob, list[int]] = {}
    for (target, _), knob in chosen.items():
        kept.setdefault(knob, []).append(knob.targets.index(target))
    parts = ("width", *FORMAT_PARTS)
    found: list[Knob] = []
    for knob in sorted(kept, key=lambda k: (min(places[k.targets[i]] for i in kept[k]), parts.index(k.part))):
        left = sorted(kept[knob], key=lambda i, k=knob: places[k.targets[i]])
        name = fresh_name(knob.name, {k.name for k in found})
        targets, defaults = tuple(knob.targets[i] for i in left), tuple(knob.defaults[i] for i in left)
        found.append(Knob(name, knob.part, targets, knob.choices, defaults))
    return tuple(found)
