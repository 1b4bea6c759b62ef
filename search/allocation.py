"""Which mixture of bits hurts least within a budget: an integer program over the choices of a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..ir import format_named
from .records import Record
from .space import Assignment, Knob, Space, amount

_FLOAT_BITS = format_named("f32").bits
GAP = 1e-4
"""How near to the optimum is near enough, relative to it."""
TIME_LIMIT_S = 10.0
ORIGIN = "ilp"
LOOKS = 8
"""Budgets that are looked at for something new before the strategy gives up."""
SECOND_BEST = 4
"""How many of the best mixtures within one budget are looked at."""

INTEGER_BITS = 8
"""What integer kernels hold; fewer bits take as long."""

LayerCost = Callable[[str, int, int], float]
"""What a layer costs by its name, the bits of its weights, and the bits of what it reads."""


def bit_operations(macs: Mapping[str, float]) -> LayerCost:
    """Multiplications times the bits of both factors."""
    return lambda layer, weights, activations: macs.get(layer, 0.0) * weights * activations


def size_bytes(elements: Mapping[str, float]) -> LayerCost:
    """Bytes of the layers' weights, packed."""
    return lambda layer, weights, activations: elements.get(layer, 0.0) * weights / 8


def latency_s(macs: Mapping[str, float], float_s: float, integer_s: float) -> LayerCost:
    """An estimate of time: each layer takes its share of multiplications of what the whole network takes.

    Args:
        macs: multiply-adds of each layer.
        float_s: latency of the network in real numbers.
        integer_s: latency with all layers in 8 bits.
    """
    total = sum(macs.values()) or 1.0
    return lambda layer, weights, activations: (
        macs.get(layer, 0.0) / total * (integer_s if max(weights, activations) <= INTEGER_BITS else float_s)
    )


@dataclass(frozen=True)
class Pair:
    """The two knobs that say how layers compute, with what each pair of choices costs.

    Args:
        weights: the knob of the weights' format; None where it is not free.
        activations: the knob of the inputs' format; None where it is not free.
        costs: [choices of weights, choices of activations].
    """

    weights: Knob | None
    activations: Knob | None
    costs: np.ndarray


@dataclass
class Allocator:
    """Solves for mixtures of a space. What was solved is remembered.

    Args:
        space: where mixtures come from; widths and biases stay as `start` has them.
        cost: of a layer.
        start: the assignment of everything that is not a format of weights or activations.
    """

    space: Space
    cost: LayerCost
    start: Assignment
    _memo: dict[Any, Assignment | None] = field(default_factory=dict[Any, Any], repr=False)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The knobs that are allocated."""
        return tuple(k for k in self.space.free if k.part in ("weights", "activations"))

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs of knobs, each with the summed costs of the layers that they both hold for."""
        of = {(t, k.part): k for k in self.space.knobs for t in k.targets}
        found: dict[tuple[str | None, str | None], Pair] = {}
        for layer in self.space.order:
            both = [of.get((layer, part)) for part in ("weights", "activations")]
            bits = [self._bits(knob) for knob in both]
            free = [knob if knob is not None and len(knob.choices) > 1 else None for knob in both]
            costs = np.array([[self.cost(layer, w, a) for a in bits[1]] for w in bits[0]])
            key = (free[0].name if free[0] else None, free[1].name if free[1] else None)
            if key not in found:
                found[key] = Pair(free[0], free[1], np.zeros_like(costs))
            found[key] = Pair(free[0], free[1], found[key].costs + costs)
        return list(found.values())

    @staticmethod
    def _bits(knob: Knob | None) -> list[int]:
        return [_FLOAT_BITS] if knob is None else [amount(knob, choice) for choice in knob.choices]

    def total(self, assignment: Assignment) -> float:
        """What a mixture costs."""
        total = 0.0
        for pair in self.pairs:
            row = pair.weights.choices.index(assignment[pair.weights.name]) if pair.weights else 0
            column = pair.activations.choices.index(assignment[pair.activations.name]) if pair.activations else 0
            total += float(pair.costs[row, column])
        return total

    def cheapest(self) -> float:
        """The least that any mixture costs."""
        return sum(float(p.costs.min()) for p in self.pairs)

    def dearest(self) -> float:
        """The most that any mixture costs."""
        return sum(float(p.costs.max()) for p in self.pairs)

    def budget(self, share: float, most: float = np.inf) -> float:
        """A budget between the dearest mixture (0) and the cheapest (1), in equal ratios; at most `most`."""
        top, bottom = min(self.dearest(), most), self.cheapest()
        return top if bottom <= 0 or top <= bottom else float(top * (bottom / top) ** share)

    def allocate(
        self, hurts: Mapping[str, Mapping[str, float]], budget: float, forbidden: Sequence[Assignment] = ()
    ) -> Assignment | None:
        """The mixture with the least sum of hurts that costs no more than the budget.

        Choices are binary variables, one of each knob; a pair of knobs has one variable per pair of choices, whose sums
        along rows and columns are those of the knobs, so that costs of pairs are linear.

        Args:
            hurts: by knob and choice.
            budget: in the units of the cost.
            forbidden: mixtures that are not to be found again.

        Returns:
            The mixture; None where no mixture is within the budget.
        """
        key = (
            budget,
            tuple((k.name, *(hurts[k.name][c] for c in k.choices)) for k in self.knobs),
            tuple(tuple(a[k.name] for k in self.knobs) for a in forbidden),
        )
        if key not in self._memo:
            self._memo[key] = self._solved(hurts, budget, forbidden)
        return self._memo[key]

    def _solved(
        self, hurts: Mapping[str, Mapping[str, float]], budget: float, forbidden: Sequence[Assignment]
    ) -> Assignment | None:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        places: dict[tuple[str, int], int] = {}
        for knob in self.knobs:
            for at in range(len(knob.choices)):
                places[knob.name, at] = len(places)
        binaries = width = len(places)
        entries: list[tuple[int, int, float]] = []
        bounds: list[tuple[float, float]] = []

        def row(cells: Sequence[tuple[int, float]], low: float, high: float) -> None:
            entries.extend((len(bounds), column, value) for column, value in cells)
            bounds.append((low, high))

        spent: list[tuple[int, float]] = []
        fixed = 0.0
        scale = max(self.dearest(), 1e-300)
        for pair in self.pairs:
            costs = pair.costs / scale
            if pair.weights is None and pair.activations is None:
                fixed += float(costs[0, 0])
            elif pair.weights is None or pair.activations is None:
                knob = pair.weights or pair.activations
                assert knob is not None
                spent += [(places[knob.name, at], float(c)) for at, c in enumerate(costs.ravel())]
            else:
                at = width + np.arange(costs.size).reshape(costs.shape)
                width += costs.size
                for knob, rows in ((pair.weights, at), (pair.activations, at.T)):
                    for place, members in enumerate(rows):
                        row([*((int(m), 1.0) for m in members), (places[knob.name, place], -1.0)], 0, 0)
                spent += list(zip(at.ravel().tolist(), costs.ravel().tolist(), strict=True))
        row(spent, -np.inf, budget / scale - fixed)
        for knob in self.knobs:
            row([(places[knob.name, at], 1.0) for at in range(len(knob.choices))], 1, 1)
        for mixture in forbidden:
            cells = [(places[k.name, k.choices.index(mixture[k.name])], 1.0) for k in self.knobs]
            row(cells, -np.inf, len(cells) - 1)
        goal = np.zeros(width)
        for knob in self.knobs:
            for at, choice in enumerate(knob.choices):
                goal[places[knob.name, at]] = hurts[knob.name][choice]
        goal /= max(goal.max(), 1e-300)
        lines, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        matrix = coo_array((values, (lines, columns)), shape=(len(bounds), width)).tocsr()
        low, high = np.array(bounds).T
        found = milp(
            goal,
            constraints=LinearConstraint(matrix, low, high),  # pyright: ignore[reportArgumentType]
            integrality=np.arange(width) < binaries,
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": GAP, "time_limit": TIME_LIMIT_S},
        )
        if found.x is None:
            return None
        chosen = {
            k.name: k.choices[int(np.argmax([found.x[places[k.name, at]] for at in range(len(k.choices))]))]
            for k in self.knobs
        }
        return {**self.start, **chosen}


@dataclass(frozen=True)
class Proposals:
    """The strategy `ilp`: mixtures that hurt least within budgets, from the largest budget to smaller ones.

    Budgets go down and come back in ever finer parts, so that whenever the search ends they are spread evenly. What is
    thought to hurt is fitted anew to all that was told (`damage.DamageModel`), so proposals near the goal get better.

    Args:
        allocator: solves.
        fitted: by knob and choice, what it is thought to hurt after these trials.
        most: the largest budget: a constraint's bound, or infinity.
    """

    allocator: Allocator
    fitted: Callable[[Sequence[Record]], Mapping[str, Mapping[str, float]]]
    most: float = np.inf

    def next(self, records: Sequence[Record], tried: set[int]) -> Assignment | None:
        """A mixture that was not tried; None where the budgets give nothing new.

        Args:
            records: what was told.
            tried: the numbers (`Space.index`) of the assignments that were tried.
        """
        hurts = self.fitted(records)
        done = sum(r.origin == ORIGIN for r in records)
        for number in range(done, done + LOOKS):
            budget = self.allocator.budget(halved(number), self.most)
            forbidden: list[Assignment] = []
            while len(forbidden) < SECOND_BEST:
                found = self.allocator.allocate(hurts, budget, forbidden)
                if found is None:
                    break
                if self.allocator.space.index(found) not in tried:
                    return found
                forbidden.append(found)
        return None


def halved(number: int) -> float:
    """0, 1, 1/2, 1/4, 3/4, 1/8, …: parts of a line, each time as far as may be from those before (van der Corput)."""
    if number < 2:
        return float(number)
    number -= 1
    found, part = 0.0, 0.5
    while number:
        found, number, part = found + part * (number & 1), number >> 1, part / 2
    return found
