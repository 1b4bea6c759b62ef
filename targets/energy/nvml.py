"""The energy of an NVIDIA GPU, from the driver's management library. It observes and never sets anything."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from .counter import Clock
from .meter import EnergyMeter, MeterLostError, MeterUnavailableError, Source, Support
from .record import Grade, Observation

# Why a GPU runs slower than it could: nvmlClocksEventReason… in nvml.h. Being idle and clocks chosen by the user are
# left out: they are no fault.
THROTTLE_REASONS = {
    0x04: "power-cap",
    0x08: "hardware-slowdown",
    0x10: "sync-boost",
    0x20: "heat",
    0x40: "hardware-heat",
    0x80: "power-brake",
}
# Fields of nvmlDeviceGetFieldValues: mean power over one second, and power at a moment.
POWER_FIELDS = (185, 186)
DIVIDED = "the GPU is divided into instances (MIG): its counter counts all of them"
"""What to know of the counter of such a GPU."""


@dataclass(frozen=True)
class NvmlMeter(EnergyMeter):
    """The meter of one NVIDIA GPU.

    Args:
        uuid: which one.
        name: its model.
    """

    uuid: str = ""
    name: str = ""

    @classmethod
    def choose(cls, index: int | None = None, uuid: str | None = None) -> NvmlMeter:
        """Find the GPU; see `EnergyMeter.nvml`."""
        if uuid is not None and uuid.startswith("MIG-"):
            raise MeterUnavailableError(
                f"{uuid} is a part of a GPU (MIG); NVML measures power and energy of whole GPUs only",
                mend="Name the whole GPU (GPU-…), and expect figures that include its other parts.",
            )
        with _library() as nvml:
            try:
                if uuid is not None:
                    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
                else:
                    handle = nvml.nvmlDeviceGetHandleByIndex(index or 0)
                return cls(uuid=nvml.nvmlDeviceGetUUID(handle), name=nvml.nvmlDeviceGetName(handle))
            except nvml.NVMLError as fault:
                wanted = uuid if uuid is not None else f"number {index or 0}"
                raise MeterUnavailableError(
                    f"no GPU {wanted}: {fault}; there are {nvml.nvmlDeviceGetCount()}", mend="List them: nvidia-smi -L"
                ) from fault

    @property
    def devices(self) -> tuple[str, ...]:
        return (self.uuid,)

    @contextmanager
    def open(self) -> Generator[Source, None, None]:
        with _library() as nvml:
            sensor = NvmlSensor(nvml, self.uuid, self.companion)
            device = f"{self.name} ({self.uuid})"
            if (why_not := sensor.refusal(sensor.counter_j)) is None:
                reason = DIVIDED if sensor.divided() else None
                yield Source(Support(device, Grade.COUNTER, reason), NvmlCounter(sensor))
                return
            for sample in (*(sensor.field(number, self.clock) for number in POWER_FIELDS), sensor.power(self.clock)):
                if sensor.refusal(sample) is None:
                    reason = f"no energy counter ({why_not}); power samples are summed up instead"
                    with PowerSum(sensor, sample) as power:
                        yield Source(Support(device, Grade.POWER_SAMPLES, reason), power, settle_s=2.0)
                    return
            yield Source(Support(device, None, f"no energy counter and no power register: {why_not}"))


@dataclass
class NvmlSensor:
    """One GPU as NVML shows it.

    Args:
        nvml: the `pynvml` module, initialised.
        uuid: which GPU.
        companion: a process beside this one whose use of the GPU is none of somebody else's.
    """

    nvml: Any
    uuid: str
    companion: int | None = None

    def __post_init__(self) -> None:
        self.handle = self._ask(self.nvml.nvmlDeviceGetHandleByUUID, self.uuid, device=False)

    def counter_j(self) -> float:
        """The GPU's energy since its driver was loaded."""
        return self._ask(self.nvml.nvmlDeviceGetTotalEnergyConsumption) * 1e-3

    def power(self, clock: Clock) -> Callable[[], tuple[float, float]]:
        """Samples of the power register, as (seconds, watts); the register does not say when it was written."""
        return lambda: (clock.now_s(), self._ask(self.nvml.nvmlDeviceGetPowerUsage) * 1e-3)

    def field(self, number: int, clock: Clock) -> Callable[[], tuple[float, float]]:
        """Samples of a power field, as (seconds, watts), with the driver's time where it gives one."""

        def sample() -> tuple[float, float]:
            (field,) = self._ask(self.nvml.nvmlDeviceGetFieldValues, [number])
            if field.nvmlReturn != self.nvml.NVML_SUCCESS:
                raise self.nvml.NVMLError(field.nvmlReturn)
            stamp_s = field.timestamp * 1e-6 if field.timestamp > 0 else clock.now_s()
            return stamp_s, field.value.uiVal * 1e-3

        return sample

    def refusal(self, read: Callable[[], object]) -> str | None:
        """Why a sensor cannot be read, in words; None if it can."""
        nvml = self.nvml
        try:
            read()
        except nvml.NVMLError as fault:
            if fault.value == nvml.NVML_ERROR_NO_PERMISSION:
                return "no permission to read the sensor; ask the administrator, or run outside the container"
            if fault.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                return "multi-instance mode (MIG) is on" if self.divided() else "not supported by this GPU or driver"
            raise
        return None

    def observe(self) -> Observation:
        """Clocks, temperature, throttle reasons and users of the GPU; what it does not tell is left out."""
        nvml = self.nvml
        reasons = self._tell(nvml.nvmlDeviceGetCurrentClocksEventReasons)
        if reasons is None:
            reasons = self._tell(nvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
        return Observation(
            sm_clock_mhz=self._tell(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._tell(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            temperature_c=self._tell(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            throttle=tuple(name for bit, name in THROTTLE_REASONS.items() if reasons & bit),
            foreign=self._foreign(),
        )

    def _foreign(self) -> tuple[int, ...]:
        """Processes on the GPU that are neither this one nor its companion.

        Inside a container NVML may give numbers that mean nothing here, this process's own among them: one number that
        names no process of ours is taken for our own if our own is missing.
        """
        nvml = self.nvml
        users: set[int] = set()
        for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
            users |= {user.pid for user in self._tell(ask) or ()}
        users.discard(self.companion or 0)
        if os.getpid() in users:
            return tuple(sorted(users - {os.getpid()}))
        unknown = sorted(user for user in users if not Path(f"/proc/{user}").exists())
        return tuple(sorted(users - set(unknown[:1])))

    def divided(self) -> bool:
        """Whether the GPU is divided into instances (MIG)."""
        mode = self._tell(self.nvml.nvmlDeviceGetMigMode)
        return mode is not None and mode[0] == self.nvml.NVML_DEVICE_MIG_ENABLE

    def _tell(self, ask: Callable[..., Any], *arguments: object) -> Any:
        """The answer, or None if this GPU does not give it."""
        nvml = self.nvml
        try:
            return self._ask(ask, *arguments)
        except nvml.NVMLError as fault:
            refusals = (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            )
            if fault.value in refusals:
                return None
            raise

    def _ask(self, ask: Callable[..., Any], *arguments: object, device: bool = True) -> Any:
        nvml = self.nvml
        lost = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED, nvml.NVML_ERROR_NOT_FOUND)
        try:
            return ask(self.handle, *arguments) if device else ask(*arguments)
        except nvml.NVMLError as fault:
            if fault.value not in lost:
                raise
            raise MeterLostError(
                f"GPU {self.uuid}: {fault}", mend="See `dmesg` for its Xid error; it may need a reset or a reboot."
            ) from fault


@dataclass(frozen=True)
class NvmlCounter:
    """The GPU's energy counter (`EnergyCounter`)."""

    sensor: NvmlSensor
    poll_s: float = 0.0005
    known_period_s: float | None = None
    longest_silence_s: float = inf

    def read_j(self) -> float:
        return self.sensor.counter_j()

    def observe(self) -> Observation:
        return self.sensor.observe()


class PowerSum:
    """Power samples, taken by a thread and summed up to energy (`EnergyCounter`).

    A sample stands for the time since the one before. Samples that repeat an old time are not new.
    """

    poll_s = 0.002
    known_period_s = None
    longest_silence_s = inf

    def __init__(self, sensor: NvmlSensor, sample: Callable[[], tuple[float, float]]) -> None:
        self._sensor = sensor
        self._sample = sample
        self._energy_j = 0.0
        self._last_s = sample()[0]
        self._fault: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nasc-power", daemon=True)

    def __enter__(self) -> PowerSum:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def read_j(self) -> float:
        if self._fault is not None:
            raise self._fault
        return self._energy_j

    def observe(self) -> Observation:
        return self._sensor.observe()

    def _watch(self) -> None:
        try:
            while not self._stop.wait(self.poll_s):
                at_s, power_w = self._sample()
                if at_s > self._last_s:
                    self._energy_j += power_w * (at_s - self._last_s)
                    self._last_s = at_s
        except (MeterLostError, self._sensor.nvml.NVMLError) as fault:
            self._fault = fault


@contextmanager
def _library() -> Generator[Any, None, None]:
    """The `pynvml` module, initialised meanwhile.

    Raises:
        MeterUnavailableError: NVML is missing or does not start.
    """
    import pynvml as nvml

    pynvml: Any = nvml
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as fault:
        mends = {
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "Install the NVIDIA driver (libnvidia-ml.so.1 comes with it); in a "
            "container, start it with the GPU: docker run --gpus all.",
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "Load the driver (sudo modprobe nvidia); nvidia-smi must work.",
            pynvml.NVML_ERROR_NO_PERMISSION: "Ask for permission on /dev/nvidiactl and /dev/nvidia*.",
            pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "The driver was updated under way: reboot.",
        }
        raise MeterUnavailableError(f"NVML does not start: {fault}", mend=mends.get(fault.value)) from fault
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def gpu_facts(uuid: str) -> dict[str, Any]:
    """What NVML says of a GPU, for records: name, UUID and driver, and its state now.

    Raises:
        MeterUnavailableError: no library, no driver, no such device.
    """
    meter = NvmlMeter.choose(uuid=uuid)
    with _library() as nvml:
        return {
            "name": meter.name,
            "uuid": meter.uuid,
            "driver": nvml.nvmlSystemGetDriverVersion(),
            **asdict(NvmlSensor(nvml, meter.uuid).observe()),
        }


def gpu_survey() -> Iterator[tuple[str, str, bool, str]]:
    """What there is to know of every GPU: what, what was found, whether something cannot be done, what would mend it.

    Raises:
        MeterUnavailableError: no library or no driver; says how to mend it.
    """
    with _library() as nvml:
        count = nvml.nvmlDeviceGetCount()
        yield "driver", nvml.nvmlSystemGetDriverVersion(), False, ""
        uuids = [nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)]
    if not uuids:
        yield (
            "GPU",
            "none",
            True,
            "Give the container a GPU (docker run --gpus all), or check `lspci | grep -i nvidia`.",
        )
    for index, uuid in enumerate(uuids):
        meter = NvmlMeter.choose(uuid=uuid)
        support = meter.support()
        with _library() as nvml:
            sensor = NvmlSensor(nvml, uuid)
            yield from _of_gpu(f"GPU {index}", meter, support, sensor.observe(), sensor.divided())


def _of_gpu(
    name: str, meter: NvmlMeter, support: Support, now: Observation, divided: bool
) -> Iterator[tuple[str, str, bool, str]]:
    yield name, f"{meter.name}, {meter.uuid}", False, ""
    if support.grade == Grade.COUNTER:
        yield f"{name}, energy", "energy counter", False, ""
    else:
        mend = "Choose latency, or a GPU with an energy counter (Volta and later)."
        if support.reason and "permission" in support.reason:
            mend = "Ask the administrator for access to NVML, or run outside the container."
        if divided:
            mend = "Energy is measured for whole GPUs; dividing it is the administrator's to undo: nvidia-smi -mig 0"
        yield f"{name}, energy", support.reason or "none", support.grade is None, mend
    if divided:
        yield f"{name}, MIG", "divided into instances; its clocks and energy are those of all of them", False, ""
    clocks = f"{now.sm_clock_mhz or '?'} MHz, memory {now.memory_clock_mhz or '?'} MHz, {now.temperature_c or '?'} °C"
    yield f"{name}, clocks", clocks, False, ""
    if now.throttle:
        slow = f"slowed down: {', '.join(now.throttle)}"
        yield (
            f"{name}, throttling",
            slow,
            False,
            "Let it cool down, or see its power limit: nvidia-smi -q -d PERFORMANCE",
        )
    if now.foreign:
        others = f"used by processes {', '.join(map(str, now.foreign))}"
        yield f"{name}, users", others, False, "Measure when they are done; nvidia-smi names them."
