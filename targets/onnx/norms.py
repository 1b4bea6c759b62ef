"""Normalisations."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ...ir import Op
from .elements import element, stored
from .lengths import reshaped, times
from .registry import emits
from .writer import Writer


@emits("batch_norm")
def batch_norm(writer: Writer, op: Op) -> None:
    """BatchNormalization with the statistics of training; a missing scale is 1 and a missing shift 0."""
    format = op.type.format
    mean, variance, *affine = op.inputs[1:]
    channels = writer.lengths(mean)
    scale = writer.real(affine[0], format) if affine else filled(writer, op, 1.0, channels)
    shift = writer.real(affine[1], format) if len(affine) > 1 else filled(writer, op, 0.0, channels)
    statistics = [writer.real(mean, format), writer.real(variance, format)]
    inputs = [writer.real(op.inputs[0], format), scale, shift, *statistics]
    writer.node("BatchNormalization", inputs, op.name, epsilon=writer.floating(op, "eps"))


@emits("layer_norm")
def layer_norm(writer: Writer, op: Op) -> None:
    """LayerNormalization over the last axes."""
    format = op.type.format
    axes = len(writer.window(op, "normalized_shape", 1))
    every = writer.lengths(op.name)
    lengths = every[len(every) - axes :]
    given, *affine = (writer.real(name, format) for name in op.inputs)
    inputs = [given, *(affine or [filled(writer, op, 1.0, lengths)])]
    writer.node("LayerNormalization", inputs, op.name, axis=-axes, epsilon=writer.floating(op, "eps"))


def filled(writer: Writer, op: Op, value: float, lengths: tuple[int, ...]) -> str:
    """A constant tensor of one value."""
    format = op.type.format
    array = np.full(lengths, value, element(format)[1])
    return writer.initializer(f"{op.name}/{'scale' if value else 'shift'}", array, format)


@emits("instance_norm")
def instance_norm(writer: Writer, op: Op) -> None:
    """InstanceNormalization: statistics per sample and channel."""
    format = op.type.format
    given, *affine = (writer.real(name, format) for name in op.inputs)
    channels = writer.lengths(op.name)[1:2]
    scale = affine[0] if affine else filled(writer, op, 1.0, channels)
    shift = affine[1] if len(affine) > 1 else filled(writer, op, 0.0, channels)
    writer.node("InstanceNormalization", [given, scale, shift], op.name, epsilon=writer.floating(op, "eps"))


@emits("group_norm")
def group_norm(writer: Writer, op: Op) -> None:
    """InstanceNormalization of the groups laid out as rows, then scale and shift per channel.

    ONNX's GroupNormalization takes one scale per group until opset 21, and ONNX Runtime writes it out the same way.
    """
    format, name = op.type.format, op.name
    axes, groups = writer.type(op.inputs[0]).axes, writer.integer(op, "num_groups")
    given, *affine = (writer.real(n, format) for n in op.inputs)
    each = times(*axes[1:])
    rows = (axes[0], times(groups), times(writer.size(each) // groups))
    given = reshaped(writer, given, axes, rows, f"{name}/rows")
    plain = [filled(writer, op, 1.0, (groups,)), filled(writer, op, 0.0, (groups,))]
    level = writer.node("InstanceNormalization", [given, *plain], f"{name}/level", epsilon=writer.floating(op, "eps"))
    result = reshaped(writer, level, rows, axes, f"{name}/normal" if affine else name)
    for number, (operand, kind) in enumerate(zip(affine, ("Mul", "Add"), strict=False)):
        last = number == len(affine) - 1
        column = along_channels(writer, op, 1 + number, operand)
        result = writer.node(kind, [result, column], name if last else f"{name}/scaled")


def along_channels(writer: Writer, op: Op, index: int, operand: str) -> str:
    """A vector with one entry per channel, shaped to broadcast along axis 1."""
    name, format, behind = op.inputs[index], op.type.format, op.type.rank - 2
    if not behind:
        return operand
    if writer.is_stored(name) and writer.type(name).format == format:
        array = stored(writer.weights.array(name), format, name)
        return writer.initializer(f"{name}/column{behind}", array.reshape(-1, *(1,) * behind), format)
    shape = writer.integers((-1, *(1,) * behind))
    return writer.node("Reshape", [operand, shape], f"{op.name}/column{index}")


@emits("rms_norm")
def rms_norm(writer: Writer, op: Op) -> None:
    """`x / sqrt(mean(x^2) + eps) * weight`, in the nodes that ONNX Runtime fuses."""
    format, name = op.type.format, op.name
    count = len(writer.window(op, "normalized_shape", 1))
    given, *weight = (writer.real(n, format) for n in op.inputs)
    eps = writer.attribute(op, "eps")
    least = float(ml_dtypes.finfo(element(format)[1]).eps) if eps is None else writer.floating(op, "eps")
    squares = writer.node("Pow", [given, writer.number(2.0, format)], f"{name}/squares")
    mean = writer.node("ReduceMean", [squares, writer.integers(range(-count, 0))], f"{name}/mean", keepdims=1)
    more = writer.node("Add", [mean, writer.number(least, format)], f"{name}/more")
    root = writer.node("Sqrt", [more], f"{name}/root")
    result = writer.node("Div", [given, root], f"{name}/normal" if weight else name)
    if weight:
        writer.node("Mul", [result, weight[0]], name)
