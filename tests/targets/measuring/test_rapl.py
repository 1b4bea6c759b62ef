"""The processor's energy meter on a made-up powercap tree whose power is known, and the arithmetic of ticks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from nasc.ir import UsageError
from nasc.targets.energy import Energy, EnergyFlag, EnergyMeter, Grade, MeterLostError, MeterUnavailableError
from nasc.targets.energy.counter import Spread, Tick, locate
from nasc.targets.energy.rapl import RaplMeter
from nasc.targets.host import Counters
from nasc.targets.lock import DIRECTORY_VARIABLE

IDLE_W, BUSY_W, MEMORY_W = 10.0, 45.0, 3.0
LATENCY_S = 0.02
"""Of one inference; each writes both counters."""


class Processor:
    """Two counters in files, and the clock they run by (`Clock` of the meter, and as much of `Host` as it asks)."""

    def __init__(self, folder: Path, range_j: float = 262_143.0, start_j: float = 100.0) -> None:
        self.time_s = 0.0
        self.power_w = IDLE_W
        self.others = 0.0
        self.range_j = range_j
        self.used_j = {"intel-rapl:0": start_j, "intel-rapl:0:1": start_j}
        self.folder = folder
        names = {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "dram",
            "intel-rapl:1": "psys",
        }
        for zone, name in names.items():
            (folder / zone).mkdir(parents=True)
            (folder / zone / "name").write_text(f"{name}\n")
            (folder / zone / "max_energy_range_uj").write_text(f"{int(range_j * 1e6)}\n")
            (folder / zone / "energy_uj").write_text("0\n")
        self.sleep(0)

    def now_s(self) -> float:
        return self.time_s

    def sleep(self, duration_s: float, /) -> None:
        self.time_s += duration_s
        for zone, power_w in (("intel-rapl:0", self.power_w), ("intel-rapl:0:1", MEMORY_W)):
            self.used_j[zone] += power_w * duration_s
            shown_j = self.used_j[zone] % self.range_j
            (self.folder / zone / "energy_uj").write_text(f"{int(shown_j * 1e6)}\n")

    def counters(self) -> Counters:
        return Counters(self.time_s, 0.0, busy_s=self.others * self.time_s)

    def inference(self, latency_s: float) -> Callable[[], None]:
        def run() -> None:
            self.power_w = BUSY_W
            self.sleep(latency_s)
            self.power_w = IDLE_W

        return run


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "locks"))


def measure(processor: Processor, latency_s: float = LATENCY_S) -> Energy:
    meter = EnergyMeter.rapl(processor.folder)
    assert isinstance(meter, RaplMeter)
    return replace(meter, clock=processor, host=processor).measure(processor.inference(latency_s))  # pyright: ignore


def test_package_and_memory_are_added_up_and_parts_left_out(tmp_path: Path) -> None:
    energy = measure(Processor(tmp_path))
    assert energy.device == "RAPL package-0 + dram"
    assert energy.grade == Grade.COUNTER
    assert energy.energy_j == pytest.approx((BUSY_W + MEMORY_W) * LATENCY_S, rel=0.002)
    assert energy.energy_above_idle_j == pytest.approx((BUSY_W - IDLE_W) * LATENCY_S, rel=0.002)
    assert energy.idle_power_w == pytest.approx(IDLE_W + MEMORY_W, rel=0.002)
    assert energy.flags == ()


@pytest.mark.parametrize("range_j", [30.0, 65.5])
def test_a_counter_that_wraps_around_is_followed(tmp_path: Path, range_j: float) -> None:
    energy = measure(Processor(tmp_path, range_j=range_j, start_j=range_j - 1))
    assert energy.energy_j == pytest.approx((BUSY_W + MEMORY_W) * LATENCY_S, rel=0.002)


def test_a_range_too_small_for_a_window_is_read_in_between(tmp_path: Path) -> None:
    # 20 J wrap around in 0.4 s, a window takes 15 s.
    energy = measure(Processor(tmp_path, range_j=20.0), latency_s=0.3)
    assert energy.energy_j == pytest.approx((BUSY_W + MEMORY_W) * 0.3, rel=0.002)


def test_other_processes_are_flagged_because_the_counter_includes_them(tmp_path: Path) -> None:
    processor = Processor(tmp_path)
    processor.others = 0.5
    assert measure(processor).flags == (EnergyFlag.FOREIGN_LOAD,)


def test_missing_counters_are_explained(tmp_path: Path) -> None:
    with pytest.raises(MeterUnavailableError, match=r"no RAPL counters here\n.*virtual machines"):
        EnergyMeter.rapl(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("name", None, "No such file"),
        ("max_energy_range_uj", None, "No such file"),
        ("max_energy_range_uj", "0\n", "of at least 1, found '0'"),
        ("energy_uj", "abc\n", "found 'abc'"),
        ("energy_uj", "", "found ''"),
        ("energy_uj", "folder", "Is a directory"),
    ],
)
def test_malformed_counters_are_explained(file: str, text: str | None, found: str, tmp_path: Path) -> None:
    Processor(tmp_path)
    path = tmp_path / "intel-rapl:0" / file
    path.unlink()
    if text == "folder":
        path.mkdir()
    elif text is not None:
        path.write_text(text)
    with pytest.raises(MeterUnavailableError) as caught:
        EnergyMeter.rapl(tmp_path)
    assert str(path) in caught.value.message and found in caught.value.message
    assert caught.value.mend


@pytest.mark.parametrize(
    "settings", [{"budget_s": 0}, {"budget_s": float("nan")}, {"width": -1}, {"width": 0}], ids=str
)
def test_settings_without_sense_are_refused(settings: dict[str, float], tmp_path: Path) -> None:
    Processor(tmp_path)
    with pytest.raises(UsageError, match=f"expected {next(iter(settings))} of more than 0"):
        EnergyMeter.rapl(tmp_path, **settings)
    with pytest.raises(UsageError, match="lock_timeout_s of at least 0"):
        replace(EnergyMeter.rapl(tmp_path), lock_timeout_s=-1)


def test_a_gpu_is_named_once() -> None:
    with pytest.raises(UsageError, match="found both: index=0, uuid='GPU-1'"):
        EnergyMeter.nvml(index=0, uuid="GPU-1")


def test_missing_permission_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def refuse(path: Path, *arguments: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments)

    Processor(tmp_path)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(MeterUnavailableError, match=r"intel-rapl:0/energy_uj: no permission.*\n.*sudo chmod a\+r"):
        EnergyMeter.rapl(tmp_path)


def test_a_counter_that_vanishes_is_an_error(tmp_path: Path) -> None:
    processor = Processor(tmp_path)
    inference = processor.inference(LATENCY_S)

    def run() -> None:
        inference()
        (tmp_path / "intel-rapl:0/energy_uj").write_text("")

    meter = replace(EnergyMeter.rapl(tmp_path), clock=processor)
    with pytest.raises(MeterLostError, match="intel-rapl:0/energy_uj"):
        meter.measure(run)


# ---- the arithmetic of ticks ----


def test_several_ticks_narrow_down_the_first() -> None:
    # Ticks at 0.013 + 0.02 k, looked at every 7 ms: each alone says no more than 7 ms.
    looks = [0.007 * look for look in range(40)]
    ticks = [
        Tick(sooner, later, float(number))
        for number in range(6)
        for sooner, later in pairwise(looks)
        if sooner < 0.013 + 0.02 * number <= later
    ]
    edge = locate(ticks, 0.02)
    assert edge.energy_j == 0.0
    assert edge.at_s == pytest.approx(0.013, abs=0.001)
    assert edge.tolerance_s <= 0.00101
    assert locate(ticks[:1], 0.02).tolerance_s == pytest.approx(0.0035)


def test_ticks_that_contradict_each_other_are_averaged() -> None:
    ticks = [Tick(0.000, 0.001, 5.0), Tick(0.023, 0.024, 6.0)]
    assert locate(ticks, 0.02).at_s == pytest.approx(0.002)


def test_calls_are_spread_evenly_over_the_period() -> None:
    spread = Spread(0.1, 0.025, Random(0))
    now_s, waited_s, phases = 0.0, 0.0, [0] * 16
    for _ in range(320):
        wait_s = spread.wait_s(now_s)
        assert 0 <= wait_s <= 0.025
        phases[int((now_s + wait_s) % 0.1 / 0.1 * 16)] += 1
        waited_s += wait_s
        now_s += wait_s + 0.1  # exactly a period: without waits every call would meet the same phase
    assert max(phases) - min(phases) <= 2
    assert waited_s / 320 < 0.0125
