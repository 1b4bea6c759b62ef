"""Normalisations."""

from __future__ import annotations

import numpy as np

from ...ir import Op
from .elements import element
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
