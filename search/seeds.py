"""What the search tries before it asks a strategy: uniform bits, what each choice does alone, and the best mixtures.

Rounding to b bits adds noise of power proportional to 4^-b (Bennett, Bell System Technical Journal 27, 1948), and to
first order the noise of several tensors adds up. So one trial per choice says how much each hurts, and a greedy walk
from many bits to few gives mixtures that lose least for what they save; a bisection finds how far to walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..ir import format_named
from .figures import Figure, Metric
from .objectives import Constraint
from .records import Record
from .space import Assignment, Knob, Space, amount

REFERENCE = "uniform 8 bits"
UNIFORM = ((6, 8), (6, 6), (4, 8), (4, 4))
"""Bits of weights and activations that are tried for all layers alike."""
PROBE = 4
"""Bits at which each choice is tried alone."""
BISECTIONS = 6
SHARE = 0.5
"""Share of the paid trials that probing each choice alone may take; beyond it the strategy starts without."""
_FLOAT_BITS = format_named("f32").bits


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
    """

    space: Space
    quality: Metric
    tolerance: Constraint
    macs: Mapping[str, float]
    trials: int

    @property
    def _formats(self) -> tuple[Knob, ...]:
        return tuple(k for k in self.space.free if k.part in ("weights", "activations"))

    def reference(self) -> Assignment | None:
        """All weights and activations in 8 bits, as far as the space can; None where it cannot."""
        found = self.uniform(8, 8)
        for knob in self.space.knobs:
            if knob.part in ("weights", "activations") and amount(knob, found[knob.name]) != 8:
                return None
        return found

    def uniform(self, weights: int, activations: int) -> Assignment:
        """The assignment nearest to the same bits everywhere; widths as they are, biases in the most bits."""

        def wanted(knob: Knob) -> int | None:
            match knob.part:
                case "weights":
                    return weights
                case "activations":
                    return None if activations == 8 else activations
                case "biases":
                    return None
                case "width":
                    return int(knob.defaults[0])

        return self.space.nearest(wanted)

    def next(self, records: Sequence[Record], baseline: float) -> Seed | None:
        """The first seed that has not been told, or None when the strategy is to go on alone."""
        told = {r.pipeline: r for r in records}
        for seed in self._seeds(told, baseline):
            if self.space.pipeline(seed.assignment) not in told:
                return seed
        return None

    def _seeds(self, told: Mapping[str, Record], baseline: float) -> Iterator[Seed]:
        """All seeds in order, as far as what was told allows to know them."""
        if self.trials < 2:
            return
        start = self.reference() or self.uniform(8, 8)
        yield Seed(start, REFERENCE)
        for weights, activations in UNIFORM[: max(1, self.trials // 4)]:
            yield Seed(self.uniform(weights, activations), f"uniform {weights} and {activations} bits")
        probes = [(knob, self._probe(start, knob)) for knob in self._formats]
        if not probes or len(probes) > SHARE * self.trials:
            return
        for knob, assignment in probes:
            yield Seed(assignment, f"{knob.name} alone")
        damage = self._damages(start, probes, told)
        if damage is None:
            return
        walk = self._walk(start, damage)
        if len(walk) > 1:
            yield from self._bisect(walk, told, baseline)

    def _probe(self, start: Assignment, knob: Knob) -> Assignment:
        lower = [c for c in knob.choices if amount(knob, c) < amount(knob, start[knob.name])]
        if not lower:
            return start
        return {**start, knob.name: min(lower, key=lambda c: abs(amount(knob, c) - PROBE))}

    def _damages(
        self, start: Assignment, probes: Sequence[tuple[Knob, Assignment]], told: Mapping[str, Record]
    ) -> dict[str, float] | None:
        """By knob, the loss of quality per unit of noise power (4^-bits); None where the start itself failed.

        Where the loss is known it stands for quality: it answers to small noise, where the accuracy of some thousand
        samples hardly moves.
        """
        origin = self._told(start, told)
        if origin is None:
            return None
        name = "loss" if "loss" in origin.figures else self.quality.name
        sign = 1.0 if name == "loss" or self.quality.direction == "min" else -1.0
        found: dict[str, float] = {}
        for knob, assignment in probes:
            record = self._told(assignment, told)
            noise = _noise(knob, assignment) - _noise(knob, start)
            if noise <= 0:
                continue
            if record is None or name not in record.figures:
                found[knob.name] = float("inf")  # alone it already is too bad to be told: it keeps its bits
                continue
            lost = sign * (record.figures[name].value - origin.figures[name].value)
            found[knob.name] = max(lost, 1e-9) / noise
        return found or None

    def _told(self, assignment: Assignment, told: Mapping[str, Record]) -> Record | None:
        record = told.get(self.space.pipeline(assignment))
        return record if record is not None and self.quality.name in record.figures else None

    def _walk(self, start: Assignment, damage: Mapping[str, float]) -> list[Assignment]:
        """From the start downwards, each time the step that saves the most bit operations for the noise it adds."""
        knobs = [k for k in self._formats if damage.get(k.name, float("inf")) < float("inf")]
        walk = [start]
        while True:
            current = walk[-1]
            bits = {(t, k.part): amount(k, current[k.name]) for k in self.space.knobs for t in k.targets}
            best: tuple[float, Knob] | None = None
            for knob in knobs:
                at = knob.choices.index(current[knob.name])
                if at == 0:
                    continue
                lower = amount(knob, knob.choices[at - 1])
                saved = sum(self._saved(bits, target, knob, lower) for target in knob.targets)
                added = damage[knob.name] * (4.0**-lower - _noise(knob, current))
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

    def _bisect(self, walk: Sequence[Assignment], told: Mapping[str, Record], baseline: float) -> Iterator[Seed]:
        """How far to walk: halve between the last that is good enough and the first that is not, then look around."""
        good, bad = 0, len(walk)
        tried: list[int] = []
        for _ in range(BISECTIONS):
            if bad - good <= 1:
                break
            middle = (good + bad) // 2
            yield Seed(walk[middle], "least damage per bit operation saved")
            tried.append(middle)
            record = told.get(self.space.pipeline(walk[middle]))
            if record is None:
                return
            good, bad = (middle, bad) if self._good(record, baseline) else (good, middle)
        for step in (good + 1, good - 1, good + 2):
            if 0 < step < len(walk) and step not in tried:
                yield Seed(walk[step], "least damage per bit operation saved")

    def _good(self, record: Record, baseline: float) -> bool:
        figure = record.figures.get(self.quality.name)
        if figure is None:
            return False
        return self.tolerance.violation(figure, Figure(baseline), 0.5) <= 0


def _noise(knob: Knob, assignment: Assignment) -> float:
    return 4.0 ** -amount(knob, assignment[knob.name])
