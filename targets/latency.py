"""How long one inference takes, how sure that is, and whether it is faster than another one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..ir.errors import UsageError
from .host import Host, Load, ThisHost
from .latency_record import Flag, Latency
from .lock import DEFAULT_TIMEOUT_S, device_lock
from .moving import Movable, Run
from .series import NEAR_READINGS, WALL, Lane, SeriesOfRounds, no_collection
from .statistics import (
    SLOWED,
    Interval,
    Places,
    Ratio,
    Verdict,
    fewest_places,
    judge,
    median_interval,
    percentile,
    undisturbed,
    undisturbed_ratio,
)

# After how many rounds the samples are looked at. Half of the permitted error is spent on looking early, half on the
# last look, which comes when the time is up.
LOOKS = tuple(int(16 * 1.5**look) for look in range(12))
EARLY_SHARE = 0.5 / (len(LOOKS) - 1)
LAST_SHARE = 0.5
NEAR_MARGIN = 1 / 3
"""Least margin of verdicts on calls near the timer: equal code differed by a quarter, by its place in memory."""
FAR_SHARE = 0.1
"""Where places differ, the ratio need not be known better than to this part of the logarithm it differs from 1 by."""


@dataclass(frozen=True)
class LatencySeries(Mapping[str, Latency]):
    """The latencies of runs that were measured in turns, by name; any two of them can be compared.

    Args:
        records: one per run.
        confidence: of the verdicts.
        margin: of the verdicts.
    """

    records: Mapping[str, Latency]
    confidence: float
    margin: float

    def __getitem__(self, name: str) -> Latency:
        return self.records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def compare(self, name: str, other: str) -> tuple[Ratio | None, Verdict]:
        """One run against another of the same series, as if the other had been its reference.

        There is no ratio, and the verdict is AMBIGUOUS, where a round of either was too short for the clock.

        Args:
            name: the run judged.
            other: the run it is judged against.
        """
        rounds_s = np.array([self[name].rounds_s, self[other].rounds_s], dtype=np.float64)
        places = _places(self[name].place_rounds or self[other].place_rounds)
        ratio = _ratio(rounds_s, self.confidence, EARLY_SHARE, places)
        near = any(Flag.NEAR_TIMER in self[each].flags for each in (name, other))
        return ratio, _verdict(ratio, self.margin, self.confidence, near)


@dataclass(frozen=True)
class LatencyMeter:
    """Measures the latency of anything that can be called.

        latency = LatencyMeter().measure(run, reference=other)
        print(latency.median_s, latency.ratio, latency.verdict)

    The runs take turns in short blocks, so what happens to the machine happens to all of them; ratios are taken round
    by round, and intervals come from rounds, since neighbouring calls are not independent. Measuring stops when the
    ratio (without a reference: the median) is known to the asked width and the verdict is clear, or when time is up.

    Where a network lies in memory changes its latency by several percent. Runs that are `Movable` are therefore loaded
    anew, again and again, and their figures hold for the network; intervals come from places then. Any other callable
    stays where it is: its memory is the caller's, and the figures hold for this one place. Two sessions of one network
    may be called FASTER or SLOWER then.

    Args:
        budget_s: time for one series, warm-up and loading included. It may be overrun by one round.
        patience: where other processes take the processor, only the share of the time that the runs get counts against
            the budget, up to so many times the budget in all.
        width: asked half-width of the interval, relative to its middle. Of runs in several places, a tenth of the
            ratio's logarithm will do as well: how places differ seldom lets them be known to 1 %.
        margin: relative difference up to which two runs are the SAME.
        confidence: of intervals and verdicts; it holds although the samples are looked at repeatedly.
        clock: "auto", or "wall" (for runs that work outside the calling thread while it spins, as on a GPU).
        moving_share: how much of the time may go into loading movable runs anew, and a few calls of each there; with 0
            they stay where they are, and `few-places` says so.
        block_s: how long the timed part of one block should take; it is never less than one call.
        devices: what to lock while measuring, besides the processor ("cpu").
        lock: False if the caller makes sure that nobody else measures.
        lock_timeout_s: the longest wait for the devices.
        seed: of the order in which the runs take turns.
        host: whose clocks to read.
    """

    budget_s: float = 10.0
    patience: float = 4.0
    width: float = 0.01
    margin: float = 0.02
    confidence: float = 0.99
    clock: Literal["auto", "wall"] = "auto"
    moving_share: float = 0.5
    block_s: float = 0.004
    devices: tuple[str, ...] = ()
    lock: bool = True
    lock_timeout_s: float = DEFAULT_TIMEOUT_S
    seed: int = 0
    host: Host = field(default_factory=ThisHost)

    def __post_init__(self) -> None:
        bounds = {"budget_s": 0.0, "block_s": 0.0, "width": 0.0, "margin": 0.0, "patience": 1.0}
        for name, least in bounds.items():
            value = getattr(self, name)
            if not least <= value < math.inf or (value == 0 and name != "margin"):
                raise UsageError(f"expected {name} of {'more than 0' if least == 0 else 'at least 1'}, found {value}")
        if not 0 <= self.moving_share < 1:
            raise UsageError(f"expected a moving_share of at least 0 and below 1, found {self.moving_share}")
        if not self.lock_timeout_s >= 0:
            raise UsageError(f"expected lock_timeout_s of at least 0, found {self.lock_timeout_s}")
        if not 0 < self.confidence < 1:
            raise UsageError(f"expected a confidence between 0 and 1, found {self.confidence}")
        if self.clock not in ("auto", "wall"):
            raise UsageError(f"expected the clock 'auto' or 'wall', found {self.clock!r}")

    def measure(
        self,
        run: Run | Movable,
        reference: Run | Movable | None = None,
        floor: Run | None = None,
        known_s: float | None = None,
    ) -> Latency:
        """Measure one run, paired with a reference if one is given.

        Args:
            run: one inference; it must have finished when the call returns. If it is `Movable`, it is loaded anew.
            reference: another inference to compare with.
            floor: an inference of a network of as many nodes that do nothing: what the runtime costs by itself.
            known_s: the reference's latency from earlier series on this device, at the machine's best. While it takes
                over a tenth longer, others slow the machine down, and the ratio may be another one than before: no
                verdict is final then, and the time counts as time without a processor does (see `patience`).

        Raises:
            DeviceBusyError: the device did not come free in time.
        """
        return self.measure_together({"": run}, reference, {} if floor is None else {"": floor}, known_s)[""]

    def measure_together(
        self,
        runs: Mapping[str, Run | Movable],
        reference: Run | Movable | None = None,
        floors: Mapping[str, Run] | None = None,
        known_s: float | None = None,
    ) -> LatencySeries:
        """Measure several runs in one series of rounds.

        Args:
            runs: inferences by name; those that are `Movable` are loaded anew, all at the same time.
            reference: what each of them is compared with.
            floors: floors of some of the runs, by the same names.
            known_s: as in `measure`.

        Raises:
            DeviceBusyError: the device did not come free in time.
            UsageError: no runs, or a floor without a run.
        """
        floors = {} if floors is None else floors
        if not runs:
            raise UsageError("expected at least one run to measure, found none")
        if unknown := set(floors) - set(runs):
            raise UsageError(f"floors of unknown runs: {', '.join(sorted(unknown))}", mend="Name a run for each floor.")
        if not self.lock:
            return self._measure(runs, reference, floors, known_s)
        with device_lock("cpu", *self.devices, timeout_s=self.lock_timeout_s) as hold:
            series = self._measure(runs, reference, floors, known_s)
        records = {name: replace(record, waited_s=hold.waited_s) for name, record in series.items()}
        return replace(series, records=records)

    def _measure(
        self,
        runs: Mapping[str, Run | Movable],
        reference: Run | Movable | None,
        floors: Mapping[str, Run],
        known_s: float | None,
    ) -> LatencySeries:
        lanes = {name: Lane(name, run) for name, run in runs.items()}
        base = None if reference is None else Lane("reference", reference)
        floor_lanes = {name: Lane(f"floor of {name}", run, compared=False) for name, run in floors.items()}
        everything = [*lanes.values(), *([base] if base else []), *floor_lanes.values()]
        series = SeriesOfRounds(self.host, everything, self.seed, self.moving_share)
        began_s = self.host.wall_s()
        records: dict[str, Latency] = {}
        with no_collection():
            series.prepare(self.block_s, self.budget_s, LOOKS[0])
            while True:
                series.move(self._left_s(series, began_s))
                series.run_round()
                elapsed_s = self.host.wall_s() - began_s
                over = elapsed_s >= self.patience * self.budget_s or series.rounds >= LOOKS[-1]
                if elapsed_s * series.share() >= self.budget_s:
                    over = over or not self._slowed(series, base, known_s)
                if not over and series.rounds not in LOOKS:
                    continue
                load, share = series.load(), LAST_SHARE if over else EARLY_SHARE
                records = {
                    name: self._record(series, load, share, lane, base, floor_lanes.get(name))
                    for name, lane in lanes.items()
                }
                settled = all(self._settled(record) for record in records.values())
                if over or (settled and not self._slowed(series, base, known_s)):
                    break
        elapsed_s = self.host.wall_s() - began_s
        more = (Flag.SLOWED,) if self._slowed(series, base, known_s) else ()
        records = {n: replace(r, elapsed_s=elapsed_s, flags=r.flags + more) for n, r in records.items()}
        return LatencySeries(records, self.confidence, self.margin)

    def _left_s(self, series: SeriesOfRounds, began_s: float) -> float:
        """The time left; where the budget is over and a spell is waited for, until that ends."""
        elapsed_s = self.host.wall_s() - began_s
        left_s = self.budget_s - elapsed_s * series.share()
        return left_s if left_s > 0 else self.patience * self.budget_s - elapsed_s

    def _slowed(self, series: SeriesOfRounds, base: Lane | None, known_s: float | None) -> bool:
        if base is None or known_s is None:
            return False
        rounds_s = np.array(_rounds(base, self._clock(series, series.load())))
        return float(np.median(rounds_s[undisturbed([rounds_s])])) > SLOWED * known_s

    def _clock(self, series: SeriesOfRounds, load: Load) -> str:
        return WALL if self.clock == "wall" else series.clock(load)

    def _settled(self, record: Latency) -> bool:
        if record.verdict == Verdict.AMBIGUOUS and record.ratio is not None:
            return record.ratio.half_width <= self.width / 4  # on the edge of the margin: more rounds will not tell
        return not {Flag.FEW_ROUNDS, Flag.FEW_PLACES, Flag.WIDE} & set(record.flags)

    def _record(
        self, series: SeriesOfRounds, load: Load, share: float, lane: Lane, base: Lane | None, floor: Lane | None
    ) -> Latency:
        clock = self._clock(series, load)
        compared = [lane] if base is None else [lane, base]
        rounds_s = np.array([_rounds(each, clock) for each in compared], dtype=np.float64)
        kept = undisturbed(rounds_s)
        place_rounds = tuple(series.places.rounds) if any(isinstance(each.run, Movable) for each in compared) else ()
        places = _places(place_rounds)
        ci = median_interval(rounds_s[0, kept], self.confidence, share, None if places is None else places[kept])
        median_s = float(np.median(rounds_s[0, kept]))
        wall_median_s = float(np.median(lane.wall_rounds_s))
        ratio = None if base is None else _ratio(rounds_s, self.confidence, share, places)
        floor_s = None if floor is None else float(np.median(np.array(floor.wall_rounds_s)[kept]))
        same_s = float(np.median(np.array(lane.wall_rounds_s)[kept]))
        overhead_bound = None if floor_s is None else floor_s >= same_s / 2
        width = _half_width(ci, median_s) if ratio is None else ratio.half_width
        known = ci if ratio is None else ratio.interval
        flags = {
            Flag.CONTENDED: series.contended(load),
            Flag.OTHERS_BUSY: load.others is not None and load.others >= 0.25,
            Flag.STOLEN: load.steal is not None and load.steal >= 0.02,
            Flag.NOT_STEADY: not all(each.steady for each in compared),
            Flag.FEW_ROUNDS: known.confidence < self.confidence,
            Flag.FEW_PLACES: known.places is not None and known.places < fewest_places(self.confidence),
            Flag.WIDE: width > (self.width if places is None else max(self.width, _far_width(ratio))),
            Flag.NEAR_TIMER: wall_median_s < NEAR_READINGS * series.step_s or not rounds_s.all(),
            Flag.UNEVEN: kept.mean() <= 0.75,
            Flag.OVERHEAD_BOUND: overhead_bound is True,
        }
        return Latency(
            median_s=median_s,
            ci=ci,
            p50_s=percentile(lane.walls_s, 50),
            p90_s=percentile(lane.walls_s, 90),
            p99_s=percentile(lane.walls_s, 99),
            n=len(lane.walls_s) * lane.group,
            clock=clock,
            wall_median_s=wall_median_s,
            ratio=ratio,
            verdict=None if base is None else _verdict(ratio, self.margin, self.confidence, flags[Flag.NEAR_TIMER]),
            reference_s=None if base is None else float(np.median(rounds_s[1, kept])),
            floor_s=floor_s,
            overhead_bound=overhead_bound,
            flags=tuple(flag for flag, raised in flags.items() if raised),
            load=load,
            timer_s=series.timer_s,
            kept=int(kept.sum()),
            places=max(1, len(place_rounds)),
            rounds_s=tuple(_rounds(lane, clock)),
            reference_rounds_s=() if base is None else tuple(_rounds(base, clock)),
            place_rounds=place_rounds,
        )


def _ratio(rounds_s: npt.NDArray[np.float64], confidence: float, share: float, places: Places | None) -> Ratio | None:
    """The ratio of a run to its reference; None where a round was too short for the clock."""
    return undisturbed_ratio(rounds_s[0], rounds_s[1], confidence, share, places) if rounds_s.all() else None


def _places(place_rounds: Sequence[int]) -> npt.NDArray[np.int64] | None:
    """Of each round its place, from how many rounds each place has; None where there is no place to tell."""
    return np.repeat(np.arange(len(place_rounds)), place_rounds) if place_rounds else None


def _far_width(ratio: Ratio | None) -> float:
    """The half-width that does for a ratio far from 1."""
    return 0.0 if ratio is None else FAR_SHARE * abs(math.log(ratio.value))


def _verdict(ratio: Ratio | None, margin: float, confidence: float, near_timer: bool) -> Verdict:
    """The verdict; of calls near the timer only where they differ by more than places in memory explain."""
    if ratio is None:
        return Verdict.AMBIGUOUS
    found = judge(ratio, max(margin, NEAR_MARGIN) if near_timer else margin, confidence)
    return Verdict.AMBIGUOUS if near_timer and found is Verdict.SAME else found


def _half_width(ci: Interval, median_s: float) -> float:
    return (ci.high - ci.low) / 2 / median_s if median_s > 0 else math.inf


def _rounds(lane: Lane, clock: str) -> list[float]:
    return lane.wall_rounds_s if clock == WALL else lane.cpu_rounds_s
