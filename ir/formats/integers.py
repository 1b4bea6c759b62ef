"""Integers of 2 to 16 bits, signed (two's complement) and unsigned; `i32` and `i64` count and index.

Range: `low` to `high`. Rounding: to nearest, ties to even, saturating. With a step they are uniform affine
quantization (Jacob et al., CVPR 2018, section 2); with a step that is a power of two they are fixed point: 8 bits of
which 4 are the fraction are `i8<2^-4>`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .base import Format, round_half_even

I32 = Format("i32", 32, "int")
I64 = Format("i64", 64, "int")

_NAME = re.compile(r"([iu])([1-9][0-9]*)")


def named(name: str) -> Format | None:
    """The format of this name, if it is one of 2 to 16 bits."""
    if (match := _NAME.fullmatch(name)) and 2 <= (bits := int(match[2])) <= 16:
        return Format(name, bits, "int", signed=match[1] == "i")
    return None


def nearest(value: Fraction, format: Format) -> Fraction:
    """The element nearest to a number."""
    return Fraction(min(max(round_half_even(value), format.low), format.high))


def code_of(element: Fraction, format: Format) -> int:
    """An element is its own code."""
    return int(element)


def element_of(code: int, format: Format) -> Fraction:
    """A code is its own element."""
    return Fraction(code)
