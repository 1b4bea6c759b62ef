"""Biases: numbers, or 32-bit codes whose step is the product of the steps of what is multiplied."""

from __future__ import annotations

import numpy as np

from ...ir import Format, Op
from .elements import Array
from .quantize import steps_of
from .registry import EmissionError
from .writer import Writer

AGREES = 1e-6
"""Largest relative difference between a bias's step and the product of two binary32 steps, rounded once or twice."""


def bias_of(writer: Writer, op: Op, format: Format) -> list[str]:
    """The bias of a layer as an operand, or nothing.

    Raises:
        EmissionError: the bias's codes count another step than the products they are added to. Integer kernels add
            codes and never look at the bias's step, so the result would be wrong without a word.
    """
    if len(op.inputs) < 3:
        return []
    given, weight, bias = op.inputs[:3]
    if writer.type(bias).quantized and writer.type(bias).format.bits == 32:
        inputs = writer.type(given), writer.type(weight)
        if not all(t.integer for t in inputs):
            return [writer.real(bias, format)]
        expected = _steps(writer, given) * _steps(writer, weight)
        found = _steps(writer, bias)
        if (apart := np.abs(found - expected) > AGREES * expected).any():
            worst = int(apart.argmax())
            raise EmissionError(
                op,
                f"one step of the bias %{bias} is {np.broadcast_to(found, expected.shape).flat[worst]:.9g} at output"
                f" {worst}, the product of the steps of %{given} and %{weight} is {expected.flat[worst]:.9g}",
                mend="Run `legalize` after `calibrate`: it writes biases in the step of the products.",
            )
    return [writer.real(bias, format)]


def _steps(writer: Writer, name: str) -> Array:
    """A value's steps as a vector, of length 1 for a step of the whole tensor."""
    type = writer.type(name)
    writer.known_step(name, type)
    assert type.step is not None
    if type.step.axis is None:
        return np.array([type.step.value], np.float32)
    return steps_of(writer, name, type)
