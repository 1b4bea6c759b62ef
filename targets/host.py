"""The clocks of this machine, and what else it was doing while something ran."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from ..ir.errors import UsageError


def usable_processors() -> int:
    """How many processors this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int) -> None:
    """Refuse a number of threads that cannot run at once: they would be timed while they wait for each other.

    Raises:
        UsageError: it is below 1, or above the number of processors that may be used.
    """
    if threads < 1:
        raise UsageError(f"the runtime needs at least 1 thread; found {threads}")
    usable, all_of_them = usable_processors(), os.cpu_count() or 1
    if threads > usable:
        here = f"{usable} processor(s) that this process may use" + (
            "" if usable == all_of_them else f" of {all_of_them}"
        )
        raise UsageError(
            f"{threads} threads are more than the {here}",
            mend=f"Threads beyond the processors take time from each other: --threads {usable} at most.",
        )


@dataclass(frozen=True)
class Counters:
    """Running totals since some moment in the past, in seconds; None where this system does not tell.

    Args:
        wall_s: time passed.
        process_s: processor time of all threads of this process.
        pressure_s: time in which at least one runnable task of the machine waited for a processor (PSI "some").
        busy_s: processor time of all processes, summed over processors.
        steal_s: time in which the hypervisor ran somebody else instead, summed over processors.
    """

    wall_s: float
    process_s: float
    pressure_s: float | None = None
    busy_s: float | None = None
    steal_s: float | None = None


@dataclass(frozen=True)
class Load:
    """What the machine was doing between two readings of the counters; None where this system does not tell.

    Args:
        pressure: share of the time in which some task waited for a processor, 0 to 1.
        others: processors that other processes kept busy, 0 to their number.
        steal: processors that the hypervisor took away.
    """

    pressure: float | None
    others: float | None
    steal: float | None

    @classmethod
    def between(cls, first: Counters, last: Counters) -> Load:
        """The mean load from the first reading to the last."""
        wall_s = last.wall_s - first.wall_s

        def rate(before: float | None, after: float | None, minus_s: float = 0.0) -> float | None:
            if before is None or after is None or wall_s <= 0:
                return None
            return round(max(0.0, (after - before - minus_s) / wall_s), 4)

        return cls(
            pressure=rate(first.pressure_s, last.pressure_s),
            others=rate(first.busy_s, last.busy_s, last.process_s - first.process_s),
            steal=rate(first.steal_s, last.steal_s),
        )

    def as_dict(self) -> dict[str, float | None]:
        """The fields, ready for JSON."""
        return asdict(self)


class Host(Protocol):
    """A machine to measure on. Tests play one whose clock they turn themselves."""

    def wall_s(self) -> float:
        """A steady clock, in seconds. It is read around every timed call, so reading it must be cheap."""
        ...

    def thread_s(self) -> float:
        """The processor time of the calling thread, in seconds."""
        ...

    def process_s(self) -> float:
        """The processor time of all threads of this process, in seconds."""
        ...

    def waits(self) -> int | None:
        """How often the calling thread gave up its processor to wait for something; None if unknown."""
        ...

    def thread_resolution_s(self) -> float:
        """The step of the thread's clock, in seconds."""
        ...

    def counters(self) -> Counters:
        """The running totals now."""
        ...


@dataclass(frozen=True)
class ThisHost:
    """The machine this process runs on.

    Args:
        proc: where the kernel shows its counters.
    """

    proc: Path = Path("/proc")

    # The C functions themselves: a Python method around them would triple the cost of reading the clock.
    wall_s = staticmethod(time.perf_counter)
    thread_s = staticmethod(time.thread_time)
    process_s = staticmethod(time.process_time)

    def waits(self) -> int | None:
        return _voluntary_switches()

    def thread_resolution_s(self) -> float:
        return time.get_clock_info("thread_time").resolution

    def counters(self) -> Counters:
        busy_s, steal_s = self._processors()
        return Counters(time.perf_counter(), time.process_time(), self._pressure(), busy_s, steal_s)

    def _pressure(self) -> float | None:
        """`some avg10=… total=<microseconds>`: Linux, Documentation/accounting/psi.rst."""
        for line in _lines(self.proc / "pressure" / "cpu"):
            if line.startswith("some") and "total=" in line:
                return int(line.rpartition("total=")[2]) * 1e-6
        return None

    def _processors(self) -> tuple[float | None, float | None]:
        """`cpu user nice system idle iowait irq softirq steal guest …`, in ticks: proc(5)."""
        for line in _lines(self.proc / "stat"):
            if line.startswith("cpu "):
                ticks = [int(field) for field in line.split()[1:]]
                tick_s = 1 / os.sysconf("SC_CLK_TCK")
                steal = ticks[7] if len(ticks) > 7 else 0
                return (sum(ticks[:3]) + sum(ticks[5:7])) * tick_s, steal * tick_s
        return None, None


def _lines(path: Path) -> list[str]:
    """The file's lines; none where the system has no such file or does not let us read it."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _voluntary_switches() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    if not hasattr(resource, "RUSAGE_THREAD"):  # macOS
        return None
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
