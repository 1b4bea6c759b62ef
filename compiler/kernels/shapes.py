"""Ops that give the same elements another shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ..execution import Frame, kernel, values


@kernel("reshape")
def reshape(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Another shape in row-major order."""
    return inputs[0].reshape(frame.resolve(op.attribute("shape")))


@kernel("permute")
def permute(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Axes in another order."""
    return inputs[0].permute(frame.resolve(op.attribute("dims")))


@kernel("expand")
def expand(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Axes of length 1 stretched."""
    return inputs[0].expand(frame.resolve(op.attribute("shape")))


@kernel("repeat")
def repeat(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Whole axes laid end to end."""
    return inputs[0].repeat(frame.resolve(op.attribute("repeats")))


@kernel("repeat_interleave")
def repeat_interleave(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Each index of an axis several times in a row."""
    return inputs[0].repeat_interleave(**values(frame, op))


@kernel("flip")
def flip(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Axes in reverse."""
    return inputs[0].flip(frame.resolve(op.attribute("dims")))


@kernel("roll")
def roll(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Axes shifted."""
    shifts, dims = values(frame, op).values()
    return torch.roll(inputs[0], tuple(shifts), tuple(dims))


@kernel("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def shuffle(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Channels to pixels, or back; channels of all groups in turn."""
    return getattr(F, op.kind)(inputs[0], *values(frame, op).values())
