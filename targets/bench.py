"""Measure models on a target, in this process: load them, run them in turns, write down how it was done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import Artifact
from .base import Array, Session, Signature, Target, TargetError
from .device_profile import DeviceProfile, kept_profile
from .energy import EnergyMeter
from .energy.estimate import EnergyEstimator, EnergyPrices, work_of_kernels
from .latency import LatencyMeter
from .lock import device_lock
from .measure import Conditions, Measurement, asked, energy_meter, gpu_of, on_gpu
from .profile import KernelProfile, NetworkProfile, kernels_of, profile_of
from .provenance import host, model_digest, now, size_bytes, versions

KEPT = 4
"""So many baselines stay loaded."""
REMEMBERED = 8
"""The best of a baseline's latencies in so many series is what the device can do."""

MADE_UP = "standard normal numbers, zeros for integers; seed 0"
"""What a record says of `example_arrays`."""

Call = Callable[[], Any]


@dataclass(eq=False)
class Baseline:
    """A network that others are compared with.

    Args:
        run: one call of it.
        latencies_s: its latency in the last series that it took part in.
    """

    run: Call
    latencies_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=REMEMBERED))


@dataclass(eq=False)
class Bench:
    """Measures on one target. Baselines stay loaded, since the candidates of a search are all compared with one.

    Args:
        target: where to run.
        lock: False if the caller holds the devices' locks.
        parent: a process that waits for this one and uses the device as little; None: there is none.
    """

    target: Target
    lock: bool = True
    parent: int | None = None
    _baselines: dict[tuple[str, int, int], Baseline] = field(default_factory=dict[tuple[str, int, int], Baseline])

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the baselines go."""
        self._baselines.clear()

    def load(self, model: Artifact | Path, *, threads: int = 1, placed: bool = False) -> Session:
        """A model, ready to run.

        Raises:
            TargetError: the runtime refuses it.
        """
        return self.target.load(model, threads=threads, placed=placed)

    def measure(
        self, model: Artifact | Path, conditions: Conditions, baseline: Artifact | Path | None = None
    ) -> Measurement:
        """Measure a model under some conditions, in turns with a baseline where one is given.

        Latency is measured in turns with the baseline's; energies one after the other on the same device.

        Raises:
            MeterUnavailableError: energy where there is no meter.
            TargetError: the runtime refuses a model.
            DeviceBusyError: somebody else measures all the time.
        """
        meter = self.meter(conditions) if "energy" in conditions.metrics else None
        began = now()
        run = bound(self.load(model, threads=conditions.threads), conditions.batch)
        base = None if baseline is None else self._baseline(baseline, conditions)
        other = None if base is None else base.run
        known_s = None if base is None else min(base.latencies_s, default=None)
        latency, energy, baseline_energy = None, None, None
        timer = self.timer(conditions)
        if "latency" in conditions.metrics:
            floor = None
            if conditions.floor:
                floor = bound(self.target.load(self.target.floor(model), threads=conditions.threads), 1)
            latency = timer.measure(run, other, floor, known_s)
            if base is not None and latency.reference_s is not None:
                base.latencies_s.append(latency.reference_s)
        if meter is not None:
            energy = self._told(meter, model, conditions).measure(run)
            if baseline is not None and other is not None and conditions.baseline_energy:
                baseline_energy = self._told(meter, baseline, conditions).measure(other)
        return Measurement(
            self.target.name,
            conditions.batch,
            conditions.threads,
            size_bytes(model),
            latency,
            energy,
            baseline_energy,
            {
                "began": began,
                "ended": now(),
                "host": host(),
                "device": self._device(meter),
                "runtime": dict(self.target.settings),
                "versions": versions(),
                "model": model_digest(model),
                "baseline": None if baseline is None else model_digest(baseline),
                "conditions": asked(conditions),
                "latency_meter": _settings(timer) if "latency" in conditions.metrics else None,
                "energy_meter": None if meter is None else _settings(meter),
                "inputs": MADE_UP,
                "lock": "held by the caller" if not self.lock else "taken here",
            },
        )

    def profile(self, model: Artifact | Path, conditions: Conditions) -> tuple[KernelProfile, ...]:
        """The kernels of a model, each with its time, from calls that take half of the conditions' budget.

        Raises:
            TargetError: the runtime refuses the model.
            DeviceBusyError: somebody else measures all the time.
        """
        with device_lock("cpu") if self.lock else nullcontext():
            traced = self.target.trace(
                model, batch=conditions.batch, threads=conditions.threads, budget_s=conditions.budget_s / 2
            )
        return kernels_of(traced)

    def network_profile(
        self,
        model: Artifact | Path,
        conditions: Conditions,
        device: DeviceProfile | None = None,
        inputs: Sequence[Array] | None = None,
    ) -> NetworkProfile:
        """The profile of a whole model: its latency without the profiler, then its kernels with it.

        Each takes half of the conditions' budget; nobody else measures meanwhile.

        Args:
            model: what to profile.
            conditions: how; of the metrics it is latency in any case.
            device: what the device can do, for bounds.
            inputs: real inputs; None: made-up ones.

        Raises:
            TargetError: the runtime refuses the model.
            DeviceBusyError: somebody else measures all the time.
        """
        half_s, began = conditions.budget_s / 2, now()
        timer = replace(self.timer(conditions), budget_s=half_s, lock=False)
        with device_lock("cpu", *timer.devices) if self.lock else nullcontext() as hold:
            session = self.load(model, threads=conditions.threads)
            run = bound(session, conditions.batch) if inputs is None else session.bind(inputs)
            latency = timer.measure(run)
            traced = self.target.trace(
                model, inputs, batch=conditions.batch, threads=conditions.threads, budget_s=half_s
            )
        if hold is not None:
            latency = replace(latency, waited_s=hold.waited_s)
        provenance = {
            "began": began,
            "ended": now(),
            "host": host(),
            "device": self._device(None),
            "runtime": dict(self.target.settings),
            "versions": versions(),
            "model": model_digest(model),
            "conditions": asked(conditions),
            "latency_meter": _settings(timer),
            "inputs": MADE_UP if inputs is None else "given",
            "lock": "taken here" if self.lock else "held by the caller",
        }
        return profile_of(self.target.name, conditions, latency, traced, device, provenance)

    def meter(self, conditions: Conditions) -> EnergyMeter:
        """The energy meter for some conditions.

        Raises:
            MeterUnavailableError: there is none that can be read; says why and what would mend it.
        """
        found = energy_meter(self.target, conditions.meter)
        return replace(found, budget_s=conditions.budget_s, lock=self.lock, companion=self.parent)

    def timer(self, conditions: Conditions) -> LatencyMeter:
        """The latency meter for some conditions. Waiting for a GPU looks like work, so there the wall clock counts."""
        gpu = gpu_of(self.target)
        devices = () if gpu is None else (gpu,)
        clock = "wall" if on_gpu(self.target) else "auto"
        return LatencyMeter(budget_s=conditions.budget_s, clock=clock, devices=devices, lock=self.lock)

    def _told(self, meter: EnergyMeter, model: Artifact | Path, conditions: Conditions) -> EnergyMeter:
        """The meter; one that counts is told what the model's kernels do, and the device's prices where it has any."""
        if not isinstance(meter, EnergyEstimator):
            return meter
        kept = kept_profile(self.target, conditions.threads)
        prices = meter.prices if kept is None or kept.energy is None else EnergyPrices.of(kept.energy)
        return replace(meter, work=work_of_kernels(self.profile(model, conditions)), prices=prices)

    def _baseline(self, model: Artifact | Path, conditions: Conditions) -> Baseline:
        key = (model_digest(model), conditions.threads, conditions.batch)
        if key not in self._baselines:
            while len(self._baselines) >= KEPT:
                self._baselines.pop(next(iter(self._baselines)))
            self._baselines[key] = Baseline(bound(self.load(model, threads=conditions.threads), conditions.batch))
        return self._baselines[key]

    def _device(self, meter: EnergyMeter | None) -> dict[str, Any]:
        """The device that networks run on, and the one whose energy is measured."""
        found: dict[str, Any] = {"kind": "gpu" if on_gpu(self.target) else "processor"}
        gpu = gpu_of(self.target) or next((d for d in (meter.devices if meter else ()) if d.startswith("GPU-")), None)
        if gpu is not None:
            from .energy.nvml import gpu_facts

            found |= {"gpu": gpu_facts(gpu)}
        if meter is not None:
            found["meter"] = meter.support().device
        return found


def bound(session: Session, batch: int) -> Call:
    """A call that runs a session on made-up inputs."""
    return session.bind(example_arrays(session.inputs, batch))


def example_arrays(signatures: Sequence[Signature], batch: int, seed: int = 0) -> list[Array]:
    """Inputs to time a network with: standard normal numbers, zeros for integers; dense kernels do not care.

    Raises:
        TargetError: an input is no tensor of numbers.
    """
    random = np.random.default_rng(seed)
    arrays: list[Array] = []
    for entry in signatures:
        shape = [batch if n is None else n for n in entry.shape]
        dtype = _numbers(entry)
        values = random.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)
        arrays.append(values.astype(dtype))
    return arrays


def _numbers(entry: Signature) -> np.dtype[Any]:
    """The element type of an input, small floats included.

    Raises:
        TargetError: it is no tensor of numbers.
    """
    import ml_dtypes  # numpy knows its types from then on  # noqa: F401  # pyright: ignore[reportUnusedImport]

    try:
        return np.dtype(entry.dtype)
    except TypeError:
        raise TargetError(
            f"input {entry.name} is {entry.dtype}, and only tensors of numbers are made up to run a model on",
            mend="Cut off what stands before the first tensors of numbers, such as the reading of text.",
        ) from None


def _settings(meter: LatencyMeter | EnergyMeter) -> dict[str, Any]:
    """How a meter was set, as plain data."""
    plain = (int, float, str, bool, tuple)
    return {f.name: value for f in fields(meter) if isinstance(value := getattr(meter, f.name), plain) and _flat(value)}


def _flat(value: object) -> bool:
    return not isinstance(value, tuple) or all(isinstance(entry, str) for entry in value)
