"""The meters on a real NVIDIA GPU. They run in a process of their own, where no stand-in is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import json, sys
import torch
from nasc.targets.energy import EnergyMeter
from nasc.targets.latency import LatencyMeter

a = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)

def work(times):
    def run():
        for _ in range(times):
            a @ a
        torch.cuda.synchronize()
    return run

meter = EnergyMeter.nvml(index=0)
once, twice = meter.measure(work(8)), meter.measure(work(16))
latency = LatencyMeter(clock="wall").measure(work(16), work(8))
json.dump([once.as_dict(), twice.as_dict(), latency.as_dict(samples=False)], sys.stdout)
"""


@pytest.mark.gpu
@pytest.mark.slow
def test_twice_the_work_takes_twice_the_time_and_energy() -> None:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("no NVIDIA GPU on this machine (/dev/nvidiactl is missing)")
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    once, twice, latency = json.loads(done.stdout)
    print(f"counter period {1e3 * once['counter_period_s']:.1f} ms, {once['device']}, flags {once['flags']}")
    assert once["grade"] == "counter"
    assert 0.001 < once["counter_period_s"] < 1
    assert 1.8 < twice["energy_above_idle_j"] / once["energy_above_idle_j"] < 2.2
    assert latency["verdict"] == "SLOWER"
    assert 1.8 < latency["ratio"]["value"] < 2.2
