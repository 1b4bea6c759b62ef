"""The energy meter against a GPU whose every joule is known, beside the naive meters, which must fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import pytest
from nasc.targets.energy import Energy, EnergyFlag, EnergyMeter, Grade, MeterLostError, MeterUnavailableError
from nasc.targets.energy.meter import Source
from nasc.targets.lock import DeviceBusyError, device_lock

IDLE_W = 60.0
BURST = ((500.0, 0.3), (200.0, 0.7))  # watts, share of the call


def burst(latency_s: float) -> list[tuple[float, float]]:
    """A call that draws much power at first and less later."""
    return [(power_w, share * latency_s) for power_w, share in BURST]


def measure(gpu: Any, run: Callable[[], None], **changes: Any) -> Energy:
    return replace(EnergyMeter.nvml(index=0), clock=gpu, **changes).measure(run)


def error(energy: Energy, gpu: Any) -> float:
    assert energy.energy_j is not None
    return energy.energy_j / gpu.true_j(energy.span_s) - 1


# ---- the bar: 0.5 % in virtual time, and the naive meters fail it ----


def tick_aligned(gpu: Any, latency_s: float) -> list[float]:
    energy = measure(gpu, gpu.inference(*burst(latency_s)))
    assert energy.grade == Grade.COUNTER
    return [error(energy, gpu)]


def naive_counter(gpu: Any, latency_s: float) -> list[float]:
    """The older way: read the counter before and after one inference."""
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    run, errors = gpu.inference(*burst(latency_s)), []
    for _ in range(40):
        gpu.sleep(0.0137)
        before_j = pynvml.nvmlDeviceGetTotalEnergyConsumption(device) * 1e-3
        run()
        used_j = pynvml.nvmlDeviceGetTotalEnergyConsumption(device) * 1e-3 - before_j
        errors.append(used_j / gpu.used_j[-1] - 1)
    pynvml.nvmlShutdown()
    return errors


def naive_thread(gpu: Any, latency_s: float) -> list[float]:
    """The older way: a thread polls power around one inference; energy is mean power times latency."""
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    errors: list[float] = []
    for _ in range(40):
        gpu.sleep(0.0137)
        powers_w: list[float] = []
        poll = lambda: powers_w.append(pynvml.nvmlDeviceGetPowerUsage(device) * 1e-3)  # noqa: E731, B023
        began_s = gpu.now_s()
        gpu.inference(*burst(latency_s), during=poll)()
        errors.append(fmean(powers_w) * (gpu.now_s() - began_s) / gpu.used_j[-1] - 1)
    pynvml.nvmlShutdown()
    return errors


@pytest.mark.parametrize("latency_s", [0.001, 0.0033, 0.01])
@pytest.mark.parametrize("period_s", [0.02, 0.05, 0.1])
@pytest.mark.parametrize(
    ("meter", "passes"), [(tick_aligned, True), (naive_counter, False), (naive_thread, False)], ids=lambda each: each
)
def test_energy_is_within_half_a_percent_of_the_truth(
    gpu: Any, meter: Callable[[Any, float], list[float]], passes: bool, period_s: float, latency_s: float
) -> None:
    gpu.start(counter_period_s=period_s)
    mean_error = fmean(abs(each) for each in meter(gpu, latency_s))
    assert (mean_error <= 0.005) == passes
    if not passes:
        assert mean_error > 0.3


@pytest.mark.parametrize(
    "sensor",
    [
        {"counter_average_s": 1.0},
        {"counter_jitter_s": 0.003},
        {"counter_period_s": 0.1, "counter_window_s": 0.025},
        {"counter_phase_s": 0.0171, "read_s": 300e-6},
    ],
    ids=lambda sensor: "+".join(sensor),
)
def test_other_sensors_are_read_as_well(gpu: Any, sensor: dict[str, float]) -> None:
    gpu.start(**sensor)
    energy = measure(gpu, gpu.inference(*burst(0.005)))
    assert abs(error(energy, gpu)) <= 0.005
    assert (EnergyFlag.IRREGULAR in energy.flags) == ("counter_jitter_s" in sensor)


def test_control_without_running_in_an_averaging_counter_remembers_the_rest(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.start(counter_average_s=1.0)
    monkeypatch.setattr("nasc.targets.energy.nvml.Source", partial(Source, settle_s=0.0))
    energy = measure(gpu, gpu.inference(*burst(0.005)))
    assert energy.windows_j[0] < 0.9 * gpu.true_j()
    assert abs(error(energy, gpu)) > 0.005


@pytest.mark.parametrize("latency_s", [0.09, 0.097, 0.1, 0.104, 0.11])
def test_calls_as_long_as_a_part_time_counters_period(gpu: Any, latency_s: float) -> None:
    gpu.start(counter_period_s=0.1, counter_window_s=0.025)
    energy = measure(gpu, gpu.inference(*burst(latency_s)))
    assert abs(error(energy, gpu)) <= 0.06
    assert EnergyFlag.MAY_ALIAS in energy.flags
    assert energy.interval is not None
    assert energy.interval.low <= gpu.true_j() <= energy.interval.high


def test_control_without_gaps_such_calls_alias(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.start(counter_period_s=0.1, counter_window_s=0.025)
    monkeypatch.setattr("nasc.targets.energy.counter.Spread.wait_s", lambda self, now_s: 0.0)
    assert abs(error(measure(gpu, gpu.inference(*burst(0.1))), gpu)) > 0.1


def test_idle_power_is_taken_off(gpu: Any) -> None:
    energy = measure(gpu, gpu.inference(*burst(0.005)))
    assert energy.idle_power_w == pytest.approx(IDLE_W, rel=0.005)
    assert energy.energy_above_idle_j == pytest.approx(gpu.true_j() - IDLE_W * 0.005, rel=0.005)
    assert energy.latency_s == pytest.approx(0.005, rel=0.001)
    assert energy.power_w == pytest.approx(290, rel=0.01)


def test_the_window_is_long_enough(gpu: Any) -> None:
    for period_s, latency_s, least_s in ((0.02, 0.002, 1.0), (0.1, 0.002, 5.0), (0.02, 0.3, 15.0)):
        gpu.start(counter_period_s=period_s)
        energy = measure(gpu, gpu.inference(*burst(latency_s)))
        assert energy.windows >= 3
        assert energy.window_s >= least_s * energy.windows * 0.98
        assert energy.calls == pytest.approx(energy.window_s * (1 - (energy.gap_share or 0)) / latency_s, rel=0.01)
        assert energy.counter_period_s == pytest.approx(period_s, rel=0.01)


def test_intervals_hold_the_truth(gpu: Any) -> None:
    held = 0
    cases = [(period_s, latency_s) for period_s in (0.02, 0.06, 0.1) for latency_s in (0.0013, 0.0041, 0.0087, 0.031)]
    for number, (period_s, latency_s) in enumerate(cases):
        gpu.start(counter_period_s=period_s, counter_phase_s=0.0011 * number, counter_jitter_s=0.0005)
        energy = measure(gpu, gpu.inference(*burst(latency_s)))
        assert energy.interval is not None
        held += energy.interval.low <= gpu.true_j() <= energy.interval.high
    assert held >= len(cases) - 1


def test_a_gain_of_the_sensor_cancels_from_ratios(gpu: Any) -> None:
    figures: list[float] = []
    for gain in (1.0, 1.05):
        gpu.start(gain=gain)
        small, large = measure(gpu, gpu.inference(*burst(0.002))), measure(gpu, gpu.inference(*burst(0.004)))
        assert small.energy_j is not None
        assert large.energy_j is not None
        figures.append(large.energy_j / small.energy_j)
    assert figures[0] == pytest.approx(figures[1], rel=0.005)
    assert figures[0] == pytest.approx(2, rel=0.005)


def test_very_short_calls_are_made_in_groups(gpu: Any) -> None:
    energy = measure(gpu, gpu.inference((400.0, 20e-6)))
    assert abs(error(energy, gpu)) <= 0.005
    assert energy.calls > 100_000


def test_next_to_nothing_is_below_resolution_and_not_zero(gpu: Any) -> None:
    gpu.start(counter_jitter_s=0.002)
    energy = measure(gpu, gpu.inference((IDLE_W + 0.01, 0.005)))
    assert EnergyFlag.BELOW_RESOLUTION in energy.flags
    assert energy.above_idle_interval is not None
    assert energy.above_idle_interval.low < 0 < energy.above_idle_interval.high
    assert energy.energy_j == pytest.approx(IDLE_W * 0.005, rel=0.01)


# ---- real time, on a machine that another process keeps busy ----


@pytest.fixture
def _busy_machine() -> Any:
    spin = "import os, threading\nwhile True:\n    sum(range(1000))"
    others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    yield
    for other in others:
        other.kill()
        other.wait()


@pytest.mark.slow
@pytest.mark.usefixtures("_busy_machine")
@pytest.mark.parametrize(
    ("sensor", "grade"),
    [
        ({}, Grade.COUNTER),
        ({"has_counter": 0}, Grade.POWER_SAMPLES),
        ({"has_counter": 0, "has_fields": 0}, Grade.POWER_SAMPLES),
    ],
    ids=["counter", "power-field", "power-register"],
)
def test_in_real_time_energy_is_within_three_percent(gpu: Any, sensor: dict[str, int], grade: Grade) -> None:
    gpu.start(virtual_clock=0, **sensor)
    energy = measure(gpu, gpu.inference(*burst(0.006)), budget_s=7.0)
    assert abs(error(energy, gpu)) <= 0.03
    assert energy.grade == grade
    assert (EnergyFlag.LOWER_GRADE in energy.flags) == (grade != Grade.COUNTER)
    assert (energy.reason is None) == (grade == Grade.COUNTER)


# ---- what cannot be measured says why ----


def test_without_sensors_the_result_is_none_with_the_reason(gpu: Any) -> None:
    gpu.start(has_counter=0, has_fields=0, has_power=0)
    energy = measure(gpu, gpu.inference(*burst(0.005)))
    assert (energy.energy_j, energy.grade) == (None, None)
    assert energy.reason == "no energy counter and no power register: not supported by this GPU or driver"
    assert EnergyMeter.nvml().support().grade is None
    assert gpu.used_j == []  # nothing was run in vain


def test_a_forbidden_sensor_is_explained(gpu: Any) -> None:
    gpu.start(forbidden=1)
    assert "no permission" in (EnergyMeter.nvml().support().reason or "")


def test_multi_instance_mode_is_explained(gpu: Any) -> None:
    gpu.start(has_counter=0, has_fields=0, has_power=0, mig=1)
    assert "MIG" in (EnergyMeter.nvml().support().reason or "")
    with pytest.raises(MeterUnavailableError, match="whole GPUs only"):
        EnergyMeter.nvml(uuid="MIG-1234")


def test_a_counter_that_stands_still_measures_nothing(gpu: Any) -> None:
    gpu.start(gain=0.0)
    energy = measure(gpu, gpu.inference(*burst(0.005)))
    assert energy.energy_j is None
    assert energy.reason == "the energy counter moved 0 times in 3 s"


def test_a_counter_that_stops_under_load_measures_nothing(gpu: Any) -> None:
    inference = gpu.inference(*burst(0.005))

    def run() -> None:
        gpu.change(gain=0.0)
        inference()

    energy = measure(gpu, run)
    assert energy.energy_j is None
    assert "has not moved" in (energy.reason or "")


def test_a_lost_gpu_is_an_error(gpu: Any) -> None:
    gpu.start(lost_after_s=3.0)
    with pytest.raises(MeterLostError, match="GPU is lost"):
        measure(gpu, gpu.inference(*burst(0.005)))
    with device_lock("cpu", timeout_s=0):
        pass


def test_a_missing_driver_is_explained(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    gpu.start(driver_missing=1)
    with pytest.raises(MeterUnavailableError, match="modprobe nvidia"):
        EnergyMeter.nvml()

    def no_library(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", no_library)
    with pytest.raises(MeterUnavailableError, match=r"Not Found.*\n.*Install the NVIDIA driver"):
        EnergyMeter.nvml()


def test_an_unknown_gpu_is_explained(gpu: Any) -> None:
    assert gpu.now_s() >= 0
    with pytest.raises(MeterUnavailableError, match=r"no GPU number 7.*there are 1\n.*nvidia-smi -L"):
        EnergyMeter.nvml(index=7)
    with pytest.raises(MeterUnavailableError, match="no GPU GPU-none"):
        EnergyMeter.nvml(uuid="GPU-none")


# ---- conduct ----


def test_the_device_is_observed(gpu: Any) -> None:
    energy = measure(gpu, gpu.inference(*burst(0.005)))
    assert energy.device == "Stand-in GPU (GPU-5ead0000-57a4-d1e0-0000-000000000001)"
    assert len(energy.observations) == energy.windows + 2
    state = energy.observations[-1]
    assert (state.sm_clock_mhz, state.memory_clock_mhz, state.temperature_c) == (1980, 2619, 41)
    assert (state.throttle, state.foreign, energy.flags) == ((), (), ())


def test_throttling_and_moving_clocks_are_flagged(gpu: Any) -> None:
    inference = gpu.inference(*burst(0.005))

    def run() -> None:
        if gpu.now_s() > 4:
            gpu.change(throttle_reasons=0x4 | 0x40, sm_clock_mhz=1500)
        inference()

    energy = measure(gpu, run)
    assert energy.flags == (EnergyFlag.THROTTLED, EnergyFlag.CLOCKS_MOVED)
    assert energy.observations[-1].throttle == ("power-cap", "hardware-heat")


def test_other_users_of_the_gpu_are_flagged(gpu: Any) -> None:
    gpu.start(pids=[os.getpid(), 1])
    assert measure(gpu, gpu.inference(*burst(0.005))).flags == (EnergyFlag.FOREIGN_LOAD,)
    gpu.start(pids=[2**31 - 5])  # inside a container this process may go by a number unknown here
    assert measure(gpu, gpu.inference(*burst(0.005))).flags == ()
    gpu.start(pids=[2**31 - 5, 2**31 - 6])
    assert measure(gpu, gpu.inference(*burst(0.005))).flags == (EnergyFlag.FOREIGN_LOAD,)


def test_a_device_that_warms_up_is_flagged(gpu: Any) -> None:
    inference = gpu.inference(*burst(0.005))

    def run() -> None:
        inference()
        gpu.library.sim_power(IDLE_W + 10)

    assert EnergyFlag.IDLE_DRIFTS in measure(gpu, run).flags


def test_nothing_is_ever_set(gpu: Any) -> None:
    import pynvml

    measure(gpu, gpu.inference(*burst(0.005)))
    asked = set(pynvml._nvmlGetFunctionPointer_cache)
    assert "nvmlDeviceGetTotalEnergyConsumption" in asked
    assert [name for name in asked if not name.startswith(("nvmlInit", "nvmlShutdown", "nvmlDeviceGet"))] == []


def test_the_device_is_chosen_by_uuid(gpu: Any) -> None:
    assert gpu.now_s() >= 0
    meter = EnergyMeter.nvml(uuid="GPU-5ead0000-57a4-d1e0-0000-000000000001")
    assert meter == EnergyMeter.nvml(index=0) == EnergyMeter.nvml()
    assert meter.devices == ("GPU-5ead0000-57a4-d1e0-0000-000000000001",)


def test_nobody_else_measures_meanwhile(gpu: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    inference, refusals = gpu.inference(*burst(0.005)), []

    def run() -> None:
        inference()
        if not refusals:
            with ThreadPoolExecutor(1) as pool:
                for device in ("cpu", EnergyMeter.nvml().devices[0]):
                    refusals.append(pool.submit(lambda name=device: _try(name)).result())

    measure(gpu, run)
    assert refusals == [True, True]


def _try(device: str) -> bool:
    try:
        with device_lock(device, timeout_s=0):
            return False
    except DeviceBusyError:
        return True


def test_equal_seeds_give_equal_records(gpu: Any) -> None:
    records: list[dict[str, object]] = []
    for _ in range(2):
        gpu.start(counter_period_s=0.1, counter_window_s=0.025)
        records.append(measure(gpu, gpu.inference(*burst(0.1)), seed=3).as_dict())
    assert records[0] == records[1]


def test_the_record_is_plain_data(gpu: Any) -> None:
    record = json.loads(json.dumps(measure(gpu, gpu.inference(*burst(0.1))).as_dict()))
    assert record["grade"] == "counter"
    assert record["interval"]["confidence"] == 0.95
    assert len(record["windows_j"]) == record["windows"]
