"""Which meter of energy a user means, and whether it can measure: asked before anything is paid for."""

from __future__ import annotations

from ...ir.errors import UsageError
from .meter import EnergyMeter, MeterUnavailableError

WRITE = "Write auto, nvml, nvml:GPU-… (a UUID, as nvidia-smi -L prints it), nvml:INDEX, rapl, rapl:FOLDER, or estimate."


def chosen_meter(text: str, *, gpu: str | None = None, on_gpu: bool = False) -> EnergyMeter:
    """The meter that a text names.

    Args:
        text: `auto` (the GPU's meter for networks that run on a GPU, else the processors'), `nvml`, `nvml:INDEX`,
            `nvml:UUID`, `rapl`, `rapl:FOLDER` (where the kernel shows powercap, by default /sys/class/powercap), or
            `estimate` (operations and bytes at the literature's prices; whoever measures tells it the work).
        gpu: UUID of the GPU that networks run on, if known: what `auto` and `nvml` mean.
        on_gpu: whether networks run on a GPU.

    Raises:
        UsageError: the text names no meter.
        MeterUnavailableError: there is no such meter, or it cannot be read; says why and what would mend it.
    """
    kind, _, which = text.partition(":")
    if kind == "auto" and not which:
        kind = "nvml" if on_gpu else "rapl"
    if kind == "nvml":
        if which.isdigit():
            return EnergyMeter.nvml(index=int(which))
        return EnergyMeter.nvml(uuid=which or gpu)
    if kind == "rapl":
        return EnergyMeter.rapl(which) if which else EnergyMeter.rapl()
    if kind == "estimate" and not which:
        return EnergyMeter.estimated(())
    raise UsageError(f"there is no meter of energy {text!r}", mend=WRITE)


def able(meter: EnergyMeter) -> EnergyMeter:
    """The meter, if it can give figures on its device.

    Raises:
        MeterUnavailableError: it cannot, with the reason: no sensor, or one part of a divided GPU (MIG).
    """
    support = meter.support()
    if support.grade is None:
        raise MeterUnavailableError(
            f"the energy of {support.device} cannot be measured: {support.reason}",
            mend="Name another meter, or compare latency and bit operations; `nasc doctor` shows what is here.",
        )
    return meter
