"""What is written down of a measured latency, and what its reader must know."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from .host import Load
from .statistics import Interval, Ratio, Verdict


class Flag(StrEnum):
    """What a reader of a latency must know about how it came about."""

    CONTENDED = "contended"  # processes waited for processors while we measured
    OTHERS_BUSY = "others-busy"  # other processes kept a quarter of a processor or more busy
    STOLEN = "stolen"  # the hypervisor took 2 % of a processor or more
    NOT_STEADY = "not-steady"  # the warm-up's time ended while calls still got faster
    FEW_ROUNDS = "few-rounds"  # the budget ended before there were rounds enough for the asked confidence
    FEW_PLACES = "few-places"  # nor did it allow to load the networks often enough to see how places in memory differ
    WIDE = "wide"  # the budget ended before the interval was as narrow as asked
    NEAR_TIMER = "near-timer"  # a call is less than 20 readings of the clock, so groups of calls were timed, if at all
    SLOWED = "slowed"  # the reference never came within a tenth of the latency it is known to have
    UNEVEN = "uneven"  # a quarter of the rounds or more found the machine slowed down, and do not count
    OVERHEAD_BOUND = "overhead-bound"  # at least half of the latency is the floor: runtime overhead, not arithmetic


@dataclass(frozen=True)
class Latency:
    """One run's latency, as measured.

    Args:
        median_s: median over the undisturbed rounds (see `statistics.undisturbed`) of the time of one call, on `clock`.
        ci: where the true median lies.
        p50_s, p90_s, p99_s: percentiles of all timed calls on the wall clock; None where there are fewer than 2, 10 or
            100 of them. Where calls are timed in groups, of the groups' mean calls.
        n: timed calls.
        clock: "wall", or "thread-cpu" where the machine was contended and calls are longer than a scheduler slice; then
            `median_s`, `ci` and `ratio` leave out the time in which other processes ran.
        wall_median_s: the median over all rounds on the wall clock, whichever clock was chosen.
        ratio: the run over its reference, with its interval; None without a reference, and where a round
            was too short for the clock. See `statistics.undisturbed_ratio`.
        verdict: what the ratio amounts to; None without a reference.
        reference_s: median of the reference on `clock`.
        floor_s: median of the floor over the undisturbed rounds, on the wall clock: what a network of as many nodes
            that do nothing takes.
        overhead_bound: whether the floor is at least half of the run's time in the same rounds; None without a floor.
        flags: what to know before using the figures; see `Flag`.
        load: what else the machine did meanwhile.
        timer_s: cost of one reading of the clock, already taken off each call.
        elapsed_s: time the series took, warm-up included, waiting for the device not.
        waited_s: time spent waiting for the device.
        kept: how many rounds were undisturbed.
        places: in how many places in memory the run or its reference was measured: 1 where neither can be moved.
        rounds_s: the run's value of every round, on `clock`; equal positions in one series belong together.
        reference_rounds_s: the reference's.
        place_rounds: how many of these rounds belong to each place, one after the other; empty where neither the run
            nor its reference can be moved.
    """

    median_s: float
    ci: Interval
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    n: int
    clock: str
    wall_median_s: float
    ratio: Ratio | None = None
    verdict: Verdict | None = None
    reference_s: float | None = None
    floor_s: float | None = None
    overhead_bound: bool | None = None
    flags: tuple[Flag, ...] = ()
    load: Load = field(default_factory=lambda: Load(None, None, None))
    timer_s: float = 0.0
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    kept: int = 0
    places: int = 1
    rounds_s: tuple[float, ...] = field(default=(), repr=False)
    reference_rounds_s: tuple[float, ...] = field(default=(), repr=False)
    place_rounds: tuple[int, ...] = field(default=(), repr=False)

    def as_dict(self, *, samples: bool = True) -> dict[str, object]:
        """Plain data, ready for JSON.

        Args:
            samples: whether to include the values of every round, to five digits.
        """
        record: dict[str, object] = {
            "median_s": self.median_s,
            "ci": self.ci.as_dict(),
            "p50_s": self.p50_s,
            "p90_s": self.p90_s,
            "p99_s": self.p99_s,
            "n": self.n,
            "clock": self.clock,
            "wall_median_s": self.wall_median_s,
            "ratio": None if self.ratio is None else self.ratio.as_dict(),
            "verdict": None if self.verdict is None else self.verdict.value,
            "reference_s": self.reference_s,
            "floor_s": self.floor_s,
            "overhead_bound": self.overhead_bound,
            "flags": [flag.value for flag in self.flags],
            "load": self.load.as_dict(),
            "timer_s": self.timer_s,
            "elapsed_s": self.elapsed_s,
            "waited_s": self.waited_s,
            "rounds": len(self.rounds_s),
            "kept": self.kept,
            "places": self.places,
        }
        if samples:
            record["rounds_s"] = [float(f"{value:.5g}") for value in self.rounds_s]
            record["reference_rounds_s"] = [float(f"{value:.5g}") for value in self.reference_rounds_s]
            record["place_rounds"] = list(self.place_rounds)
        return record
