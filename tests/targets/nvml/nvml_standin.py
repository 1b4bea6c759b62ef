"""A GPU whose every joule is known: builds and drives the stand-in for NVML that the real pynvml then loads."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "nvml_standin.c"
UUID = "GPU-5ead0000-57a4-d1e0-0000-000000000001"
IDLE_W = 60.0


class Config(ctypes.Structure):
    """`sim_config` of the stand-in, with the settings of an ordinary GPU."""

    _fields_ = (
        ("counter_period_s", ctypes.c_double),
        ("counter_phase_s", ctypes.c_double),
        ("counter_jitter_s", ctypes.c_double),
        ("counter_window_s", ctypes.c_double),
        ("counter_average_s", ctypes.c_double),
        ("power_period_s", ctypes.c_double),
        ("power_window_s", ctypes.c_double),
        ("gain", ctypes.c_double),
        ("read_s", ctypes.c_double),
        ("virtual_clock", ctypes.c_int32),
        ("has_counter", ctypes.c_int32),
        ("has_fields", ctypes.c_int32),
        ("has_power", ctypes.c_int32),
        ("forbidden", ctypes.c_int32),
        ("driver_missing", ctypes.c_int32),
        ("mig", ctypes.c_int32),
        ("processes", ctypes.c_int32),
        ("pids", ctypes.c_uint32 * 4),
        ("sm_clock_mhz", ctypes.c_uint32),
        ("memory_clock_mhz", ctypes.c_uint32),
        ("temperature_c", ctypes.c_uint32),
        ("throttle_reasons", ctypes.c_uint64),
        ("lost_after_s", ctypes.c_double),
    )


def settings(**changes: Any) -> Config:
    pids = changes.pop("pids", [os.getpid()])
    values: dict[str, Any] = {
        "counter_period_s": 0.02,
        "counter_phase_s": 0.0037,
        "power_period_s": 0.025,
        "power_window_s": 0.025,
        "gain": 1.0,
        "read_s": 20e-6,
        "virtual_clock": 1,
        "has_counter": 1,
        "has_fields": 1,
        "has_power": 1,
        "processes": len(pids),
        "pids": (ctypes.c_uint32 * 4)(*pids),
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": 2619,
        "temperature_c": 41,
        "throttle_reasons": 0x1,
    }
    return Config(**(values | changes))


class Gpu:
    """The stand-in: what the test sets and knows. It is also the clock (`Clock`) of the meter under test."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name in ("sim_now_s", "sim_true_j"):
            getattr(library, name).restype = ctypes.c_double
        library.sim_true_j.argtypes = library.sim_power.argtypes = library.sim_pass.argtypes = [ctypes.c_double]
        self.virtual = True
        self.used_j: list[float] = []
        self.ends_s: list[float] = []

    def start(self, **changes: Any) -> Gpu:
        """A fresh trace at idle power."""
        config = settings(**changes)
        self.virtual = bool(config.virtual_clock)
        self.used_j, self.ends_s = [], []
        self.library.sim_start(ctypes.byref(config), ctypes.c_double(IDLE_W))
        return self

    def change(self, **changes: Any) -> None:
        """Other settings, same trace."""
        self.library.sim_change(ctypes.byref(settings(**changes)))

    def now_s(self) -> float:
        return self.library.sim_now_s()

    def sleep(self, duration_s: float, /) -> None:
        if self.virtual:
            self.library.sim_pass(duration_s)
        else:
            time.sleep(duration_s)

    def inference(self, *phases: tuple[float, float], during: Callable[[], object] | None = None) -> Callable[[], None]:
        """A call that draws the power of each phase (watts, seconds) and then falls back to idle.

        `during` is called every 2 ms of each phase, as a thread would.
        """

        def run() -> None:
            began_s = self.now_s()
            for power_w, duration_s in phases:
                self.library.sim_power(power_w)
                if during is None:
                    self.sleep(duration_s)
                    continue
                until_s = self.now_s() + duration_s
                while self.now_s() < until_s:
                    during()
                    self.sleep(min(0.002, max(0.0, until_s - self.now_s())))
            self.library.sim_power(IDLE_W)
            self.ends_s.append(self.now_s())
            self.used_j.append(self.library.sim_true_j(self.ends_s[-1]) - self.library.sim_true_j(began_s))

        return run

    def true_j(self, span_s: tuple[float, float] = (0.0, math.inf)) -> float:
        """The mean energy of the calls that ended within a span of time; where time is real, no two are alike."""
        ends_s, used_j = self.ends_s, self.used_j
        calls_j = [used for end_s, used in zip(ends_s, used_j, strict=True) if span_s[0] <= end_s <= span_s[1]]
        return sum(calls_j) / len(calls_j)


def compiler() -> str | None:
    """The system's C compiler."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> ctypes.CDLL:
    """Compile the stand-in into a folder and load it under the name that pynvml asks for."""
    path = folder / "libnvidia-ml.so.1"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{path.name}"]
    subprocess.run([compiler() or "cc", *options, "-o", path, SOURCE, "-lm", "-lpthread"], check=True)
    return ctypes.CDLL(str(path))
