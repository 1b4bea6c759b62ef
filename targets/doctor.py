"""What this machine has for measuring, what is missing, and the command that would mend it.

Every section is a function without arguments that are needed; `SECTIONS` lists them. A part of nasc that has more to
say adds its own. Nothing here changes a setting of the machine.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..ir.errors import NascError
from .host import Host, Load, ThisHost, usable_processors
from .provenance import governor, processor, versions

State = Literal["ok", "note", "missing"]
"""`note`: it works, and there is something to know. `missing`: something cannot be done here."""

LIBRARIES = (
    "nasc", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "optuna", "nvidia-ml-py", "numpy", "ml_dtypes",
)  # fmt: skip
"""What takes part in compiling and measuring."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: its name.
        found: what there is, or why there is none.
        state: see `State`.
        mend: the command or the step that would make it better; empty: nothing needs mending.
    """

    what: str
    found: str
    state: State = "ok"
    mend: str = ""


@dataclass(frozen=True)
class Section:
    """Things that belong together."""

    name: str
    findings: tuple[Finding, ...]


def examine(sections: Mapping[str, Callable[[], tuple[Finding, ...]]] | None = None) -> tuple[Section, ...]:
    """Look at everything.

    Args:
        sections: the functions that look, by the names of their sections; all of them if not given.
    """
    chosen = SECTIONS if sections is None else sections
    return tuple(Section(name, look()) for name, look in chosen.items())


def as_dict(found: tuple[Section, ...]) -> dict[str, Any]:
    """Findings as plain data, by section."""
    return {section.name: [asdict(finding) for finding in section.findings] for section in found}


def software() -> tuple[Finding, ...]:
    """Versions of Python and the libraries."""
    found = versions(LIBRARIES)
    findings = [Finding(name, version) for name, version in found.items()]
    for name in LIBRARIES:
        if name not in found and not name.startswith("onnxruntime"):
            findings.append(Finding(name, "not installed", "missing", f"{sys.executable} -m pip install {name}"))
    ours = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in found]
    if not ours:
        wanted = "onnxruntime-gpu" if sys.platform == "linux" else "onnxruntime"
        mend = f"{sys.executable} -m pip install {wanted}"
        findings.append(Finding("onnxruntime", "not installed", "missing", mend))
    if len(ours) == 2:
        mend = (
            f"{sys.executable} -m pip uninstall -y onnxruntime onnxruntime-gpu && "
            f"{sys.executable} -m pip install onnxruntime-gpu"
        )
        findings.append(Finding("onnxruntime", "two packages write the same files", "note", mend))
    return tuple(findings)


def runtimes() -> tuple[Finding, ...]:
    """The targets, and which of them run here; each is tried by starting it."""
    from .registry import target_named, targets

    findings: list[Finding] = []
    for name, target in targets().items():
        reason = target.unavailable()
        if reason is None:
            findings.append(Finding(name, f"ready ({target.settings['provider']})"))
        else:
            findings.append(Finding(name, reason, "missing", _mend_runtime(name, reason)))
    findings.append(Finding("--target auto", target_named("auto").name))
    return tuple(findings)


def _mend_runtime(name: str, reason: str) -> str:
    if "driver" in reason:
        return "Install the NVIDIA driver; in a container, start it with the GPU: docker run --gpus all …"
    if "has no" in reason:
        return f"{sys.executable} -m pip install onnxruntime-gpu"
    if name.endswith("tensorrt"):
        return f"{sys.executable} -m pip install tensorrt"
    return f"{sys.executable} -m pip install 'onnxruntime-gpu[cuda,cudnn]'"


def processors(host: Host | None = None, proc: Path = Path("/proc"), watch_s: float = 0.25) -> tuple[Finding, ...]:
    """The processors: how many we may use, how their clocks are governed, who else wants them, and our own clocks.

    Args:
        host: whose counters to read.
        proc: where the kernel shows itself.
        watch_s: how long to watch what other processes do.
    """
    from .series import timer_cost_s

    host = ThisHost(proc) if host is None else host
    findings = [Finding("processor", f"{processor()}; {usable_processors()} of {os.cpu_count()} usable")]
    match governor():
        case None:
            findings.append(Finding("clock governor", "not shown here (a virtual machine, or not Linux)", "note"))
        case "performance":
            findings.append(Finding("clock governor", "performance"))
        case other:
            mend = "For steadier figures: sudo cpupower frequency-set -g performance"
            findings.append(Finding("clock governor", other, "note", mend))
    before = host.counters()
    time.sleep(watch_s)
    findings += _busy(Load.between(before, host.counters()))
    resolution_s = host.thread_resolution_s()
    coarse: State = "ok" if resolution_s <= 1e-5 else "note"
    findings.append(Finding("wall clock", f"a reading costs {timer_cost_s(host) * 1e9:.0f} ns"))
    findings.append(Finding("clock of a thread", f"steps of {resolution_s * 1e9:.0f} ns", coarse))
    told = host.waits() is not None
    findings.append(
        Finding("waits of a thread", "counted")
        if told
        else Finding("waits of a thread", "not counted here: only the wall clock is used", "note")
    )
    return tuple(findings)


def _busy(load: Load) -> list[Finding]:
    """Who else wanted the processors while we watched."""
    quieter = "Stop other work while measuring; verdicts hold under load, they take longer."
    findings: list[Finding] = []
    if load.pressure is None:
        mend = "Boot Linux with psi=1 to have contention flagged."
        findings.append(Finding("pressure", "not shown (/proc/pressure/cpu)", "note", mend))
    else:
        found = f"a task waited for a processor {load.pressure:.0%} of the time"
        findings.append(_noted("pressure", found, load.pressure > 0.05, quieter))
    if load.others is not None:
        found = f"other processes keep {load.others:.2f} processors busy"
        findings.append(_noted("other processes", found, load.others >= 0.25, quieter))
    if load.steal is not None and load.steal >= 0.02:
        found = f"the hypervisor takes {load.steal:.2f} processors away"
        findings.append(Finding("stolen time", found, "note", "Measure on a host of one's own."))
    return findings


def _noted(what: str, found: str, bad: bool, mend: str) -> Finding:
    return Finding(what, found, "note", mend) if bad else Finding(what, found)


def gpus() -> tuple[Finding, ...]:
    """The NVIDIA GPUs as NVML shows them: identity, driver, division, clocks, throttling, users, energy counter."""
    from .energy.meter import MeterUnavailableError
    from .energy.nvml import gpu_survey

    try:
        return tuple(
            Finding(what, found, "missing" if bad else "note" if mend else "ok", mend)
            for what, found, bad, mend in gpu_survey()
        )
    except MeterUnavailableError as error:
        return (Finding("NVML", error.message, "missing", error.mend or ""),)


def energy(powercap: Path = Path("/sys/class/powercap")) -> tuple[Finding, ...]:
    """The meters of energy for this machine's processors; those of GPUs stand with the GPUs."""
    from .energy import EnergyMeter, MeterUnavailableError, able

    try:
        meter = able(EnergyMeter.rapl(powercap))
    except MeterUnavailableError as error:
        return (Finding("RAPL", error.message, "missing", error.mend or ""),)
    return (Finding("RAPL", meter.support().device),)


def isolation() -> tuple[Finding, ...]:
    """The process in which networks are measured, the locks, temporary files and memory."""
    from .isolation.bench import IsolatedBench
    from .isolation.worker import most_memory_bytes
    from .lock import holders, lock_directory
    from .registry import target_named

    findings: list[Finding] = []
    began_s = time.perf_counter()
    try:
        with IsolatedBench(target_named("onnxruntime:cpu")) as bench:
            bench.worker.ready()
            findings.append(Finding("measuring process", f"starts in {time.perf_counter() - began_s:.1f} s"))
    except NascError as error:
        findings.append(Finding("measuring process", error.message, "missing", error.mend or ""))
    if (free := most_memory_bytes()) is not None:
        findings.append(Finding("memory for measuring", f"{free / 2**30:.1f} GiB (four fifths of what is free)"))
    try:
        folder = lock_directory()
        held = holders(folder)
        findings.append(Finding("device locks", f"{folder}"))
        findings += [Finding(f"lock of {device}", f"held by {holder}", "note") for device, holder in held.items()]
    except NascError as error:
        findings.append(Finding("device locks", error.message, "missing", error.mend or ""))
    if sys.platform != "win32":
        found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        findings.append(
            Finding("C compiler", found)
            if found
            else Finding("C compiler", "none; only nasc's own tests need one", "note", "sudo apt-get install gcc")
        )
    return tuple(findings)


def peaks(calibrate: bool = False, threads: int = 1) -> tuple[Finding, ...]:
    """What the targets that run here can do at best, as far as it was calibrated.

    Args:
        calibrate: measure them now, some fifteen seconds each.
        threads: threads of the runtime.
    """
    from .device_profile import device_profile, kept_profile
    from .registry import targets

    findings: list[Finding] = []
    for name, target in targets().items():
        if target.unavailable() is not None:
            continue
        try:
            kept = device_profile(target, threads, calibrate=True) if calibrate else kept_profile(target, threads)
        except NascError as error:
            findings.append(Finding(name, error.message, "missing", error.mend or "See the section on targets."))
            continue
        if kept is None:
            mend = "nasc doctor --calibrate" + ("" if threads == 1 else f" --threads {threads}")
            findings.append(Finding(name, f"not calibrated for {threads} thread(s)", "note", mend))
            continue
        told = f"{kept.device}, {kept.runtime}, {threads} thread(s), calibrated {kept.taken}"
        findings += [Finding(name, told), *(Finding(f"{name}: {what}", found) for what, found in kept.rows())]
        findings += [Finding(name, remark, "note", "nasc doctor --calibrate") for remark in kept.remarks]
    return tuple(findings)


SECTIONS: dict[str, Callable[[], tuple[Finding, ...]]] = {
    "software": software,
    "targets": runtimes,
    "processors": processors,
    "GPUs": gpus,
    "energy of processors": energy,
    "peaks and bandwidths": peaks,
    "measuring": isolation,
}
"""What `nasc doctor` looks at, in order."""
