"""Layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ..execution import Frame, alike, kernel, values


@kernel("linear")
def linear(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """`y = x W^T + b`."""
    return F.linear(*alike(inputs))


@kernel(*(f"{k}{n}d" for k in ("conv", "conv_transpose") for n in (1, 2, 3)))
def convolution(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Convolution and transposed convolution."""
    x, weight, *bias = alike(inputs)
    return getattr(F, op.kind)(x, weight, bias[0] if bias else None, **values(frame, op))
