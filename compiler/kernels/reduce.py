"""Ops that look along an axis."""

from __future__ import annotations

import torch
from torch import Tensor

from ...ir import Op
from ..execution import Frame, kernel, values


@kernel("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "any", "all")
def reduce(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """One value for all along some axes."""
    given = values(frame, op)
    given["dim"] = given["dim"] or list(range(inputs[0].dim()))
    return getattr(torch, op.kind)(inputs[0], **given)


@kernel("prod")
def prod(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Products along some axes."""
    dims, keepdim = values(frame, op).values()
    found = inputs[0]
    for dim in sorted(dims or range(found.dim()), reverse=True):
        found = found.prod(dim, keepdim=keepdim)
    return found


@kernel("norm")
def norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Norms of vectors along some axes."""
    order, dims, keepdim = values(frame, op).values()
    return torch.linalg.vector_norm(inputs[0], order, dims or None, keepdim)


@kernel("cumsum")
def cumsum(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Running sums."""
    return inputs[0].cumsum(**values(frame, op))


@kernel("argmax", "argmin")
def position(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Where the largest or smallest value stands."""
    return getattr(torch, op.kind)(inputs[0], **values(frame, op))


@kernel("max", "min", "topk", "sort")
def ordered(frame: Frame, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Values by size, and where they stood."""
    return tuple(getattr(torch, op.kind)(inputs[0], **values(frame, op)))
