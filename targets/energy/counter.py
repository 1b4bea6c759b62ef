"""Energy from a counter that moves in ticks: find its period, and measure between ticks.

A counter of energy shows the value of its last tick, up to a period old. Read at any two moments it is therefore wrong
by up to a period's energy at either end. Read at two *ticks* it is exact. So calls run back to back without a pause,
the counter is watched between calls until it moves, and windows reach from tick to tick.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from statistics import fmean, median
from time import perf_counter, sleep
from typing import Protocol

from ...ir.errors import NascError
from .record import Observation

Run = Callable[[], object]


class Clock(Protocol):
    """Time for an energy meter. Tests play one that a virtual device shares."""

    def now_s(self) -> float:
        """A steady clock, in seconds."""
        ...

    def sleep(self, duration_s: float, /) -> None:
        """Let time pass."""
        ...


@dataclass(frozen=True)
class RealClock:
    """The clock on the wall."""

    now_s = staticmethod(perf_counter)
    sleep = staticmethod(sleep)


class EnergyCounter(Protocol):
    """A sensor whose reading grows with the energy that a device has used."""

    @property
    def poll_s(self) -> float:
        """How long to sleep between two readings when waiting for the counter to move."""
        ...

    @property
    def known_period_s(self) -> float | None:
        """How often the counter moves, where its maker says so; None to find out."""
        ...

    @property
    def longest_silence_s(self) -> float:
        """How long the counter may go unread without a wrap-around being missed."""
        ...

    def read_j(self) -> float:
        """Joules since some moment in the past."""
        ...

    def observe(self) -> Observation:
        """The state of the device; may take some milliseconds."""
        ...


class CounterStoppedError(NascError):
    """The counter does not move, so it measures nothing."""


@dataclass(frozen=True)
class Tick:
    """One move of the counter, seen between two readings: it happened after the one and by the other."""

    after_s: float
    by_s: float
    energy_j: float

    @property
    def middle_s(self) -> float:
        return (self.after_s + self.by_s) / 2


@dataclass(frozen=True)
class Edge:
    """The end of a window: at this time, give or take the tolerance, the device had used this energy."""

    at_s: float
    tolerance_s: float
    energy_j: float


@dataclass(frozen=True)
class Rest:
    """The device without calls.

    Args:
        power_w: mean power.
        tolerance_w: how far off it may be.
        period_s: how often the counter moves.
        regular: whether it does so at regular times.
    """

    power_w: float
    tolerance_w: float
    period_s: float
    regular: bool


def watch_rest(counter: EnergyCounter, clock: Clock, *, least_s: float = 1.0, longest_s: float = 3.0) -> Rest:
    """Watch an idle device's counter for at least one second and 25 ticks, or for three seconds.

    Raises:
        CounterStoppedError: it moved less than three times.
    """
    began_s = clock.now_s()
    asked_s, energy_j = began_s, counter.read_j()
    ticks: list[Tick] = []
    while True:
        clock.sleep(counter.poll_s)
        asking_s = clock.now_s()
        reading_j = counter.read_j()
        now_s = clock.now_s()
        if reading_j != energy_j:
            ticks.append(Tick(asked_s, now_s, reading_j))
        asked_s, energy_j = asking_s, reading_j
        if now_s - began_s >= longest_s or (now_s - began_s >= least_s and len(ticks) >= 25):
            break
    if len(ticks) < 3:
        raise CounterStoppedError(f"the energy counter moved {len(ticks)} times in {longest_s:g} s")
    steps_s = [later.middle_s - sooner.middle_s for sooner, later in pairwise(ticks)]
    typical_s = median(steps_s)
    periods = sum(max(1, round(step_s / typical_s)) for step_s in steps_s)
    length_s = ticks[-1].middle_s - ticks[0].middle_s
    power_w = (ticks[-1].energy_j - ticks[0].energy_j) / length_s
    tolerance_s = (ticks[0].by_s - ticks[0].after_s + ticks[-1].by_s - ticks[-1].after_s) / 2
    if counter.known_period_s is not None:
        return Rest(power_w, power_w * tolerance_s / length_s, counter.known_period_s, regular=True)
    slack_s = [tick.by_s - tick.after_s for tick in ticks]
    stray_s = [abs(step_s / typical_s - round(step_s / typical_s)) * typical_s for step_s in steps_s]
    regular = median(stray_s) <= max(0.1 * typical_s, 2 * median(slack_s))
    return Rest(power_w, power_w * tolerance_s / length_s, length_s / periods, regular)


@dataclass
class Spread:
    """Waits before calls such that they begin at all phases of the counter's period equally often.

    A counter that looks at a part of each period only is right on average over phases, and may be far off for calls
    that always meet it at the same phase. Of the phases within reach the one visited least comes next.

    Args:
        period_s: of the counter.
        longest_s: how far a call may be put off.
        random: draws the moment within a phase.
    """

    period_s: float
    longest_s: float
    random: Random
    visits: list[int] = field(default_factory=lambda: [0] * 16)

    def wait_s(self, now_s: float) -> float:
        """How long to put off a call that could begin now."""
        width_s = self.period_s / len(self.visits)
        phase_s = now_s % self.period_s
        here = int(phase_s / width_s)
        within_reach = range(here, int((phase_s + self.longest_s) / width_s) + 1)
        chosen = min(within_reach, key=lambda place: self.visits[place % len(self.visits)])
        self.visits[chosen % len(self.visits)] += 1
        earliest_s = max(phase_s, chosen * width_s)
        latest_s = min(phase_s + self.longest_s, (chosen + 1) * width_s)
        return max(0.0, self.random.uniform(earliest_s, latest_s) - phase_s)


@dataclass
class Calls:
    """Calls made back to back, or spread out where asked, and when each of them ran.

    Args:
        run: one call.
        clock: tells when.
        repeat: calls between two looks at the clock.
        spread: puts calls off.
    """

    run: Run
    clock: Clock
    repeat: int = 1
    spread: Spread | None = None
    starts_s: list[float] = field(default_factory=list[float])
    ends_s: list[float] = field(default_factory=list[float])

    def once(self) -> float:
        """Make one group of calls; gives the time at its end."""
        if self.spread is not None:
            self.clock.sleep(self.spread.wait_s(self.clock.now_s()))
        run = self.run
        start_s = self.clock.now_s()
        for _ in range(self.repeat):
            run()
        end_s = self.clock.now_s()
        self.starts_s.append(start_s)
        self.ends_s.append(end_s)
        return end_s

    def until(self, at_s: float, counter: EnergyCounter) -> None:
        """Call until a moment is reached, reading the counter no more often than it needs."""
        read_s = self.clock.now_s()
        while (now_s := self.once()) < at_s:
            if now_s - read_s > counter.longest_silence_s:
                counter.read_j()
                read_s = now_s

    def edge(self, counter: EnergyCounter, period_s: float, ticks: int) -> Edge:
        """Call, reading the counter after each call, until it has moved so many times."""
        began_s = asked_s = self.clock.now_s()
        energy_j = counter.read_j()
        begun = len(self.ends_s)
        seen: list[Tick] = []
        while len(seen) < ticks:
            if asked_s - began_s > max(10.0, 100 * period_s) and len(self.ends_s) - begun > 10 and not seen:
                raise CounterStoppedError(f"the energy counter has not moved for {asked_s - began_s:.0f} s")
            self.once()
            asking_s = self.clock.now_s()
            reading_j = counter.read_j()
            now_s = self.clock.now_s()
            if reading_j != energy_j:
                # Of several ticks during one call we see the last, which is less than a period old.
                seen.append(Tick(max(asked_s, asking_s - 1.02 * period_s), now_s, reading_j))
            asked_s, energy_j = asking_s, reading_j
        return locate(seen, period_s)

    def done(self, at_s: float) -> float:
        """How many calls were complete at a moment, the finished part of a call included."""
        begun = bisect_right(self.starts_s, at_s)
        if begun == 0:
            return 0.0
        length_s = self.ends_s[begun - 1] - self.starts_s[begun - 1]
        part = min(1.0, (at_s - self.starts_s[begun - 1]) / length_s) if length_s > 0 else 1.0
        return (begun - 1 + part) * self.repeat

    def typical_s(self) -> float:
        """The median time of a call, of the later half of them."""
        lengths_s = [end_s - start_s for start_s, end_s in zip(self.starts_s, self.ends_s, strict=True)]
        return median(lengths_s[len(lengths_s) // 2 :]) / self.repeat

    def latency_s(self, first_s: float, last_s: float) -> float:
        """The mean time of the calls that began between two moments."""
        begun, ended = bisect_right(self.starts_s, first_s), bisect_right(self.starts_s, last_s)
        lengths_s = [end_s - start_s for start_s, end_s in zip(self.starts_s, self.ends_s, strict=True)]
        return fmean(lengths_s[begun:ended]) / self.repeat


def locate(ticks: list[Tick], period_s: float) -> Edge:
    """The moment of the first of some ticks, from what all of them say about it.

    The k-th tick after it, seen after a and by b, puts it between a - k period and b - k period. Where these statements
    contradict each other, the counter is not regular, and the mean of their middles is the best guess.
    """
    first = ticks[0]
    offsets_s = [period_s * round((tick.middle_s - first.middle_s) / period_s) for tick in ticks]
    after_s = max(tick.after_s - offset_s for tick, offset_s in zip(ticks, offsets_s, strict=True))
    by_s = min(tick.by_s - offset_s for tick, offset_s in zip(ticks, offsets_s, strict=True))
    if after_s < by_s:
        return Edge((after_s + by_s) / 2, (by_s - after_s) / 2, first.energy_j)
    middle_s = fmean(tick.middle_s - offset_s for tick, offset_s in zip(ticks, offsets_s, strict=True))
    return Edge(middle_s, (first.by_s - first.after_s) / 2, first.energy_j)
