"""The energy of one call of anything that can be called: what all meters have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...ir.errors import NascError, UsageError
from ..lock import DEFAULT_TIMEOUT_S, device_lock
from .counter import Clock, CounterStoppedError, EnergyCounter, RealClock, Run
from .measurement import Measurement
from .record import Energy, EnergyFlag, Grade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .estimate import EnergyPrices, Work


class MeterUnavailableError(NascError):
    """There is no such meter on this machine, or we may not use it."""


class MeterLostError(NascError):
    """The meter or its device failed in the middle of a measurement."""


@dataclass(frozen=True)
class Support:
    """What a meter can do on its device.

    Args:
        device: name and identity of the device.
        grade: of the figures it would give; None if it cannot give any.
        reason: why it cannot, or why the grade is not the best; None if there is nothing to say.
    """

    device: str
    grade: Grade | None
    reason: str | None = None


@dataclass(frozen=True)
class Source:
    """An open sensor.

    Args:
        support: what it is good for.
        counter: None where `support.grade` is None.
        settle_s: how long the sensor remembers earlier power.
    """

    support: Support
    counter: EnergyCounter | None = None
    settle_s: float = 1.0


@dataclass(frozen=True)
class EnergyMeter(ABC):
    """Measures the energy of anything that can be called.

        energy = EnergyMeter.nvml(index=0).measure(run)
        print(energy.energy_j, energy.energy_above_idle_j, energy.flags)

    Calls run back to back in at least three windows that begin and end when the device's energy counter moves. A window
    is as long as a second, 50 periods of the counter or 50 calls, whichever is most. Before and after, the device is
    watched at rest. Meters observe; they never change a setting of the device.

    Args:
        budget_s: no window beyond the third is begun after so long.
        width: asked half-width of the interval, relative to its middle.
        lock: False if the caller makes sure that nobody else measures.
        lock_timeout_s: the longest wait for the device.
        seed: of the waits that spread calls out.
        clock: tells the time.
        companion: a process that has the device open and waits for this one, so that it is no foreign load.

    Raises:
        UsageError: a budget or width that is not more than 0 and finite, or a negative wait.
    """

    budget_s: float = 30.0
    width: float = 0.01
    lock: bool = True
    lock_timeout_s: float = DEFAULT_TIMEOUT_S
    seed: int = 0
    clock: Clock = field(default_factory=RealClock)
    companion: int | None = None

    def __post_init__(self) -> None:
        for name in ("budget_s", "width"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise UsageError(f"expected {name} of more than 0, and finite; found {value}")
        if not self.lock_timeout_s >= 0:
            raise UsageError(f"expected lock_timeout_s of at least 0; found {self.lock_timeout_s}")

    @staticmethod
    def nvml(
        index: int | None = None, uuid: str | None = None, *, budget_s: float = 30.0, width: float = 0.01
    ) -> EnergyMeter:
        """The meter of an NVIDIA GPU, chosen by its number (0 by default) or, better, its UUID.

        Args:
            index: the GPU's number in NVML's order, which CUDA_VISIBLE_DEVICES does not change.
            uuid: as `nvidia-smi -L` prints it.
            budget_s: see `EnergyMeter`, and so is `width`.

        Raises:
            UsageError: both a number and a UUID.
            MeterUnavailableError: no library, no driver, no such device; the message says how to mend it.
        """
        if index is not None and uuid is not None:
            raise UsageError(
                f"expected the number or the UUID of a GPU, found both: index={index}, uuid={uuid!r}",
                mend="Leave the number out: UUIDs stay the same when GPUs are added.",
            )
        from .nvml import NvmlMeter

        return replace(NvmlMeter.choose(index=index, uuid=uuid), budget_s=budget_s, width=width)

    @staticmethod
    def rapl(
        powercap: str | Path = "/sys/class/powercap", *, budget_s: float = 30.0, width: float = 0.01
    ) -> EnergyMeter:
        """The meter of the processors of this machine (Intel and AMD), through the powercap files.

        Args:
            powercap: where the kernel shows them.
            budget_s: see `EnergyMeter`, and so is `width`.

        Raises:
            MeterUnavailableError: no such files, or no permission to read them; the message says how to mend it.
        """
        from .rapl import RaplMeter

        return replace(RaplMeter.choose(Path(powercap)), budget_s=budget_s, width=width)

    @staticmethod
    def estimated(work: Sequence[Work], prices: EnergyPrices | None = None) -> EnergyMeter:
        """A meter that counts instead of measuring; its figures are marked estimated.

        Args:
            work: what one call does; see `estimate.work_of_graph` and `estimate.work_of_kernels`.
            prices: what operations and bytes cost; None: figures from the literature.
        """
        from .estimate import LITERATURE, EnergyEstimator

        return EnergyEstimator(work=tuple(work), prices=prices or LITERATURE)

    @property
    @abstractmethod
    def devices(self) -> tuple[str, ...]:
        """What to lock while measuring, besides the processor."""

    @abstractmethod
    def open(self) -> AbstractContextManager[Source]:
        """Open the sensor for one measurement."""

    def support(self) -> Support:
        """Whether and how well this meter can measure; quick, to be asked before anything is paid for.

        Raises:
            MeterUnavailableError: the device has gone.
        """
        with self.open() as source:
            return source.support

    def measure(self, run: Run) -> Energy:
        """Measure the energy of one call.

        Args:
            run: one inference; it must have finished when the call returns.

        Raises:
            DeviceBusyError: the device did not come free in time.
            MeterLostError: the device failed meanwhile.
        """
        if not self.lock:
            return self._measure(run)
        with device_lock("cpu", *self.devices, timeout_s=self.lock_timeout_s):
            return self._measure(run)

    def _measure(self, run: Run) -> Energy:
        with self.open() as source:
            if source.counter is None:
                return Energy(None, device=source.support.device, reason=source.support.reason)
            try:
                measurement = Measurement(source.counter, self.clock, source.settle_s, self.width, self.seed)
                energy = measurement.take(run, self.budget_s)
            except CounterStoppedError as fault:
                return Energy(None, device=source.support.device, reason=fault.message)
            flags = energy.flags
            if source.support.grade != Grade.COUNTER:
                flags = (*flags, EnergyFlag.LOWER_GRADE)
            return replace(
                energy,
                flags=flags,
                grade=source.support.grade,
                device=source.support.device,
                reason=source.support.reason,
            )
