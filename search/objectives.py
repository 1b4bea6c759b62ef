"""What the search is to achieve: objectives, constraints, and their one-line texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..ir.errors import UsageError
from .figures import (
    METRICS,
    Dimension,
    Direction,
    Figure,
    Figures,
    Metric,
    metric_named,
    pessimistic,
    pessimistic_difference,
)

UNITS: Mapping[Dimension, Mapping[str, float]] = {
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
    "energy": {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9},
    "bytes": {"B": 1.0, "KB": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "count": {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "fraction": {"%": 0.01, "": 1.0},
    "bits": {"bits": 1.0, "": 1.0},
    "decibel": {"dB": 1.0, "": 1.0},
    "number": {"": 1.0},
}
"""The units a bound may have, by what the metric counts; kB and MB are powers of ten, KiB and MiB of two."""

_EXAMPLES: Mapping[Dimension, str] = {
    "time": "{}<=2ms",
    "energy": "{}<=5mJ",
    "bytes": "{}<=64KB",
    "count": "{}<=0.05x",
    "fraction": "{}>=baseline-1pt",
    "bits": "{}<=6",
    "decibel": "{}>=20dB",
    "number": "{}<=baseline+5%",
}
_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)"
_CONSTRAINT = re.compile(r"\s*([A-Za-z][\w -]*?)\s*(<=|>=|==|=|<|>)\s*(.+?)\s*")
_ABSOLUTE = re.compile(_NUMBER + r"\s*([A-Za-zµ%]*)")
_RELATIVE = re.compile(r"baseline(?:\s*([-+])\s*" + _NUMBER + r"\s*(pt|pts|points?|%))?")
_SHARE = re.compile(r"baseline\s*/\s*" + _NUMBER)


@dataclass(frozen=True)
class Objective:
    """A metric to make small or large.

    Args:
        metric: what.
        direction: `min` or `max`.
        weight: its share in a weighted sum; None: an objective of its own.
    """

    metric: Metric
    direction: Direction
    weight: float | None = None

    def __str__(self) -> str:
        tail = "" if self.weight is None else f":{self.weight:g}"
        return f"{self.metric.name}:{self.direction}{tail}"


def parse_objectives(texts: Iterable[str], own: Iterable[Metric] = ()) -> tuple[Objective, ...]:
    """Objectives from `NAME`, `NAME:max` or `NAME:max:WEIGHT`.

    Raises:
        UsageError: a text is no objective, a metric is named twice, or only some have weights.
    """
    own = tuple(own)
    found = tuple(_parse_objective(text, own) for text in texts)
    names = [o.metric.name for o in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"the objective {min(twice)!r} is given twice")
    weighted = [o for o in found if o.weight is not None]
    if weighted and len(weighted) != len(found):
        without = next(o for o in found if o.weight is None)
        raise UsageError(
            f"some objectives have weights, {without} has none",
            mend=f"Give all of them weights ({without}:1.0) for one weighted sum, or none for a Pareto front.",
        )
    return found


def _parse_objective(text: str, own: tuple[Metric, ...]) -> Objective:
    parts = [part.strip() for part in text.split(":")]
    write = "Write NAME, NAME:max or NAME:max:WEIGHT, such as accuracy:max or latency:min:0.5."
    if not parts[0] or len(parts) > 3:
        raise UsageError(f"objective {text!r} cannot be read", mend=write)
    metric = metric_named(parts[0], own)
    direction: Direction = metric.direction
    if len(parts) > 1:
        given = {"min": "min", "minimize": "min", "max": "max", "maximize": "max"}.get(parts[1].lower())
        if given is None:
            raise UsageError(f"objective {text!r}: expected min or max, found {parts[1]!r}", mend=write)
        direction = "min" if given == "min" else "max"
    if len(parts) < 3:
        return Objective(metric, direction)
    try:
        weight = float(parts[2])
    except ValueError:
        raise UsageError(f"objective {text!r}: expected a weight, found {parts[2]!r}", mend=write) from None
    if not 0 < weight < float("inf"):
        raise UsageError(f"objective {text!r}: a weight is a positive number, found {parts[2]}", mend=write)
    return Objective(metric, direction, weight)


Reference = Literal["nothing", "points", "percent", "ratio"]


@dataclass(frozen=True)
class Bound:
    """A number, as it stands or relative to the baseline's value `b`.

    Args:
        value: the bound itself (`nothing`), what is added to `b` in SI units (`points`), added to `b` as a share of it
            (`percent`), or what `b` is multiplied with (`ratio`).
        relative_to: which of them.
    """

    value: float
    relative_to: Reference = "nothing"

    def at(self, baseline: float) -> float:
        """The bound as a number."""
        match self.relative_to:
            case "nothing":
                return self.value
            case "points":
                return baseline + self.value
            case "percent":
                return baseline + abs(baseline) * self.value
            case "ratio":
                return baseline * self.value


@dataclass(frozen=True)
class Constraint:
    """A bound that candidates must keep.

    Args:
        metric: of what.
        at_least: whether the bound is the smallest (`>=`) or the largest (`<=`) allowed value.
        bound: the bound.
        text: as it was written.
    """

    metric: Metric
    at_least: bool
    bound: Bound
    text: str

    def __str__(self) -> str:
        return self.text

    def violation(self, figure: Figure, baseline: Figure, confidence: float) -> float:
        """By how much the worse end of a figure misses the bound, in units of the bound; 0 or less is kept.

        Args:
            figure: the candidate's.
            baseline: the baseline's.
            confidence: of one-sided bounds.
        """
        limit = self.bound.at(baseline.value)
        direction: Direction = "max" if self.at_least else "min"
        if self.bound.relative_to == "nothing":
            worst = pessimistic(figure, direction)
        elif self.bound.relative_to == "ratio" and figure.ratio is not None:
            end = figure.ratio_low if self.at_least else figure.ratio_high
            worst = baseline.value * (figure.ratio if end is None else end)
        else:
            worst = baseline.value + pessimistic_difference(figure, baseline, direction, confidence)
        missed = limit - worst if self.at_least else worst - limit
        return missed / (abs(limit) or 1.0)


def parse_constraint(text: str, own: Iterable[Metric] = ()) -> Constraint:
    """A constraint from `latency<=2ms`, `accuracy>=baseline-1pt`, `size<=0.25x` or `bit_operations<=baseline/24`.

    Raises:
        UsageError: the text is none; says what to write.
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise UsageError(
            f"constraint {text!r} cannot be read", mend="Write METRIC<=BOUND or METRIC>=BOUND, such as 'latency<=2ms'."
        )
    metric = metric_named(match[1], own)
    write = f"Write for example '{_EXAMPLES[metric.dimension].format(metric.name)}'."
    if match[2] not in ("<=", ">="):
        raise UsageError(f"constraint {text!r}: expected <= or >=, found {match[2]}", mend=write)
    bound = _parse_bound(metric, match[3], text, write)
    return Constraint(metric, match[2] == ">=", bound, re.sub(r"\s+", "", text))


def _parse_bound(metric: Metric, text: str, whole: str, write: str) -> Bound:
    if share := _SHARE.fullmatch(text):
        if float(share[1]) == 0:
            raise UsageError(f"constraint {whole!r}: the baseline cannot be divided by 0", mend=write)
        return Bound(1 / float(share[1]), "ratio")
    if relative := _RELATIVE.fullmatch(text):
        if relative[1] is None:
            return Bound(0.0, "points")
        amount = float(f"{relative[1]}{relative[2]}") / 100
        if relative[3] == "%":
            return Bound(amount, "percent")
        if metric.dimension != "fraction":
            raise UsageError(
                f"constraint {whole!r}: points are for metrics between 0 and 1, which {metric.name} is not", mend=write
            )
        return Bound(amount, "points")
    absolute = _ABSOLUTE.fullmatch(text)
    if absolute is None:
        raise UsageError(f"constraint {whole!r}: expected a number with its unit, found {text!r}", mend=write)
    number, unit = float(absolute[1]), absolute[2]
    if unit == "x":
        return Bound(number, "ratio")
    units = UNITS[metric.dimension]
    if unit not in units:
        listed = ", ".join(u for u in [*units, "x (times the baseline)"] if u)
        found = repr(unit) if unit else "none"
        raise UsageError(f"constraint {whole!r}: expected a unit of {listed}; found {found}", mend=write)
    return Bound(number * units[unit])


TOLERANCE: Mapping[Dimension, str] = {"fraction": "1pt", "decibel": "30dB"}
"""How much quality the winner may lose by default; 2 % of the baseline's for other metrics."""
SLACK: Mapping[Dimension, str] = {"fraction": "5pt", "decibel": "20dB"}
"""How much a candidate may lose by default before it is let go; 10 % of the baseline's for other metrics."""


_TOLERANCE = "Write points (1pt), a share (2%), or for fidelity decibels (30dB)."


def parse_tolerance(text: str, metric: Metric) -> Constraint:
    """How much quality may be lost: `1pt`, `2%` of the baseline's, or for fidelity the least there must be (`30dB`).

    Raises:
        UsageError: it is none of these.
    """
    sign, operator = ("-", ">=") if metric.direction == "max" else ("+", "<=")
    bound = text.strip() if metric.dimension == "decibel" else f"baseline{sign}{text.strip()}"
    try:
        return parse_constraint(f"{metric.name}{operator}{bound}", (metric,))
    except UsageError as error:
        raise UsageError(
            f"tolerance {text!r} cannot be used for {metric.name}",
            mend=_TOLERANCE,
        ) from error


def expect_tolerance(text: str) -> None:
    """Refuse a tolerance that suits no metric of quality.

    Raises:
        UsageError: it is none.
    """
    for metric in (METRICS["accuracy"], METRICS["fidelity"], METRICS["loss"]):
        try:
            parse_tolerance(text, metric)
        except UsageError:
            continue
        return
    raise UsageError(f"tolerance {text!r} cannot be read", mend=_TOLERANCE)


def values(objectives: Sequence[Objective], figures: Figures, baseline: Figures) -> list[float]:
    """What a sampler is told: one value per objective, or one weighted sum where they have weights.

    In the weighted sum each metric is divided by the magnitude of the baseline's (1 where that is 0), counts positive
    if it is to be large and negative if small; the sum is to be large.
    """
    if not is_scalar(objectives):
        return [figures[o.metric.name].value for o in objectives]
    total = 0.0
    for objective in objectives:
        name = objective.metric.name
        sign = 1.0 if objective.direction == "max" else -1.0
        assert objective.weight is not None
        total += sign * objective.weight * figures[name].value / (abs(baseline[name].value) or 1.0)
    return [total]


def is_scalar(objectives: Sequence[Objective]) -> bool:
    """Whether the objectives make one weighted sum."""
    return bool(objectives) and objectives[0].weight is not None


def directions(objectives: Sequence[Objective]) -> list[Direction]:
    """The direction of each value that `values` gives."""
    return ["max"] if is_scalar(objectives) else [o.direction for o in objectives]
