"""Objectives, constraints and tolerances: what their texts mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest
from nasc.ir import UsageError
from nasc.search.figures import METRICS, Figure, Metric, clearly_better, value_text
from nasc.search.objectives import (
    directions,
    parse_constraint,
    parse_objectives,
    parse_tolerance,
    values,
)

OWN = Metric("pain", "min", "number", "quality", "pain")


def test_direction_may_be_left_out_where_it_is_known() -> None:
    assert [str(o) for o in parse_objectives(["accuracy", "latency", "loss"])] == [
        "accuracy:max",
        "latency:min",
        "loss:min",
    ]


def test_own_metrics_of_the_model_file_are_objectives() -> None:
    assert str(parse_objectives(["pain"], [OWN])[0]) == "pain:min"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["acuracy"], "Did you mean accuracy"),
        (["accuracy:up"], "expected min or max, found 'up'"),
        (["accuracy:max:much"], "expected a weight, found 'much'"),
        (["accuracy:max:0"], "a weight is a positive number"),
        (["accuracy:max:1:2"], "cannot be read"),
        ([":max"], "cannot be read"),
        (["accuracy", "accuracy:max"], "given twice"),
        (["accuracy:max:1", "latency"], "latency:min has none"),
    ],
)
def test_an_objective_that_is_none_is_refused_with_what_to_write(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_objectives(texts)


def test_weights_make_one_scalar_over_values_relative_to_the_baseline() -> None:
    objectives = parse_objectives(["accuracy:max:1", "bit_operations:min:0.5"])
    baseline = {"accuracy": Figure(0.8), "bit_operations": Figure(1000)}
    figures = {"accuracy": Figure(0.6), "bit_operations": Figure(100)}
    assert values(objectives, figures, baseline) == [pytest.approx(0.6 / 0.8 - 0.5 * 0.1)]
    assert directions(objectives) == ["max"]


def test_without_weights_each_objective_is_told_as_it_is() -> None:
    objectives = parse_objectives(["accuracy", "bit_operations"])
    figures = {"accuracy": Figure(0.6), "bit_operations": Figure(100.0)}
    assert values(objectives, figures, {}) == [0.6, 100.0]
    assert directions(objectives) == ["max", "min"]


@pytest.mark.parametrize(
    ("text", "baseline", "limit"),
    [
        ("latency<=2ms", 1.0, 2e-3),
        ("latency <= 250 us", 1.0, 250e-6),
        ("latency<=250µs", 1.0, 250e-6),
        ("latency<=0.5x", 4e-3, 2e-3),
        ("energy<=5mJ", 1.0, 5e-3),
        ("size<=64KB", 1.0, 64e3),
        ("size<=1KiB", 1.0, 1024),
        ("bit_operations<=baseline/24", 2400.0, 100),
        ("bit_operations<=2.5M", 1.0, 2.5e6),
        ("accuracy>=70%", 1.0, 0.7),
        ("accuracy>=0.7", 1.0, 0.7),
        ("accuracy>=baseline-1pt", 0.8, 0.79),
        ("accuracy>=baseline - 1%", 0.8, 0.792),
        ("accuracy>=baseline", 0.8, 0.8),
        ("loss<=baseline+5%", 2.0, 2.1),
        ("fidelity>=20dB", 1.0, 20),
    ],
)
def test_bounds_with_units_and_relative_to_the_baseline(text: str, baseline: float, limit: float) -> None:
    constraint = parse_constraint(text)
    assert constraint.bound.at(baseline) == pytest.approx(limit)
    inside, outside = (limit * 1.001, limit * 0.999) if constraint.at_least else (limit * 0.999, limit * 1.001)
    assert constraint.violation(Figure(inside), Figure(baseline), 0.95) <= 0
    assert constraint.violation(Figure(outside), Figure(baseline), 0.95) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency", "Write METRIC<=BOUND"),
        ("latency<2ms", "expected <= or >=, found <"),
        ("latency<=2", "expected a unit of s, ms, us"),
        ("latency<=2MB", "found 'MB'"),
        ("latency<=fast", "expected a number with its unit, found 'fast'"),
        ("latency>=baseline-1pt", "points are for metrics between 0 and 1"),
        ("acc>=70%", "Did you mean"),
        ("size<=baseline/0", "cannot be divided by 0"),
    ],
)
def test_a_constraint_that_is_none_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_constraint(text)


def test_estimated_quality_counts_at_its_lower_bound() -> None:
    constraint = parse_constraint("accuracy>=baseline-1pt")
    baseline = Figure(0.80)
    sure = Figure(0.795, "measured", difference=-0.005, error=0.001)
    unsure = Figure(0.795, "measured", difference=-0.005, error=0.005)
    assert constraint.violation(sure, baseline, 0.95) < 0 < constraint.violation(unsure, baseline, 0.95)
    assert constraint.violation(unsure, baseline, 0.5) < 0


def test_measured_latency_counts_at_its_upper_bound() -> None:
    figure = Figure(1.9e-3, "measured", low=1.7e-3, high=2.1e-3, ratio=0.5, ratio_low=0.48, ratio_high=0.52)
    baseline = Figure(3.8e-3, "measured")
    assert parse_constraint("latency<=2ms").violation(figure, baseline, 0.95) > 0
    assert parse_constraint("latency<=0.51x").violation(figure, baseline, 0.95) > 0
    assert parse_constraint("latency<=0.53x").violation(figure, baseline, 0.95) < 0


def test_tolerances() -> None:
    assert parse_tolerance("1pt", METRICS["accuracy"]).bound.at(0.8) == pytest.approx(0.79)
    assert parse_tolerance("5%", METRICS["loss"]).bound.at(2.0) == pytest.approx(2.1)
    assert parse_tolerance("30dB", METRICS["fidelity"]).bound.at(144.0) == 30
    with pytest.raises(UsageError, match="tolerance '1pt' cannot be used for loss"):
        parse_tolerance("1pt", METRICS["loss"])


def test_clearly_better_asks_for_more_than_chance() -> None:
    a = Figure(0.80, "measured", difference=0.0, error=0.002)
    b = Figure(0.79, "measured", difference=-0.01, error=0.002)
    c = Figure(0.798, "measured", difference=-0.002, error=0.002)
    assert clearly_better(a, b, "max", 0.95)
    assert not clearly_better(a, c, "max", 0.95)
    assert not clearly_better(b, a, "max", 0.95)
    assert clearly_better(Figure(9), Figure(10), "min", 0.95)
    slow, fast = (Figure(1.0, "measured", ratio=r, ratio_low=r - 0.01, ratio_high=r + 0.01) for r in (0.55, 0.5))
    assert clearly_better(fast, slow, "min", 0.95)
    assert not clearly_better(fast, Figure(1, "measured", ratio=0.51, ratio_low=0.5, ratio_high=0.52), "min", 0.95)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.71839, "71.84 %"),
        ("latency", 4.02e-6, "4.02 µs"),
        ("latency", 2.5e-3, "2.5 ms"),
        ("size", 1234567, "1.23 MB"),
        ("bit_operations", 272384, "272 k"),
        ("energy", 0.012, "12 mJ"),
    ],
)
def test_values_as_people_read_them(metric: str, value: float, text: str) -> None:
    assert value_text(METRICS[metric], value) == text
