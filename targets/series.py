"""Timed calls of several runs in turns: warm-up, blocks, rounds, and the clock that fits them.

A *block* is a few calls of one run back to back; where another run came before and calls are short, untimed ones lead
in, so that the run finds its own data in the caches. A *round* is a block of every run in random order and another in
the opposite order (A B B A), so a drift of the machine that is steady over a round cancels from every ratio. Runs that
can be moved are loaded into other memory between rounds; the rounds from one move to the next are those of one *place*.
"""

from __future__ import annotations

import gc
import math
from array import array
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise, repeat, starmap
from random import Random
from statistics import fmean, median

from .host import Counters, Host, Load
from .moving import Movable, Places, Run, here

WALL = "wall"
THREAD_CPU = "thread-cpu"

# Linux lets a task run for about this long before another that waits gets its turn (EEVDF's base slice: 2.8 ms).
SCHEDULER_SLICE_S = 0.003
# Calls of at least this length are not led in: the time is better spent on calls that count. In random order each run
# finds the other's data as often; ResNet-18 in 8 bits over float (3 and 9 ms) came out the same to 1 % either way.
LONG_S = 0.003
# From these loads on, a machine is said to be contended.
PRESSURE_LIMIT = 0.05
WALL_PER_CPU_LIMIT = 1.03
# More calls than this in one block say no more about its median, and keeping their times costs time between blocks.
MOST_CALLS = 500
NEAR_READINGS = 20
"""Calls of fewer readings of the clock than this are timed in groups."""
GROUP_READINGS = 100
"""Such a group takes at least so many."""
ALIKE = 1.5
"""Calls whose lengths differ by less get blocks of one kind: VGG7 in 8 bits, 2.7 ms a call, came out 11 % slower with
one call that is not led in than with two that are."""
SIZING_TURNS = 5
"""So many looks at the length of a call before the sizes of blocks are chosen."""
SETTLING_CALLS = 3
"""Untimed calls of a network in a new place, at least: MobileNetV2's first two took 1.6 and 1.2 times the rest's."""


@dataclass
class Lane:
    """One run of a series and what was seen of it.

    Args:
        name: what the caller calls it.
        run: one inference, finished when it returns.
        compared: False for a floor: it takes its turns but decides nothing.
        lead_in: untimed calls at the start of a block that follows another run's.
        calls: timed calls of each block; groups of calls, where one is too short for the clock.
        group: calls of a group.
        walls_s: every timed call, on the wall clock; of a group, its mean call.
        wall_rounds_s: of each round, the mean of its two blocks' median calls on the wall clock.
        cpu_rounds_s: of each round, the mean call on the thread's clock.
    """

    name: str
    run: Run | Movable
    compared: bool = True
    lead_in: int = 1
    calls: int = 1
    group: int = 1
    steady: bool = True
    walls_s: array[float] = field(default_factory=lambda: array("d"))
    wall_rounds_s: list[float] = field(default_factory=list[float])
    cpu_rounds_s: list[float] = field(default_factory=list[float])
    block_walls_s: list[float] = field(default_factory=list[float])
    block_cpus_s: list[float] = field(default_factory=list[float])
    wall_s: float = 0.0
    thread_s: float = 0.0
    process_s: float = 0.0
    waits: int | None = 0

    def time_block(self, host: Host, timer_s: float, *, lead_in: bool) -> None:
        """Run one block and note what it took."""
        run, now = here(self.run), host.wall_s
        run = run if self.group == 1 else repeated(run, self.group)
        for _ in range(self.lead_in if lead_in else 0):
            run()
        stamps = [0.0] * (self.calls + 1)
        waits, process_s, thread_s = host.waits(), host.process_s(), host.thread_s()
        stamps[0] = now()
        for call in range(1, self.calls + 1):
            run()
            stamps[call] = now()
        thread_s = host.thread_s() - thread_s
        self.process_s += host.process_s() - process_s
        self.thread_s += thread_s
        self.wall_s += stamps[-1] - stamps[0]
        self.waits = _more(self.waits, waits, host.waits())
        walls_s = [max(later - sooner - timer_s, 0.0) / self.group for sooner, later in pairwise(stamps)]
        self.walls_s.extend(walls_s)
        self.block_walls_s.append(median(walls_s))
        self.block_cpus_s.append(max(thread_s / self.calls - timer_s, 0.0) / self.group)

    def end_round(self) -> None:
        """Sum the round's blocks up."""
        self.wall_rounds_s.append(fmean(self.block_walls_s))
        self.cpu_rounds_s.append(fmean(self.block_cpus_s))
        self.block_walls_s.clear()
        self.block_cpus_s.clear()

    def settle(self) -> None:
        """Call the run in a new place until it is used to it: as often as in a block."""
        run = here(self.run)
        for _ in range(max(SETTLING_CALLS, self.calls * self.group)):
            run()

    @property
    def computes_alone(self) -> bool:
        """Whether the calling thread does all the work and never waits, so its clock measures the run."""
        if self.waits is None or self.thread_s <= 0:
            return False
        return self.process_s <= 1.05 * self.thread_s and self.waits <= 0.1 * len(self.walls_s)


@dataclass
class SeriesOfRounds:
    """Several runs measured in turns on one host.

    Args:
        host: whose clocks to read.
        lanes: the runs, in the order the caller gave them.
        seed: of the order within rounds.
        moving_share: how much of the time of rounds and moves together may go into moves.
        timer_s: what reading the clock adds to every timed call; taken off.
        step_s: the least by which the clock moves, at least `timer_s`.
    """

    host: Host
    lanes: Sequence[Lane]
    seed: int
    moving_share: float = 0.0
    timer_s: float = 0.0
    step_s: float = 0.0
    rounds: int = 0
    last: Lane | None = None
    began: Counters | None = None
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        movers = [lane.run for lane in self.lanes if isinstance(lane.run, Movable)]
        self.places = Places(movers, self.moving_share, self.seed)

    def prepare(self, block_s: float, budget_s: float, rounds: int) -> None:
        """Warm every run up and choose the sizes of the blocks.

        Args:
            block_s: how long the timed part of a block should take; it is never less than one call.
            budget_s: time for everything; a fifth of it may go into warming up.
            rounds: how many rounds the rest of the budget should allow, at the cost of shorter blocks.
        """
        self.timer_s = timer_cost_s(self.host)
        self.step_s = max(self.timer_s, clock_step_s(self.host))
        calls_s: list[float] = []
        for lane in self.lanes:
            call_s, lane.steady = warm_up(self.host, here(lane.run), budget_s / 5 / len(self.lanes))
            calls_s.append(max(call_s, 1e-9))
        calls_s = best_in_turns(self.host, self.lanes, calls_s, NEAR_READINGS * self.step_s)
        timed = 1 - self.moving_share if self.places.movers else 1.0
        share_s = 0.8 * budget_s * timed / rounds / len(self.lanes)
        longest_s = share_s * 8 / 17  # a round is two blocks and a lead-in of an eighth of one
        for lane, call_s in zip(self.lanes, levelled(calls_s), strict=True):
            if call_s < NEAR_READINGS * self.step_s:
                lane.group = max(1, int(min(math.ceil(GROUP_READINGS * self.step_s / call_s), longest_s / call_s)))
            timed_s = lane.group * call_s
            lane.calls = max(1, min(round(block_s / timed_s), int(longest_s / timed_s), MOST_CALLS))
            lane.lead_in = max(1, lane.calls // 8) if share_s >= 3 * timed_s and timed_s < LONG_S else 0
        self.began = self.host.counters()

    def run_round(self) -> None:
        """Two blocks of every run, in mirrored order."""
        order = list(self.lanes)
        Random(f"{self.seed}/{self.rounds}").shuffle(order)
        began_s = self.host.wall_s()
        for lane in (*order, *reversed(order)):
            lane.time_block(self.host, self.timer_s, lead_in=lane is not self.last)
            self.last = lane
        for lane in self.lanes:
            lane.end_round()
        self.places.timed(self.host.wall_s() - began_s)
        self.rounds += 1

    def move(self, left_s: float) -> None:
        """Load the movable runs into other memory, where it is time to and so much time is left."""
        if not self.places.due(left_s):
            return
        began_s = self.host.wall_s()
        self.places.reload()
        moved = [lane for lane in self.lanes if isinstance(lane.run, Movable)]
        for lane in Random(f"{self.seed}/moved/{self.rounds}").sample(moved, len(moved)):
            lane.settle()
        self.last = None
        self.places.moved(self.host.wall_s() - began_s)

    def load(self) -> Load:
        """What else the machine did since the first round."""
        if self.began is None:
            return Load(None, None, None)
        return Load.between(self.began, self.host.counters())

    def share(self) -> float:
        """What part of the time the runs had a processor, where they compute alone; 1 where that cannot be told."""
        if not all(lane.computes_alone for lane in self.lanes):
            return 1.0
        wall_s = sum(lane.wall_s for lane in self.lanes)
        return min(1.0, sum(lane.thread_s for lane in self.lanes) / wall_s) if wall_s > 0 else 1.0

    def contended(self, load: Load) -> bool:
        """Whether processors were scarce while the rounds ran."""
        if load.pressure is not None and load.pressure > PRESSURE_LIMIT:
            return True
        return any(lane.computes_alone and lane.wall_s > WALL_PER_CPU_LIMIT * lane.thread_s for lane in self.lanes)

    def clock(self, load: Load) -> str:
        """The clock on which to compare: the thread's where the wall clock would time other processes too.

        That is so where calls are longer than a scheduler slice (shorter ones mostly fit between two interruptions, and
        medians ignore the rest), the machine is contended, and the calling thread does all the work itself.
        """
        compared = [lane for lane in self.lanes if lane.compared]
        long = any(median(lane.wall_rounds_s) > SCHEDULER_SLICE_S for lane in compared)
        fine = self.host.thread_resolution_s() <= 1e-5
        if long and fine and self.contended(load) and all(lane.computes_alone for lane in compared):
            return THREAD_CPU
        return WALL


def warm_up(host: Host, run: Run, limit_s: float) -> tuple[float, bool]:
    """Call a run until it no longer gets faster.

    Blocks of at least a millisecond are timed; the run is steady when the median of the last three is no more than 2 %
    below that of the three before, after 50 ms at the earliest.

    Returns:
        The seconds of one call, and whether the run was steady when the time limit came.
    """
    blocks_s: list[float] = []
    calls = 1
    run()
    began = host.wall_s()
    while True:
        start = host.wall_s()
        for _ in range(calls):
            run()
        now = host.wall_s()
        blocks_s.append((now - start) / calls)
        if now - start < 1e-3:
            calls *= 2
        elif len(blocks_s) >= 6 and now - began >= 0.05 and median(blocks_s[-3:]) >= 0.98 * median(blocks_s[-6:-3]):
            return median(blocks_s[-3:]), True
        if now - began > limit_s:
            return median(blocks_s[-3:]), False


def best_in_turns(host: Host, lanes: Sequence[Lane], calls_s: Sequence[float], least_s: float) -> list[float]:
    """The length of each lane's call at its best, seen in turns, so that a spell does not make one look longer.

    Only where it matters to blocks, for calls of a few milliseconds and of `least_s`; others keep the given lengths.
    """
    found = list(calls_s)
    for _ in range(SIZING_TURNS):
        for at, (lane, call_s) in enumerate(zip(lanes, calls_s, strict=True)):
            if least_s <= call_s < 4 * LONG_S:
                run, calls = here(lane.run), math.ceil(1e-3 / call_s)
                began_s = host.wall_s()
                for _ in range(calls):
                    run()
                found[at] = min(found[at], max((host.wall_s() - began_s) / calls, 1e-9))
    return found


def levelled(calls_s: Sequence[float]) -> list[float]:
    """Lengths of calls, where those that are nearly alike count as the longest of them."""
    found = list(calls_s)
    order = sorted(range(len(found)), key=lambda lane: found[lane], reverse=True)
    for longer, lane in pairwise(order):
        if calls_s[longer] < ALIKE * calls_s[lane]:
            found[lane] = found[longer]
    return found


def timer_cost_s(host: Host, reads: int = 2000) -> float:
    """What one more reading of the clock adds to the time between two of them: the median over many."""
    now = host.wall_s
    stamps = [0.0] * (reads + 1)
    for read in range(reads + 1):
        stamps[read] = now()
    return median(later - sooner for sooner, later in pairwise(stamps))


def clock_step_s(host: Host, reads: int = 20_000) -> float:
    """The least time by which the clock was seen to move over many readings; 0 where it was not."""
    now = host.wall_s
    seen = {now() for _ in range(reads)}
    return min((later - sooner for sooner, later in pairwise(sorted(seen))), default=0.0)


def repeated(run: Run, times: int) -> Run:
    """A run several times over, without the interpreter's cache at the place of a call, which favours one callable."""
    return lambda: deque(starmap(run, repeat((), times)), maxlen=0)


def _more(total: int | None, before: int | None, after: int | None) -> int | None:
    if total is None or before is None or after is None:
        return None
    return total + after - before


@contextmanager
def no_collection() -> Generator[None, None, None]:
    """Keep Python's garbage collector from running between timed calls."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
