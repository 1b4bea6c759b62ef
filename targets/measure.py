"""What it means to measure a model file on a target: under which conditions, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir import UsageError
from ..ir.errors import did_you_mean
from .artifact import Artifact
from .base import Target
from .host import check_threads
from .inputs import InputShape
from .latency_record import Flag, Latency
from .series import WALL
from .statistics import PLACE_MARGIN, Interval

if TYPE_CHECKING:
    from .energy import Energy, EnergyMeter

METRICS = ("latency", "energy")

LOADING_S = 120.0
"""How long loading the models may take by default, and a few calls of each."""
REST_S = 15.0
"""What an energy meter needs beside its budget: rest before and after, and the windows that have begun."""
TOO_FEW = "too few rounds for an interval"


@dataclass(frozen=True)
class Conditions:
    """How to measure.

    Args:
        metrics: `latency`, `energy`.
        batch: length of the batch axis of made-up inputs, where the file leaves it open.
        threads: threads of the runtime.
        budget_s: time to spend on latency, and on energy, at most.
        meter: of energy; see `targets.energy.chosen_meter`.
        floor: whether to measure beside the network one of as many nodes that do nothing.
        baseline_energy: whether the baseline's energy is measured too.
        limit_s: when to give up, for measuring in a process of its own; None: two minutes beyond the budgets.
        memory_limit_bytes: what such a process may have; None: four fifths of the free memory.
        inputs: shapes for made-up inputs, in order or by name.
        exact_batch: refuse files whose batch is fixed at another length, and do not measure them at their own.

    Raises:
        UsageError: an unknown metric, none at all, a batch or a number of threads below 1, more threads than
            processors may be used, or a time or a memory that is not more than 0 and finite.
    """

    metrics: tuple[str, ...] = ("latency",)
    batch: int = 1
    threads: int = 1
    budget_s: float = 10.0
    meter: str = "auto"
    floor: bool = True
    baseline_energy: bool = True
    limit_s: float | None = None
    memory_limit_bytes: int | None = None
    inputs: tuple[InputShape, ...] = ()
    exact_batch: bool = False

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise UsageError(f"there is no metric {name!r}", mend=did_you_mean(name, list(METRICS)))
        if not self.metrics:
            raise UsageError("there is nothing to measure", mend=f"Name a metric: {', '.join(METRICS)}.")
        if self.batch < 1:
            raise UsageError(f"the batch must be at least 1; found {self.batch}")
        check_threads(self.threads)
        gib = None if self.memory_limit_bytes is None else self.memory_limit_bytes / 2**30
        for name, value, unit in (("budget", self.budget_s, "s"), ("limit", self.limit_s, "s"), ("memory", gib, "GiB")):
            if value is not None and not 0 < value < math.inf:
                wanted = "finite" if value > 0 else f"more than 0 {unit}"
                raise UsageError(f"the {name} must be {wanted}; found {value:g}")

    @property
    def longest_s(self) -> float:
        """When to give up: the limit, or by default two minutes beyond what all that is asked for may take."""
        if self.limit_s is not None:
            return self.limit_s
        from .latency import LatencyMeter

        latency_s = LatencyMeter(budget_s=self.budget_s).patience * self.budget_s if "latency" in self.metrics else 0.0
        energies = 0 if "energy" not in self.metrics else 2 if self.baseline_energy else 1
        return LOADING_S + latency_s + energies * (self.budget_s + REST_S)


@dataclass(frozen=True)
class Measurement:
    """What was measured of a model, and how.

    Args:
        target: the target's name.
        batch: length of the batch axis that was measured: the file's own where it is fixed.
        threads: threads of the runtime.
        size_bytes: size of the model's files.
        latency: see `Latency`; None where it was not asked for.
        energy: see `targets.energy.Energy`; None where it was not asked for.
        baseline_energy: the baseline's; None where it was not asked for.
        provenance: time, host, device, driver, runtime with its options, versions, digests of the models, types and
            shapes of the inputs, and how the meters were set.
        no_floor: why the floor was not measured although it was asked for.
    """

    target: str
    batch: int
    threads: int
    size_bytes: int
    latency: Latency | None = None
    energy: Energy | None = None
    baseline_energy: Energy | None = None
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    no_floor: str | None = None

    @property
    def empty(self) -> bool:
        """Whether none of the figures asked for could be had; see `remarks` for the reason."""
        return self.latency is None and (self.energy is None or self.energy.energy_j is None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "target": self.target,
            "batch": self.batch,
            "threads": self.threads,
            "size_bytes": self.size_bytes,
            "latency": self.latency.as_dict() if self.latency else None,
            "energy": self.energy.as_dict() if self.energy else None,
            "baseline_energy": self.baseline_energy.as_dict() if self.baseline_energy else None,
            "no_floor": self.no_floor,
            "provenance": self.provenance,
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """What was measured, its value, its interval: the lines of a table."""
        rows = [("size", f"{self.size_bytes:,} B", "exact")]
        if latency := self.latency:
            known = TOO_FEW if Flag.FEW_ROUNDS in latency.flags else ""
            rows.append(("latency, median", seconds(latency.median_s), known or interval(latency.ci, seconds)))
            for name, value in (("p90", latency.p90_s), ("p99", latency.p99_s)):
                if value is not None:
                    rows.append((f"latency, {name}", seconds(value), f"{latency.n:,} calls"))
            if latency.floor_s is not None:
                rows.append(("floor (as many nodes that do nothing)", seconds(latency.floor_s), ""))
            if latency.ratio is not None and latency.verdict is not None and latency.reference_s is not None:
                rows.append(("baseline, median", seconds(latency.reference_s), ""))
                found = latency.ratio
                told = f"{found.value:.3f} {latency.verdict.value}"
                rows.append(("ratio to baseline", told, known or interval(found.interval, plain)))
        for name, energy in (("energy per call", self.energy), ("baseline, energy per call", self.baseline_energy)):
            if energy is not None:
                rows += _energy_rows(name, energy)
        return rows

    def remarks(self) -> list[str]:
        """What to know before using the figures."""
        found: list[str] = []
        if self.latency and self.latency.overhead_bound:
            found.append(
                "overhead-bound: as many nodes that do nothing take at least half as long, so the runtime's own cost "
                "decides here; measure with a larger --batch, or compare bit operations"
            )
        if self.no_floor:
            found.append(f"there is no floor to compare with: {self.no_floor}")
        if self.latency and self.latency.clock != WALL:
            found.append(
                "latency: times are the thread's processor time, since the machine was contended; on the wall clock "
                f"the median is {seconds(self.latency.wall_median_s)}"
            )
        if self.latency:
            found += [f"latency: {_told(flag, self.latency)}" for flag in self.latency.flags]
        for name, energy in (("energy", self.energy), ("baseline's energy", self.baseline_energy)):
            if energy is not None:
                found += [f"{name}: {flag.value}" for flag in energy.flags]
                if energy.reason:
                    found.append(f"{name}: {energy.reason}")
        return found


def _told(flag: Flag, latency: Latency) -> str:
    """A flag of a latency for people."""
    if flag != Flag.FEW_PLACES:
        return flag.value
    times = "once" if latency.places == 1 else f"{latency.places} times"
    return (
        f"{flag.value}: where a network lies in memory changes its latency, and there was time to load it "
        f"{times} only, so the interval allows for {PLACE_MARGIN:.0%} between two places; a larger --budget narrows it"
    )


def _energy_rows(name: str, energy: Energy) -> list[tuple[str, str, str]]:
    if energy.energy_j is None:
        return [(name, "none", energy.reason or "")]
    if energy.grade == "estimated":
        ends = "" if energy.interval is None else interval(energy.interval, joules)
        return [(f"{name}, estimated", joules(energy.energy_j), ends)]
    rows = [(name, joules(energy.energy_j), "" if energy.interval is None else interval(energy.interval, joules))]
    if energy.energy_above_idle_j is not None and energy.above_idle_interval is not None:
        above = interval(energy.above_idle_interval, joules)
        if "below-resolution" in energy.flags:
            rows.append((f"{name}, above idle", "below resolution", above))
        else:
            rows.append((f"{name}, above idle", joules(energy.energy_above_idle_j), above))
    return rows


def scaled(value: float, unit: str) -> str:
    """A quantity for people: four digits and the prefix that suits them."""
    for prefix, scale in (("", 1.0), ("m", 1e-3), ("µ", 1e-6)):
        if abs(value) >= scale:
            return f"{value / scale:.4g} {prefix}{unit}"
    return f"{value * 1e9:.4g} n{unit}"


def seconds(value: float) -> str:
    """A time for people."""
    return scaled(value, "s")


def joules(value: float) -> str:
    """An energy for people."""
    return scaled(value, "J")


def plain(value: float) -> str:
    """A ratio for people."""
    return f"{value:.3f}"


def interval(found: Interval, show: Callable[[float], str]) -> str:
    """An interval for people."""
    return f"{show(found.low)} to {show(found.high)}"


def measure_model(
    target: Target,
    model: Artifact | Path,
    *,
    baseline: Artifact | Path | None = None,
    conditions: Conditions = Conditions(),
    isolate: bool = True,
) -> Measurement:
    """Measure a model on a target, in turns with a baseline where one is given.

    Args:
        target: where to run.
        model: what to measure.
        baseline: what to compare with.
        conditions: how to measure.
        isolate: measure in a process of its own, which may crash or hang without harm.

    Raises:
        UsageError: an unknown metric or meter, or inputs that do not fit; see `Bench.measure`.
        MeterUnavailableError: energy where there is no meter; said before anything runs.
        TargetError: the runtime refuses a model, or it takes or gives something else than tensors of numbers.
        WorkerError: the process of its own crashed, hung or ran out of memory.
    """
    from .bench import Bench
    from .isolation.bench import IsolatedBench

    with IsolatedBench(target, conditions.memory_limit_bytes) if isolate else Bench(target) as bench:
        return bench.measure(model, conditions, baseline)


def energy_meter(target: Target, meter: str = "auto") -> EnergyMeter:
    """The meter of the device that a target runs on, if it can measure there.

    Raises:
        UsageError: the text names no meter.
        MeterUnavailableError: there is none that can be read; says why and what would mend it.
    """
    from .energy import able, chosen_meter

    return able(chosen_meter(meter, gpu=gpu_of(target), on_gpu=on_gpu(target)))


def on_gpu(target: Target) -> bool:
    """Whether a target runs on an NVIDIA GPU."""
    return target.name.rpartition(":")[2] in ("cuda", "tensorrt")


def gpu_of(target: Target) -> str | None:
    """UUID of the GPU that a target runs on; None for processors, and where there is no GPU."""
    if not on_gpu(target):
        return None
    from .onnxruntime.device import device_uuid

    return device_uuid()


def asked(conditions: Conditions) -> dict[str, Any]:
    """Conditions as plain data, ready for JSON."""
    return {**asdict(conditions), "metrics": list(conditions.metrics)}


def names(texts: str | Sequence[str]) -> tuple[str, ...]:
    """Metrics given one by one or as a list with commas, each once."""
    texts = [texts] if isinstance(texts, str) else texts
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip()))
