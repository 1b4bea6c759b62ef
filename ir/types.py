"""The type of a value: its format (bitwidth), the real value of one integer step (precision), and its axes (shape)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace

from .axes import Axes
from .formats import Format


def as_f32(value: float) -> float:
    """The nearest IEEE binary32 number: steps are kept as what a runtime will hold."""
    return struct.unpack("f", struct.pack("f", value))[0]


def shortest(value: float) -> str:
    """The shortest text that reads back as this binary32 number; exact powers of two as `2^-5`."""
    mantissa, exponent = math.frexp(value)
    if mantissa == 0.5:
        return f"2^{exponent - 1}"
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if as_f32(float(text)) == value:
            return text
    return repr(value)


@dataclass(frozen=True, slots=True)
class Step:
    """The real value of one integer step of a quantized value, and the integer that means zero.

    Args:
        value: the step of the whole tensor, a positive binary32 number; None: unknown, or one per index of `axis`.
        zero: the integer that means the real number 0; None: not yet known.
        axis: there is one step per index of this axis, kept beside the weight's codes.
        known: whether `calibrate` has found it; an unknown step prints as `?`.
        power_of_two: the step must be, or is, a power of two (fixed point).
    """

    value: float | None = None
    zero: int | None = 0
    axis: int | None = None
    known: bool = False
    power_of_two: bool = False

    @staticmethod
    def of(value: float, zero: int = 0) -> Step:
        """A known step for a whole tensor, rounded to binary32.

        Raises:
            ValueError: it is not positive, or not a binary32 number.
        """
        if not 0 < value < 2.0**128 - 2.0**103 or not (value := as_f32(value)):
            raise ValueError(f"a step must be a positive binary32 number, found {value}")
        return Step(value=value, zero=zero, known=True, power_of_two=math.frexp(value)[0] == 0.5)

    @staticmethod
    def per(axis: int, *, known: bool, power_of_two: bool = False) -> Step:
        """One step per index of `axis`."""
        return Step(axis=axis, known=known, power_of_two=power_of_two)

    def forget(self) -> Step:
        """The same step before calibration; a zero that was 0 by choice stays 0."""
        return replace(self, value=None, known=False, zero=0 if self.zero == 0 else None)

    def __str__(self) -> str:
        unknown = "2^?" if self.power_of_two else "?"
        if self.axis is not None:
            return (
                f"per {self.axis}" + (" 2^" if self.power_of_two else "")
                if self.known
                else f"per {self.axis} {unknown}"
            )
        text = unknown if self.value is None else shortest(self.value)
        return text if self.zero == 0 else f"{text}, {'?' if self.zero is None else self.zero}"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How numbers are stored: a format and, for quantized integers, a step: `f16`, `u8<2^-8>`, `i4<per 0 ?>`."""

    format: Format
    step: Step | None = None

    def __str__(self) -> str:
        return str(self.format) if self.step is None else f"{self.format}<{self.step}>"


@dataclass(frozen=True, slots=True)
class Type:
    """What is known of a value before anything runs: how each number is stored, and the shape as axis terms."""

    format: Format
    axes: Axes
    step: Step | None = None

    @property
    def encoding(self) -> Encoding:
        """The type without its shape."""
        return Encoding(self.format, self.step)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.axes)

    @property
    def quantized(self) -> bool:
        """Whether integers stand for real numbers through a step."""
        return self.step is not None

    def __str__(self) -> str:
        return f"{self.encoding}[{', '.join(map(str, self.axes))}]"
