"""Targets by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ..ir import UsageError
from ..ir.errors import did_you_mean
from .base import Target


@lru_cache(maxsize=1)
def targets() -> Mapping[str, Target]:
    """All targets that nasc knows, by name; whether this machine can run one says its `unavailable`."""
    from .onnxruntime.target import CPU, CUDA, TENSORRT

    known: tuple[Target, ...] = (CPU, CUDA, TENSORRT)
    return {target.name: target for target in known}


def target_named(name: str) -> Target:
    """The target of a name; `auto` is the CUDA provider where a device runs it, and else the CPU.

    TensorRT is never chosen by `auto`: it builds an engine per network, which takes minutes.

    Raises:
        UsageError: there is no such target. One that cannot run on this machine can still be written for.
    """
    known = targets()
    if name == "auto":
        cuda = known["onnxruntime:cuda"]
        return known["onnxruntime:cpu"] if cuda.unavailable() else cuda
    if (found := known.get(name)) is None:
        raise UsageError(f"there is no target {name!r}", mend=did_you_mean(name, ["auto", *known]))
    return found
