"""Runs whose network can be loaded anew into other memory, and when a series of measurements moves them.

Where a session lies (physical pages, and so caches) changes its latency by several percent for as long as it lives. A
figure that is to hold for the network comes from several such *places*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, runtime_checkable

Run = Callable[[], object]


@runtime_checkable
class Movable(Protocol):
    """A run that can be moved: `release`, then `load`, and `call` is the same network in new memory."""

    @property
    def call(self) -> Run:
        """One inference where the network lies now; finished when it returns."""
        ...

    @property
    def load_s(self) -> float:
        """How long the last loading took, in seconds."""
        ...

    def __call__(self) -> object:
        """One inference."""
        ...

    def release(self) -> None:
        """Let the network go, with its memory. Nobody else may hold what `call` gave."""
        ...

    def load(self) -> None:
        """Load the network anew."""
        ...


class Loaded:
    """A network that is loaded anew by a function (`Movable`).

    Args:
        make: loads the network and gives its call.
        call: the network as it is loaded already.
        load_s: how long that took, in seconds.
    """

    def __init__(self, make: Callable[[], Run], call: Run, load_s: float) -> None:
        self._make = make
        self._call: Run | None = call
        self.load_s = load_s

    def __call__(self) -> object:
        return self.call()

    @property
    def call(self) -> Run:
        """One inference; loads the network where it was let go and never came back."""
        if self._call is None:
            self._call = self._make()
        return self._call

    def release(self) -> None:
        """Let the network go."""
        self._call = None

    def load(self) -> None:
        """Load it anew."""
        began_s = time.perf_counter()
        self._call = self._make()
        self.load_s = time.perf_counter() - began_s


def here(run: Run | Movable) -> Run:
    """What to call for one inference, without the detour through a movable run."""
    return run.call if isinstance(run, Movable) else run


@dataclass
class Places:
    """Where the movable runs of a series have been, and whether it is time to move them.

    Args:
        movers: the runs; all are moved together.
        share: how much of the time of rounds and moves together may go into moves.
        seed: of the order in which they are loaded.
        rounds: how many rounds were timed in each place so far.
        rounds_s: time that all rounds took.
        moves_s: time that all moves took.
        move_s: what the next move is expected to take: as the last one, at first as the loading before the series.
    """

    movers: Sequence[Movable]
    share: float
    seed: int
    rounds: list[int] = field(default_factory=lambda: [0])
    rounds_s: float = 0.0
    moves_s: float = 0.0
    move_s: float = 0.0

    def __post_init__(self) -> None:
        self.move_s = sum(run.load_s for run in self.movers)

    def timed(self, seconds: float) -> None:
        """Note a round."""
        self.rounds[-1] += 1
        self.rounds_s += seconds

    def moved(self, seconds: float) -> None:
        """Note a move."""
        self.rounds.append(0)
        self.moves_s += seconds
        self.move_s = seconds

    def due(self, left_s: float) -> bool:
        """Whether to move now, with so much time left: it leaves the rounds their share, and time for some there."""
        if not self.movers or not self.rounds[-1] or 2 * self.move_s > left_s:
            return False
        return (self.moves_s + self.move_s) * (1 - self.share) <= self.rounds_s * self.share

    def reload(self) -> None:
        """Let all of them go, then load each anew, in random orders: never two of one network at a time."""
        random = Random(f"{self.seed}/places/{len(self.rounds)}")
        for run in random.sample(list(self.movers), len(self.movers)):
            run.release()
        for run in random.sample(list(self.movers), len(self.movers)):
            run.load()
