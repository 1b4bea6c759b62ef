"""What `nasc doctor` and the records of measurements say of a GPU, in all its moods."""

from __future__ import annotations

import os
from typing import Any

import nvml_standin
import pytest
from nasc.targets import doctor
from nasc.targets.energy import EnergyMeter, MeterUnavailableError, able, chosen_meter
from nasc.targets.energy.nvml import gpu_facts

UUID = nvml_standin.UUID


def found() -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.gpus()}


def test_a_gpu_in_good_health(gpu: Any) -> None:
    seen = found()
    assert seen["driver"].found == "999.1"
    assert UUID in seen["GPU 0"].found
    assert seen["GPU 0, energy"].found == "energy counter"
    assert seen["GPU 0, clocks"].found == "1980 MHz, memory 2619 MHz, 41 °C"
    assert all(finding.state == "ok" for finding in seen.values())


def test_what_slows_it_down_and_who_else_uses_it(gpu: Any) -> None:
    gpu.start(throttle_reasons=0x21, pids=[os.getpid(), 4321])
    seen = found()
    assert seen["GPU 0, throttling"].found == "slowed down: heat"
    assert seen["GPU 0, users"].found == "used by processes 4321"
    assert seen["GPU 0, users"].state == "note"


def test_a_divided_gpu_and_a_forbidden_sensor(gpu: Any) -> None:
    gpu.start(has_counter=0, has_fields=0, has_power=0, mig=1)
    seen = found()
    assert seen["GPU 0, energy"].state == "missing"
    assert "nvidia-smi -mig 0" in seen["GPU 0, energy"].mend
    assert "divided into instances" in seen["GPU 0, MIG"].found
    gpu.start(forbidden=1)
    assert "no permission" in found()["GPU 0, energy"].found
    assert "administrator" in found()["GPU 0, energy"].mend


def test_a_driver_that_does_not_start(gpu: Any) -> None:
    gpu.start(driver_missing=1)
    (finding,) = doctor.gpus()
    assert finding.state == "missing" and "modprobe nvidia" in finding.mend


def test_facts_of_the_gpu_for_a_record(gpu: Any) -> None:
    facts = gpu_facts(UUID)
    assert (facts["uuid"], facts["driver"], facts["sm_clock_mhz"]) == (UUID, "999.1", 1980)


def test_meters_are_chosen_by_text(gpu: Any) -> None:
    for text in ("nvml", "nvml:0", f"nvml:{UUID}"):
        assert chosen_meter(text).devices == (UUID,)
    assert chosen_meter("auto", on_gpu=True, gpu=UUID).devices == (UUID,)
    with pytest.raises(MeterUnavailableError, match=r"a part of a GPU \(MIG\)"):
        chosen_meter("nvml:MIG-1")


def test_a_meter_that_can_give_no_figure_is_refused_before_anything_runs(gpu: Any) -> None:
    gpu.start(has_counter=0, has_fields=0, has_power=0, mig=1)
    with pytest.raises(MeterUnavailableError, match=r"cannot be measured: .*multi-instance mode \(MIG\) is on"):
        able(EnergyMeter.nvml())
    gpu.start()
    assert able(EnergyMeter.nvml()).devices == (UUID,)
