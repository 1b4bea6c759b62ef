"""What choices hurt alone, and the mixtures that an integer program makes of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import nasc
import pytest
import torch
from nasc.compiler.passes import Context
from nasc.ir import UsageError
from nasc.search.allocation import (
    Allocator,
    Proposals,
    bit_operations,
    halved,
    latency_s,
    size_bytes,
)  # fmt: skip
from nasc.search.damage import DamageModel
from nasc.search.observer import Observer
from nasc.search.protocols import Problem
from nasc.search.result import Result
from nasc.search.run import search
from nasc.search.sensitivity import Damage, Sensitivity, sensitivity
from nasc.search.sensitivity_plot import table, write_plot
from nasc.search.space import Assignment, Space, amount, build_space
from nasc.search.space_rules import parse_rule
from support.digits import noise, rows, trained
from synthetic import HURT, SmallBuilder, SmallJudge, bits, configuration, lost, problem, small

PREPARED = "cleanup | fold-batch-norm | merge-linear"


@pytest.fixture(scope="module")
def seen() -> tuple[Space, Sensitivity]:
    """The digits network's sensitivity to few formats."""
    network = trained().apply(PREPARED)
    space = build_space(network.graph, [parse_rule("each *: weights=[i2,i4,i8], activations=[u4,u8]")])
    x, y = rows()[2:]
    batches, labels = [(x[:300],), (x[300:],)], [y[:300], y[300:]]
    context = Context.of(rows()[0][:256])
    return space, sensitivity(network, space, context, batches, labels, torch.nn.functional.cross_entropy)


def test_each_choice_is_measured_alone(seen: tuple[Space, Sensitivity]) -> None:
    space, found = seen
    assert len(found.damages) == sum(len(k.choices) for k in space.knobs) == 20
    assert found.samples == 597
    one = next(d for d in found.damages if d.name == "deep.weights" and d.format == "i4")
    alone = trained().apply(f"{PREPARED} | quantize{{layers=deep, weights=i4}} | calibrate")
    assert one.noise == pytest.approx(noise(alone, trained()), rel=1e-3)
    x, y = rows()[2:]
    losses = [float(torch.nn.functional.cross_entropy(n(x), y)) for n in (alone, trained())]
    assert one.loss == pytest.approx(losses[0] - losses[1], abs=1e-5)
    assert found.loss == pytest.approx(losses[1], abs=1e-5)


def test_fewer_bits_hurt_more_and_the_ranking_says_who_suffers(seen: tuple[Space, Sensitivity]) -> None:
    _, found = seen
    for name, damages in found.ranked():
        assert [d.bits for d in damages] == sorted(d.bits for d in damages)
        assert damages[0].noise > 10 * damages[-1].noise, name
        hurts = [found.hurts()[name][d.format] for d in damages]
        assert hurts == sorted(hurts, reverse=True) and hurts[-1] > 0
    bits4 = [next(d.noise for d in damages if d.bits == 4) for name, damages in found.ranked() if "weights" in name]
    assert bits4[0] == max(bits4)


def test_noise_of_several_choices_adds_up(seen: tuple[Space, Sensitivity]) -> None:
    """What the integer program stands on."""
    _, found = seen
    together = trained().apply(f"{PREPARED} | quantize{{weights=i4, activations=u8}} | calibrate", data=rows()[0][:256])
    added = sum(d.noise for d in found.damages if d.format in ("i4", "u8"))
    assert 0.5 * added < noise(together, trained()) < 2 * added


def test_sensitivity_reads_back(seen: tuple[Space, Sensitivity]) -> None:
    assert Sensitivity.of_dict(json.loads(json.dumps(seen[1].as_dict()))).hurts() == seen[1].hurts()


def test_the_plot_is_one_page_with_every_choice(seen: tuple[Space, Sensitivity], tmp_path: Path) -> None:
    formats, ranked = table(seen[1], "weights")
    assert formats == ["i2", "i4", "i8"] and len(ranked) == 4
    write_plot(seen[1], tmp_path / "map.html", "digits")
    page = (tmp_path / "map.html").read_text()
    assert "stem.weights in i2" in page and "head.activations in u8" in page and "cdn" not in page[:2000]


def test_a_space_of_widths_has_no_sensitivity() -> None:
    space = build_space(small().graph, [parse_rule("fc1: width=[32, 64]")])
    with pytest.raises(UsageError, match="chooses no formats"):
        sensitivity(small(), space, Context.of(None), [(torch.randn(8, 16),)])


@pytest.mark.parametrize(("formats", "found"), [("[]", r"'\[\]'"), ("", "''"), ("i8..i2", "'i8..i2' is empty")])
def test_formats_that_are_none_are_refused_as_they_were_written(formats: str, found: str) -> None:
    with pytest.raises(UsageError, match=rf"{found}.*\n  Write"):
        nasc.sensitivity("no_such_file.py", weights=formats)


MACS = {name: float(m) for name, (m, _, _) in bits(small().graph).items()}


def small_space(rule: str = "each *: weights=[i2,i4,i8], activations=[u4,u8]") -> Space:
    return build_space(small().graph, [parse_rule(rule)])


def drawn(space: Space, seed: int) -> dict[str, dict[str, float]]:
    draw = random.Random(seed)
    return {k.name: {c: draw.random() * 4.0 ** -amount(k, c) for c in k.choices} for k in space.knobs}


def best_of_all(allocator: Allocator, hurts: dict[str, dict[str, float]], budget: float) -> float | None:
    """The least hurt within a budget, by trying everything."""
    space = allocator.space
    totals = [sum(hurts[k][c] for k, c in a.items()) for a in space if allocator.total(a) <= budget * (1 + 1e-9)]
    return min(totals, default=None)


@pytest.mark.parametrize("kind", ["bit_operations", "size", "latency"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_program_finds_the_best_mixture_there_is(kind: str, seed: int) -> None:
    rule = "each *: weights=[i2,i8], activations=[u4,u8]"
    space = small_space(rule if kind != "latency" else "each *: weights=[i4,i8,f32], activations=[u8,f32]")
    cost = {"bit_operations": bit_operations(MACS), "size": size_bytes(MACS), "latency": latency_s(MACS, 1.0, 0.3)}
    allocator, hurts = Allocator(space, cost[kind], space.largest), drawn(space, seed)
    for share in (0.05, 0.4, 0.8):
        budget = allocator.budget(share)
        found = allocator.allocate(hurts, budget)
        assert found is not None and allocator.total(found) <= budget * (1 + 1e-6)
        best = best_of_all(allocator, hurts, budget)
        assert sum(hurts[k][c] for k, c in found.items()) == pytest.approx(best, rel=1e-3)
    assert allocator.allocate(hurts, 0.9 * allocator.cheapest()) is None


def test_costs_are_those_of_the_judge() -> None:
    space = small_space()
    allocator = Allocator(space, bit_operations(MACS), space.largest)
    for index in (0, 77, 500, space.size - 1):
        network = small().apply(space.pipeline(space.at(index)).rsplit(" | calibrate", 1)[0])
        assert allocator.total(space.at(index)) == SmallJudge().static(network)["bit_operations"].value


def test_layers_that_share_a_choice_are_allocated_together() -> None:
    space = small_space("*: weights=[i2,i4,i8], activations=[u4,u8]")
    allocator = Allocator(space, bit_operations(MACS), space.largest)
    found = allocator.allocate(drawn(space, 0), 0.3 * allocator.dearest())
    assert found is not None and len(found) == 2 and space.holds(found)


def test_forbidden_mixtures_give_the_next_best() -> None:
    space = small_space("each *: weights=[i2,i4,i8]")
    allocator, hurts = Allocator(space, size_bytes(MACS), space.largest), drawn(space, 3)
    budget, forbidden = allocator.budget(0.5), []
    for _ in range(4):
        found = allocator.allocate(hurts, budget, forbidden)
        assert found is not None and found not in forbidden
        forbidden.append(found)
    totals = [sum(hurts[k][c] for k, c in a.items()) for a in forbidden]
    assert totals == sorted(totals)
    every = sorted(sum(hurts[k][c] for k, c in a.items()) for a in space if allocator.total(a) <= budget)
    assert totals == pytest.approx(every[:4])


def test_budgets_come_in_ever_finer_parts() -> None:
    assert [halved(n) for n in range(9)] == [0, 1, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    space = small_space()
    proposals = Proposals(Allocator(space, bit_operations(MACS), space.largest), lambda records: drawn(space, 0))
    tried: set[int] = set()
    for _ in range(6):
        found = proposals.next((), tried)
        assert found is not None and space.index(found) not in tried
        tried.add(space.index(found))


def test_measured_noise_makes_the_model_right_before_any_trial() -> None:
    space, start = small_space(), small_space().largest
    noise_of = {
        k.name: {
            c: 2 * HURT[k.targets[0]] * (1 if k.part == "weights" else 0.5) * 4.0 ** -amount(k, c) for c in k.choices
        }
        for k in space.knobs
    }
    model = DamageModel.fitted(space, MACS, start, [(start, true(space, start))], noise_of)
    assert model is not None
    for index in random.Random(0).sample(range(space.size), 20):
        assert model.hurt(space.at(index)) == pytest.approx(true(space, space.at(index)), rel=0.01)
    blind = DamageModel.fitted(space, MACS, start, [(start, true(space, start))])
    assert blind is not None and blind.hurt(space.smallest) < 0.1 * true(space, space.smallest), "the control"


def true(space: Space, assignment: Assignment) -> float:
    return lost(small().apply(space.pipeline(assignment).rsplit(" | calibrate", 1)[0]).graph)


def measured(space: Space, samples: int) -> Sensitivity:
    """What the synthetic judge would show of each choice alone."""
    damages = []
    for knob in space.knobs:
        for choice in sorted(knob.choices, key=lambda c, k=knob: amount(k, c)):
            factor = 1.0 if knob.part == "weights" else 0.5
            drop = 2 * factor * sum(HURT[t] for t in knob.targets) * 4.0 ** -amount(knob, choice)
            damages.append(Damage(knob.name, knob.targets, knob.part, choice, amount(knob, choice), drop, 2 * drop))
    return Sensitivity(samples, 0.7, tuple(damages))


def searched(output: Path, strategy: str, known: bool, **flags: object) -> tuple[Result, list[str]]:
    stages: list[str] = []

    class Stages(Observer):
        def stage(self, text: str) -> None:
            stages.append(text)

    plain = problem(SmallBuilder())
    asked = Problem(
        plain.name, plain.source, plain.builder, plain.judge, plain.target, sensitivity=measured if known else None
    )
    given = {"search.strategy": strategy, "search.trials": 12, **{k.replace("__", "."): v for k, v in flags.items()}}
    return search(asked, configuration(given, folder=output).settings, output, Stages()), stages


def cheapest_good(result: Result) -> float:
    """The fewest bit operations of all candidates that truly lose at most a point."""
    costs = [
        r.figures["bit_operations"].value
        for r in result.trials
        if r.paid and lost(small().apply(r.pipeline.rsplit(" | calibrate", 1)[0]).graph) <= 0.01
    ]
    return min(costs)


def test_searches_that_know_what_hurts_find_better_mixtures_in_few_trials(tmp_path: Path) -> None:
    knowing, stages = searched(tmp_path / "a", "tpe", True)
    blind, _ = searched(tmp_path / "b", "tpe", False)
    assert "what each choice of bits hurts alone" in stages
    assert not any("alone" in r.origin for r in knowing.trials), "no trial is paid for to find out"
    assert any(r.origin == "least hurt within a budget" for r in knowing.trials)
    assert cheapest_good(knowing) < 0.9 * cheapest_good(blind)
    again, stages = searched(tmp_path / "a", "tpe", True)
    assert [r.pipeline for r in again.trials] == [r.pipeline for r in knowing.trials]
    assert "what each choice of bits hurts alone" not in stages, "it is kept with the study"


def test_the_strategy_ilp_proposes_mixtures_within_budgets(tmp_path: Path) -> None:
    result, _ = searched(tmp_path / "a", "ilp", True, search__seeds=False)
    proposed = [r for r in result.trials if r.origin == "ilp"]
    assert len(proposed) >= 10
    assert cheapest_good(result) < 1.15 * cheapest_good(searched(tmp_path / "b", "tpe", True)[0])


def test_a_constraint_is_the_budget(tmp_path: Path) -> None:
    result, _ = searched(tmp_path / "a", "ilp", True, search__seeds=False, search__constraints=["size<=2500B"])
    assert all(r.figures["size"].value <= 2500 for r in result.trials if r.origin == "ilp")
    assert max(r.figures["size"].value for r in result.trials if r.origin == "ilp") > 2300


def test_asymmetric_weights_hurt_less_where_there_are_few_codes() -> None:
    network = trained().apply(PREPARED)
    space = build_space(network.graph, [parse_rule("each *: weights=[i2, u2]")])
    x, y = rows()[2:]
    found = sensitivity(
        network, space, Context.of(rows()[0][:256]), [(x[:300],)], [y[:300]], torch.nn.functional.cross_entropy
    )
    hurt = {(d.name, d.format): d.noise for d in found.damages}
    assert sum(hurt[k.name, "u2"] for k in space.knobs) < 0.7 * sum(hurt[k.name, "i2"] for k in space.knobs)
