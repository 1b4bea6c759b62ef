"""Networks whose place in memory makes them faster or slower: verdicts hold for the network, not for one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from nasc.ir import UsageError
from nasc.targets import target_named
from nasc.targets.bench import Bench
from nasc.targets.latency import EARLY_SHARE, LAST_SHARE, LOOKS, LatencyMeter
from nasc.targets.latency_record import Flag, Latency
from nasc.targets.lock import DIRECTORY_VARIABLE
from nasc.targets.measure import Conditions, Measurement
from nasc.targets.moving import Loaded, Movable
from nasc.targets.series import Lane, SeriesOfRounds, levelled
from nasc.targets.statistics import Verdict, fewest_places, judge, median_interval, paired_ratio, undisturbed_ratio
from support import hostile

CPU = target_named("onnxruntime:cpu")


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "locks"))


def measured(
    host: Any, factor: float, scatter: float, load_s: float = 0.04, *, moved: bool = True, **settings: Any
) -> Latency:
    """A network of 10 ms times a factor against one of 10 ms, whose places scatter."""
    run, other = (host.network(cost_s, scatter, load_s) for cost_s in (10e-3 * factor, 10e-3))
    meter = LatencyMeter(host=host, seed=host.seed, lock=False, **settings)
    return meter.measure(run, other) if moved else meter.measure(run.call, other.call)


def wrong(found: list[Latency]) -> int:
    return sum(latency.verdict in (Verdict.FASTER, Verdict.SLOWER) for latency in found)


def covers(latency: Latency, ratio: float) -> bool:
    return latency.ratio is not None and latency.ratio.interval.low <= ratio <= latency.ratio.interval.high


def test_places_of_equal_networks_give_no_verdict_of_a_difference(machine: Any) -> None:
    found = [measured(machine(noise=0.003, seed=seed), 1.0, 0.04) for seed in range(30)]
    assert wrong(found) == 0
    assert sum(covers(latency, 1.0) for latency in found) >= 29
    assert sum(latency.ci.low <= 10e-3 <= latency.ci.high for latency in found) >= 29
    assert all(latency.places >= 20 and latency.elapsed_s < 10.3 for latency in found)


def test_control_in_one_place_equal_networks_differ(machine: Any) -> None:
    found = [measured(machine(noise=0.003, seed=seed), 1.0, 0.04, moved=False) for seed in range(20)]
    assert wrong(found) >= 8
    assert all(latency.places == 1 and Flag.FEW_PLACES not in latency.flags for latency in found)


def test_where_places_do_not_differ_nothing_is_lost_but_the_loading(machine: Any) -> None:
    took_s: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(8):
        for moved in took_s:
            latency = measured(machine(noise=0.01, seed=seed), 1.0, 0.0, moved=moved)
            assert latency.verdict == Verdict.SAME
            took_s[moved].append(latency.elapsed_s)
    assert median(took_s[True]) < 2.5 * median(took_s[False]) < 5


def test_a_slower_network_is_found_over_its_places(machine: Any) -> None:
    found = [measured(machine(noise=0.003, seed=seed), 1.08, 0.003) for seed in range(8)]
    assert all(latency.verdict == Verdict.SLOWER and latency.elapsed_s < 6 for latency in found)
    assert all(covers(latency, 1.08) for latency in found)


def test_a_large_difference_is_decided_early_although_places_scatter(machine: Any) -> None:
    latency = measured(machine(noise=0.003), 0.35, 0.03)
    assert latency.verdict == Verdict.FASTER and latency.ratio is not None
    assert latency.elapsed_s < 8
    assert 0.01 < latency.ratio.half_width <= 0.1 * math.log(1 / 0.35)
    assert Flag.WIDE not in latency.flags


def test_too_few_places_settle_nothing_finer_than_places_explain(machine: Any) -> None:
    close, far = (measured(machine(noise=0.003), factor, 0.04, load_s=1.0) for factor in (1.1, 1.5))
    for latency in (close, far):
        assert 1 <= latency.places < fewest_places(0.99)
        assert Flag.FEW_PLACES in latency.flags
    assert (close.verdict, far.verdict) == (Verdict.AMBIGUOUS, Verdict.SLOWER)
    assert measured(machine(noise=0.003), 1.1, 0.04, load_s=1.0, moved=False).verdict != Verdict.AMBIGUOUS
    (remark,) = (r for r in Measurement("", 1, 1, 1, close).remarks() if "few-places" in r)
    assert f"load it {close.places} times only" in remark and "a larger --budget" in remark


def test_loading_takes_its_share_of_the_budget_at_most(machine: Any) -> None:
    for load_s, share in ((0.02, 0.5), (0.3, 0.5), (0.3, 0.2)):
        host = machine(noise=0.003)
        run = host.network(10e-3, 0.04, load_s)
        latency = LatencyMeter(host=host, lock=False, moving_share=share, width=1e-9).measure(run)
        assert len(run.shifts) == latency.places  # the first one was there before
        loading_s = (latency.places - 1) * load_s
        assert 0.3 * share < loading_s / latency.elapsed_s < share
        assert 10 <= latency.elapsed_s < 10.1
    assert measured(machine(), 1.0, 0.04, moving_share=0.0).places == 1
    with pytest.raises(UsageError, match="moving_share of at least 0 and below 1, found 1"):
        LatencyMeter(moving_share=1.0)


def test_what_takes_long_to_load_stays_where_it_is(machine: Any) -> None:
    latency = measured(machine(), 1.0, 0.04, load_s=3.0)
    assert latency.places == 1 and Flag.FEW_PLACES in latency.flags
    assert latency.elapsed_s < 10.1


def test_any_two_networks_of_a_series_are_compared_over_their_places(machine: Any) -> None:
    host = machine(noise=0.003)
    runs = {name: host.network(10e-3, 0.04) for name in "ab"}
    series = LatencyMeter(host=host, lock=False).measure_together(runs)
    record = series["a"].as_dict()
    assert record["places"] == len(record["place_rounds"]) == len(runs["a"].shifts)  # pyright: ignore[reportArgumentType]
    assert sum(series["a"].place_rounds) == len(series["a"].rounds_s)
    ratio, verdict = series.compare("a", "b")
    assert ratio is not None and ratio.interval.places == series["a"].places
    assert ratio.half_width > 0.01 and verdict in (Verdict.AMBIGUOUS, Verdict.SAME)


def test_never_two_of_one_network_are_loaded(machine: Any) -> None:
    """`Moved` refuses to load what was not let go; all are let go before the first is loaded."""
    host = machine(noise=0.003)
    runs = [host.network(10e-3, 0.04) for _ in range(2)]
    loads: list[int] = []
    for run in runs:
        run.load = _watched(run.load, lambda: loads.append(sum(each.run is not None for each in runs)))
    LatencyMeter(host=host, lock=False, budget_s=2).measure(*runs)
    assert loads == [0, 1] * (len(loads) // 2) != []


def _watched(load: Callable[[], None], note: Callable[[], None]) -> Callable[[], None]:
    def watched() -> None:
        note()
        load()

    return watched


Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
SHIFTS: dict[str, Draw] = {
    "normal": lambda random, count: random.normal(0, 0.04, count),
    "two levels": lambda random, count: 0.1 * random.integers(0, 2, count),
    "seldom": lambda random, count: 0.2 * (random.random(count) < 0.1),
    "heavy": lambda random, count: 0.02 * random.standard_t(2, count),
    "none": lambda random, count: np.zeros(count),
}


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("each", [1, 3, 8])
def test_intervals_hold_over_all_looks_where_places_shift(kind: str, each: int) -> None:
    random = np.random.default_rng(each)
    missed = different = blind = 0
    looks = [look for look in LOOKS if look <= 125]
    for _ in range(100):
        at = np.arange(looks[-1]) // each
        shifts = [SHIFTS[kind](random, at[-1] + 1)[at] + random.normal(0, 0.003, len(at)) for _ in range(2)]
        runs = np.exp(shifts)
        ratios = [
            undisturbed_ratio(*runs[:, :look], 0.99, LAST_SHARE if look == looks[-1] else EARLY_SHARE, at[:look])
            for look in looks
        ]
        missed += not all(ratio.interval.low <= 1 <= ratio.interval.high for ratio in ratios)
        different += any(judge(ratio, 0.02, 0.99) in (Verdict.FASTER, Verdict.SLOWER) for ratio in ratios)
        blind += judge(paired_ratio(*runs[:, :16], 0.99, EARLY_SHARE), 0.02, 0.99) != Verdict.SAME
    assert missed <= 4 and different <= 3
    assert blind > 10 or each == 1 or kind == "none"  # the control: rounds alone are often misled


def test_the_median_of_one_run_is_covered_where_places_shift() -> None:
    random = np.random.default_rng(1)
    at = np.arange(60) // 4
    covered = blind = 0
    for _ in range(200):
        values = np.exp(random.normal(0, 0.04, 15)[at] + random.normal(0, 0.003, 60))
        interval, early = median_interval(values, 0.95, places=at), median_interval(values[:16], 0.95)
        covered += interval.low <= 1 <= interval.high
        blind += not early.low <= 1 <= early.high
    assert covered >= 186 and blind >= 12  # the control: of few places rounds alone say too much


def test_a_network_is_loaded_anew_with_its_inputs(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(hostile.harmless())
    loads: list[object] = []

    class Counting(Bench):
        def load(self, *args: Any, **kwargs: Any) -> Any:
            session = super().load(*args, **kwargs)
            loads.append(session)
            return session

    with Counting(CPU, lock=False) as bench:
        found = bench.measure(path, Conditions(budget_s=4.0), path)
    latency = found.latency
    assert latency is not None and latency.places > 1
    assert len(loads) == 2 * latency.places
    assert found.provenance["latency_meter"]["moving_share"] == 0.5


def test_a_network_that_never_came_back_is_loaded_when_it_is_called() -> None:
    made = iter(range(10))

    def make() -> Callable[[], int]:
        number = next(made)
        return lambda: number

    run = Loaded(make, make(), 0.0)
    assert isinstance(run, Movable) and not isinstance(make, Movable)
    run.release()
    assert run() == run() == 1
    run.release()
    run.load()
    assert run.call() == 2 and run.load_s >= 0


def test_equal_networks_get_equal_blocks_whatever_warming_up_saw(machine: Any) -> None:
    """At 3 ms the kind of a block changes; a run in another kind of block is not the same run to a cache."""
    host = machine(noise=0.05)
    for cost_s in (2.7e-3, 3.0e-3, 3.3e-3):
        lanes = [Lane(name, host.work(cost_s)) for name in "ab"]
        SeriesOfRounds(host, lanes, 0).prepare(0.004, 10.0, 16)
        assert lanes[0].calls == lanes[1].calls and lanes[0].lead_in == lanes[1].lead_in
    assert levelled([1.0, 5.0, 1.4, 2.0, 3.2]) == [2.0, 5.0, 2.0, 2.0, 3.2]
