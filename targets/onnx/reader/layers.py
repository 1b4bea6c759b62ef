"""Layers, products and norms."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto

from ....ir import Const
from ..elements import Array
from .base import Reader, reads


@reads("Gemm")
def gemm(reader: Reader, node: NodeProto) -> None:
    """A linear layer where the matrix stands as `[out, in]`; a stored one is turned and scaled for that."""
    alpha, beta = (float(reader.attribute(n, 1.0)) for n in ("alpha", "beta"))
    given = reader.value(0)
    if reader.attribute("transA", 0):
        (given,) = reader.op("permute", [given], dims=(1, 0))
    weight = matrix(reader, 1, turn=not reader.attribute("transB", 0), scale=alpha)
    out = reader.types[weight].axes[0]
    bias = reader.constants.get(node.input[2]) if reader.there(2) else None
    if not reader.there(2):
        reader.give("linear", [given, weight])
    elif bias is not None and bias.size == np.prod([n.value for n in (out,) if isinstance(n, Const)]) and beta == 1:
        name = reader.value(2) if bias.ndim == 1 else reader.stored(node.input[2], bias.reshape(-1))
        reader.give("linear", [given, weight, name])
    elif beta == 1 and node.input[2] in reader.values and reader.type(2).axes == (out,):
        reader.give("linear", [given, weight, reader.value(2)])
    else:
        (result,) = reader.op("linear", [given, weight])
        shift = reader.value(2)
        if beta != 1:
            (shift,) = reader.op("mul", [shift], other=beta)
        reader.give("add", [result, shift])


def matrix(reader: Reader, index: int, *, turn: bool, scale: float = 1.0) -> str:
    """A matrix as `[out, in]`."""
    name = reader.node.input[index]
    stored = reader.constants.get(name)
    if stored is not None and (turn or scale != 1):
        array = np.ascontiguousarray(stored.T if turn else stored)
        wanted = name.removesuffix("/transposed")
        key = f"{name} as rows {scale}"
        if key not in reader.values:
            reader.values[key] = reader.stored(wanted, array if scale == 1 else (array * scale).astype(array.dtype))
        return reader.values[key]
    found = reader.value(index)
    if turn:
        (found,) = reader.op("permute", [found], dims=(1, 0))
    if scale != 1:
        (found,) = reader.op("mul", [found], other=scale)
    return found


@reads("MatMul")
def matmul(reader: Reader, node: NodeProto) -> None:
    """A matrix product; with a stored matrix on the right it is a linear layer."""
    right = reader.constants.get(node.input[1])
    floats = right is not None and right.dtype.kind == "f"
    if right is not None and floats and right.ndim == 2 and reader.rank(0) > 1:
        reader.give("linear", [reader.value(0), matrix(reader, 1, turn=True)])
    else:
        reader.give("matmul", [reader.value(0), reader.value(1)])


def joined_bias(reader: Reader) -> bool:
    """Give a linear layer made of a MatMul the bias that is added to its result."""
    node = reader.node
    for layer, vector in ((0, 1), (1, 0)):
        bias = reader.constants.get(node.input[vector])
        made = reader.producer(node.input[layer])
        if bias is None or bias.ndim != 1 or made is None or made.kind != "linear" or len(made.inputs) != 2:
            continue
        if made.type.axes[-1] != Const(bias.size):
            continue
        if (op := reader.replace_last(node.input[layer])) is None:
            continue
        reader.give("linear", [*op.inputs, reader.value(vector)])
        return True
    return False


@reads("Einsum")
def einsum(reader: Reader, node: NodeProto) -> None:
    """Sums of products by letters."""
    equation = str(reader.attribute("equation")).replace(" ", "")
    if "..." in equation or "->" not in equation:
        raise reader.error(f"equation {equation!r} must be letters with an arrow")
    reader.give("einsum", [reader.value(i) for i in range(len(node.input))], equation=equation)


def window_of(reader: Reader, lengths: list[int], kernel: list[int]) -> dict[str, Any]:
    """Stride, padding (starts, then ends) and dilation of a window.

    Raises:
        ReadError: a way of padding that is not known.
    """
    rank = len(kernel)
    stride = list(reader.attribute("strides", [1] * rank))
    dilation = list(reader.attribute("dilations", [1] * rank))
    pads = list(reader.attribute("pads", [0] * 2 * rank))
    auto = reader.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        need = [
            max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            for n, s, d, k in zip(lengths, stride, dilation, kernel, strict=True)
        ]
        low, high = [n // 2 for n in need], [n - n // 2 for n in need]
        pads = low + high if auto == "SAME_UPPER" else high + low
    elif auto == "VALID":
        pads = [0] * 2 * rank
    return {"stride": tuple(stride), "dilation": tuple(dilation), "pads": pads}


def spatial(reader: Reader, count: int) -> list[int]:
    """The lengths of the last axes, which must be numbers."""
    axes = reader.type(0).axes[-count:]
    if not all(isinstance(a, Const) for a in axes):
        raise reader.error("a window slides along an axis that depends on the batch")
    return [a.value for a in axes if isinstance(a, Const)]


def padded(reader: Reader, given: str, pads: list[int], value: float = 0.0) -> str:
    """A value with explicit padding, where a window needs more on one side."""
    rank = len(pads) // 2
    amounts: list[int] = []
    for i in reversed(range(rank)):
        amounts += [pads[i], pads[i + rank]]
    (found,) = reader.op("pad", [given], pad=tuple(amounts), value=value)
    return found


@reads("Conv")
def convolution(reader: Reader, node: NodeProto) -> None:
    """Convolution over one, two or three axes."""
    weight = reader.value(1)
    kernel = [a.value for a in reader.types[weight].axes[2:] if isinstance(a, Const)]
    rank = len(kernel)
    window = window_of(reader, spatial(reader, rank), kernel)
    given, pads = reader.value(0), window["pads"]
    if pads[:rank] != pads[rank:]:
        given, pads = padded(reader, given, pads), [0] * 2 * rank
    operands = [given, weight, *([reader.value(2)] if reader.there(2) else [])]
    reader.give(
        f"conv{rank}d", operands, stride=window["stride"], padding=tuple(pads[:rank]), dilation=window["dilation"],
        groups=int(reader.attribute("group", 1)),
    )  # fmt: skip


@reads("ConvTranspose")
def transposed(reader: Reader, node: NodeProto) -> None:
    """Transposed convolution."""
    weight = reader.value(1)
    kernel = [a.value for a in reader.types[weight].axes[2:] if isinstance(a, Const)]
    rank = len(kernel)
    window = window_of(reader, spatial(reader, rank), kernel)
    pads, more = window["pads"], list(reader.attribute("output_padding", [0] * rank))
    if reader.attribute("auto_pad", "NOTSET") != "NOTSET" or reader.attribute("output_shape") is not None:
        raise reader.error("its padding must be explicit")
    if pads[:rank] != pads[rank:]:
        more = [m + low - high for m, low, high in zip(more, pads[:rank], pads[rank:], strict=True)]
        if min(more) < 0:
            raise reader.error(f"it takes more off the ends than off the starts: {pads}")
    operands = [reader.value(0), weight, *([reader.value(2)] if reader.there(2) else [])]
    reader.give(
        f"conv_transpose{rank}d", operands, stride=window["stride"], padding=tuple(pads[:rank]),
        output_padding=tuple(more), groups=int(reader.attribute("group", 1)), dilation=window["dilation"],
    )  # fmt: skip


@reads("BatchNormalization")
def batch_norm(reader: Reader, node: NodeProto) -> None:
    """Batch norm with the statistics of training."""
    if reader.attribute("training_mode", 0):
        raise reader.error("it is in training mode")
    scale, shift = reader.value(1), reader.value(2)
    mean, variance = reader.value(3, "buffer"), reader.value(4, "buffer")
    inputs = [reader.value(0), mean, variance, scale, shift]
    reader.give("batch_norm", inputs, eps=float(reader.attribute("epsilon", 1e-5)))


@reads("LayerNormalization", "RMSNormalization")
def layer_norm(reader: Reader, node: NodeProto) -> None:
    """Norms over the last axes."""
    axes = reader.type(0).axes[reader.axis(-1) :]
    if not all(isinstance(a, Const) for a in axes):
        raise reader.error("it is over an axis that depends on the batch")
    shape = tuple(a.value for a in axes if isinstance(a, Const))
    inputs = [reader.value(0), *(_shaped(reader, i, shape) for i in range(1, len(node.input)) if reader.there(i))]
    kind = "layer_norm" if node.op_type == "LayerNormalization" else "rms_norm"
    reader.give(kind, inputs, normalized_shape=shape, eps=float(reader.attribute("epsilon", 1e-5)))


def _shaped(reader: Reader, index: int, shape: tuple[int, ...]) -> str:
    """A constant operand stretched to a shape."""
    name = reader.node.input[index]
    array = reader.constants.get(name)
    if array is None or array.shape == shape:
        return reader.value(index)
    return reader.stored(name, np.ascontiguousarray(np.broadcast_to(array, shape)))


@reads("InstanceNormalization")
def instance_norm(reader: Reader, node: NodeProto) -> None:
    """Statistics per sample and channel."""
    inputs = [reader.value(i) for i in range(3)]
    reader.give("instance_norm", inputs, eps=float(reader.attribute("epsilon", 1e-5)))


@reads("GroupNormalization")
def group_norm(reader: Reader, node: NodeProto) -> None:
    """Statistics per sample and group; below opset 21 scale and shift are per group."""
    groups = int(reader.attribute("num_groups"))
    channels = reader.type(0).axes[1]
    affine = [reader.value(i) for i in (1, 2)]
    if reader.opset < 21 and isinstance(channels, Const) and channels.value != groups:
        arrays: list[Array] = []
        for i in (1, 2):
            if (found := reader.constants.get(node.input[i])) is None:
                raise reader.error(f"its operand {node.input[i]!r} must be a constant")
            arrays.append(np.repeat(found, channels.value // groups))
        affine = [reader.stored(node.input[i], a) for i, a in zip((1, 2), arrays, strict=True)]
    inputs = [reader.value(0), *affine]
    reader.give("group_norm", inputs, num_groups=groups, eps=float(reader.attribute("epsilon", 1e-5)))
