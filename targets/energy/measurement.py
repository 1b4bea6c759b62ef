"""One measurement of energy: rest, warm-up, windows between ticks of the counter, rest; and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from statistics import stdev

from ..statistics import Interval
from .counter import Calls, Clock, Edge, EnergyCounter, Rest, Run, Spread, watch_rest
from .record import Energy, EnergyFlag, Observation

# Student's t at 97.5 %, by degrees of freedom from 1.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Measurement:
    """One measurement: rest, warm-up, windows, rest.

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
        calls, cycle_s = self._prepare(run, before.period_s)
        # Run in: a sensor that averages still remembers the rest before.
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

    def _prepare(self, run: Run, period_s: float) -> tuple[Calls, float]:
        """Warm up, and choose how many calls to make at a time and how far apart; gives the time that takes, too.

        Calls shorter than a millisecond are made in groups, so that looking at the clock costs nothing. Calls of a
        twelfth of the period or longer are spread over it: a counter that moves every 50 ms or more seldom may look at
        a part of each period only, as those of several data-centre GPUs do (Yang, Adamek and Armour, Accurate and
        Convenient Energy Measurements for GPUs, SC 2024; arXiv 2312.02741).
        """
        calls = Calls(run, self.clock)
        began_s = self.clock.now_s()
        while len(calls.ends_s) < 3 or (calls.ends_s[-1] - began_s < 0.1 and len(calls.ends_s) < 100_000):
            calls.once()
        latency_s = calls.typical_s()
        repeat = max(1, math.ceil(1e-3 / max(latency_s, 1e-9)))
        spread = None
        if period_s >= 0.045 and latency_s >= period_s / 12:
            spread = Spread(period_s, min(latency_s, period_s) / 4, Random(self.seed))
        return Calls(run, self.clock, repeat, spread), repeat * latency_s + (spread.longest_s / 2 if spread else 0.0)


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
        span_s=(edges[0].at_s, edges[-1].at_s),
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
