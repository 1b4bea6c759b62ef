"""Convolutions of 3 x 3 windows with a quarter of the multiplications, where last bits do not matter: calibration.

F(4 x 4, 3 x 3): a tile of 6 x 6 inputs gives 4 x 4 results by 36 products per pair of channels instead of 144, between
linear transforms of inputs, weights and results. Results differ from `conv2d` by some 1e-5 of the largest.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ir import Graph, Op, operand
from .execution import KERNELS, Frame, Kernel, values

TILE = 4
LEAST_CHANNELS = 128
"""With fewer channels in or out, moving tiles takes as long as the multiplications that are saved."""
MOST_BYTES = 1 << 28
"""What transformed weights may take in memory, four times what they are."""
_INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_WEIGHT = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
"""In 24ths."""
_RESULT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def quick_kernels(graph: Graph, stored: Mapping[str, Tensor]) -> dict[str, Kernel]:
    """How ops run where results may differ from torch's in the last bits; on processors.

    Args:
        graph: what will run.
        stored: the real numbers of its stored values.
    """
    ready: dict[str, Tensor] = {}
    room = MOST_BYTES
    for op in graph.ops:
        weight = stored.get(operand(op, "weight") or "") if op.kind == "conv2d" else None
        if weight is not None and pays(op, weight) and 16 * weight.numel() <= room:
            ready[op.name] = transformed(weight)
            room -= 16 * weight.numel()

    def conv2d(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        x, _, *bias = inputs
        if op.name not in ready or x.dtype != torch.float32 or x.device.type != "cpu":
            return KERNELS["conv2d"](frame, op, inputs)
        padding = values(frame, op, "padding")["padding"]
        return convolved(x, ready[op.name], tuple(padding), bias[0] if bias else None)

    return {**KERNELS, "conv2d": conv2d}


def pays(op: Op, weight: Tensor) -> bool:
    """Whether a convolution is one that takes less time so."""
    plain = {"stride": (1, 1), "dilation": (1, 1), "groups": 1}
    if any(op.attribute(name, usual) != usual for name, usual in plain.items()):
        return False
    channels = min(weight.shape[:2])
    return weight.dtype == torch.float32 and weight.shape[2:] == (3, 3) and channels >= LEAST_CHANNELS


def transformed(weight: Tensor) -> Tensor:
    """Weights [outputs, inputs, 3, 3] as products take them, [36, inputs, outputs]."""
    outputs, inputs = weight.shape[:2]
    each = torch.tensor(_WEIGHT, dtype=torch.float64) / 24
    return (_both(each) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).reshape(36, inputs, outputs)


def convolved(x: Tensor, weight: Tensor, padding: tuple[int, int], bias: Tensor | None) -> Tensor:
    """The convolution of maps [N, inputs, H, W] with transformed weights, [N, outputs, H', W']; channels lie last."""
    samples, inputs, height, width = x.shape
    above, left = padding
    height, width = height + 2 * above - 2, width + 2 * left - 2
    down, across, outputs = -(-height // TILE), -(-width // TILE), weight.shape[2]
    more = TILE * down - height, TILE * across - width
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left + more[1], above, above + more[0]))
    sample, row, column, channel = padded.stride()
    tiles = padded.as_strided(
        (6, 6, samples, down, across, inputs), (row, column, sample, TILE * row, TILE * column, channel)
    )
    given = _both(torch.tensor(_INPUT)) @ tiles.reshape(36, -1)
    made = torch.bmm(given.reshape(36, -1, inputs), weight).reshape(36, -1)
    made = (_both(torch.tensor(_RESULT)) @ made).reshape(TILE, TILE, samples, down, across, outputs)
    result = made.permute(2, 3, 0, 4, 1, 5).reshape(samples, TILE * down, TILE * across, outputs)
    if bias is not None:
        result += bias
    return result[:, :height, :width].permute(0, 3, 1, 2)


def _both(each: Tensor) -> Tensor:
    """A transform of rows and columns, as one matrix."""
    return torch.kron(each, each).float()
