"""Where and with what a measurement was taken: what one must know to believe it, or to take it again."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from .artifact import Artifact

PACKAGES = ("nasc", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "nvidia-ml-py")


def host() -> dict[str, Any]:
    """This machine: names, processors, and how their clocks are governed; None where the system does not tell."""
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "processor": processor(),
        "processors": os.cpu_count(),
        "usable_processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": governor(),
    }


@lru_cache(maxsize=1)
def processor() -> str:
    """The processor's model name where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def governor(cpus: Path = Path("/sys/devices/system/cpu")) -> str | None:
    """Who decides about the processors' clocks: `performance`, `powersave`, `schedutil`, …; None if it is not told."""
    found = {read for entry in sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")) if (read := _text(entry))}
    return ", ".join(sorted(found)) or None


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The installed versions of packages; those that are missing are left out. Imports none of them."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def model_digest(model: Artifact | Path) -> str:
    """SHA-256 (hex) of all that a model consists of: its file, then the files beside it in the order it names them."""
    if isinstance(model, Artifact):
        return model.digest
    found = hashlib.sha256()
    for path in files_of(model):
        with path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                found.update(piece)
    return found.hexdigest()


def files_of(model: Path) -> tuple[Path, ...]:
    """A model's file, and the files with tensors that it names; those that are missing are left out.

    A file that is no ONNX model is one file by itself: whether it runs is for the runtime to say.
    """
    import onnx
    from google.protobuf.message import DecodeError  # comes with onnx

    try:
        loaded = onnx.load(str(model), load_external_data=False)
    except DecodeError:
        return (model,)
    named = {
        entry.value
        for tensor in loaded.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    beside = (model.parent / name for name in sorted(named))
    return (model, *(path for path in beside if path.is_file()))


def size_bytes(model: Artifact | Path) -> int:
    """The size of all that a model consists of."""
    return model.size_bytes if isinstance(model, Artifact) else sum(p.stat().st_size for p in files_of(model))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
