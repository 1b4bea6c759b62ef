"""What a number format is: how many bits an element takes, and of which family it is."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Family = Literal["float", "minifloat", "int", "sign", "log", "bool"]


@dataclass(frozen=True, slots=True)
class Format:
    """A number format.

    Args:
        name: how it is written in the IR: `f32`, `bf16`, `i4`, `u8`, `f4e2m1`, `l4`, `ternary`, `bool`.
        bits: bits per element.
        family: what its elements are; one file of this package each.
        signed: whether it holds negative elements.
        exponent: bits of the exponent (floats and minifloats only).
        mantissa: bits of the stored mantissa (floats and minifloats only).
    """

    name: str
    bits: int
    family: Family
    signed: bool = True
    exponent: int = 0
    mantissa: int = 0

    def __str__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        """Whether elements are floating-point numbers that stand for themselves, without a step."""
        return self.family == "float"

    @property
    def is_int(self) -> bool:
        """Whether elements are integers (codes, counts or indices)."""
        return self.family in ("int", "sign")

    @property
    def needs_step(self) -> bool:
        """Whether a step always goes with it."""
        return self.family in ("minifloat", "sign", "log")

    @property
    def takes_step(self) -> bool:
        """Whether a step may go with it: all formats of 16 bits and fewer, but for the floats that ops compute in."""
        return self.needs_step or self.family == "int" or (self.is_float and self.bits == 8)

    @property
    def low(self) -> int:
        """The smallest code."""
        if self.family == "sign":
            return -1
        return -(1 << (self.bits - 1)) if self.family == "int" and self.signed else 0

    @property
    def high(self) -> int:
        """The largest code."""
        if self.family == "sign":
            return 1
        return (1 << (self.bits - 1)) - 1 if self.family == "int" and self.signed else (1 << self.bits) - 1


def round_half_even(value: Fraction) -> int:
    """The nearest integer; of two equally near ones the even (IEEE 754-2019, roundTiesToEven)."""
    return round(value)


def floor_log2(value: Fraction) -> int:
    """The largest integer `k` with `2^k <= value`; `value` is positive."""
    k = value.numerator.bit_length() - value.denominator.bit_length()
    return k if power(k) <= value else k - 1


def power(exponent: int) -> Fraction:
    """Two to an integer power, exactly."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)
