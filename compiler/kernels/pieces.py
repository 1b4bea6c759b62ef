"""Ops that join values or take parts of them."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ..execution import Frame, kernel, values


@kernel("cat")
def cat(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Values laid end to end."""
    return torch.cat(inputs, dim=cast(int, op.attribute("dim", 0)))


@kernel("stack")
def stack(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Values along a new axis."""
    return torch.stack(inputs, dim=cast(int, op.attribute("dim", 0)))


@kernel("split")
def split(frame: Frame, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Consecutive parts."""
    sizes, dim = values(frame, op).values()
    return tuple(inputs[0].split(sizes, dim))


@kernel("narrow")
def narrow(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """A part of an axis."""
    return inputs[0].narrow(**values(frame, op))


@kernel("slice")
def slice_(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Every few indices of an axis."""
    dim, start, end, step = values(frame, op).values()
    return torch.ops.aten.slice.Tensor(inputs[0], dim, start, end, step)


@kernel("select")
def select(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """One index of an axis."""
    return inputs[0].select(**values(frame, op))


@kernel("unbind")
def unbind(frame: Frame, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Each index of an axis."""
    return tuple(inputs[0].unbind(**values(frame, op)))


@kernel("glu")
def glu(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """The first half times the sigmoid of the second."""
    return F.glu(inputs[0], **values(frame, op))


@kernel("pad")
def pad(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """More indices before and after axes."""
    amounts, mode, value = values(frame, op).values()
    return F.pad(inputs[0], amounts, mode, value if mode == "constant" else None)


@kernel("slice_scatter")
def slice_scatter(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """A part of an axis replaced."""
    source, part = inputs
    return torch.slice_scatter(source, part, **values(frame, op))


@kernel("select_scatter")
def select_scatter(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """One index of an axis replaced."""
    source, part = inputs
    return torch.select_scatter(source, part, **values(frame, op))


@kernel("unfold")
def unfold(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Windows of an image as columns."""
    return F.unfold(inputs[0], **values(frame, op))


@kernel("fold")
def fold(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Columns summed back into an image."""
    return F.fold(inputs[0], **values(frame, op))


@kernel("tensor_unfold")
def tensor_unfold(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Overlapping parts of an axis."""
    return inputs[0].unfold(*values(frame, op).values())
