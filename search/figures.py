"""Figures with a kind: what is known of a network, how it is known, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any, Literal

from ..ir.errors import UsageError, did_you_mean

Kind = Literal["exact", "measured", "estimated"]
Direction = Literal["min", "max"]
Dimension = Literal["fraction", "time", "energy", "bytes", "count", "bits", "decibel", "number"]
Rung = Literal["static", "quality", "measure"]


@dataclass(frozen=True)
class Metric:
    """A quantity that can be an objective.

    Args:
        name: how it is written in objectives and constraints.
        direction: which way is better.
        dimension: what it counts; decides its units.
        rung: the step of the evaluation at which it becomes known.
        label: how it is called in tables.
    """

    name: str
    direction: Direction
    dimension: Dimension
    rung: Rung
    label: str

    @property
    def is_quality(self) -> bool:
        """Whether it says how well the network does its task."""
        return self.rung == "quality"


def _metrics(*rows: tuple[str, Direction, Dimension, Rung, str]) -> dict[str, Metric]:
    return {row[0]: Metric(*row) for row in rows}


METRICS: Mapping[str, Metric] = _metrics(
    ("accuracy", "max", "fraction", "quality", "accuracy"),
    ("loss", "min", "number", "quality", "loss"),
    ("precision", "max", "fraction", "quality", "precision"),
    ("recall", "max", "fraction", "quality", "recall"),
    ("f1", "max", "fraction", "quality", "F1"),
    ("auroc", "max", "fraction", "quality", "AUROC"),
    ("agreement", "max", "fraction", "quality", "agreement with the source"),
    ("mae", "min", "number", "quality", "mean absolute error"),
    ("fidelity", "max", "decibel", "quality", "fidelity to the source"),
    ("latency", "min", "time", "measure", "latency"),
    ("energy", "min", "energy", "measure", "energy per inference"),
    ("bit_operations", "min", "count", "static", "bit operations"),
    ("macs", "min", "count", "static", "multiply-adds"),
    ("parameters", "min", "count", "static", "parameters"),
    ("size", "min", "bytes", "static", "bytes of weights"),
    ("average_bits", "min", "bits", "static", "average bits"),
    ("peak_activation", "min", "bytes", "static", "peak of activations"),
)
"""The metrics nasc knows by itself; a model file may bring more of its own."""


class UnknownMetric(UsageError):
    """No metric has that name; a model file may define one that has."""


def metric_named(name: str, own: Iterable[Metric] = ()) -> Metric:
    """The metric of that name, nasc's or the model file's own.

    Raises:
        UnknownMetric: there is none; the nearest names are offered.
    """
    known = {**METRICS, **{m.name: m for m in own}}
    if name in known:
        return known[name]
    spelled = name.replace("-", "_").replace(" ", "_").lower()
    if spelled in known:
        return known[spelled]
    raise UnknownMetric(f"unknown metric {name!r}", mend=did_you_mean(spelled, sorted(known)))


@dataclass(frozen=True)
class Figure:
    """One figure of one network.

    Args:
        value: in SI units, fractions between 0 and 1.
        kind: counted, measured, or estimated by a model.
        low: lower end of its interval; None where there is none.
        high: upper end.
        difference: value minus the baseline's, taken in pairs on the same samples.
        error: standard error of `difference`.
        ratio: value over the baseline's, taken in pairs.
        ratio_low: lower end of the ratio's interval.
        ratio_high: upper end.
        verdict: what the ratio amounts to: FASTER, SLOWER, SAME or AMBIGUOUS.
        samples: how many samples it stands on.
        notes: what to know before using it.
        measurement: name of the record in `measurements.jsonl` with all that is known of how it was measured.
    """

    value: float
    kind: Kind = "exact"
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    error: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    verdict: str | None = None
    samples: int | None = None
    notes: tuple[str, ...] = ()
    measurement: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without what is not known."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if v is not None and v != ()}

    @staticmethod
    def of(data: Mapping[str, Any]) -> Figure:
        """The figure that `as_dict` gave."""
        known: dict[str, Any] = dict(data)
        known["notes"] = tuple(known.get("notes", ()))
        return Figure(**known)


Figures = Mapping[str, Figure]
"""What is known of one network, by the names of metrics."""


def as_dict(figures: Figures) -> dict[str, Any]:
    """Plain data for JSON."""
    return {name: figure.as_dict() for name, figure in figures.items()}


def of_dict(data: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that `as_dict` gave."""
    return {name: Figure.of(entry) for name, entry in data.items()}


def quantile(confidence: float) -> float:
    """How many standard errors a one-sided bound of this confidence lies from the estimate."""
    return NormalDist().inv_cdf(confidence)


def pessimistic(figure: Figure, direction: Direction) -> float:
    """The worse end of a figure's interval; its value where it has none."""
    end = figure.low if direction == "max" else figure.high
    return figure.value if end is None else end


def pessimistic_difference(figure: Figure, baseline: Figure, direction: Direction, confidence: float) -> float:
    """By how much a network exceeds the baseline at worst: the paired difference, less its error; positive is more.

    Without a paired difference the plain one counts, from the worse end of the figure's interval.
    """
    if figure.difference is None:
        return pessimistic(figure, direction) - baseline.value
    margin = quantile(confidence) * (figure.error or 0.0)
    return figure.difference - margin if direction == "max" else figure.difference + margin


def clearly_better(a: Figure, b: Figure, direction: Direction, confidence: float) -> bool:
    """Whether `a` is better than `b` by more than chance explains.

    Counted figures differ or not. Paired differences to one baseline are compared with the root of the sum of their
    squared errors, which is on the safe side where they are positively correlated; ratios and intervals must not
    overlap.
    """
    sign = 1.0 if direction == "max" else -1.0
    if a.kind == b.kind == "exact":
        return sign * (a.value - b.value) > 0
    if None not in (a.difference, b.difference, a.error, b.error):
        assert a.difference is not None and b.difference is not None
        error = math.hypot(a.error or 0.0, b.error or 0.0)
        return sign * (a.difference - b.difference) > quantile(confidence) * error
    if None not in (a.ratio_low, a.ratio_high, b.ratio_low, b.ratio_high):
        return _apart(a.ratio_low, a.ratio_high, b.ratio_low, b.ratio_high, sign)
    return _apart(
        *(a.value if a.low is None else a.low, a.value if a.high is None else a.high),
        *(b.value if b.low is None else b.low, b.value if b.high is None else b.high),
        sign,
    )


def _apart(a_low: float | None, a_high: float | None, b_low: float | None, b_high: float | None, sign: float) -> bool:
    assert a_low is not None and a_high is not None and b_low is not None and b_high is not None
    return a_low > b_high if sign > 0 else a_high < b_low


_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number_text(value: float) -> str:
    """A count with three digits and a prefix: `1.23 M`."""
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.3g}" if value != int(value) else str(int(value))


def value_text(metric: Metric, value: float) -> str:
    """A value as people read it: `71.84 %`, `4.02 µs`, `1.23 MB`."""
    match metric.dimension:
        case "fraction":
            return f"{100 * value:.2f} %"
        case "time" | "energy":
            unit = "s" if metric.dimension == "time" else "J"
            for scale, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
                if abs(value) >= scale or scale == 1e-9:
                    return f"{value / scale:.3g} {prefix}{unit}"
        case "bytes":
            return (
                f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB" if value >= 1e3 else f"{value:g} B"
            )
        case "count":
            return number_text(value)
        case "bits":
            return f"{value:.2f} bits"
        case "decibel":
            return f"{value:.1f} dB"
        case "number":
            return f"{value:.4g}"
    raise AssertionError(metric.dimension)


def shown(metric: Metric, figure: Figure) -> str:
    """A figure's value as people read it; one that was not measured or counted says so: `estimated 10.4 nJ`."""
    return ("estimated " if figure.kind == "estimated" else "") + value_text(metric, figure.value)


def difference_text(metric: Metric, difference: float) -> str:
    """A difference as people read it: `-0.62 points`."""
    if metric.dimension == "fraction":
        return f"{100 * difference:+.2f} points"
    return f"{'+' if difference >= 0 else '-'}{value_text(metric, abs(difference))}"
