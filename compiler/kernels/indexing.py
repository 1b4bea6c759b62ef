"""Ops that look values up by their position."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ..execution import Frame, kernel, values


@kernel("embedding")
def embedding(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Rows of a table."""
    padding = cast(int, op.attribute("padding_idx", -1))
    return F.embedding(*inputs, padding_idx=None if padding < 0 else padding)


@kernel("index")
def index(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Elements by positions."""
    x, *positions = inputs
    dims = cast("tuple[int, ...]", op.attribute("dims"))
    at: list[Any] = [slice(None)] * x.dim()
    for dim, found in zip(dims, positions, strict=True):
        at[dim] = found
    return x[tuple(at)]


@kernel("index_select")
def index_select(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Some indices of an axis."""
    x, positions = inputs
    return x.index_select(cast(int, op.attribute("dim")), positions)


@kernel("gather")
def gather(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """One value per position."""
    x, positions = inputs
    return torch.gather(x, **values(frame, op), index=positions)
