"""What the search tries before it asks a strategy: uniform bits, what each choice does alone, and the best mixtures.

How much each choice hurts alone is measured on a few samples before (`sensitivity`), or found by one trial per choice.
Mixtures that lose least for what they cost come from an integer program (`allocation`), or a walk from many bits down;
a bisection finds how far to go, and a model of what hurts, fitted again after every trial, proposes mixtures right at
the limit of what may be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .allocation import Allocator
from .damage import DamageModel, Table
from .figures import Figure, Metric
from .objectives import Constraint
from .records import Record
from .smooth import Line, line, smoothed
from .space import Assignment, Knob, Space, amount

REFERENCE = "uniform 8 bits"
UNIFORM = ((6, 8), (6, 6), (4, 8))
"""Bits of weights and activations that are tried for all layers alike."""
PROBE = 4
"""Bits at which each choice is tried alone."""
BISECTIONS = 5
RUNGS = 32
"""Budgets among which the bisection looks, in equal ratios from the dearest mixture to the cheapest."""
SHARE = 0.4
"""Share of the paid trials that probing each choice alone may take; beyond it the strategy starts without."""
PROPOSED = 0.3
"""Share of the paid trials that the model of what hurts may propose."""
LEVELS = (0.6, 0.45, 0.7, 0.5, 0.8)
"""How much of the tolerance the model's proposals may be thought to use up, in turn."""


@dataclass(frozen=True)
class Seed:
    """A candidate that the search proposes by itself.

    Args:
        assignment: the choice of each knob.
        origin: why.
    """

    assignment: Assignment
    origin: str


@dataclass(frozen=True)
class Plan:
    """The seeds of a search: what to try next is a function of what has been told, so it survives any stop.

    Args:
        space: where candidates come from.
        quality: the metric that must not suffer.
        tolerance: how much of it may be lost.
        macs: multiply-adds of each layer.
        trials: how many candidates the search pays for.
        table: by knob and choice, what it was measured to hurt alone; None where that was not measured.
        allocator: finds the mixture that hurts least within a budget.
    """

    space: Space
    quality: Metric
    tolerance: Constraint
    macs: Mapping[str, float]
    trials: int
    table: Table | None = None
    allocator: Allocator | None = None

    @property
    def formats(self) -> tuple[Knob, ...]:
        """The knobs that choose bits of weights or activations."""
        return tuple(k for k in self.space.free if k.part in ("weights", "activations"))

    def reference(self) -> Assignment | None:
        """All weights and activations in 8 bits, as far as the space can; None where it cannot."""
        found = self.uniform(8, 8)
        return found if self.has_bits(found, 8, 8) else None

    def has_bits(self, assignment: Assignment, weights: int, activations: int) -> bool:
        """Whether all weights have so many bits, and all activations so many."""
        wanted = {"weights": weights, "activations": activations}
        return all(amount(k, assignment[k.name]) == wanted[k.part] for k in self.space.knobs if k.part in wanted)

    def uniform_name(self, assignment: Assignment, weights: int, activations: int) -> str:
        """What an assignment of `uniform` is called: by the bits if it has them, else by the formats it has instead."""
        bits = REFERENCE if weights == activations == 8 else f"uniform {weights} and {activations} bits"
        if self.has_bits(assignment, weights, activations):
            return bits
        found = {p: self.formats_of(assignment, p) for p in ("weights", "activations")}
        if all(len(formats) == 1 for formats in found.values()):
            return f"uniform {found['weights'][0]}/{found['activations'][0]}"
        listed = ", ".join(f"{part} {' '.join(formats)}" for part, formats in found.items() if formats)
        return f"nearest to {bits}: {listed}"

    def formats_of(self, assignment: Assignment, part: str) -> tuple[str, ...]:
        """The formats that an assignment gives to one part of the layers, each once."""
        return tuple(dict.fromkeys(assignment[k.name] for k in self.space.knobs if k.part == part))

    def uniform(self, weights: int, activations: int) -> Assignment:
        """The assignment nearest to the same bits everywhere; widths as they are, biases in the most bits."""

        def wanted(knob: Knob) -> int | None:
            match knob.part:
                case "weights":
                    return weights
                case "activations":
                    return activations
                case "biases":
                    return None
                case "width":
                    return int(knob.defaults[0])
                case "block":
                    return 1

        return self.space.nearest(wanted)

    def thought(self, records: Sequence[Record], baseline: float) -> Table:
        """By knob and choice, what it is thought to hurt after these trials."""
        start, seeds = self.reference() or self.uniform(8, 8), _Seeds(self, records, Figure(baseline))
        hurts = [(r.assignment, hurt) for r in records if r.paid and (hurt := seeds.hurt(r)) is not None]
        model = DamageModel.fitted(self.space, self.macs, start, hurts, self.table)
        if model is None:
            model = DamageModel(self.space, self.macs, start, 0.0, {k.name: 1.0 for k in self.formats}, (), self.table)
        return model.hurts()

    def next(self, records: Sequence[Record], baseline: float) -> Seed | None:
        """The first seed that has not been told, or None when the strategy is to go on alone.

        Args:
            records: what was told.
            baseline: the baseline's quality.
        """
        if self.trials < 2:
            return None
        return next(_Seeds(self, records, Figure(baseline)).untold(), None)


@dataclass
class _Seeds:
    """The seeds in order, as far as what was told allows to know them."""

    plan: Plan
    records: Sequence[Record]
    baseline: Figure
    told: dict[int, Record] = field(default_factory=dict[int, Record])

    def __post_init__(self) -> None:
        index = self.plan.space.index
        self.told = {index(r.assignment): r for r in self.records}

    def untold(self) -> Iterator[Seed]:
        return (seed for seed in self.seeds() if self.plan.space.index(seed.assignment) not in self.told)

    def seeds(self) -> Iterator[Seed]:
        plan = self.plan
        start = plan.reference() or plan.uniform(8, 8)
        yield Seed(start, plan.uniform_name(start, 8, 8))
        for weights, activations in UNIFORM[: max(1, plan.trials // 4)]:
            found = plan.uniform(weights, activations)
            yield Seed(found, plan.uniform_name(found, weights, activations))
        alone = [start]
        if plan.table is None:
            probes = [(knob, self.probe(start, knob)) for knob in plan.formats]
            if not probes or len(probes) > SHARE * plan.trials:
                return
            for knob, assignment in probes:
                yield Seed(assignment, f"{knob.name} alone")
            alone += [assignment for _, assignment in probes]
        hurts = [(a, hurt) for a in alone if (hurt := self.hurt(self.told.get(plan.space.index(a)))) is not None]
        model = DamageModel.fitted(plan.space, plan.macs, start, hurts, plan.table)
        if model is None:
            return
        yield from self.bisected(model)
        yield from self.proposed(start)

    @staticmethod
    def probe(start: Assignment, knob: Knob) -> Assignment:
        """The start with one knob lowered."""
        lower = [c for c in knob.choices if amount(knob, c) < amount(knob, start[knob.name])]
        if not lower:
            return start
        return {**start, knob.name: min(lower, key=lambda c: abs(amount(knob, c) - PROBE))}

    def hurt(self, record: Record | None) -> float | None:
        """How bad a candidate is: its loss over the baseline's, else the quality it lacks, or its noise power."""
        if record is None or self.plan.quality.name not in record.figures:
            return None
        loss = record.figures.get("loss")
        if loss is not None and loss.difference is not None:
            return loss.difference
        figure = record.figures[self.plan.quality.name]
        if self.plan.quality.dimension == "decibel":
            return 10 ** (-figure.value / 10)
        lost = self.baseline.value - figure.value
        return lost if self.plan.quality.direction == "max" else -lost

    def limit(self, fitted: Line | None, level: float) -> float | None:
        """The hurt at which so much of the tolerance is thought to be used up; None where that cannot be said."""
        quality, bound = self.plan.quality, self.plan.tolerance.bound.at(self.baseline.value)
        if quality.dimension == "decibel":
            return level * 10 ** (-bound / 10)
        lost = level * abs(self.baseline.value - bound)
        if quality.name == "loss" or not any("loss" in r.figures for r in self.records):
            return lost
        return None if fitted is None or fitted.slope == 0 else lost / abs(fitted.slope)

    def bisected(self, model: DamageModel) -> Iterator[Seed]:
        """How far to go: halve between the last that is good enough and the first that is not."""
        allocator = self.plan.allocator
        walk = model.walk() if allocator is None or self.plan.table is None else []
        good, bad = 0, len(walk) or RUNGS
        for _ in range(BISECTIONS):
            if bad - good <= 1:
                return
            middle = (good + bad) // 2
            if allocator is None or self.plan.table is None:
                found, origin = walk[middle], "least hurt per bit operation saved"
            else:
                found = allocator.allocate(self.plan.table, allocator.budget(middle / RUNGS))
                origin = "least hurt within a budget"
            if found is None:
                return
            yield Seed(found, origin)
            record = self.told.get(self.plan.space.index(found))
            if record is None:
                return
            good, bad = (middle, bad) if self.good(record) else (good, middle)

    def good(self, record: Record) -> bool:
        """Whether a candidate probably loses no more than is tolerated, as far as was known when it was told."""
        before = [r for r in self.records if r.number <= record.number]
        name = self.plan.quality.name
        figure = smoothed(record.figures, name, line(before, name)).get(name)
        if figure is None:
            return False
        return self.plan.tolerance.violation(figure, self.baseline, 0.5) <= 0

    def proposed(self, start: Assignment) -> Iterator[Seed]:
        """The model's proposals at the limit, each fitted to all that was told before it."""
        origin = "fewest bit operations within tolerance"
        done = sum(r.origin == origin for r in self.records if r.paid)
        if done >= PROPOSED * self.plan.trials:
            return
        limit = self.limit(line(self.records, self.plan.quality.name), LEVELS[done % len(LEVELS)])
        hurts = [(r.assignment, hurt) for r in self.records if r.paid and (hurt := self.hurt(r)) is not None]
        if limit is None:
            return
        model = DamageModel.fitted(self.plan.space, self.plan.macs, start, hurts, self.plan.table)
        if model is not None and (found := model.proposal(limit, set(self.told))) is not None:
            yield Seed(found, origin)
