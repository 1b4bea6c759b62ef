"""A machine whose clock, noise and neighbours the test decides: measuring on it is exact and takes no real time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from nasc.targets.host import Counters


@dataclass
class Machine:
    """A host (`nasc.targets.host.Host`) that only moves when something runs on it.

    Args:
        drift: factor by which everything is slower at a time in seconds.
        noise: standard deviation of the logarithm of one call's cost.
        read_s: what reading the clock costs.
        preempted: share of the wall time that other processes take, in slices of 3 ms.
    """

    drift: Callable[[float], float] = lambda _: 1.0
    noise: float = 0.0
    read_s: float = 0.0
    preempted: float = 0.0
    others: float = 0.0
    seed: int = 0
    now_s: float = 0.0
    cpu_s: float = 0.0
    helpers_s: float = 0.0
    waited: int = 0
    pressure_s: float = 0.0
    untold_s: float = 0.0
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def wall_s(self) -> float:
        self.now_s += self.read_s
        self.cpu_s += self.read_s
        return self.now_s

    def thread_s(self) -> float:
        return self.cpu_s

    def process_s(self) -> float:
        return self.cpu_s + self.helpers_s

    def waits(self) -> int | None:
        return self.waited

    def thread_resolution_s(self) -> float:
        return 1e-9

    def counters(self) -> Counters:
        busy_s = self.cpu_s + self.helpers_s + self.others * self.now_s
        return Counters(self.now_s, self.process_s(), self.pressure_s, busy_s, 0.0)

    def work(self, cost_s: float, *, threads: int = 1, asleep: bool = False) -> Callable[[], None]:
        """A run that takes `cost_s` on a quiet machine, on so many threads, computing or asleep."""

        def run() -> None:
            spent_s = cost_s * self.drift(self.now_s) * math.exp(self.random.gauss(0, self.noise))
            self.now_s += spent_s
            if asleep:
                self.waited += 1
                return
            self.cpu_s += spent_s
            self.helpers_s += spent_s * (threads - 1)
            self.untold_s += spent_s * self.preempted / (1 - self.preempted) if self.preempted else 0.0
            slices = int(self.untold_s / 0.003 + self.random.random())
            self.untold_s -= slices * 0.003
            self.now_s += slices * 0.003
            self.pressure_s += slices * 0.003

        return run

    def network(self, cost_s: float, scatter: float, load_s: float = 0.04) -> Moved:
        """A run that can be loaded anew, and is faster or slower by chance each time."""
        return Moved(self, cost_s, scatter, load_s)


@dataclass
class Moved:
    """A network on a machine (`nasc.targets.moving.Movable`).

    Args:
        machine: where it runs.
        cost_s: what one call takes in a typical place.
        scatter: standard deviation of the logarithm of that from place to place.
        load_s: what loading takes.
        shifts: the factor of each place so far.
    """

    machine: Machine
    cost_s: float
    scatter: float
    load_s: float
    shifts: list[float] = field(default_factory=list[float])
    run: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.load()

    def __call__(self) -> None:
        self.call()

    @property
    def call(self) -> Callable[[], None]:
        assert self.run is not None
        return self.run

    def release(self) -> None:
        assert self.run is not None
        self.run = None

    def load(self) -> None:
        assert self.run is None
        self.machine.now_s += self.load_s
        self.machine.cpu_s += self.load_s
        self.shifts.append(math.exp(self.machine.random.gauss(0, self.scatter)))
        self.run = self.machine.work(self.cost_s * self.shifts[-1])


@pytest.fixture
def machine() -> type[Machine]:
    """The class, for a test to make its own machines."""
    return Machine
