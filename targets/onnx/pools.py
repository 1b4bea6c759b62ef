"""Pools: the largest value or the mean of windows, of a given size or of a given number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from ...ir import Op
from ...ir.formats import BF16, F32
from .matrices import along_axes
from .quantize import step_and_zero
from .registry import emits
from .writer import Writer


@dataclass(frozen=True)
class Window:
    """A sliding window over the last axes, as PyTorch's pools have it.

    Args:
        kernel: lengths of the window.
        stride: how far it moves.
        padding: what is added on both sides.
        dilation: distance between the values it reads.
        overhang: what it reaches past the padded end; only with `ceil_mode`.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    overhang: tuple[int, ...]

    @property
    def pads(self) -> tuple[int, ...]:
        """ONNX pads: starts, then ends. An explicit end in place of ONNX's `ceil_mode`, whose count differs."""
        return self.padding + tuple(p + o for p, o in zip(self.padding, self.overhang, strict=True))


def window_of(writer: Writer, op: Op, rank: int) -> Window:
    """The window of a pool over `rank` axes."""
    kernel, stride, padding = (writer.window(op, n, rank) for n in ("kernel_size", "stride", "padding"))
    dilation = writer.window(op, "dilation", rank) if op.kind.startswith("max") else (1,) * rank
    lengths, counts = writer.lengths(op.inputs[0])[-rank:], writer.lengths(op.name)[-rank:]
    overhang = tuple(
        max(0, (count - 1) * s + d * (k - 1) + 1 - n - 2 * p)
        for n, count, k, s, p, d in zip(lengths, counts, kernel, stride, padding, dilation, strict=True)
    )
    return Window(kernel, stride, padding, dilation, overhang)


def pooled(
    writer: Writer, op: Op, kind: str, given: str, rank: int, result: str, **attributes: int | Sequence[int]
) -> str:
    """A pooling node; an input without a batch axis gets one for the node's sake.

    `bf16` is pooled in `f32`: ONNX Runtime's CUDA provider has convolutions of it and no pools (1.31.1).
    """
    if op.type.format == BF16:
        wide = writer.cast(given, f"{op.name}/wide", F32)
        found = _pooled(writer, op, kind, wide, rank, f"{result}/{F32}", **attributes)
        return writer.cast(found, result, BF16)
    return _pooled(writer, op, kind, given, rank, result, **attributes)


def _pooled(
    writer: Writer, op: Op, kind: str, given: str, rank: int, result: str, **attributes: int | Sequence[int]
) -> str:
    if writer.type(op.inputs[0]).rank == rank + 2:
        return writer.node(kind, [given], result, **attributes)
    zero = writer.integers((0,))
    wide = writer.node("Unsqueeze", [given, zero], f"{op.name}/batched")
    wide = writer.node(kind, [wide], f"{op.name}/pooled", **attributes)
    return writer.node("Squeeze", [wide, zero], result)


@emits("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(writer: Writer, op: Op) -> None:
    """The largest value of each window; padding never wins.

    Integer codes of up to 8 bits are pooled as they are. Wider ones and 8-bit floats, for which ONNX has no MaxPool, go
    through the numbers they stand for, of which the largest is one of them, so nothing is rounded. Around a pool of
    8-bit floats stand maxima of one operand, or ONNX Runtime would pool the codes after all. It takes no padding of the
    length of the kernel, as dilated windows may ask for; that is padded before, with numbers that never win. It merges
    a Pad with zeros into the pool, where they would never win (1.31.1); a maximum of one operand stands between them.
    """
    rank, quantized = int(op.kind[-2]), op.type.quantized
    window = window_of(writer, op, rank)
    pads = window.pads
    overlong = any(pad >= k for pad, k in zip(pads, window.kernel * 2, strict=True))
    floats = quantized and op.type.format.is_float
    numbers = quantized and (floats or op.type.format.bits > 8 or overlong)
    given = writer.real(op.inputs[0]) if numbers else writer.moved(op)
    before = writer.graph.producers.get(op.inputs[0])
    if floats or (before is not None and before.kind == "pad" and not quantized):
        given = writer.node("Max", [given], f"{op.name}/input")
    if overlong:
        lead = (0,) * (writer.type(op.inputs[0]).rank - rank)
        around = writer.integers(lead + pads[:rank] + lead + pads[rank:])
        least = writer.number(-inf, F32 if quantized else op.type.format)
        given = writer.node("Pad", [given, around, least], f"{op.name}/padded")
        pads = (0,) * len(pads)
    result = pooled(
        writer, op, "MaxPool", given, rank, f"{op.name}/numbers" if numbers else op.name,
        kernel_shape=window.kernel, strides=window.stride, pads=pads, dilations=window.dilation,
    )  # fmt: skip
    if numbers:
        step, zero = step_and_zero(writer, op.name, op.type)
        if floats:
            result = writer.node("Max", [result], f"{op.name}/largest")
        writer.node("QuantizeLinear", [result, step, zero], op.name)


@emits("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(writer: Writer, op: Op) -> None:
    """The mean of each window.

    PyTorch divides by the part of the window that lies within the padded input, or within the input alone
    (`count_include_pad=False`), or by `divisor_override`; the overhang of `ceil_mode` never counts.
    """
    rank = int(op.kind[-2])
    window, format = window_of(writer, op, rank), op.type.format
    given = writer.real(op.inputs[0], format)
    fixed = writer.attribute(op, "divisor_override")
    counts_padding = bool(writer.attribute(op, "count_include_pad")) and any(window.padding)
    shape = {"kernel_shape": window.kernel, "strides": window.stride}
    if fixed is not None:
        assert isinstance(fixed, int)
        mean = pooled(
            writer, op, "AveragePool", given, rank, f"{op.name}/mean", **shape, pads=window.pads, count_include_pad=1
        )
        writer.node("Mul", [mean, writer.number(float(np.prod(window.kernel)) / fixed, format)], op.name)
    elif counts_padding and any(window.overhang):
        ends = (0,) * (writer.type(op.inputs[0]).rank - rank) + window.padding
        padded = writer.node("Pad", [given, writer.integers(ends + ends)], f"{op.name}/padded")
        pads = (0,) * rank + window.overhang
        pooled(writer, op, "AveragePool", padded, rank, op.name, **shape, pads=pads, count_include_pad=0)
    else:
        pooled(
            writer, op, "AveragePool", given, rank, op.name, **shape, pads=window.pads,
            count_include_pad=int(counts_padding),
        )  # fmt: skip


@emits("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_avg_pool(writer: Writer, op: Op) -> None:
    """Means over a given number of windows.

    One window is a global pool; windows that divide the input evenly are a pool; others, which overlap, are products
    with a matrix of means along each axis.
    """
    rank, format = int(op.kind[-2]), op.type.format
    lengths, counts = writer.lengths(op.inputs[0])[-rank:], writer.lengths(op.name)[-rank:]
    given = writer.real(op.inputs[0], format)
    if all(count == 1 for count in counts):
        pooled(writer, op, "GlobalAveragePool", given, rank, op.name)
    elif all(n % count == 0 for n, count in zip(lengths, counts, strict=True)):
        kernel = tuple(n // count for n, count in zip(lengths, counts, strict=True))
        pooled(writer, op, "AveragePool", given, rank, op.name, kernel_shape=kernel, strides=kernel)
    else:
        along_axes(writer, op, given, [means_matrix(n, count) for n, count in zip(lengths, counts, strict=True)])


def means_matrix(length: int, count: int) -> np.ndarray:
    """The matrix `[count, length]` that takes means over windows `floor(i n / c)` to `ceil((i + 1) n / c)`.

    Source: torch.nn.AdaptiveAvgPool2d (`start_index`, `end_index` in ATen/native/AdaptivePooling.h).
    """
    matrix = np.zeros((count, length))
    for i in range(count):
        start, end = i * length // count, -(-(i + 1) * length // count)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
