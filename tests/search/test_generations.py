"""Candidates that are trained and bred: chosen by a surrogate, kept with the study, read again as they were."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import nasc
import pytest
import torch
from nasc.ir.errors import UsageError
from nasc.search import generations
from nasc.search.records import BRED, TRAINED, label
from nasc.search.result import Result
from nasc.search.run import search
from nasc.search.surrogate import Surrogate
from synthetic import SmallBuilder, SmallJudge, configuration, problem
from torch import nn

torch.set_num_threads(1)

FEW: dict[str, Any] = {"training.generations": 2, "training.cohort": 8, "search.trials": 8}


@pytest.fixture(autouse=True)
def few_variations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is priced by building it: enough for a small space, and quick."""
    monkeypatch.setattr(generations, "VARIATIONS", 50)


def run(output: Path, builder: SmallBuilder | None = None, **flags: object) -> Result:
    given = {**FEW, **{k.replace("__", "."): v for k, v in flags.items()}}
    builder = builder or SmallBuilder(trains=True)
    return search(problem(builder, SmallJudge()), configuration(given, folder=output).settings, output)


def test_a_surrogate_learns_a_plane_with_a_bump() -> None:
    draw = random.Random(0)

    def number(x: list[float]) -> float:
        return 3 * x[0] - 2 * x[1] + math.exp(-10 * (x[2] - 0.5) ** 2)

    places = [[draw.random() for _ in range(3)] for _ in range(60)]
    model = Surrogate.fitted(places, [number(p) + draw.gauss(0, 0.05) for p in places])
    new = [[draw.random() for _ in range(3)] for _ in range(200)]
    expected, spread = model.guess(new)
    misses = [abs(float(e) - number(p)) for e, p in zip(expected, new, strict=True)]
    assert sum(misses) / len(misses) < 0.12, "the numbers go from -2 to 4"
    _, known = model.guess(places)
    assert known.mean() < spread.mean(), "what was tried is surer than what was not"


def test_a_surrogate_of_one_candidate_is_that_candidate() -> None:
    expected, spread = Surrogate.fitted([[0.2, 0.8]], [4.0]).guess([[0.2, 0.8]])
    assert expected[0] == pytest.approx(4.0)
    assert spread[0] > 0


def test_trained_candidates_come_further_than_trials(tmp_path: Path) -> None:
    builder = SmallBuilder(trains=True)
    found = run(tmp_path / "out", builder, training__cohort=16, training__generations=3)
    before = run(tmp_path / "before", training__generations=0, training__finalist_epochs=0)
    cost = "bit_operations"
    assert found.best.figures[cost].value < 0.95 * before.best.figures[cost].value
    assert found.best.number is not None and found.best.number >= BRED + TRAINED
    assert found.trial(found.best.number).label.startswith("g")
    origins = {r.origin for r in found.trials if r.bred and r.number < BRED + TRAINED}
    assert origins == {f"generation {i}" for i in range(4)}
    widths = {r.assignment["fc1.width"] for r in found.trials if r.bred}
    assert len(widths) > 1, "generations offer widths"
    assert builder.cohorts[1:] == [(16, 5)] * 3 + [(8, 3)], "three generations behind the founders, and the finalists"


def test_a_search_that_is_continued_trains_nothing_again(tmp_path: Path) -> None:
    first = run(tmp_path / "out")
    again = SmallBuilder(trains=True)
    second = run(tmp_path / "out", again)
    assert not again.cohorts
    assert [(r.number, r.figures) for r in second.trials] == [(r.number, r.figures) for r in first.trials]
    assert second.best == first.best
    for file in (tmp_path / "out" / "finalists").iterdir():
        file.unlink()
    last = SmallBuilder(trains=True)
    run(tmp_path / "out", last)
    assert last.cohorts == [(4, 3)], "networks that are gone are trained again, as they were"


def test_one_seed_breeds_the_same_candidates(tmp_path: Path) -> None:
    def bred(name: str, seed: int) -> list[str]:
        return [r.pipeline for r in run(tmp_path / name, seed=seed).trials if r.bred]

    assert bred("a", 0) == bred("b", 0)
    assert bred("a", 0) != bred("c", 1)


def test_rules_of_the_space_hold_for_generations(tmp_path: Path) -> None:
    found = run(tmp_path / "out", search__space=["each *: weights=[i4, i6, i8], activations=[u6, u8]"])
    for record in found.trials:
        if record.bred:
            assert "resize" not in record.pipeline
            assert set(record.assignment.values()) <= {"i4", "i6", "i8", "u6", "u8"}


def test_constraints_that_can_be_counted_hold_for_generations(tmp_path: Path) -> None:
    found = run(tmp_path / "out", search__constraints=["size<=1.5KB"])
    assert found.best.figures["size"].value <= 1500


@pytest.mark.parametrize(
    ("builder", "flags", "message"),
    [
        (SmallBuilder(), {}, "small.py does not say how"),
        (SmallBuilder(trains=True), {"training__epochs": 2}, "after a search without training"),
        (
            SmallBuilder(labels=False),
            {"training__epochs": 2, "training__generations": 0},
            "small.py names no train_data, so candidates cannot be trained",
        ),
        (
            SmallBuilder(trains=True),
            {"search__objectives": ["accuracy:max:1", "bit_operations:min:0.5"]},
            "these objectives have weights",
        ),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_paid(
    tmp_path: Path, builder: SmallBuilder, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "out", builder, **flags)
    assert not (tmp_path / "out" / "trials.jsonl").exists()


def test_labels() -> None:
    assert [label(n) for n in (7, TRAINED + 7, BRED + 7, BRED + TRAINED + 7)] == ["7", "7 trained", "g7", "g7 trained"]


def test_networks_that_were_trained_together_are_deployed_as_they_were_judged(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 6, generator=random)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).long() + (x[:, 3] > 1).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:1000]), y[:1000]).backward()
        optimizer.step()
    result = nasc.compile(
        model,
        x[:4],
        output=tmp_path / "out",
        train_data=(x[:1000], y[:1000]),
        validation_data=(x[1000:1250], y[1000:1250]),
        test_data=(x[1250:], y[1250:]),
        training={"epochs": 5, "batch_size": 100, "learning_rate": 0.02},
        trials=4,
        settings={
            "training.generations": 1,
            "training.cohort": 6,
            "training.generation_epochs": 1,
            "search.tolerance": "6pt",
            "measure.budget_s": 0.05,
        },
    )
    assert result.best.number is not None and result.best.number >= BRED + TRAINED
    record = result.trial(result.best.number)
    assert record.epochs == 3
    assert result.deployed.check["agrees"]
    deployed, tested = result.deployed.quality["accuracy"].value, result.best.test["accuracy"].value
    assert deployed == pytest.approx(tested, abs=0.01)
    assert "agrees" in result.deployed.check
