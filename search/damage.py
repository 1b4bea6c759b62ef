"""How much each choice of bits hurts: a small model, fitted to what was told, that says which mixture to try next.

To first order the noise of several tensors adds up. So the hurt of a candidate is a sum over its knobs of a weight
times the knob's noise, with weights that are found from the trials by least squares without negative weights. What the
noise of a choice is was measured for each choice alone (`sensitivity`); where it was not, it is 4^-b for b bits
(Bennett, Bell System Technical Journal 27, 1948).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from ..ir import format_named
from .space import Assignment, Knob, Space, amount

Table = Mapping[str, Mapping[str, float]]
"""By knob and choice, what the choice hurts alone."""
_FLOAT_BITS = format_named("f32").bits
SWEEPS = 400
PAIRS_LIMIT = 24
"""Knobs up to which pairs of moves are tried; beyond it single moves must do."""
REACH = 0.7
"""How far a miss counts: its weight falls by e for so much distance in places of choices."""
PRIOR = 0.3
"""Weight of the plain sum against the misses of neighbours."""
PULL = 0.5
"""How strongly weights of measured noise are held at 1: that of one trial whose hurt is known to half of itself."""
AROUND = 3
"""How many steps of the walk on either side of the limit are starting points for moves."""


@dataclass(frozen=True)
class DamageModel:
    """What each knob's bits are thought to hurt.

    Args:
        space: where candidates come from.
        macs: multiply-adds of each layer.
        start: where walks begin: many bits everywhere.
        offset: the hurt at the start.
        weights: by knob, hurt per unit of noise power.
        misses: by what factor (its logarithm) candidates that were told hurt more than the sum says, each with the
            places of its choices.
        table: by knob and choice, the noise that was measured; None where nothing was.
    """

    space: Space
    macs: Mapping[str, float]
    start: Assignment
    offset: float
    weights: Mapping[str, float]
    misses: tuple[tuple[tuple[int, ...], float], ...] = ()
    table: Table | None = None

    @staticmethod
    def fitted(
        space: Space,
        macs: Mapping[str, float],
        start: Assignment,
        told: Sequence[tuple[Assignment, float]],
        table: Table | None = None,
    ) -> DamageModel | None:
        """The model that fits what was told, in relative terms, so that small hurts count as much as large ones.

        Args:
            space: where candidates come from.
            macs: multiply-adds of each layer.
            start: where walks begin.
            told: assignments with their hurt; the start must be among them.
            table: what choices were measured to hurt alone, in the same units.
        """
        origin = next((hurt for assignment, hurt in told if assignment == start), None)
        knobs = _formats(space)
        if origin is None or not knobs:
            return None
        others = [(a, hurt) for a, hurt in told if a != start]
        noise = np.array([[_noise(k, a, table) - _noise(k, start, table) for k in knobs] for a, _ in others])
        hurts = np.array([hurt - origin for _, hurt in others])
        scale = np.abs(hurts) + abs(origin) + 1e-12
        rows, goal = noise.reshape(-1, len(knobs)) / scale[:, None], hurts / scale
        if table is not None:
            rows = np.concatenate([rows, PULL * np.eye(len(knobs))])
            goal = np.concatenate([goal, np.full(len(knobs), PULL)])
        found = non_negative(rows, goal) if len(goal) else np.zeros(len(knobs))
        weights = {k.name: float(w) for k, w in zip(knobs, found, strict=True)}
        plain = DamageModel(space, macs, start, origin, weights, table=table)
        misses = tuple((plain.place(a), plain.miss(a, hurt)) for a, hurt in told)
        return replace(plain, misses=misses)

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        """The knobs that have been seen to matter, or at least been tried."""
        return _formats(self.space)

    def hurt(self, assignment: Assignment) -> float:
        """What a candidate is thought to hurt: the sum over its knobs, corrected as its neighbours were missed."""
        plain = self.offset + sum(
            self.weights[k.name] * (self.noise(k, assignment) - self.noise(k, self.start)) for k in self.knobs
        )
        if not self.misses or plain <= 0:
            return plain
        place = self.place(assignment)
        weights = [math.exp(-math.dist(place, other) / REACH) for other, _ in self.misses]
        missed = sum(w * miss for w, (_, miss) in zip(weights, self.misses, strict=True)) / (sum(weights) + PRIOR)
        return plain * math.exp(missed)

    def noise(self, knob: Knob, assignment: Assignment) -> float:
        """The noise of one knob's choice, before its weight."""
        return _noise(knob, assignment, self.table)

    def hurts(self) -> Table:
        """By knob and choice, what it is thought to hurt by itself."""
        return {k.name: {c: self.weights[k.name] * self.noise(k, {k.name: c}) for c in k.choices} for k in self.knobs}

    def place(self, assignment: Assignment) -> tuple[int, ...]:
        """The places of the knobs' choices, by which neighbours are near."""
        return tuple(k.choices.index(assignment[k.name]) for k in self.knobs)

    def miss(self, assignment: Assignment, hurt: float) -> float:
        """The logarithm of what a candidate hurts over what is thought, where both are positive."""
        thought = self.hurt(assignment)
        return math.log(hurt / thought) if hurt > 0 and thought > 0 else 0.0

    def bit_operations(self, assignment: Assignment) -> float:
        """Multiplications times bits of both factors, of layers whose widths are the source's."""
        bits = self._bits(assignment)
        return sum(
            macs * bits.get((layer, "weights"), _FLOAT_BITS) * bits.get((layer, "activations"), _FLOAT_BITS)
            for layer, macs in self.macs.items()
        )

    def _bits(self, assignment: Assignment) -> dict[tuple[str, str], int]:
        return {(t, k.part): amount(k, assignment[k.name]) for k in self.space.knobs for t in k.targets}

    def walk(self) -> list[Assignment]:
        """From the start downwards, each time the step that saves the most bit operations for what it hurts."""
        walk = [self.start]
        while True:
            current = walk[-1]
            bits = self._bits(current)
            best: tuple[float, Knob] | None = None
            for knob in self.knobs:
                at = knob.choices.index(current[knob.name])
                if at == 0:
                    continue
                lower = amount(knob, knob.choices[at - 1])
                saved = sum(self._saved(bits, target, knob, lower) for target in knob.targets)
                less = {knob.name: knob.choices[at - 1]}
                added = self.weights[knob.name] * (self.noise(knob, less) - self.noise(knob, current))
                if saved > 0 and (best is None or added / saved < best[0]):
                    best = (added / saved, knob)
            if best is None:
                return walk
            knob = best[1]
            walk.append({**current, knob.name: knob.choices[knob.choices.index(current[knob.name]) - 1]})

    def _saved(self, bits: Mapping[tuple[str, str], int], layer: str, knob: Knob, lower: int) -> float:
        """Bit operations that a layer saves when a knob goes down to `lower` bits."""
        other = bits.get((layer, "activations" if knob.part == "weights" else "weights"), _FLOAT_BITS)
        return self.macs.get(layer, 0.0) * other * (bits[layer, knob.part] - lower)

    def proposal(self, limit: float, tried: set[int]) -> Assignment | None:
        """The candidate with the fewest bit operations that is thought to hurt no more than `limit`, and is new.

        Looked for on the walk and one or two moves (a knob one choice up or down) beside it, near the limit.
        """
        walk = self.walk()
        at = max((i for i, a in enumerate(walk) if self.hurt(a) <= limit), default=0)
        seen: set[int] = set()
        best: tuple[float, int, Assignment] | None = None
        for place in walk[max(at - AROUND, 0) : at + AROUND + 1]:
            for candidate in self._near(place):
                index = self.space.index(candidate)
                if index in tried or index in seen:
                    continue
                seen.add(index)
                if self.hurt(candidate) > limit:
                    continue
                costs = self.bit_operations(candidate)
                if best is None or (costs, index) < best[:2]:
                    best = (costs, index, candidate)
        return None if best is None else best[2]

    def _near(self, place: Assignment) -> Iterator[Assignment]:
        yield place
        moves: list[tuple[str, str]] = []
        for knob in self.knobs:
            at = knob.choices.index(place[knob.name])
            moves += [(knob.name, knob.choices[i]) for i in (at - 1, at + 1) if 0 <= i < len(knob.choices)]
        for name, choice in moves:
            yield {**place, name: choice}
        if len(self.knobs) <= PAIRS_LIMIT:
            for (name, choice), (other, second) in combinations(moves, 2):
                if name != other:
                    yield {**place, name: choice, other: second}


def _formats(space: Space) -> tuple[Knob, ...]:
    return tuple(k for k in space.free if k.part in ("weights", "activations"))


def _noise(knob: Knob, assignment: Assignment, table: Table | None) -> float:
    choice = assignment[knob.name]
    if table is not None and knob.name in table:
        return table[knob.name][choice]
    return 4.0 ** -amount(knob, choice)


def non_negative(rows: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The non-negative x that makes `rows @ x` nearest to `goal`, by cyclic coordinate descent.

    Args:
        rows: [samples, unknowns].
        goal: [samples].

    Source: Franc, Hlavac, Navara, Sequential coordinate-wise algorithm for the non-negative least squares problem,
    CAIP 2005.
    """
    scale = np.sqrt((rows**2).sum(0))
    scale[scale == 0] = 1.0
    normed = rows / scale
    gram, pull = normed.T @ normed, normed.T @ goal
    found = np.zeros(rows.shape[1])
    for _ in range(SWEEPS):
        before = found.copy()
        for i in range(len(found)):
            if gram[i, i] > 0:
                found[i] = max(0.0, found[i] + (pull[i] - gram[i] @ found) / gram[i, i])
        if np.abs(found - before).max(initial=0.0) <= 1e-10 * (1 + np.abs(found).max(initial=0.0)):
            break
    return found / scale
