"""The type of a value: its format (bitwidth), the real value of one integer step (precision), and its axes (shape)."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

from .axes import Axes, size
from .formats import EXPONENT_BITS, REAL_BITS, Format


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
    """What one element of a quantized value is worth, and the integer that means zero.

    Args:
        value: the step of the whole tensor, a positive binary32 number; None: unknown, or several.
        zero: the integer that means the real number 0; None: not yet known, or, where there are several steps, that
            each has a zero of its own, kept beside the steps.
        axis: there is one step per index of this axis, kept beside the weight's codes.
        known: whether `calibrate` has found it; an unknown step prints as `?`.
        power_of_two: the step must be, or is, a power of two (fixed point; in blocks a shared exponent).
        block: there is one step per so many consecutive indices of `axis` and per index of all other axes. The last
            block may be shorter. Without an axis (as options of passes have it) the pass chooses one. An activation's
            are taken from its blocks when it is rounded.
    """

    value: float | None = None
    zero: int | None = 0
    axis: int | None = None
    known: bool = False
    power_of_two: bool = False
    block: int | None = None

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
    def per(axis: int, *, known: bool, power_of_two: bool = False, zeros: bool = False) -> Step:
        """One step per index of `axis`, each with a zero of its own where `zeros`."""
        return Step(axis=axis, known=known, power_of_two=power_of_two, zero=None if zeros else 0)

    @staticmethod
    def blocks(
        length: int, axis: int | None = None, *, known: bool = True, power_of_two: bool = False, zeros: bool = False
    ) -> Step:
        """One step per `length` consecutive indices of `axis`, each with a zero of its own where `zeros`; powers of two
        follow from the block and are known."""
        zero = None if zeros else 0
        return Step(axis=axis, known=known or power_of_two, power_of_two=power_of_two, block=length, zero=zero)

    @property
    def shared(self) -> bool:
        """Whether it is an exponent that the elements of a block share, which needs no calibration."""
        return self.block is not None and self.power_of_two

    @property
    def several(self) -> bool:
        """Whether there are several steps, kept beside the codes."""
        return self.axis is not None or self.block is not None

    @property
    def zeros(self) -> bool:
        """Whether each of several steps has a zero of its own, kept beside it."""
        return self.several and self.zero is None

    @property
    def bits(self) -> int:
        """Bits of one step as stored, without its zero."""
        return EXPONENT_BITS if self.shared else REAL_BITS

    def forget(self) -> Step:
        """The same step before calibration; a zero that was 0 by choice stays 0, shared exponents need none."""
        if self.shared:
            return self
        return replace(self, value=None, known=False, zero=0 if self.zero == 0 else None)

    def __str__(self) -> str:
        zeros = ", zeros" if self.zeros else ""
        if self.block is not None:
            on = "" if self.axis is None else f" on {self.axis}"
            return f"block {self.block}{on}" + (" 2^" if self.power_of_two else "" if self.known else " ?") + zeros
        unknown = "2^?" if self.power_of_two else "?"
        if self.axis is not None:
            mark = (" 2^" if self.power_of_two else "") if self.known else f" {unknown}"
            return f"per {self.axis}{mark}{zeros}"
        text = unknown if self.value is None else shortest(self.value)
        return text if self.zero == 0 else f"{text}, {'?' if self.zero is None else self.zero}"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How numbers are stored: a format and, if they are quantized, a step: `f16`, `u8<2^-8>`, `i4<block 32 on 1 ?>`."""

    format: Format
    step: Step | None = None

    def __str__(self) -> str:
        return str(self.format) if self.step is None else f"{self.format}<{self.step}>"

    @property
    def bits(self) -> Fraction:
        """Bits per element, with its share of the block's step and zero; those of a tensor or an index are counted
        apart."""
        block = self.step.block if self.step else None
        return Fraction(self.format.bits) + (Fraction(self.step_bits, block) if block else 0)

    @property
    def step_bits(self) -> int:
        """Bits of one step as stored, with its zero where that is not 0."""
        if self.step is None:
            return 0
        return self.step.bits + (0 if self.step.zero == 0 else self.format.bits)

    @property
    def integer(self) -> bool:
        """Whether integer codes stand for real numbers through one step, or one per index: what kernels take."""
        return self.step is not None and self.step.block is None and self.format.is_int

    @property
    def multiplied(self) -> bool:
        """Whether integer kernels multiply such stored codes as they are: their zero is 0, or the least code, which 0
        becomes when unsigned codes are moved into the signed range."""
        return self.integer and self.step is not None and self.step.zero in (0, self.format.low)


def stored_bits(type: Type, sizes: Mapping[str, int]) -> int:
    """Bits of all elements of a value with the steps and zeros of its blocks, for a batch of 1; other steps are counted
    apart.

    Args:
        type: the value's type.
        sizes: the widths.
    """
    lengths = [size(axis, sizes) for axis in type.axes]
    bits = prod(lengths) * type.format.bits
    if type.step is not None and type.step.block is not None and type.step.axis is not None:
        lengths[type.step.axis] = -(-lengths[type.step.axis] // type.step.block)
        bits += prod(lengths) * type.encoding.step_bits
    return bits


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
        """Whether codes stand for real numbers through a step."""
        return self.step is not None

    @property
    def integer(self) -> bool:
        """See `Encoding.integer`."""
        return self.encoding.integer

    @property
    def multiplied(self) -> bool:
        """See `Encoding.multiplied`."""
        return self.encoding.multiplied

    def __str__(self) -> str:
        return f"{self.encoding}[{', '.join(map(str, self.axes))}]"
