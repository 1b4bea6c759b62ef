"""Logarithmic formats `l3` to `l7`: a sign and the exponent of a power of two; a multiplication is an addition.

Elements: 0 and `±2^k` for `k` from 0 to `2^(bits - 1) - 2`. Rounding: the exponent to the nearest, that is
`round(log2 |x|)`, which never ties for a rational number; below 1 the nearer of 0 and 1, the tie to 0; saturating at
the largest. Source: Miyashita et al., arXiv:1603.01025, section 3.2, whose `FSR` is the largest exponent here, with the
step as a further factor and a code for 0.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .base import Format, floor_log2, power

_NAME = re.compile(r"l([3-7])")


def named(name: str) -> Format | None:
    """The format of this name."""
    return Format(name, int(match[1]), "log") if (match := _NAME.fullmatch(name)) else None


def most(format: Format) -> int:
    """The largest exponent."""
    return (1 << (format.bits - 1)) - 2


def nearest(value: Fraction, format: Format) -> Fraction:
    """The element whose exponent is nearest to that of a number."""
    magnitude = abs(value)
    if magnitude <= Fraction(1, 2):
        return Fraction(0)
    exponent = floor_log2(magnitude)
    if magnitude * magnitude > power(2 * exponent + 1):
        exponent += 1
    found = power(min(max(exponent, 0), most(format)))
    return found if value > 0 else -found


def code_of(element: Fraction, format: Format) -> int:
    """The sign, then 0 for 0 and `k + 1` for `2^k`."""
    return int(element < 0) << (format.bits - 1) | (floor_log2(abs(element)) + 1 if element else 0)


def element_of(code: int, format: Format) -> Fraction:
    """The element of a code."""
    exponent = code & (1 << (format.bits - 1)) - 1
    found = power(exponent - 1) if exponent else Fraction(0)
    return -found if code >> (format.bits - 1) else found
