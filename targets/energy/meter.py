"""The energy of one call of anything that can be called: the protocol of all meters and the measurement itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean, stdev

from ...ir.errors import NascError
from ..lock import DEFAULT_TIMEOUT_S, device_lock
from ..statistics import Interval
from .counter import Calls, Clock, CounterStoppedError, Edge, EnergyCounter, RealClock, Rest, Run, Spread, watch_rest
from .record import Energy, EnergyFlag, Grade, Observation

# Student's t at 97.5 %, by degrees of freedom from 1.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


class MeterUnavailableError(NascError):
    """There is no such meter on this machine, or we may not use it."""


class MeterLostError(NascError):
    """The meter or its device failed in the middle of a measurement."""


@dataclass(frozen=True)
class Support:
    """What a meter can do on its device.

    Args:
        device: name and identity of the device.
        grade: of the figures it would give; None if it cannot give any.
        reason: why it cannot, or why the grade is not the best; None if there is nothing to say.
    """

    device: str
    grade: Grade | None
    reason: str | None = None


@dataclass(frozen=True)
class Source:
    """An open sensor.

    Args:
        support: what it is good for.
        counter: None where `support.grade` is None.
        settle_s: how long the sensor remembers earlier power.
    """

    support: Support
    counter: EnergyCounter | None = None
    settle_s: float = 1.0


@dataclass(frozen=True)
class EnergyMeter(ABC):
    """Measures the energy of anything that can be called.

        energy = EnergyMeter.nvml(index=0).measure(run)
        print(energy.energy_j, energy.energy_above_idle_j, energy.flags)

    Calls run back to back in at least three windows that begin and end when the device's energy counter moves. A window
    is as long as a second, 50 periods of the counter or 50 calls, whichever is most. Before and after, the device is
    watched at rest. Meters observe; they never change a setting of the device.

    Args:
        budget_s: no window beyond the third is begun after so long.
        width: asked half-width of the interval, relative to its middle.
        lock: False if the caller makes sure that nobody else measures.
        lock_timeout_s: the longest wait for the device.
        seed: of the waits that spread calls out.
        clock: tells the time.
    """

    budget_s: float = 30.0
    width: float = 0.01
    lock: bool = True
    lock_timeout_s: float = DEFAULT_TIMEOUT_S
    seed: int = 0
    clock: Clock = field(default_factory=RealClock)

    @staticmethod
    def nvml(index: int | None = None, uuid: str | None = None) -> EnergyMeter:
        """The meter of an NVIDIA GPU, chosen by its number (0 by default) or, better, its UUID.

        Raises:
            MeterUnavailableError: no library, no driver, no such device; the message says how to mend it.
        """
        from .nvml import NvmlMeter

        return NvmlMeter.choose(index=index, uuid=uuid)

    @staticmethod
    def rapl(powercap: str | Path = "/sys/class/powercap") -> EnergyMeter:
        """The meter of the processors of this machine (Intel and AMD), through the powercap files.

        Raises:
            MeterUnavailableError: no such files, or no permission to read them; the message says how to mend it.
        """
        from .rapl import RaplMeter

        return RaplMeter.choose(Path(powercap))

    @property
    @abstractmethod
    def devices(self) -> tuple[str, ...]:
        """What to lock while measuring, besides the processor."""

    @abstractmethod
    def open(self) -> AbstractContextManager[Source]:
        """Open the sensor for one measurement."""

    def support(self) -> Support:
        """Whether and how well this meter can measure; quick, to be asked before anything is paid for.

        Raises:
            MeterUnavailableError: the device has gone.
        """
        with self.open() as source:
            return source.support

    def measure(self, run: Run) -> Energy:
        """Measure the energy of one call.

        Args:
            run: one inference; it must have finished when the call returns.

        Raises:
            DeviceBusyError: the device did not come free in time.
            MeterLostError: the device failed meanwhile.
        """
        if not self.lock:
            return self._measure(run)
        with device_lock("cpu", *self.devices, timeout_s=self.lock_timeout_s):
            return self._measure(run)

    def _measure(self, run: Run) -> Energy:
        with self.open() as source:
            if source.counter is None:
                return Energy(None, device=source.support.device, reason=source.support.reason)
            try:
                energy = Measurement(source.counter, self.clock, source.settle_s, self.width, self.seed).take(
                    run, self.budget_s
                )
            except CounterStoppedError as fault:
                return Energy(None, device=source.support.device, reason=fault.message)
            flags = energy.flags
            if source.support.grade != Grade.COUNTER:
                flags = (*flags, EnergyFlag.LOWER_GRADE)
            return replace(
                energy,
                flags=flags,
                grade=source.support.grade,
                device=source.support.device,
                reason=source.support.reason,
            )


@dataclass(frozen=True)
class Measurement:
    """One measurement: rest, pre-roll, windows, rest.

    Args:
        counter: the sensor.
        clock: tells the time.
        settle_s: how long the sensor remembers earlier power.
        width: when to stop.
        seed: of the waits that spread calls out.
    """

    counter: EnergyCounter
    clock: Clock
    settle_s: float
    width: float
    seed: int

    def take(self, run: Run, budget_s: float) -> Energy:
        """Measure; see `EnergyMeter`."""
        began_s = self.clock.now_s()
        observations = [self.counter.observe()]
        before = watch_rest(self.counter, self.clock)
        calls = self._prepare(run, before.period_s)
        cycle_s = calls.ends_s[-1] - calls.starts_s[-1] + (calls.spread.longest_s / 2 if calls.spread else 0.0)
        calls.until(self.clock.now_s() + max(self.settle_s, 10 * before.period_s, 3 * cycle_s), self.counter)
        window_s = max(1.0, 50 * before.period_s, 50 * cycle_s)
        ticks = 1 if cycle_s < before.period_s / 20 else 5
        edges = [calls.edge(self.counter, before.period_s, ticks)]
        observations.append(self.counter.observe())
        while True:
            calls.until(edges[-1].at_s + window_s, self.counter)
            edges.append(calls.edge(self.counter, before.period_s, ticks))
            observations.append(self.counter.observe())
            if len(edges) <= 3:
                continue
            energy = summarise(calls, edges, before, before)
            if self.clock.now_s() - began_s > budget_s or _half_width(energy) <= self.width:
                break
        self.clock.sleep(self.settle_s)
        after = watch_rest(self.counter, self.clock)
        energy = summarise(calls, edges, before, after)
        flags = set(energy.flags) | _seen(observations)
        if _half_width(energy) > self.width:
            flags.add(EnergyFlag.WIDE)
        return replace(
            energy, flags=tuple(flag for flag in EnergyFlag if flag in flags), observations=tuple(observations)
        )

    def _prepare(self, run: Run, period_s: float) -> Calls:
        """Warm up, and choose how many calls to make at a time and how far apart.

        Calls shorter than a millisecond are made in groups, so that looking at the clock costs nothing. Calls of a
        twelfth of the period or longer are spread over it: a counter that moves every 50 ms or more seldom may look at
        a part of each period only, as those of several data-centre GPUs do (Yang, Adamek and Armour, Accurate and
        Convenient Energy Measurements for GPUs, SC 2024; arXiv 2312.02741).
        """
        calls = Calls(run, self.clock)
        began_s = self.clock.now_s()
        while len(calls.ends_s) < 3 or (calls.ends_s[-1] - began_s < 0.1 and len(calls.ends_s) < 100_000):
            calls.once()
        lengths_s = [end_s - start_s for start_s, end_s in zip(calls.starts_s, calls.ends_s, strict=True)]
        latency_s = fmean(lengths_s[len(lengths_s) // 2 :])
        repeat = max(1, math.ceil(1e-3 / max(latency_s, 1e-9)))
        spread = None
        if period_s >= 0.045 and latency_s >= period_s / 12:
            spread = Spread(period_s, min(latency_s, period_s) / 4, Random(self.seed))
        calls = Calls(run, self.clock, repeat, spread)
        calls.once()
        return calls


def summarise(calls: Calls, edges: Sequence[Edge], before: Rest, after: Rest) -> Energy:
    """The energy of a call from the edges of the windows.

    Of the energy of a window, its length times the idle power is what the device would have used anyway; the rest is
    shared among its calls. That holds whether or not there were gaps between them. A call's whole energy adds the idle
    power during the call. The interval has three parts: how the windows scatter (Student's t), how well the first and
    the last edge are known, and how well the idle power is known.
    """
    idle_w = (before.power_w + after.power_w) / 2
    idle_tolerance_w = max(before.tolerance_w, after.tolerance_w, abs(before.power_w - after.power_w) / 2)
    latency_s = calls.latency_s(edges[0].at_s, edges[-1].at_s)
    above_j = [_above_idle_j(calls, first, last, idle_w) for first, last in pairwise(edges)]
    count = calls.done(edges[-1].at_s) - calls.done(edges[0].at_s)
    length_s = edges[-1].at_s - edges[0].at_s
    power_w = (edges[-1].energy_j - edges[0].energy_j) / length_s
    mean_j = _above_idle_j(calls, edges[0], edges[-1], idle_w)
    cycle_s = length_s / count
    scatter_j = STUDENT[min(len(above_j) - 1, len(STUDENT)) - 1] * stdev(above_j) / math.sqrt(len(above_j))
    edges_j = (edges[0].tolerance_s + edges[-1].tolerance_s) / length_s * mean_j
    half_above_j = scatter_j + abs(edges_j) + idle_tolerance_w * cycle_s
    half_j = scatter_j + abs(edges_j) + idle_tolerance_w * (cycle_s - latency_s)
    energy_j = mean_j + idle_w * latency_s
    flags: set[EnergyFlag] = set()
    if calls.spread is not None:
        flags.add(EnergyFlag.MAY_ALIAS)
    if not (before.regular and after.regular):
        flags.add(EnergyFlag.IRREGULAR)
    if abs(before.power_w - after.power_w) > 0.05 * idle_w:
        flags.add(EnergyFlag.IDLE_DRIFTS)
    if mean_j <= half_above_j:
        flags.add(EnergyFlag.BELOW_RESOLUTION)
    return Energy(
        energy_j=energy_j,
        energy_above_idle_j=mean_j,
        interval=Interval(energy_j - half_j, energy_j + half_j, 0.95),
        above_idle_interval=Interval(mean_j - half_above_j, mean_j + half_above_j, 0.95),
        power_w=power_w,
        idle_power_w=idle_w,
        latency_s=latency_s,
        calls=round(count),
        windows=len(above_j),
        window_s=length_s,
        counter_period_s=before.period_s,
        gap_share=max(0.0, 1 - latency_s / cycle_s),
        flags=tuple(flags),
        windows_j=tuple(each_j + idle_w * latency_s for each_j in above_j),
    )


def _above_idle_j(calls: Calls, first: Edge, last: Edge, idle_w: float) -> float:
    energy_j = last.energy_j - first.energy_j - idle_w * (last.at_s - first.at_s)
    return energy_j / (calls.done(last.at_s) - calls.done(first.at_s))


def _half_width(energy: Energy) -> float:
    if energy.interval is None or not energy.energy_j:
        return math.inf
    return (energy.interval.high - energy.interval.low) / 2 / abs(energy.energy_j)


def _seen(observations: Sequence[Observation]) -> set[EnergyFlag]:
    """What the observations of the device amount to. The first one is of the device at rest."""
    flags: set[EnergyFlag] = set()
    working = observations[1:]
    clocks_mhz = [each.sm_clock_mhz for each in working if each.sm_clock_mhz]
    if clocks_mhz and max(clocks_mhz) > 1.05 * min(clocks_mhz):
        flags.add(EnergyFlag.CLOCKS_MOVED)
    if any(each.throttle for each in working):
        flags.add(EnergyFlag.THROTTLED)
    if any(each.foreign or (each.others or 0) >= 0.05 for each in observations):
        flags.add(EnergyFlag.FOREIGN_LOAD)
    return flags
