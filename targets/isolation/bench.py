"""A bench in a process of its own: the same measurements, and sessions that run over there.

The caller holds the devices' locks while the other process measures: should that process die, nothing stays locked,
and its time limit counts from the moment the devices are free.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import Artifact
from ..base import Array, Inputs, Session, Signature, Target
from ..bench import Bench
from ..device_profile import DeviceProfile
from ..lock import DEFAULT_TIMEOUT_S, device_lock
from ..measure import Conditions, Measurement, energy_meter, gpu_of, on_gpu
from ..plan import Placement
from ..profile import KernelProfile, NetworkProfile
from .worker import Worker, most_memory_bytes

RUN_LIMIT_S = 600.0
"""The longest time to load a model, or to run it once, where nobody said otherwise."""


@dataclass(frozen=True)
class Opened:
    """A session over there: the number to ask for it by, and what it says of itself."""

    handle: int
    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    metadata: Mapping[str, str]


class Served:
    """The object in the other process: a bench, the baselines it was sent, and the sessions it has open.

    Args:
        target: where to run.
        parent: the process that asks.
    """

    def __init__(self, target: Target, parent: int) -> None:
        self._bench = Bench(target, lock=False, parent=parent)
        self._baselines: dict[str, Artifact | Path] = {}
        self._sessions: dict[int, Session] = {}
        self._opened = 0

    def keep(self, name: str, model: Artifact | Path) -> None:
        """Keep a baseline, so that it is sent once."""
        self._baselines[name] = model

    def measure(self, model: Artifact | Path, conditions: Conditions, baseline: str | None) -> Measurement:
        """See `Bench.measure`; the baseline by its name."""
        return self._bench.measure(model, conditions, None if baseline is None else self._baselines[baseline])

    def profile(self, model: Artifact | Path, conditions: Conditions) -> tuple[KernelProfile, ...]:
        """See `Bench.profile`."""
        return self._bench.profile(model, conditions)

    def network_profile(
        self,
        model: Artifact | Path,
        conditions: Conditions,
        device: DeviceProfile | None,
        inputs: Sequence[Array] | None,
    ) -> NetworkProfile:
        """See `Bench.network_profile`."""
        return self._bench.network_profile(model, conditions, device, inputs)

    def open(self, model: Artifact | Path, threads: int, placed: bool) -> Opened:
        """Load a model and keep its session."""
        session = self._bench.load(model, threads=threads, placed=placed)
        self._opened += 1
        self._sessions[self._opened] = session
        return Opened(self._opened, session.inputs, session.outputs, dict(session.metadata))

    def run(self, handle: int, inputs: Inputs) -> list[Array]:
        """Run a session."""
        return self._sessions[handle].run(inputs)

    def placement(self, handle: int) -> Placement:
        """The placement of a session's nodes."""
        return self._sessions[handle].placement()

    def release(self, handle: int) -> None:
        """Let a session go."""
        self._sessions.pop(handle, None)


class IsolatedBench:
    """Measures on one target in a process of its own; see `Bench`.

    Args:
        target: where to run; it is sent to the other process.
        memory_limit_bytes: what that process may have; None: four fifths of the free memory on processors, and no
            limit on GPUs, whose driver reserves far more than it uses.
        lock_timeout_s: the longest wait for the devices.
        work: what it does, for messages.
    """

    def __init__(
        self,
        target: Target,
        memory_limit_bytes: int | None = None,
        lock_timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        work: str = "measuring",
    ) -> None:
        if memory_limit_bytes is None and not on_gpu(target):
            memory_limit_bytes = most_memory_bytes()
        self.target = target
        self.worker = Worker(Served, target, os.getpid(), work=work, memory_limit_bytes=memory_limit_bytes)
        self._lock_timeout_s = lock_timeout_s
        self._kept: set[tuple[int, str]] = set()

    def __enter__(self) -> IsolatedBench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self.worker.close()

    def measure(
        self, model: Artifact | Path, conditions: Conditions, baseline: Artifact | Path | None = None
    ) -> Measurement:
        """Measure a model; see `Bench.measure`.

        Raises:
            WorkerError: the process was killed, crashed, hung or ran out of memory.
            MeterUnavailableError: energy where there is no meter; said before anything runs.
            TargetError: the runtime refuses a model.
            DeviceBusyError: somebody else measures all the time.
        """
        limit_s = conditions.longest_s
        gpu = gpu_of(self.target)
        devices = [] if gpu is None else [gpu]
        if "energy" in conditions.metrics:
            devices += energy_meter(self.target, conditions.meter).devices
        model = _absolute(model)
        with device_lock("cpu", *devices, timeout_s=self._lock_timeout_s) as hold:
            name = None if baseline is None else self._sent(_absolute(baseline), limit_s)
            found: Measurement = self.worker.call("measure", model, conditions, name, limit_s=limit_s)
        if found.latency is None:
            return found
        return replace(found, latency=replace(found.latency, waited_s=hold.waited_s))

    def profile(self, model: Artifact | Path, conditions: Conditions) -> tuple[KernelProfile, ...]:
        """The kernels of a model; see `Bench.profile`.

        Raises:
            WorkerError: the process was killed, crashed, hung or ran out of memory.
            TargetError: the runtime refuses the model.
            DeviceBusyError: somebody else measures all the time.
        """
        with device_lock("cpu", timeout_s=self._lock_timeout_s):
            return self.worker.call("profile", _absolute(model), conditions, limit_s=conditions.longest_s)

    def network_profile(
        self,
        model: Artifact | Path,
        conditions: Conditions,
        device: DeviceProfile | None = None,
        inputs: Sequence[Array] | None = None,
    ) -> NetworkProfile:
        """The profile of a whole model; see `Bench.network_profile`.

        Raises:
            WorkerError: the process was killed, crashed, hung or ran out of memory.
            TargetError: the runtime refuses the model.
            DeviceBusyError: somebody else measures all the time.
        """
        gpu = gpu_of(self.target)
        with device_lock("cpu", *([] if gpu is None else [gpu]), timeout_s=self._lock_timeout_s) as hold:
            found: NetworkProfile = self.worker.call(
                "network_profile", _absolute(model), conditions, device, inputs, limit_s=conditions.longest_s
            )
        return replace(found, latency=replace(found.latency, waited_s=hold.waited_s))

    def load(self, model: Artifact | Path, *, threads: int = 1, placed: bool = False) -> IsolatedSession:
        """A model, ready to run over there.

        Raises:
            WorkerError: the process was killed, crashed, hung or ran out of memory.
            TargetError: the runtime refuses the model.
        """
        opened: Opened = self.worker.call("open", _absolute(model), threads, placed, limit_s=RUN_LIMIT_S)
        return IsolatedSession(self.worker, opened, self.worker.started)

    def _sent(self, model: Artifact | Path, limit_s: float) -> str:
        """The name of a baseline that the process has; a new process is sent it anew."""
        name = model.digest if isinstance(model, Artifact) else f"{model} {model.stat().st_mtime_ns}"
        key = (self.worker.ready(), name)
        if key not in self._kept:
            self.worker.call("keep", name, model, limit_s=limit_s)
            self._kept.add(key)
        return name


class IsolatedSession:
    """A model that is loaded in another process (`Session`).

    Args:
        worker: the process.
        opened: what it said.
        started: which of the worker's processes holds it.
    """

    def __init__(self, worker: Worker, opened: Opened, started: int) -> None:
        self._worker = worker
        self._opened = opened
        self._started = started

    def __enter__(self) -> IsolatedSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[Signature, ...]:
        """What it reads, in order."""
        return self._opened.inputs

    @property
    def outputs(self) -> tuple[Signature, ...]:
        """What it gives, in order."""
        return self._opened.outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        """What its file says of itself."""
        return self._opened.metadata

    def run(self, inputs: Inputs) -> list[Array]:
        """The outputs for some inputs.

        Raises:
            TargetError: the inputs do not fit the model.
            WorkerError: the process failed.
        """
        sent: dict[str, Array] | Sequence[Array]
        if isinstance(inputs, Mapping):
            sent = {name: np.asarray(value) for name, value in inputs.items()}
        else:
            sent = [np.asarray(value) for value in inputs]
        return self._ask("run", sent)

    def placement(self) -> Placement:
        """The nodes that really run, and where.

        Raises:
            TargetError: the model was loaded without `placed`.
            WorkerError: the process failed.
        """
        return self._ask("placement")

    def close(self) -> None:
        """Let the session go."""
        if self._worker.pid is not None and self._worker.started == self._started:
            self._ask("release")

    def _ask(self, name: str, *arguments: object) -> Any:
        return self._worker.call(name, self._opened.handle, *arguments, limit_s=RUN_LIMIT_S)


def _absolute(model: Artifact | Path) -> Artifact | Path:
    return model if isinstance(model, Artifact) else model.resolve()
