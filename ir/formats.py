"""Number formats: how many bits a value takes, which values it can hold, and how a real number is rounded to one.

The reference arithmetic here is exact (rational numbers, no floating point), so that every faster implementation can be
tested against it. Integers without a step are counts and indices; an integer with a step (`types.Step`) stands for the
real number `step * (code - zero)`: uniform affine quantization as in Jacob et al., CVPR 2018, section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from .errors import UsageError

Family = Literal["float", "int", "bool"]


@dataclass(frozen=True, slots=True)
class Format:
    """A number format.

    Args:
        name: how it is written in the IR: `f32`, `bf16`, `i4`, `u8`, `bool`.
        bits: bits per value.
        family: what its values are.
        signed: whether it holds negative values.
        exponent: bits of the exponent (floats only).
        mantissa: bits of the stored mantissa (floats only).
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
        """Whether values are floating-point numbers."""
        return self.family == "float"

    @property
    def is_int(self) -> bool:
        """Whether values are integers (codes, counts or indices)."""
        return self.family == "int"

    @property
    def low(self) -> int:
        """The smallest integer code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest integer code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


F32 = Format("f32", 32, "float", exponent=8, mantissa=23)
F16 = Format("f16", 16, "float", exponent=5, mantissa=10)
BF16 = Format("bf16", 16, "float", exponent=8, mantissa=7)
F64 = Format("f64", 64, "float", exponent=11, mantissa=52)
F8E4M3 = Format("f8e4m3", 8, "float", exponent=4, mantissa=3)
F8E5M2 = Format("f8e5m2", 8, "float", exponent=5, mantissa=2)
BOOL = Format("bool", 8, "bool", signed=False)
I32 = Format("i32", 32, "int")
I64 = Format("i64", 64, "int")
FLOATS = (F64, F32, F16, BF16, F8E4M3, F8E5M2)

_NAMED = {f.name: f for f in (*FLOATS, BOOL, I32, I64)}
_INTEGER = re.compile(r"([iu])([1-9][0-9]*)")


@lru_cache(maxsize=256)
def format_named(name: str) -> Format:
    """The format written `name`.

    Raises:
        UsageError: there is no such format.
    """
    if found := _NAMED.get(name):
        return found
    if (match := _INTEGER.fullmatch(name)) and 2 <= (bits := int(match[2])) <= 16:
        return Format(name, bits, "int", signed=match[1] == "i")
    known = ", ".join(f.name for f in FLOATS)
    raise UsageError(
        f"unknown number format {name!r}",
        mend=f"Formats are {known}, i2 to i16 (signed) and u2 to u16 (unsigned), i32, i64 and bool.",
    )


def round_half_even(value: Fraction) -> int:
    """The nearest integer; of two equally near ones the even (IEEE 754-2019, roundTiesToEven)."""
    return round(value)


def encode(value: Fraction, format: Format, step: Fraction, zero: int = 0) -> int:
    """The integer code nearest to a real number: `clamp(round(value / step) + zero, low, high)`, ties to even."""
    return min(max(round_half_even(value / step) + zero, format.low), format.high)


def decode(code: int, step: Fraction, zero: int = 0) -> Fraction:
    """The real number that an integer code stands for: `step * (code - zero)`."""
    return step * (code - zero)
