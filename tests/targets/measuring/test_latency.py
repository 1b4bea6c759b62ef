"""The latency meter on a machine that drifts, stutters and is shared: its figures, verdicts and flags."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from nasc.ir.errors import UsageError
from nasc.targets.host import Load, ThisHost
from nasc.targets.latency import LatencyMeter
from nasc.targets.latency_record import Flag
from nasc.targets.lock import DIRECTORY_VARIABLE, DeviceBusyError, device_lock
from nasc.targets.statistics import Verdict, paired_ratio


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "locks"))


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap() -> Generator[None]:
    """What other tests left behind need not be looked through at each measurement, which collects garbage first."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def slows_down(now_s: float) -> float:
    """A processor that loses a third of its speed over five seconds, with a swing of 10 % every second."""
    return 1 + min(now_s, 5.0) / 10 + 0.1 * math.sin(2 * math.pi * now_s)


@pytest.mark.parametrize("cost_s", [20e-6, 1e-3, 30e-3])
def test_drift_cancels_from_the_ratio(machine: Any, cost_s: float) -> None:
    host = machine(drift=slows_down, noise=0.01)
    latency = LatencyMeter(host=host).measure(host.work(cost_s), host.work(cost_s))
    assert latency.verdict == Verdict.SAME
    assert latency.ratio is not None
    assert latency.ratio.value == pytest.approx(1, abs=0.006)
    assert latency.ratio.interval.low <= 1 <= latency.ratio.interval.high


def test_control_separate_loops_are_fooled_by_the_same_drift(machine: Any) -> None:
    host = machine(drift=slows_down, noise=0.01)

    def loop() -> float:
        times_s: list[float] = []
        for _ in range(100):
            began_s = host.wall_s()
            run()
            times_s.append(host.wall_s() - began_s)
        return median(times_s)

    run = host.work(30e-3)
    first_s = loop()
    assert loop() / first_s > 1.1


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, Verdict.SLOWER), (0.9, Verdict.FASTER), (1.03, Verdict.SLOWER)])
@pytest.mark.parametrize("cost_s", [20e-6, 30e-3])
def test_a_real_difference_is_found(machine: Any, cost_s: float, factor: float, verdict: Verdict) -> None:
    host = machine(drift=slows_down, noise=0.02)
    meter = LatencyMeter(host=host, seed=1)  # of twelve seeds, ten tell 3 % at 30 ms and two do not
    latency = meter.measure(host.work(cost_s * factor), host.work(cost_s))
    assert latency.verdict == verdict
    assert latency.ratio is not None
    assert latency.ratio.interval.low <= factor <= latency.ratio.interval.high
    assert latency.ratio.half_width <= 0.015


def test_a_difference_on_the_edge_of_the_margin_stays_ambiguous(machine: Any) -> None:
    host = machine(noise=0.01)
    latency = LatencyMeter(host=host).measure(host.work(1.02e-3), host.work(1e-3))
    assert latency.verdict == Verdict.AMBIGUOUS
    assert latency.elapsed_s < 9  # it gave up when more rounds could not tell


def test_noise_that_the_budget_cannot_average_out_is_ambiguous_and_flagged(machine: Any) -> None:
    host = machine(noise=0.3)
    latency = LatencyMeter(host=host, budget_s=3).measure(host.work(30e-3), host.work(30e-3))
    assert latency.verdict == Verdict.AMBIGUOUS
    assert Flag.WIDE in latency.flags
    assert 3 <= latency.elapsed_s < 4


@pytest.mark.parametrize(("noise", "least_same"), [(0.015, 60), (0.06, 0)])
def test_identical_runs_are_hardly_ever_called_different(machine: Any, noise: float, least_same: int) -> None:
    verdicts: list[Verdict | None] = []
    for seed in range(100):
        host = machine(drift=slows_down, noise=noise, preempted=0.2 * (seed % 2), seed=seed)
        meter = LatencyMeter(host=host, seed=seed)
        verdicts.append(meter.measure(host.work(30e-3), host.work(30e-3)).verdict)
    assert verdicts.count(Verdict.FASTER) + verdicts.count(Verdict.SLOWER) <= 1
    assert verdicts.count(Verdict.SAME) >= least_same


def neighbour(began_s: float, ended_s: float, factor: float) -> Callable[[float], float]:
    """What a neighbour on the same core does to one network: a factor, while it works."""
    return lambda now_s: factor if began_s <= now_s % 4 < ended_s else 1.0


def shared_core(machine: Any, began_s: float, ended_s: float) -> tuple[Any, Callable[[], None], Callable[[], None]]:
    """A host whose neighbour works in part of every four seconds, and two runs that suffer from it differently."""
    host = machine(noise=0.01)

    def run(cost_s: float, factor: float) -> Callable[[], None]:
        slower = neighbour(began_s, ended_s, factor)
        return lambda: host.work(cost_s * slower(host.now_s))()

    return host, run(7.5e-3, 1.5), run(10e-3, 1.2)


@pytest.mark.parametrize("began_s", [0.0, 1.0, 2.0])
def test_a_neighbour_that_slows_networks_differently_leaves_the_ratio_alone(machine: Any, began_s: float) -> None:
    host, run, other = shared_core(machine, began_s, began_s + 2)
    latency = LatencyMeter(host=host, width=0.003).measure(run, other, known_s=10e-3)
    assert latency.ratio is not None and latency.reference_s is not None
    assert latency.ratio.value == pytest.approx(0.75, rel=0.006)
    assert latency.median_s == pytest.approx(7.5e-3, rel=0.01)
    assert latency.reference_s == pytest.approx(10e-3, rel=0.01)
    assert Flag.SLOWED not in latency.flags


def test_control_all_rounds_together_follow_the_neighbour(machine: Any) -> None:
    host, run, other = shared_core(machine, 1.0, 3.0)
    latency = LatencyMeter(host=host, width=1e-9).measure(run, other)
    assert Flag.UNEVEN in latency.flags and latency.kept < 0.75 * len(latency.rounds_s)
    assert paired_ratio(latency.rounds_s, latency.reference_rounds_s, 0.99).value > 0.78
    assert latency.ratio is not None and latency.ratio.value == pytest.approx(0.75, rel=0.006)


def test_a_machine_slower_than_it_is_known_to_be_is_waited_for_and_flagged(machine: Any) -> None:
    host, run, other = shared_core(machine, 0.0, 4.0)
    latency = LatencyMeter(host=host, budget_s=2).measure(run, other, known_s=10e-3)
    assert Flag.SLOWED in latency.flags
    assert 8 <= latency.elapsed_s < 9
    patient = LatencyMeter(host=host, budget_s=2).measure(run, other, known_s=11e-3)
    assert Flag.SLOWED not in patient.flags and patient.elapsed_s < 2.5


def test_calls_longer_than_a_slice_are_compared_on_the_threads_clock_of_a_busy_machine(machine: Any) -> None:
    host = machine(preempted=0.3, noise=0.005)
    latency = LatencyMeter(host=host).measure(host.work(30e-3), host.work(30e-3))
    assert (latency.clock, latency.verdict) == ("thread-cpu", Verdict.SAME)
    assert latency.median_s == pytest.approx(30e-3, rel=0.01)
    assert latency.wall_median_s == pytest.approx(30e-3 / 0.7, rel=0.1)
    assert Flag.CONTENDED in latency.flags


def test_time_that_others_take_does_not_count_against_the_budget(machine: Any) -> None:
    for preempted, longest_s in ((0.7, 36.0), (0.95, 43.0)):
        host = machine(preempted=preempted, noise=0.02)
        latency = LatencyMeter(host=host).measure(host.work(30e-3), host.work(30e-3))
        assert 20 < latency.elapsed_s < longest_s
        assert latency.n >= (100 if preempted == 0.7 else 20)
    impatient = LatencyMeter(host=host, patience=1.0).measure(host.work(30e-3), host.work(30e-3))
    assert impatient.elapsed_s < 12


@pytest.mark.parametrize(
    "case", ["quiet", "short", "several threads", "asleep", "asked for wall"], ids=lambda case: case.replace(" ", "-")
)
def test_otherwise_the_wall_clock_it_is(machine: Any, case: str) -> None:
    host = machine(preempted=0.0 if case == "quiet" else 0.3)
    cost_s = 100e-6 if case == "short" else 30e-3
    run = host.work(cost_s, threads=2 if case == "several threads" else 1, asleep=case == "asleep")
    meter = LatencyMeter(host=host, budget_s=2, clock="wall" if case == "asked for wall" else "auto")
    latency = meter.measure(run, run)
    assert latency.clock == "wall"
    assert latency.median_s == latency.wall_median_s


def test_other_processes_are_seen(machine: Any) -> None:
    host = machine(others=0.5)
    latency = LatencyMeter(host=host).measure(host.work(1e-3))
    assert latency.flags == (Flag.OTHERS_BUSY,)
    assert latency.load == Load(pressure=0.0, others=pytest.approx(0.5), steal=0.0)


def gets_faster(machine: Any, by: float, until_s: float) -> tuple[Any, Any]:
    """A machine, and a run on it of 10 ms at first, each call shorter than the one before."""
    host = machine()
    cost_s = 10e-3

    def run() -> None:
        nonlocal cost_s
        host.work(cost_s)()
        cost_s = max(until_s, cost_s * by)

    return host, run


def test_warming_up_is_not_measured(machine: Any) -> None:
    host, run = gets_faster(machine, by=0.95, until_s=1e-3)
    latency = LatencyMeter(host=host).measure(run)
    assert latency.p99_s == pytest.approx(1e-3)
    assert latency.flags == ()


def test_a_run_that_never_settles_is_flagged(machine: Any) -> None:
    host, run = gets_faster(machine, by=0.99, until_s=1e-6)
    assert Flag.NOT_STEADY in LatencyMeter(host=host, budget_s=2).measure(run).flags


def test_percentiles_are_those_of_the_calls(machine: Any) -> None:
    host = machine()
    fast, slow, calls = host.work(1e-3), host.work(2e-3), iter(range(10**6))

    def run() -> None:
        (slow if next(calls) % 20 == 0 else fast)()

    latency = LatencyMeter(host=host).measure(run)
    assert latency.n >= 16 * 4
    assert (latency.p50_s, latency.p90_s) == pytest.approx((1e-3, 1e-3))
    assert latency.median_s == pytest.approx(1e-3)


def test_few_calls_have_no_99th_percentile(machine: Any) -> None:
    host = machine()
    latency = LatencyMeter(host=host).measure(host.work(50e-3))
    assert 20 <= latency.n < 100
    assert latency.p90_s == pytest.approx(50e-3)
    assert latency.p99_s is None


def test_reading_the_clock_is_taken_off(machine: Any) -> None:
    host = machine(read_s=100e-9)
    latency = LatencyMeter(host=host).measure(host.work(1e-6), host.work(2e-6))
    assert latency.timer_s == pytest.approx(100e-9)
    assert latency.median_s == pytest.approx(1e-6)
    assert latency.ratio is not None
    assert latency.ratio.value == pytest.approx(0.5)
    assert latency.flags == (Flag.NEAR_TIMER,)


@pytest.mark.filterwarnings("error")
def test_calls_shorter_than_a_reading_of_the_clock_are_timed_in_groups(machine: Any) -> None:
    host = machine(read_s=5e-6, noise=0.02)
    latency = LatencyMeter(host=host).measure(host.work(1e-6), host.work(2e-6))
    assert latency.median_s == pytest.approx(1e-6, rel=0.01)
    assert latency.ratio is not None
    assert latency.ratio.value == pytest.approx(0.5, rel=0.01)
    assert latency.verdict == Verdict.FASTER
    assert latency.flags == (Flag.NEAR_TIMER,)


@pytest.mark.parametrize("other_s", [1e-6, 0.8e-6, 1.25e-6])
def test_short_calls_that_memory_may_explain_get_no_verdict(machine: Any, other_s: float) -> None:
    host = machine(read_s=5e-6, noise=0.02)
    meter = LatencyMeter(host=host)
    series = meter.measure_together({"": host.work(1e-6)}, host.work(other_s))
    assert series[""].verdict == series.compare("", "")[1] == Verdict.AMBIGUOUS
    ratio = series[""].ratio
    assert ratio is not None and ratio.value == pytest.approx(1e-6 / other_s, rel=0.02)


@dataclass
class Coarse:
    """A machine whose clock moves in steps.

    Args:
        host: the machine, which costs a little to read so that the clock can be seen to move.
        step_s: the steps.
    """

    host: Any
    step_s: float

    def wall_s(self) -> float:
        return math.floor(self.host.wall_s() / self.step_s) * self.step_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)


@pytest.mark.filterwarnings("error")
def test_a_clock_of_coarse_steps_takes_longer_groups(machine: Any) -> None:
    host = machine(read_s=1e-7)
    coarse: Any = Coarse(host, 1e-4)
    latency = LatencyMeter(host=coarse).measure(host.work(20e-6), host.work(40e-6))
    assert latency.ratio is not None
    assert latency.ratio.value == pytest.approx(0.5, rel=0.02)
    assert Flag.NEAR_TIMER in latency.flags


@pytest.mark.filterwarnings("error")
def test_calls_that_the_clock_cannot_tell_from_none_get_no_ratio(machine: Any) -> None:
    host = machine(read_s=1e-6)
    coarse: Any = Coarse(host, 1e-2)  # a step is longer than any group that the budget allows
    series = LatencyMeter(host=coarse, budget_s=0.2).measure_together({"": host.work(1e-6)}, host.work(2e-6))
    latency = series[""]
    assert (latency.ratio, latency.verdict) == (None, Verdict.AMBIGUOUS)
    assert Flag.NEAR_TIMER in latency.flags
    assert series.compare("", "") == (None, Verdict.AMBIGUOUS)
    assert "NaN" not in json.dumps(latency.as_dict())


def test_a_run_near_its_floor_is_overhead_bound(machine: Any) -> None:
    host = machine()
    meter = LatencyMeter(host=host)
    bound = meter.measure(host.work(40e-6), floor=host.work(33e-6))
    assert (bound.floor_s, bound.overhead_bound) == (pytest.approx(33e-6), True)
    assert Flag.OVERHEAD_BOUND in bound.flags
    free = meter.measure(host.work(400e-6), floor=host.work(33e-6))
    assert (free.overhead_bound, free.flags) == (False, ())
    assert meter.measure(host.work(40e-6)).overhead_bound is None


def test_measuring_stops_when_enough_is_known(machine: Any) -> None:
    host = machine(noise=0.001)
    assert LatencyMeter(host=host, budget_s=60).measure(host.work(1e-3), host.work(1e-3)).elapsed_s < 1


def test_a_network_too_slow_for_the_budget_gives_figures_but_no_verdict(machine: Any) -> None:
    host = machine()
    latency = LatencyMeter(host=host, budget_s=10).measure(host.work(3.0), host.work(1.0))
    assert latency.median_s == pytest.approx(3.0)
    assert latency.verdict == Verdict.AMBIGUOUS
    assert Flag.FEW_ROUNDS in latency.flags
    assert latency.elapsed_s < 25


def test_a_small_budget_makes_blocks_shorter_not_single_calls(machine: Any) -> None:
    host = machine()
    latency = LatencyMeter(host=host, budget_s=0.5).measure(host.work(25e-6), host.work(25e-6), host.work(1e-6))
    assert latency.n >= 16 * 2 * 100
    assert latency.elapsed_s < 0.6


def test_several_candidates_share_one_series(machine: Any) -> None:
    host = machine(drift=slows_down, noise=0.01, seed=1)  # of 24 seeds, 20 let two runs be compared so early, 4 do not
    costs_s = {"a": 1e-3, "b": 1.3e-3, "c": 1e-3}
    series = LatencyMeter(host=host).measure_together(
        {name: host.work(cost_s) for name, cost_s in costs_s.items()}, host.work(1.3e-3)
    )
    assert list(series) == ["a", "b", "c"]
    assert {name: record.verdict for name, record in series.items()} == {
        "a": Verdict.FASTER,
        "b": Verdict.SAME,
        "c": Verdict.FASTER,
    }
    ratio, verdict = series.compare("b", "a")
    assert ratio is not None
    assert (ratio.value, verdict) == (pytest.approx(1.3, rel=0.01), Verdict.SLOWER)
    assert series.compare("a", "c")[1] == Verdict.SAME


def test_equal_seeds_give_equal_records(machine: Any) -> None:
    records: list[dict[str, object]] = []
    for _ in range(2):
        host = machine(noise=0.02, seed=5)
        record = LatencyMeter(host=host, lock=False).measure(host.work(5e-3), host.work(5e-3))
        records.append(record.as_dict())
    assert records[0] == records[1]


def test_the_record_is_plain_data(machine: Any) -> None:
    host = machine(noise=0.02)
    latency = LatencyMeter(host=host).measure(host.work(5e-3), host.work(5e-3), host.work(4e-3))
    record = json.loads(json.dumps(latency.as_dict()))
    assert record["verdict"] == "SAME"
    assert record["flags"] == ["overhead-bound"]
    assert record["rounds"] == len(record["rounds_s"]) == len(record["reference_rounds_s"])
    assert record["ratio"]["interval"]["confidence"] >= 0.99
    assert "rounds_s" not in latency.as_dict(samples=False)


def test_nobody_else_measures_meanwhile(machine: Any) -> None:
    host = machine()
    refusals: list[str] = []
    work = host.work(10e-3)

    def run() -> None:
        work()
        with pytest.raises(DeviceBusyError) as refusal:
            _in_thread(lambda: LatencyMeter(host=host, lock_timeout_s=0).measure(work))
        refusals.append(str(refusal.value))

    LatencyMeter(host=host, budget_s=0.3).measure(run)
    assert "'cpu' is being measured by process" in refusals[0]
    with device_lock("cpu", timeout_s=0):
        pass


def _in_thread(work: Any) -> None:
    """Run it in another thread, and raise here what it raised there."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_a_fault_in_the_run_reaches_the_caller_and_leaves_nothing_behind(machine: Any) -> None:
    host = machine()

    def run() -> None:
        raise ValueError("broken network")

    with pytest.raises(ValueError, match="broken network"):
        LatencyMeter(host=host).measure(run)
    assert gc.isenabled()
    with device_lock("cpu", timeout_s=0):
        pass


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(UsageError, match="at least one run"):
        LatencyMeter().measure_together({})
    with pytest.raises(UsageError, match="floors of unknown runs: b"):
        LatencyMeter().measure_together({"a": int}, floors={"b": int})


@pytest.mark.parametrize("settings", [{"width": 0}, {"width": math.nan}, {"lock_timeout_s": -1}], ids=str)
def test_settings_without_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"expected {next(iter(settings))} of"):
        LatencyMeter(**settings)  # pyright: ignore[reportArgumentType]


def test_the_kernels_counters_are_read(tmp_path: Path) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/cpu").write_text("some avg10=0.00 avg60=0.01 avg300=0.09 total=2500000\nfull total=7\n")
    (tmp_path / "stat").write_text("cpu  100 20 30 4000 50 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n")
    counters = ThisHost(tmp_path).counters()
    assert counters.pressure_s == 2.5
    assert (counters.busy_s, counters.steal_s) == pytest.approx((1.63, 0.8))


def test_a_system_without_counters_leaves_them_out(tmp_path: Path) -> None:
    host = ThisHost(tmp_path / "nothing")
    assert Load.between(host.counters(), host.counters()) == Load(None, None, None)


@pytest.mark.filterwarnings("error")
def test_the_fastest_callables_can_be_measured_on_this_machine() -> None:
    latency = LatencyMeter(budget_s=0.5).measure(int, int)
    assert 1e-9 < latency.median_s < 1e-5
    assert latency.ratio is not None
    assert 0.5 < latency.ratio.value < 2
    assert Flag.NEAR_TIMER in latency.flags


def test_this_machine_can_be_measured() -> None:
    meter = LatencyMeter(budget_s=0.5)
    latency = meter.measure(lambda: sum(range(2000)), lambda: sum(range(2000)), lambda: sum(range(20)))
    assert 0 < (latency.floor_s or 0) < latency.median_s
    assert latency.n > 100
