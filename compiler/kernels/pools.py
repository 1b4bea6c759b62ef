"""Pools and changes of resolution."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ..execution import ExecutionError, Frame, kernel, values


@kernel(*(f"{k}_pool{n}d" for k in ("max", "avg") for n in (1, 2, 3)))
def pool(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """The largest value or the mean of each window."""
    given = values(frame, op)
    if op.kind == "avg_pool1d" and given.pop("divisor_override") is not None:
        raise ExecutionError(f"error: avg_pool1d %{op.name}: torch knows no divisor_override here")
    return getattr(F, op.kind)(inputs[0], **given)


@kernel(*(f"adaptive_avg_pool{n}d" for n in (1, 2, 3)))
def adaptive(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Means over a number of windows."""
    return getattr(F, op.kind)(inputs[0], frame.resolve(op.attribute("output_size")))


@kernel("interpolate")
def interpolate(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Another resolution."""
    given: dict[str, Any] = values(frame, op)
    if given["scale_factor"] is not None:
        given["size"] = None
    if given["mode"] in ("nearest", "nearest-exact"):
        given["align_corners"] = None
    return F.interpolate(inputs[0], **given)
