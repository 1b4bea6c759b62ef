"""What is tried before the strategy: uniform bits, single choices, and mixtures by a model of what hurts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from nasc.search.damage import DamageModel, non_negative
from nasc.search.figures import METRICS, Figure
from nasc.search.objectives import parse_tolerance
from nasc.search.records import Record
from nasc.search.seeds import REFERENCE, Plan, Seed
from nasc.search.smooth import line, smoothed
from nasc.search.space import Assignment, Space, build_space
from nasc.search.space_rules import parse_rule
from synthetic import BASE_ACCURACY, SmallJudge, accuracy, bits, lost, small


@pytest.fixture(scope="module")
def space() -> Space:
    return build_space(small().graph)


def plan(space: Space, trials: int = 100) -> Plan:
    macs = {name: float(m) for name, (m, _, _) in bits(small().graph).items()}
    return Plan(space, METRICS["accuracy"], parse_tolerance("1pt", METRICS["accuracy"]), macs, trials)


def told(space: Space, number: int, seed: Seed) -> Record:
    network = small().apply(space.pipeline(seed.assignment).rsplit(" | calibrate", 1)[0])
    figures = {**SmallJudge().static(network), **SmallJudge().quality(network, "validation")}
    return Record(
        number, "complete", seed.origin, space.pipeline(seed.assignment), seed.assignment, network.key, figures
    )


def all_told(space: Space, trials: int = 100) -> list[Record]:
    records: list[Record] = []
    while (seed := plan(space, trials).next(records, BASE_ACCURACY)) is not None:
        records.append(told(space, len(records), seed))
    return records


def test_the_reference_comes_first_then_uniform_bits_then_each_choice_alone(space: Space) -> None:
    records = all_told(space)
    assert records[0].origin == REFERENCE
    assert set(records[0].assignment.values()) == {"i8", "u8"}
    assert records[2].origin == "uniform 6 and 6 bits"
    assert [r.origin for r in records[4:12]] == [f"{k.name} alone" for k in space.free]
    for record in records[4:12]:
        changed = [n for n in record.assignment if record.assignment[n] != records[0].assignment[n]]
        assert changed == [record.origin.removesuffix(" alone")]


def test_mixtures_keep_the_tolerance_at_far_fewer_bit_operations_than_uniform_bits(space: Space) -> None:
    records = all_told(space)
    truth = {r.number: lost(small().apply(r.pipeline.rsplit(" | calibrate", 1)[0]).graph) for r in records}
    good = [r for r in records if truth[r.number] <= 0.01]
    best = min(good, key=lambda r: r.figures["bit_operations"].value)
    uniform = [r for r in good if r.origin.startswith("uniform")]
    fewest = min(r.figures["bit_operations"].value for r in uniform)
    assert best.origin in ("fewest bit operations within tolerance", "least hurt per bit operation saved")
    assert best.figures["bit_operations"].value < 0.7 * fewest


def test_seeds_take_no_more_than_their_share(space: Space) -> None:
    assert len(all_told(space, 40)) <= 0.75 * 40
    assert all("alone" not in r.origin for r in all_told(space, 12)), (
        "probing every choice would take most of 12 trials"
    )


def test_a_space_without_eight_bits_has_no_reference_in_it() -> None:
    assert plan(build_space(small().graph, [parse_rule("*: weights=[i2, i4], activations=u8")])).reference() is None
    eighteen = build_space(small().graph, [parse_rule("*: weights=[i2,i4,i8], activations=[u4,u8], biases=[i2,i4,i8]")])
    assert eighteen.pipeline(plan(eighteen).reference() or {}).count("weights=i8, activations=u8, biases=i8") == 1


@pytest.mark.parametrize(
    ("rule", "origins"),
    [
        ("*: weights=[i2, ternary], activations=[u4]", ["uniform ternary/u4"]),
        ("*: weights=i2..i8, activations=[f32]", ["uniform i8/f32", "uniform i6/f32"]),
        ("*: weights=[i4, i8], activations=[u8]", ["uniform 8 bits"]),
        ("*: weights=[i4, i8], activations=[u6, u8]", ["uniform 8 bits", "uniform i8/u6"]),
    ],
)
def test_uniform_seeds_are_called_by_what_is_tried(rule: str, origins: list[str]) -> None:
    space = build_space(small().graph, [parse_rule(rule)])
    uniform = [r for r in all_told(space, 8) if r.origin.startswith("uniform")]
    assert [r.origin for r in uniform][: len(origins)] == origins
    assert all(
        r.origin.partition("/")[0].removeprefix("uniform ") in (*r.assignment.values(), "8 bits") for r in uniform
    )


def test_a_seed_that_is_not_uniform_says_what_it_is_nearest_to() -> None:
    mixed = build_space(
        small().graph, [parse_rule("*: weights=[i4, i6], activations=u8"), parse_rule("fc1: weights=i8")]
    )
    seed = plan(mixed).next([], BASE_ACCURACY)
    assert seed is not None
    assert seed.origin == "nearest to uniform 8 bits: weights i8 i6, activations u8"


def true_hurt(space: Space, assignment: Assignment) -> float:
    return lost(small().apply(space.pipeline(assignment).rsplit(" | calibrate", 1)[0]).graph)


def test_the_model_finds_what_really_hurts(space: Space) -> None:
    draw = random.Random(0)
    start = space.largest
    rows = [(a, true_hurt(space, a)) for a in [start, *(space.at(draw.randrange(space.size)) for _ in range(60))]]
    model = DamageModel.fitted(space, plan(space).macs, start, rows)
    assert model is not None
    fresh = [space.at(draw.randrange(space.size)) for _ in range(40)]
    thought = np.log([model.hurt(a) for a in fresh])
    true = np.log([true_hurt(space, a) for a in fresh])
    assert np.corrcoef(thought, true)[0, 1] > 0.97


def test_proposals_are_new_and_within_the_limit_as_the_model_sees_it(space: Space) -> None:
    start = space.largest
    probes = [{**start, k.name: k.choices[0]} for k in space.free]
    rows = [(a, true_hurt(space, a)) for a in [start, *probes]]
    model = DamageModel.fitted(space, plan(space).macs, start, rows)
    assert model is not None
    tried: set[int] = set()
    costs: list[float] = []
    for _ in range(12):
        found = model.proposal(0.008, tried)
        assert found is not None
        assert space.index(found) not in tried
        assert model.hurt(found) <= 0.008
        tried.add(space.index(found))
        costs.append(model.bit_operations(found))
    assert costs == sorted(costs)


def test_a_walk_only_goes_down(space: Space) -> None:
    start = space.largest
    rows = [(a, true_hurt(space, a)) for a in [start, *({**start, k.name: k.choices[0]} for k in space.free)]]
    model = DamageModel.fitted(space, plan(space).macs, start, rows)
    assert model is not None
    walk = model.walk()
    costs = [model.bit_operations(a) for a in walk]
    assert costs == sorted(costs, reverse=True)
    assert walk[-1] == space.smallest
    network = small().apply(space.pipeline(walk[7]).rsplit(" | calibrate", 1)[0])
    assert costs[7] == SmallJudge().static(network)["bit_operations"].value


def test_non_negative_least_squares() -> None:
    draw = np.random.default_rng(0)
    rows = draw.random((40, 6))
    true = np.array([0.0, 2.0, 0.0, 1.0, 0.5, 3.0])
    assert np.allclose(non_negative(rows, rows @ true), true, atol=1e-6)
    against = non_negative(rows, rows @ np.array([-1.0, 2.0, 0.0, 1.0, 0.5, 3.0]))
    assert (against >= 0).all()
    assert against[0] == 0


def candidates(count: int, slope: float = -40.0, noise: float = 0.004) -> list[Record]:
    draw = random.Random(1)
    found: list[Record] = []
    for n in range(count):
        x = draw.uniform(0.001, 0.03)
        y = slope / 100 * x + draw.gauss(0, noise)
        figures = {
            "loss": Figure(0.7 + x, "measured", difference=x, error=0.02),
            "accuracy": Figure(0.75 + y, "measured", difference=y, error=noise),
        }
        found.append(Record(n, "complete", "tpe", "", {}, figures=figures))
    return found


def test_smoothing_brings_an_estimate_nearer_to_the_truth() -> None:
    told = candidates(300)
    fitted = line(told, "accuracy")
    assert fitted is not None
    assert fitted.slope == pytest.approx(-0.4, abs=0.05)
    counted, estimated = [], []
    for record in told:
        truth = -0.4 * (record.figures["loss"].difference or 0.0)
        figure = smoothed(record.figures, "accuracy", fitted)["accuracy"]
        counted.append(abs((record.figures["accuracy"].difference or 0.0) - truth))
        estimated.append(abs((figure.difference or 0.0) - truth))
        assert figure.kind == "estimated"
    assert sum(estimated) < 0.5 * sum(counted)


def test_no_line_where_there_is_too_little_or_loss_says_nothing() -> None:
    assert line(candidates(5), "accuracy") is None
    assert line(candidates(60, slope=0.0), "accuracy") is None
    assert line(candidates(60), "loss") is None
    figures = candidates(1)[0].figures
    assert smoothed(figures, "accuracy", None) is figures


def test_luck_of_the_draw_is_the_same_for_the_same_network() -> None:
    """The synthetic judge itself: without this, tests of repeated searches would say nothing."""
    graph = small().apply("quantize{weights=i4, activations=u6}").graph
    assert accuracy(graph, "validation") == accuracy(graph, "validation")
    assert accuracy(graph, "validation") != accuracy(graph, "test")
