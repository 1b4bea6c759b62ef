"""Measure models on a target, in this process: load them, run them in turns, write down how it was done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError
from .artifact import Artifact
from .base import Array, Session, Target, TargetError
from .device_profile import DeviceProfile, kept_profile
from .energy import EnergyMeter
from .energy.estimate import EnergyEstimator, EnergyPrices
from .energy.file_work import Counter
from .inputs import Filled, filled, own_lengths
from .latency import LatencyMeter
from .lock import device_lock
from .measure import Conditions, Measurement, asked, energy_meter, gpu_of, on_gpu
from .moving import Loaded, Run
from .profile import KernelProfile, NetworkProfile, kernels_of, profile_of
from .provenance import host, model_digest, now, size_bytes, versions

KEPT = 4
"""So many baselines stay loaded."""
REMEMBERED = 8
"""The best of a baseline's latencies in so many series is what the device can do."""

MADE_UP = "standard normal numbers, zeros for integers without a range; seed 0"
"""What a record says of made-up inputs."""


@dataclass(eq=False)
class Baseline:
    """A network that others are compared with.

    Args:
        run: it, loaded; one call is one inference.
        inputs: what it is called with.
        latencies_s: its latency in the last series that it took part in.
    """

    run: Loaded
    inputs: Filled
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
    _baselines: dict[tuple[object, ...], Baseline] = field(default_factory=dict[tuple[object, ...], Baseline])

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

        Latency is measured in turns with the baseline's, both in several places in memory (see `LatencyMeter`);
        energies one after the other on the same device.

        Raises:
            UsageError: a model's inputs are not those asked for, or leave lengths open that nobody asked for; the
                baseline's are of other kinds or lengths than the model's.
            MeterUnavailableError: energy where there is no meter.
            TargetError: the runtime refuses a model, or it takes or gives something else than tensors of numbers.
            DeviceBusyError: somebody else measures all the time.
        """
        meter = self.meter(conditions) if "energy" in conditions.metrics else None
        began = now()
        run, inputs, arrays = self._loaded(model, conditions)
        base = None if baseline is None else self._baseline(baseline, conditions)
        if base is not None:
            _refuse_others(inputs, base.inputs)
        other = None if base is None else base.run
        known_s = None if base is None else min(base.latencies_s, default=None)
        latency, energy, baseline_energy, no_floor = None, None, None, None
        timer = self.timer(conditions)
        if "latency" in conditions.metrics:
            floor = None
            if conditions.floor:
                floor, no_floor = self._floor(model, arrays, conditions.threads)
            latency = timer.measure(run, other, floor, known_s)
            if base is not None and latency.reference_s is not None:
                base.latencies_s.append(latency.reference_s)
        if meter is not None:
            energy = self._told(meter, model, arrays, conditions).measure(run.call)
            if baseline is not None and base is not None and conditions.baseline_energy:
                told = self._told(meter, baseline, base.inputs.arrays(), conditions)
                baseline_energy = told.measure(base.run.call)
        return Measurement(
            self.target.name,
            inputs.batch,
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
                "inputs": inputs.as_list(),
                "values": MADE_UP,
                "lock": "held by the caller" if not self.lock else "taken here",
            },
            no_floor,
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
            made = chosen_inputs(session, model, conditions) if inputs is None else None
            arrays = inputs if made is None else made.arrays()
            latency = timer.measure(session.bind(arrays or ()))
            traced = self.target.trace(
                model, arrays, batch=conditions.batch, threads=conditions.threads, budget_s=half_s
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
            "inputs": None if made is None else made.as_list(),
            "values": "given" if made is None else MADE_UP,
            "lock": "taken here" if self.lock else "held by the caller",
        }
        batch = conditions.batch if made is None else made.batch
        return profile_of(self.target.name, conditions, latency, traced, device, provenance, batch)

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

    def _told(
        self, meter: EnergyMeter, model: Artifact | Path, arrays: Sequence[Array], conditions: Conditions
    ) -> EnergyMeter:
        """The meter; one that counts is told what the model's kernels do, and the device's prices where it has any."""
        if not isinstance(meter, EnergyEstimator):
            return meter
        kept = kept_profile(self.target, conditions.threads)
        prices = meter.prices if kept is None or kept.energy is None else EnergyPrices.of(kept.energy)
        with device_lock("cpu") if self.lock else nullcontext():
            counted = Counter(self.target, conditions.threads, prices).count(model, arrays)
        return replace(meter, work=counted.work, prices=prices, uncounted=counted.uncounted)

    def _baseline(self, model: Artifact | Path, conditions: Conditions) -> Baseline:
        key = (model_digest(model), conditions.threads, conditions.batch, conditions.exact_batch, conditions.inputs)
        if key not in self._baselines:
            while len(self._baselines) >= KEPT:
                self._baselines.pop(next(iter(self._baselines)))
            run, inputs, _ = self._loaded(model, conditions)
            self._baselines[key] = Baseline(run, inputs)
        return self._baselines[key]

    def _loaded(self, model: Artifact | Path, conditions: Conditions) -> tuple[Loaded, Filled, list[Array]]:
        """A model with its inputs in place, which can be loaded anew, inputs and all."""
        began_s = time.perf_counter()
        session = self.load(model, threads=conditions.threads)
        inputs = chosen_inputs(session, model, conditions)
        arrays = inputs.arrays()

        def make() -> Run:
            return self.load(model, threads=conditions.threads).bind([array.copy() for array in arrays])

        return Loaded(make, session.bind(arrays), time.perf_counter() - began_s), inputs, arrays

    def _floor(self, model: Artifact | Path, arrays: Sequence[Array], threads: int) -> tuple[Run | None, str | None]:
        """A call of as many nodes that do nothing; or None, and why there can be none."""
        try:
            return self.target.load(self.target.floor(model), threads=threads).bind(arrays), None
        except TargetError as error:
            return None, error.message.partition("\n")[0]

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


def chosen_inputs(session: Session, model: Artifact | Path, conditions: Conditions) -> Filled:
    """The inputs to measure a loaded model with.

    Raises:
        UsageError: they do not fit the model, or leave lengths open.
    """
    return filled(
        session.inputs,
        conditions.batch,
        conditions.inputs,
        exact=conditions.exact_batch,
        known=own_lengths(model, conditions.batch),
        place="the network" if isinstance(model, Artifact) else str(model),
    )


def _refuse_others(inputs: Filled, baseline: Filled) -> None:
    """Refuse a baseline that does other work per call than the model: names and widths of floats may differ.

    Raises:
        UsageError: it does.
    """
    if inputs.kinds != baseline.kinds:
        found, other = (", ".join(map(str, one.signatures)) or "nothing" for one in (inputs, baseline))
        raise UsageError(
            f"the model reads {found}, its baseline {other}: their latencies cannot be compared",
            mend="Measure both with inputs of the same lengths and kinds: --batch, --input.",
        )


def _settings(meter: LatencyMeter | EnergyMeter) -> dict[str, Any]:
    """How a meter was set, as plain data."""
    plain = (int, float, str, bool, tuple)
    return {f.name: value for f in fields(meter) if isinstance(value := getattr(meter, f.name), plain) and _flat(value)}


def _flat(value: object) -> bool:
    return not isinstance(value, tuple) or all(isinstance(entry, str) for entry in value)
