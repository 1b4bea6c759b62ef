"""Measure a model file on a target: latency and energy, alone or in turns with a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir import UsageError
from ..ir.errors import did_you_mean
from .artifact import Artifact
from .base import Array, Session, Signature, Target
from .latency import Latency, LatencyMeter
from .statistics import Interval

if TYPE_CHECKING:
    from .energy import Energy

METRICS = ("latency", "energy")


@dataclass(frozen=True)
class Measurement:
    """What was measured of a model, and how.

    Args:
        target: the target's name.
        batch: length of the batch axis.
        threads: threads of the runtime.
        size_bytes: size of the model's bytes.
        latency: see `Latency`; None where it was not asked for.
        energy: see `targets.energy.Energy`; None where it was not asked for.
    """

    target: str
    batch: int
    threads: int
    size_bytes: int
    latency: Latency | None = None
    energy: Energy | None = None
    provenance: dict[str, str] = field(default_factory=dict[str, str])

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "target": self.target,
            "batch": self.batch,
            "threads": self.threads,
            "size_bytes": self.size_bytes,
            "latency": self.latency.as_dict() if self.latency else None,
            "energy": self.energy.as_dict() if self.energy else None,
            "provenance": self.provenance,
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """What was measured, its value, its interval: the lines of a table."""
        rows = [("size", f"{self.size_bytes:,} B", "exact")]
        if latency := self.latency:
            rows.append(("latency, median", seconds(latency.median_s), interval(latency.ci, seconds)))
            for name, value in (("p90", latency.p90_s), ("p99", latency.p99_s)):
                if value is not None:
                    rows.append((f"latency, {name}", seconds(value), f"{latency.n:,} calls"))
            if latency.floor_s is not None:
                rows.append(("floor (as many nodes that do nothing)", seconds(latency.floor_s), ""))
            if latency.ratio is not None and latency.verdict is not None and latency.reference_s is not None:
                rows.append(("baseline, median", seconds(latency.reference_s), ""))
                found = latency.ratio
                rows.append(
                    ("ratio to baseline", f"{found.value:.3f} {latency.verdict.value}", interval(found.interval, plain))
                )
        if (energy := self.energy) and energy.energy_j is not None:
            rows.append(("energy per call", f"{energy.energy_j * 1e3:.4g} mJ", str(energy.grade)))
        return rows

    def remarks(self) -> list[str]:
        """What to know before using the figures."""
        found: list[str] = []
        if self.latency and self.latency.overhead_bound:
            found.append(
                "overhead-bound: as many nodes that do nothing take at least half as long, so the runtime's own cost "
                "decides here; measure with a larger --batch, or compare bit operations"
            )
        if self.latency:
            found += [f"flag: {flag.value}" for flag in self.latency.flags]
        return found


def seconds(value: float) -> str:
    """A time for people."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value * 1e9:.4g} ns"


def plain(value: float) -> str:
    """A ratio for people."""
    return f"{value:.3f}"


def interval(found: Interval, show: Callable[[float], str]) -> str:
    """An interval for people."""
    return f"{show(found.low)} to {show(found.high)}"


def example_arrays(signatures: Sequence[Signature], batch: int, seed: int = 0) -> list[Array]:
    """Inputs to time a network with: standard normal numbers, zeros for integers; dense kernels do not care."""
    random = np.random.default_rng(seed)
    arrays: list[Array] = []
    for entry in signatures:
        shape = [batch if n is None else n for n in entry.shape]
        dtype = np.dtype(entry.dtype)
        values = random.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)
        arrays.append(values.astype(dtype))
    return arrays


def measure_model(
    target: Target,
    model: Artifact | Path,
    *,
    baseline: Artifact | Path | None = None,
    metrics: Sequence[str] = ("latency",),
    batch: int = 1,
    threads: int = 1,
    budget_s: float = 10.0,
    inputs: Sequence[Array] | None = None,
) -> Measurement:
    """Measure a model on a target, in turns with a baseline where one is given.

    Args:
        target: where to run.
        model: what to measure.
        baseline: what to compare its latency with.
        metrics: `latency`, `energy`.
        batch: length of the batch axis of made-up inputs.
        threads: threads of the runtime.
        budget_s: time to spend on latency at most.
        inputs: real inputs instead of made-up ones.

    Raises:
        UsageError: an unknown metric, or energy where there is no meter.
        TargetError: the runtime refuses a model.
    """
    for name in metrics:
        if name not in METRICS:
            raise UsageError(f"there is no metric {name!r}", mend=did_you_mean(name, list(METRICS)))
    if batch < 1:
        raise UsageError(f"the batch must be at least 1; found {batch}")
    meter = energy_meter(target) if "energy" in metrics else None
    session = target.load(model, threads=threads)
    run = bound(session, inputs, batch)
    latency = None
    if "latency" in metrics:
        other = bound(target.load(baseline, threads=threads), inputs, batch) if baseline is not None else None
        floor_session = target.load(target.floor(model), threads=threads)
        floor = bound(floor_session, None, 1)
        latency = LatencyMeter(budget_s=budget_s).measure(run, other, floor)
    energy = meter.measure(run) if meter is not None else None
    size = model.size_bytes if isinstance(model, Artifact) else model.stat().st_size
    return Measurement(target.name, batch, threads, size, latency, energy, provenance())


def bound(session: Session, inputs: Sequence[Array] | None, batch: int) -> Any:
    """A call that runs a session on the inputs given, or on made-up ones."""
    return session.bind(list(inputs) if inputs is not None else example_arrays(session.inputs, batch))


def energy_meter(target: Target) -> Any:
    """The meter of the target's device.

    Raises:
        UsageError: there is none that can be read; says why and what would mend it.
    """
    from .energy import EnergyMeter

    return EnergyMeter.nvml() if target.name.rpartition(":")[2] in ("cuda", "tensorrt") else EnergyMeter.rapl()


def provenance() -> dict[str, str]:
    """Where and with what a measurement was taken."""
    import platform
    from datetime import UTC, datetime

    import onnxruntime

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "processor": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def processor() -> str:
    """The processor's model name where the system tells."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
