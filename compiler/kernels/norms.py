"""Normalisations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ..execution import ExecutionError, Frame, alike, kernel, values


@kernel("batch_norm")
def batch_norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """With the statistics of training; while training, with the batch's own."""
    x, mean, var, *affine = inputs if frame.training else alike(inputs)  # training writes to the running statistics
    weight, bias = (*affine, None, None)[:2]
    if frame.training and x.numel() == x.shape[1]:
        place = f"{op.location}: " if op.location else ""
        raise ExecutionError(
            f"{place}error: {op.kind} %{op.name} is trained on batches of one sample, which gives one value per"
            " channel: the statistics of a batch take more",
            mend="Train on more samples at once (samples, batch_size), or put `fold-batch-norm` before `train`.",
        )
    return F.batch_norm(x, mean, var, weight, bias, training=frame.training, momentum=0.1, **values(frame, op))


@kernel("instance_norm")
def instance_norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Statistics per sample and channel."""
    x, *affine = alike(inputs)
    weight, bias = (*affine, None, None)[:2]
    return F.instance_norm(x, None, None, weight, bias, use_input_stats=True, **values(frame, op))


@kernel("group_norm")
def group_norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Statistics per sample and group of channels."""
    x, *affine = alike(inputs)
    weight, bias = (*affine, None, None)[:2]
    return F.group_norm(x, weight=weight, bias=bias, **values(frame, op))


@kernel("layer_norm")
def layer_norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Statistics over the last axes."""
    x, *affine = alike(inputs)
    weight, bias = (*affine, None, None)[:2]
    return F.layer_norm(x, weight=weight, bias=bias, **values(frame, op))


@kernel("rms_norm")
def rms_norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Root mean square over the last axes."""
    x, *weight = alike(inputs)
    return F.rms_norm(x, weight=weight[0] if weight else None, **values(frame, op))
