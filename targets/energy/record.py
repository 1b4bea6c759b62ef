"""What an energy measurement says: joules per inference, how sure they are, and what to know about them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum

from ..statistics import Interval


class Grade(StrEnum):
    """How good a figure is, best first."""

    COUNTER = "counter"  # from the device's own energy counter
    POWER_SAMPLES = "power-samples"  # from samples of the device's power, summed up here
    ESTIMATED = "estimated"  # counted from operations and bytes; nothing was measured


class EnergyFlag(StrEnum):
    """What a reader of an energy must know about how it came about."""

    THROTTLED = "throttled"  # the device slowed itself down for power or heat
    CLOCKS_MOVED = "clocks-moved"  # its clock differed by more than 5 % between windows
    FOREIGN_LOAD = "foreign-load"  # other processes used the device
    IDLE_DRIFTS = "idle-drifts"  # idle power before and after differ by more than 5 %
    MAY_ALIAS = "may-alias"  # calls are long against the counter's period; they were spread over it with gaps
    IRREGULAR = "irregular"  # the counter did not move at regular times
    BELOW_RESOLUTION = "below-resolution"  # the energy above idle cannot be told from none
    WIDE = "wide"  # the budget ended before the interval was as narrow as asked
    LOWER_GRADE = "lower-grade"  # there is no energy counter; power samples were summed up
    ESTIMATED = "estimated"  # nothing was measured
    INCOMPLETE = "incomplete"  # parts of the network could not be counted; the reason names them


@dataclass(frozen=True)
class Observation:
    """The state of the device at one moment; None where it does not tell.

    Args:
        sm_clock_mhz: clock of its processors.
        memory_clock_mhz: clock of its memory.
        temperature_c: temperature of the chip.
        throttle: reasons for which it runs slower than it could.
        foreign: ids of other processes that use it.
        others: host processors that other processes kept busy since the last observation.
    """

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    throttle: tuple[str, ...] = ()
    foreign: tuple[int, ...] = ()
    others: float | None = None


@dataclass(frozen=True)
class Energy:
    """The energy of one call.

    Args:
        energy_j: joules of the device per call, its idle power while the call runs included; None if there is no
            figure, and then `reason` says why. It is never 0 for want of a meter.
        energy_above_idle_j: joules per call beyond what the device draws anyway.
        interval: where `energy_j` lies (95 %).
        above_idle_interval: where `energy_above_idle_j` lies (95 %).
        grade: where the figure comes from.
        reason: why there is no figure, or what to know of the meter.
        device: name and identity of the device.
        power_w: mean power over the windows.
        idle_power_w: power without calls, mean of before and after.
        latency_s: mean time of one call in the windows.
        calls: calls in the windows.
        windows: number of windows.
        window_s: length of all windows together.
        span_s: when the first window began and the last one ended, on the meter's clock.
        counter_period_s: how often the counter moves, as observed.
        gap_share: share of the windows in which no call ran: gaps, and reading the counter.
        flags: what to know before using the figures.
        windows_j: `energy_j` of each window.
        observations: the device before, between and after the windows.
    """

    energy_j: float | None
    energy_above_idle_j: float | None = None
    interval: Interval | None = None
    above_idle_interval: Interval | None = None
    grade: Grade | None = None
    reason: str | None = None
    device: str = ""
    power_w: float | None = None
    idle_power_w: float | None = None
    latency_s: float | None = None
    calls: int = 0
    windows: int = 0
    window_s: float = 0.0
    span_s: tuple[float, float] = (0.0, 0.0)
    counter_period_s: float | None = None
    gap_share: float | None = None
    flags: tuple[EnergyFlag, ...] = ()
    windows_j: tuple[float, ...] = field(default=(), repr=False)
    observations: tuple[Observation, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, object]:
        """Plain data, ready for JSON."""
        record: dict[str, object] = asdict(self)
        record["grade"] = None if self.grade is None else self.grade.value
        record["flags"] = [flag.value for flag in self.flags]
        return record
