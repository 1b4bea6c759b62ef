"""Search spaces: named choices over a graph, and the one pipeline that each assignment of them stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal, TypeVar

from ..compiler.analyses.branches import Branch, matches
from ..compiler.pipeline import Pipeline, parse_pipeline
from ..ir import Graph, Op, UsageError, chosen_layers, fresh_name, layers, operand, parse_encoding, widths_in
from ..ir.errors import did_you_mean
from .sizing import Sizing
from .space_groups import group_name, grouped_layers, grouped_widths
from .space_rules import (
    DROP,
    KEEP,
    Rule,
    block_choices,
    choices,
    default_rules,
    format_choices,
    width_choices,
    width_members,
)

Part = Literal["weights", "activations", "biases", "width", "block"]
Assignment = Mapping[str, str]
"""The choice of each knob, by the knob's name."""
LEFT_ALONE = "f32"
T = TypeVar("T", Op, str)
FORMAT_PARTS: tuple[Part, ...] = ("weights", "activations", "biases")


@dataclass(frozen=True)
class Knob:
    """One choice of a candidate.

    Args:
        name: such as `fc1.weights`.
        part: what is chosen.
        targets: the layers (for `width`: the widths, for `block`: the residual branches) it holds for together.
        choices: as text, from the smallest to the largest.
        defaults: the baseline's for each target, which need not be among the choices.
        sizes: what each choice means for each target, where it is a share of the target's own size; else empty.
    """

    name: str
    part: Part
    targets: tuple[str, ...]
    choices: tuple[str, ...]
    defaults: tuple[str, ...]
    sizes: tuple[tuple[str, ...], ...] = ()

    def meaning(self, choice: str, target: str) -> str:
        """What a choice means for one target, as pipelines write it."""
        return self.sizes[self.targets.index(target)][self.choices.index(choice)] if self.sizes else choice


@dataclass(frozen=True)
class Space:
    """The candidates of a search.

    Args:
        knobs: in order; those with one choice are fixed.
        order: the layers of the graph in order, by which pipelines are written.
        before: passes before widths change.
        between: passes between widths and formats.
        after: passes behind formats.
        blocks: the residual branches that may go.
        carriers: the layers that each width is a length of: it goes with the last of them.
        left_out: what was not offered, and why, as sentences: one for all knobs that are without the same formats.
    """

    knobs: tuple[Knob, ...]
    order: tuple[str, ...]
    before: str = "cleanup"
    between: str = "fold-batch-norm | merge-linear"
    after: str = "place | calibrate | legalize"
    left_out: tuple[str, ...] = ()
    blocks: tuple[Branch, ...] = ()
    carriers: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]], compare=False)

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
        lines += [f"{k.name}: {'; '.join(map(', '.join, k.sizes))}" for k in self.knobs if k.sizes]
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
        dropped, gone = self._dropped(assignment)
        for knob in self.knobs:
            for target, default in zip(knob.targets, knob.defaults, strict=True):
                choice = knob.meaning(assignment[knob.name], target)
                if choice == default or knob.part == "block":
                    continue
                if knob.part != "width":
                    if target not in gone:
                        formats.setdefault(target, {})[knob.part] = choice
                elif not (carrying := self.carriers.get(target)) or not carrying <= gone:
                    sizes[target] = choice
        grows = any(int(n) > int(d) for k in self.knobs for t, d in _widths(k) if (n := sizes.get(t)) is not None)
        grouped: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for layer in (name for name in self.order if name in formats):
            options = tuple((part, formats[layer][part]) for part in FORMAT_PARTS if part in formats[layer])
            grouped.setdefault(options, []).append(layer)
        drop = f"drop{{block=[{', '.join(dropped)}]}}" if dropped else ""
        written = [f"{w}={n}" for w, n in sizes.items()] + (["grow=nearly"] if grows else [])
        resize = f"resize{{{', '.join(written)}}}" if sizes else ""
        quantize = [
            f"quantize{{layers=[{', '.join(names)}], {', '.join(f'{part}={text}' for part, text in options)}}}"
            for options, names in grouped.items()
        ]
        texts = [self.before, drop, resize, self.between, *quantize, self.after if grouped else ""]
        return str(parse_pipeline(" | ".join(text for text in texts if text)))

    def _dropped(self, assignment: Assignment) -> tuple[list[str], set[str]]:
        """The branches that go, those inside of others left out, and the layers that go with them."""
        chosen = {t for k in self.knobs if k.part == "block" and assignment[k.name] == DROP for t in k.targets}
        going = [b for b in self.blocks if b.name in chosen]
        outer = [b for b in going if not any(set(b.layers) < set(o.layers) for o in going)]
        return [b.name for b in outer], {layer for b in outer for layer in b.layers}

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
            elif step.name == "drop":
                chosen.update({(block, "block"): DROP for block in choices(options["block"])})
            elif step.name == "quantize":
                for layer in choices(options.get("layers", "*")):
                    chosen.update({(layer, part): options[part] for part in FORMAT_PARTS if part in options})
        found = {k.name: self._chosen(k, chosen) for k in self.knobs}
        if not self.holds(found) or self.pipeline(found) != str(parsed):
            raise UsageError(f"the pipeline is not one of this search space: {parsed}")
        return found

    @staticmethod
    def _chosen(knob: Knob, chosen: Mapping[tuple[str, str], str]) -> str:
        """The choice that a pipeline's options fit; of a knob whose targets are all gone, what it was."""
        told = [chosen.get((t, knob.part), d) for t, d in zip(knob.targets, knob.defaults, strict=True)]
        meant = (
            c for c in knob.choices if all(knob.meaning(c, t) == n for t, n in zip(knob.targets, told, strict=True))
        )
        mentioned = (chosen[t, knob.part] for t in knob.targets if (t, knob.part) in chosen)
        part = (c for n in mentioned for c in knob.choices if any(knob.meaning(c, t) == n for t in knob.targets))
        return next(meant, next(part, knob.choices[-1]))

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


def _widths(knob: Knob) -> Iterator[tuple[str, str]]:
    return zip(knob.targets, knob.defaults, strict=True) if knob.part == "width" else iter(())


def amount(knob: Knob, choice: str) -> int:
    """Bits of a format, the size of a (first) width, 1 for a block that stays."""
    if knob.part == "block":
        return int(choice == KEEP)
    if knob.part == "width":
        return int(knob.meaning(choice, knob.targets[0]))
    return parse_encoding(choice, knob.name).format.bits


def build_space(
    graph: Graph,
    rules: Sequence[Rule] = (),
    *,
    widths: bool = False,
    low: bool = False,
    blocks: Sequence[Branch] = (),
    sizing: Sizing | None = None,
    before: str = "cleanup",
    between: str = "fold-batch-norm | merge-linear",
    after: str = "place | calibrate | legalize",
) -> Space:
    """The space of a graph: nasc's default, or what the rules offer; a later rule overrides an earlier one.

    Args:
        graph: the source network after `before` and `between`, whose layers and widths the rules name.
        rules: none for the default; layers that no rule names stay as they are.
        widths: whether the default space offers widths and blocks.
        low: whether it offers formats that only trained candidates do anything in.
        blocks: the residual branches that may go, by their names behind `before`.
        sizing: how sizes of widths are chosen.
        before: passes before widths change.
        between: passes between widths and formats.
        after: passes behind formats.

    Raises:
        UsageError: a rule names no layer, an unknown format or size, or nothing is left to choose.
    """
    knobs: dict[tuple[str, Part], Knob] = {}
    for rule in rules or default_rules(widths=widths, low=low):
        for knob in _offered(graph, rule, blocks, sizing or Sizing(), asked=bool(rules)):
            for target in knob.targets:
                knobs[target, knob.part] = knob
    order = tuple(op.name for op in layers(graph))
    found = _disjoint(knobs, order, (*(b.name for b in blocks), *graph.sizes))
    if not found:
        raise UsageError(
            f"the search space of @{graph.name} is empty: no layer has anything to choose",
            mend="`nasc space` shows what can change, and why the rest cannot.",
        )
    return Space(found, order, before, between, after, blocks=tuple(blocks), carriers=_carriers(graph))


def _carriers(graph: Graph) -> dict[str, frozenset[str]]:
    """For each width the layers whose weights have it as a length."""
    found: dict[str, set[str]] = {}
    for op in layers(graph):
        for axis in graph.types[operand(op, "weight") or ""].axes:
            for width in widths_in(axis):
                found.setdefault(width, set()).add(op.name)
    return {width: frozenset(names) for width, names in found.items()}


def _offered(graph: Graph, rule: Rule, blocks: Sequence[Branch], sizing: Sizing, *, asked: bool) -> Iterator[Knob]:
    """The knobs of one rule."""
    yield from _formats_offered(graph, rule)
    if rule.width is not None:
        yield from _widths_offered(graph, rule, rule.width, sizing)
    if rule.block is not None:
        yield from _blocks_offered(rule, rule.block, blocks, asked=asked)


def _formats_offered(graph: Graph, rule: Rule) -> Iterator[Knob]:
    members = () if all(getattr(rule, part) is None for part in FORMAT_PARTS) else chosen_layers(graph, rule.layers)
    for group in _grouped(rule, members, lambda ops: grouped_layers(graph, ops)):
        label = _label(rule, [op.name for op in group])
        for part in FORMAT_PARTS:
            wanted: tuple[str, ...] | None = getattr(rule, part)
            carrying = tuple(op for op in group if part != "biases" or _has_bias(graph, op.name))
            if wanted is not None and carrying:
                chosen = format_choices(graph, part, wanted, carrying)
                names = tuple(op.name for op in carrying)
                yield Knob(f"{label}.{part}", part, names, chosen, (LEFT_ALONE,) * len(names))


def _widths_offered(graph: Graph, rule: Rule, wanted: tuple[str, ...], sizing: Sizing) -> Iterator[Knob]:
    for group in _grouped(rule, width_members(graph, rule), lambda names: grouped_widths(graph, names)):
        chosen, meanings = width_choices(graph, group, wanted, sizing)
        defaults = tuple(str(graph.sizes[t]) for t in group)
        alike = all(sizes == chosen for sizes in meanings)
        yield Knob(f"{_label(rule, group)}.width", "width", group, chosen, defaults, () if alike else meanings)


def _blocks_offered(rule: Rule, wanted: tuple[str, ...], blocks: Sequence[Branch], *, asked: bool) -> Iterator[Knob]:
    chosen = block_choices(wanted)
    for pattern in rule.layers:
        if asked and not any(matches(b, pattern) for b in blocks):
            raise UsageError(
                f"no block that can be dropped matches {pattern!r}",
                mend=did_you_mean(pattern, [b.name for b in blocks]),
            )
    members = [b.name for b in blocks if any(matches(b, p) for p in rule.layers)]
    for group in [(name,) for name in members] if rule.each or rule.grouped else [tuple(members)] if members else []:
        yield Knob(f"{_label(rule, group)}.block", "block", group, chosen, (KEEP,) * len(group))


def _grouped(
    rule: Rule, members: Sequence[T], by_role: Callable[[Sequence[T]], Sequence[tuple[T, ...]]]
) -> Sequence[tuple[T, ...]]:
    """What chooses together by a rule: each for itself, by role and stage, or all."""
    if rule.each:
        return [(member,) for member in members]
    if rule.grouped:
        return by_role(members)
    return [tuple(members)] if members else []


def _label(rule: Rule, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return group_name(names) if rule.grouped else "+".join(rule.layers)


def _has_bias(graph: Graph, name: str) -> bool:
    return operand(graph.producers[name], "bias") is not None


def _disjoint(chosen: Mapping[tuple[str, Part], Knob], order: Sequence[str], widths: Sequence[str]) -> tuple[Knob, ...]:
    """The knobs as the last rules left them, each with the targets that still are its own, in the graph's order."""
    places = {name: at for at, name in enumerate([*widths, *order])}
    kept: dict[Knob, list[int]] = {}
    for (target, _), knob in chosen.items():
        kept.setdefault(knob, []).append(knob.targets.index(target))
    parts = ("block", "width", *FORMAT_PARTS)
    found: list[Knob] = []
    for knob in sorted(kept, key=lambda k: (min(places[k.targets[i]] for i in kept[k]), parts.index(k.part))):
        left = sorted(kept[knob], key=lambda i, k=knob: places[k.targets[i]])
        name = fresh_name(knob.name, {k.name for k in found})
        targets, defaults = tuple(knob.targets[i] for i in left), tuple(knob.defaults[i] for i in left)
        sizes = tuple(knob.sizes[i] for i in left) if knob.sizes else ()
        found.append(Knob(name, knob.part, targets, knob.choices, defaults, sizes))
    return tuple(found)
