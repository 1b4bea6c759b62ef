"""Forecasts end what is surely beaten, stay estimates, survive a stop, and say what they were worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from nasc.compiler.network import Network
from nasc.search.config import configuration
from nasc.search.evaluate import Ladder
from nasc.search.figures import Figure
from nasc.search.forecast import EXAMPLES, Forecast, beaten, in_turns, missed
from nasc.search.objectives import parse_constraint, parse_objectives
from nasc.search.observer import Observer
from nasc.search.records import Record
from nasc.search.run import search
from nasc.targets.latency_model import FEWEST, OpWork
from synthetic import SmallBuilder, SmallJudge, bits, problem

BASELINE = {"accuracy": Figure(0.75, "measured"), "latency": Figure(1e-3, "measured")}


@dataclass
class Profiled(SmallJudge):
    """A device on which a layer takes time in proportion to its weights and their bits."""

    overhead: str | None = None

    def work(self, network: Network) -> Sequence[OpWork]:
        return [OpWork(n, ("linear",), (1.0, float(m * w))) for n, (m, w, _) in bits(network.graph).items()]

    def spent(self, network: Network) -> Mapping[str, float]:
        return {n: 1e-6 + 1e-9 * m * w for n, (m, w, _) in bits(network.graph).items()}

    def measure(self, network: Network, metrics: Sequence[str]) -> dict[str, Figure]:
        self.timed.append(network.key)
        time_s = sum(self.spent(network).values())
        whole_s = sum(1e-6 + 1e-9 * m * 32 for m, _, _ in bits(network.graph).values())
        return {n: Figure(time_s, "measured", 0.99 * time_s, 1.01 * time_s, ratio=time_s / whole_s) for n in metrics}

    def timing_key(self, network: Network) -> str:
        return network.key


def work(size: float) -> list[OpWork]:
    return [OpWork("a", ("linear",), (1.0, size))]


def measured(time_s: float) -> Figure:
    return Figure(time_s, "measured")


def learned(folder: Path) -> Forecast:
    found = Forecast(folder, BASELINE["latency"])
    for size in range(1, FEWEST + 4):
        found.learn(work(size * 1000), {"a": 1e-6}, measured(1e-6 + 1e-9 * size * 1000))
    return found


def test_nothing_is_foretold_from_little(tmp_path: Path) -> None:
    forecast = Forecast(tmp_path, BASELINE["latency"])
    for size in range(FEWEST):
        assert forecast.foresee(work(5000)) is None
        forecast.learn(work(1000 * (size + 1)), {"a": 3e-6}, measured(1e-6 + 1e-6 * (size + 1)))
    found = forecast.foresee(work(5000))
    assert found is not None and found.value == pytest.approx(6e-6, rel=0.05)
    assert found.kind == "estimated"
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
    assert forecast.foresee([OpWork("z", ("fft",), (1.0, 2.0))]) is None  # nothing is known of such ops


def test_disturbed_profiles_teach_nothing(tmp_path: Path) -> None:
    forecast = Forecast(tmp_path, BASELINE["latency"])
    forecast.learn(work(1000), {"a": 3e-6}, measured(1.9e-6))
    assert forecast.examples == []
    forecast.learn(work(1000), {"a": 3e-6}, measured(2.1e-6))
    assert len(forecast.examples) == 1


def test_what_was_learned_survives_a_stop(tmp_path: Path) -> None:
    first = learned(tmp_path)
    with (tmp_path / EXAMPLES).open("a") as file:
        file.write('{"latency_s": 1.0, "tim')  # a kill in the middle of a line
    again = Forecast.opened(tmp_path, BASELINE["latency"], [])
    assert again.examples == first.examples
    assert again.foresee(work(2500)) == first.foresee(work(2500))


def test_constraints_are_missed_only_by_the_better_end() -> None:
    bound = (parse_constraint("latency<=0.5x"),)
    sure, unsure = Figure(6e-4, "estimated", 5.5e-4, 7e-4), Figure(6e-4, "estimated", 4.5e-4, 7e-4)
    reason = missed(bound, sure, BASELINE["latency"], 0.95)
    assert reason is not None and reason.startswith("forecast: latency 600 µs") and "latency<=0.5x" in reason
    assert missed(bound, unsure, BASELINE["latency"], 0.95) is None
    assert missed((parse_constraint("size<=0.5x"),), sure, BASELINE["latency"], 0.95) is None


def record(number: int, accuracy: float, latency_s: float | None = None) -> Record:
    figures = {"accuracy": Figure(accuracy, "measured", difference=accuracy - 0.75, error=0.001)}
    if latency_s is not None:
        figures["latency"] = Figure(latency_s, "measured", latency_s * 0.99, latency_s * 1.01)
    return Record(number, "complete", "test", "", {}, figures=figures)


def test_a_candidate_is_beaten_by_one_that_is_clearly_better_and_faster() -> None:
    wanted = parse_objectives(["accuracy", "latency"])
    forecast = Figure(6e-4, "estimated", 5e-4, 7e-4)
    candidate = record(9, 0.70)
    reason = beaten(candidate, forecast, [record(1, 0.74, 4e-4)], wanted, BASELINE["latency"], 0.95)
    assert reason is not None and reason.endswith("trial 1 is better and faster")
    assert (
        beaten(candidate, forecast, [record(1, 0.74, 4.98e-4)], wanted, BASELINE["latency"], 0.95) is None
    )  # perhaps as fast
    assert (
        beaten(candidate, forecast, [record(1, 0.7005, 4e-4)], wanted, BASELINE["latency"], 0.95) is None
    )  # not clearly better
    assert beaten(candidate, forecast, [record(1, 0.74)], wanted, BASELINE["latency"], 0.95) is None  # never measured
    assert (
        beaten(candidate, forecast, [record(1, 0.74, 4e-4)], parse_objectives(["accuracy"]), BASELINE["latency"], 0.95)
        is None
    )


def test_latencies_are_compared_by_their_ratios_to_the_baseline() -> None:
    """Measured while the machine was twice as fast, a network is no faster for it."""
    wanted = parse_objectives(["accuracy", "latency"])
    forecast = Figure(6e-4, "estimated", 5e-4, 7e-4)
    other = record(1, 0.74, 3e-4)
    slower = replace(other.figures["latency"], ratio=0.6, ratio_low=0.59, ratio_high=0.61)
    turned = replace(other, figures={**other.figures, "latency": slower})
    assert beaten(record(9, 0.70), forecast, [other], wanted, BASELINE["latency"], 0.95) is not None
    assert beaten(record(9, 0.70), forecast, [turned], wanted, BASELINE["latency"], 0.95) is None
    assert in_turns(slower, BASELINE["latency"]) == pytest.approx((6e-4, 6.1e-4))


def test_other_costs_must_be_no_worse_either() -> None:
    wanted = parse_objectives(["accuracy", "latency", "size"])
    forecast = Figure(6e-4, "estimated", 5e-4, 7e-4)

    def sized(entry: Record, size: float) -> Record:
        return replace(entry, figures={**entry.figures, "size": Figure(size)})

    candidate = sized(record(9, 0.70), 100)
    assert beaten(candidate, forecast, [sized(record(1, 0.74, 4e-4), 101)], wanted, BASELINE["latency"], 0.95) is None
    assert (
        beaten(candidate, forecast, [sized(record(1, 0.74, 4e-4), 100)], wanted, BASELINE["latency"], 0.95) is not None
    )


def test_the_ladder_skips_the_measurement_and_keeps_the_forecast_apart(tmp_path: Path) -> None:
    judge, builder = Profiled(), SmallBuilder()
    forecast = Forecast(tmp_path, BASELINE["latency"])
    baseline = {**judge.static(builder.source()), **judge.quality(builder.source(), "validation")}
    baseline.update(judge.measure(builder.source(), ["latency"]))
    wanted = parse_objectives(["accuracy", "latency"])
    ladder = Ladder(builder, judge, wanted, (), baseline, 0.95, forecast=forecast)
    known: list[Record] = []
    for number, weights in enumerate(("i16", "i12", "i10", "i8", "i7", "i6")):
        pipeline = f"quantize{{weights={weights}, activations=u8}} | calibrate"
        network = builder.structure(pipeline)
        known.append(ladder.climb(Record(number, "failed", "t", pipeline, {}, network.key), network, known, str))
    assert all(r.state == "complete" and r.forecast is None for r in known)
    assert len(forecast.examples) == 6
    timed = len(judge.timed)
    bad = "quantize{weights=i14, activations=u2} | calibrate"
    network = builder.structure(bad)
    found = ladder.climb(Record(7, "failed", "t", bad, {}, network.key), network, known, str)
    assert found.state == "pruned" and found.reason is not None and found.reason.startswith("forecast: ")
    assert len(judge.timed) == timed
    assert "latency" not in found.figures
    assert found.forecast is not None and found.forecast.kind == "estimated"
    assert Record.of(json.loads(json.dumps(found.as_dict()))).forecast == found.forecast


class Noticing(Observer):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)


def test_a_search_with_forecasts_tells_what_they_were_worth(tmp_path: Path) -> None:
    flags = {"search.trials": 30, "search.forecast": True, "search.seeds": False, "search.strategy": "random"}
    settings = configuration(flags, folder=tmp_path).settings
    judge, watching = Profiled(), Noticing()
    search(problem(judge=judge), settings, tmp_path / "out", watching)
    told = [n for n in watching.notices if "because of their forecast latency" in n]
    assert len(told) == 1 and "rank correlation" in told[0]
    lines = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    measured = [r for r in lines if "latency" in r["figures"]]
    assert all(r["figures"]["latency"]["kind"] == "measured" for r in measured)
    assert any("forecast" in r for r in measured)
    kept = (tmp_path / "out" / EXAMPLES).read_text().splitlines()
    assert len(kept) == len({r["timing"] for r in measured})
