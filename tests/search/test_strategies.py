"""Strategies: each is seeded, pays for nothing twice, and ends with a finite space."""

from __future__ import annotations

from pathlib import Path

import pytest
from nasc.ir import UsageError
from nasc.search.observer import Observer
from nasc.search.records import Record
from nasc.search.result import Result
from nasc.search.run import search
from nasc.search.space import build_space
from nasc.search.space_rules import parse_rule
from nasc.search.strategies import GRID_LIMIT, STRATEGIES, check_strategy, seed_of, unseen
from synthetic import SmallBuilder, configuration, problem, small

EIGHTEEN = "linear: weights=[i2,i4,i8], activations=[u4,u8], biases=[i2,i4,i8]"
INSTALLED = [name for name in STRATEGIES if name not in ("cma-es", "gp")]


class Notes(Observer):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.finished: list[Record] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def trial_finished(self, record: Record, paid: int) -> None:
        self.finished.append(record)


def run(
    output: Path,
    strategy: str,
    trials: int,
    observer: Observer | None = None,
    builder: SmallBuilder | None = None,
    **flags: object,
) -> Result:
    given = {
        "search.strategy": strategy,
        "search.trials": trials,
        **{k.replace("__", "."): v for k, v in flags.items()},
    }
    return search(problem(builder), configuration(given, folder=output).settings, output, observer)


def proposals(result: Result) -> list[tuple[str, str]]:
    return [(record.origin, record.pipeline) for record in result.trials]


@pytest.mark.parametrize("strategy", [*INSTALLED, "gp"])
def test_one_seed_proposes_the_same_and_another_seed_something_else(strategy: str, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    flags = {"search__seeds": False}
    first = proposals(run(tmp_path / "a", strategy, 14, **flags, seed=1, search__space=["each *: weights=i2..i8"]))
    again = proposals(run(tmp_path / "b", strategy, 14, **flags, seed=1, search__space=["each *: weights=i2..i8"]))
    other = proposals(run(tmp_path / "c", strategy, 14, **flags, seed=2, search__space=["each *: weights=i2..i8"]))
    assert first == again
    assert first != other or strategy == "ilp", "a program has one solution whatever the seed"


@pytest.mark.parametrize("seeds", [True, False])
def test_brute_force_pays_for_each_of_eighteen_exactly_once_and_stops(seeds: bool, tmp_path: Path) -> None:
    paid, notes = tmp_path / "paid", Notes()
    result = run(
        tmp_path / "out", "brute-force", 100, notes, SmallBuilder(paid), search__space=[EIGHTEEN], search__seeds=seeds
    )
    in_trials = [r.key for r in result.trials if r.paid]
    assert len(in_trials) == len(set(in_trials)) == 18
    assert any("all 18 configurations of the space have been tried" in text for text in notes.notices)


@pytest.mark.parametrize("strategy", ["tpe", "random", "qmc", "grid", "nsga2"])
def test_eighteen_trials_pay_for_eighteen_different_ones(strategy: str, tmp_path: Path) -> None:
    notes = Notes()
    result = run(tmp_path / "out", strategy, 18, notes, search__space=[EIGHTEEN])
    keys = [r.key for r in result.trials if r.paid]
    assert len(keys) == len(set(keys)) == 18
    assert result.paid == 18


def test_repeated_candidates_are_free_and_get_the_same_result(tmp_path: Path) -> None:
    result = run(tmp_path / "out", "random", 18, search__space=[EIGHTEEN], search__seeds=False)
    repeated = [r for r in result.trials if not r.paid]
    assert repeated, "eighteen random draws of eighteen without a repetition: choose another seed"
    for record in repeated:
        first = result.trial(record.duplicate_of or 0)
        assert first.paid
        assert (record.pipeline, record.figures, record.state) == (first.pipeline, first.figures, first.state)
        assert not record.rungs


def test_a_strategy_that_keeps_repeating_itself_is_helped_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasc.search.trials.PATIENCE", 4)
    notes = Notes()
    result = run(tmp_path / "out", "tpe", 36, notes, search__space=["each fc[12]: weights=i2..i7"], search__seeds=False)
    assert result.paid == 36
    assert any("proposed 4 known candidates in a row" in text for text in notes.notices)
    assert any(r.origin == "unseen" for r in result.trials)


def test_equal_networks_from_different_choices_are_one_candidate(tmp_path: Path) -> None:
    """A layer without a bias to choose: two assignments, one network."""
    rules = ["fc1: weights=[i4, i8]", "fc2: weights=[f32, i8]", "fc2: weights=[f32, i8]"]
    result = run(tmp_path / "out", "brute-force", 10, search__space=rules)
    assert result.paid == 4


def test_unknown_strategies_are_refused_with_the_nearest() -> None:
    space = build_space(small().graph)
    with pytest.raises(UsageError, match="there is no search strategy 'tpee'\n  Did you mean tpe"):
        check_strategy("tpee", space, objectives=2)


def test_strategies_that_cannot_do_what_is_asked_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    space = build_space(small().graph)
    assert space.size > GRID_LIMIT
    with pytest.raises(UsageError, match="Narrow it below 100,000"):
        check_strategy("grid", space, objectives=2)
    monkeypatch.setattr("nasc.search.strategies.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install cmaes"):
        check_strategy("cma-es", space, objectives=1)
    monkeypatch.setattr("nasc.search.strategies.find_spec", lambda name: name)
    with pytest.raises(UsageError, match="takes one objective, found 2"):
        check_strategy("cma-es", space, objectives=2)


def test_cma_es_with_a_weighted_sum(tmp_path: Path) -> None:
    pytest.importorskip("cmaes")
    objectives = ["accuracy:max:1", "bit_operations:min:0.2"]
    result = run(tmp_path / "out", "cma-es", 12, search__objectives=objectives, search__seeds=False)
    assert result.paid == 12


def test_unseen_lists_a_small_space_and_draws_from_a_large_one() -> None:
    eighteen = build_space(small().graph, [parse_rule(EIGHTEEN)])
    left = [eighteen.index(a) for a in unseen(eighteen, {0, 5}, seed=3, told=7)]
    assert sorted(left) == [i for i in range(18) if i not in (0, 5)]
    large = build_space(small().graph)
    drawn = unseen(large, {0}, seed=3, told=7)
    assert len({large.index(next(drawn)) for _ in range(50)}) == 50


def test_seeds_depend_on_all_they_are_for() -> None:
    assert seed_of(1, "sampler", 2) == seed_of(1, "sampler", 2)
    assert len({seed_of(s, "sampler", n) for s in range(10) for n in range(10)}) == 100
    assert all(0 <= seed_of(s) < 2**32 for s in range(100))
