"""Floating point: the formats that ops compute in, the two of 8 bits, and minifloats of any exponent and mantissa.

`f16 f32 f64` are IEEE 754-2019 binary interchange formats, `bf16` is the upper half of `f32`; `f8e4m3` and `f8e5m2` are
those of OCP's 8-bit floating point specification 1.0: `f8e4m3` has no infinities and NaN only where all bits are 1,
`f8e5m2` is laid out as IEEE formats are. Other minifloats `f{bits}e{exponent}m{mantissa}` are laid out as the OCP
Microscaling specification 1.0, section 5.3, does for 6 and 4 bits: neither infinities nor NaN, every code is a number.

All have subnormals and the bias `2^(exponent - 1) - 1`. The spacing is `2^(e - mantissa)` between `2^e` and `2^(e+1)`,
and constant below the smallest normal. Rounding: to nearest, ties to the even mantissa, saturating at the largest
number.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from .base import Format, floor_log2, power, round_half_even

F64 = Format("f64", 64, "float", exponent=11, mantissa=52)
F32 = Format("f32", 32, "float", exponent=8, mantissa=23)
F16 = Format("f16", 16, "float", exponent=5, mantissa=10)
BF16 = Format("bf16", 16, "float", exponent=8, mantissa=7)
F8E4M3 = Format("f8e4m3", 8, "float", exponent=4, mantissa=3)
F8E5M2 = Format("f8e5m2", 8, "float", exponent=5, mantissa=2)
FLOATS = (F64, F32, F16, BF16, F8E4M3, F8E5M2)
"""From the widest to the narrowest."""

EXPONENT, MANTISSA, MOST_BITS = (1, 7), (1, 10), 16
"""Least and most bits of a minifloat's exponent and mantissa, and the most of all together with the sign."""

_NAME = re.compile(r"f([0-9]+)e([0-9]+)m([0-9]+)")


def named(name: str) -> Format | None:
    """The minifloat of this name: `f4e2m1` has 1 bit of sign, 2 of exponent and 1 of mantissa."""
    if not (match := _NAME.fullmatch(name)):
        return None
    bits, exponent, mantissa = map(int, match.groups())
    if not (EXPONENT[0] <= exponent <= EXPONENT[1] and MANTISSA[0] <= mantissa <= MANTISSA[1]):
        return None
    if bits > MOST_BITS or name != f"f{1 + exponent + mantissa}e{exponent}m{mantissa}":
        return None
    return Format(name, bits, "minifloat", exponent=exponent, mantissa=mantissa)


def bias(format: Format) -> int:
    """What is subtracted from the stored exponent."""
    return (1 << (format.exponent - 1)) - 1


def largest(format: Format) -> Fraction:
    """The largest finite number."""
    fields = (1 << format.exponent) - 1
    full = (2 << format.mantissa) - 1  # the mantissa with its leading one, all bits set
    if format == F8E4M3:
        full -= 1
    elif format.family == "float":
        fields -= 1
    return full * power(fields - bias(format) - format.mantissa)


def nearest(value: Fraction, format: Format) -> Fraction:
    """The finite number of the format that is nearest to a number."""
    magnitude = abs(value)
    if not magnitude:
        return Fraction(0)
    exponent = max(floor_log2(magnitude), 1 - bias(format))
    spacing = power(exponent - format.mantissa)
    found = min(round_half_even(magnitude / spacing) * spacing, largest(format))
    return found if value > 0 else -found


def code_of(element: Fraction, format: Format) -> int:
    """The bits of a number: sign, exponent, mantissa; 0 has the sign +."""
    sign = int(element < 0) << (format.bits - 1)
    magnitude = abs(element)
    if magnitude < power(1 - bias(format)):
        return sign | int(magnitude / power(1 - bias(format) - format.mantissa))
    exponent = floor_log2(magnitude)
    mantissa = int(magnitude / power(exponent - format.mantissa)) - (1 << format.mantissa)
    return sign | (exponent + bias(format)) << format.mantissa | mantissa


def value_of(code: int, format: Format) -> float:
    """As `element_of` for minifloats, in binary64, which holds them all; much faster."""
    field = code >> format.mantissa & (1 << format.exponent) - 1
    mantissa = code & (1 << format.mantissa) - 1
    significand = (1 << format.mantissa) + mantissa if field else mantissa
    found = math.ldexp(significand, max(field, 1) - bias(format) - format.mantissa)
    return -found if code >> (format.bits - 1) else found


def element_of(code: int, format: Format) -> Fraction:
    """The number that bits stand for.

    Raises:
        ValueError: they stand for an infinity or for no number.
    """
    sign = code >> (format.bits - 1)
    field = code >> format.mantissa & (1 << format.exponent) - 1
    mantissa = code & (1 << format.mantissa) - 1
    if field:
        found = ((1 << format.mantissa) + mantissa) * power(field - bias(format) - format.mantissa)
    else:
        found = mantissa * power(1 - bias(format) - format.mantissa)
    if found > largest(format):
        raise ValueError(f"the code {code} of {format} is no finite number")
    return -found if sign else found
