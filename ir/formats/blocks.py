"""Blocks: consecutive elements that share one step, taken from the block's own largest magnitude.

A step that is a power of two (`<block 32 on 1 2^>`) takes 8 bits, an exponent from -127 to 127 (E8M0). It is
`2^(floor(log2(largest magnitude)) - floor(log2(largest element)))`: the conversion of the OCP Microscaling Formats (MX)
specification 1.0, section 6.3. What then exceeds the largest element saturates. With minifloats this is block minifloat
(Fox et al., ICLR 2021), with integers block floating point, with `l4` block log. MXINT8 writes its elements as
`code * 2^-6`; here the step holds that factor.

A step in `f32` (`<block 32 on 1>`, 32 bits) is `largest magnitude / largest element`, rounded to `f32`, and at least
`2^-126`. The step of a block of zeros is 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from . import floats
from .base import floor_log2, power

LEAST, MOST = -127, 127
"""Exponents that 8 bits hold beside one code for NaN."""

EXPONENT_BITS, REAL_BITS = 8, 32
"""Bits of a block's step: an exponent, or `f32`."""

MX = {
    "mxfp8e4m3": "f8e4m3<block 32 2^>",
    "mxfp8e5m2": "f8e5m2<block 32 2^>",
    "mxfp6e2m3": "f6e2m3<block 32 2^>",
    "mxfp6e3m2": "f6e3m2<block 32 2^>",
    "mxfp4": "f4e2m1<block 32 2^>",
    "mxint8": "i8<block 32 2^>",
}
"""The names of the MX specification, section 5, and what they are short for."""


def block_step(values: Iterable[Fraction], largest: Fraction, *, power_of_two: bool) -> Fraction:
    """The step of one block.

    Args:
        values: the block's real numbers.
        largest: the largest element of the format.
        power_of_two: whether it is an exponent, else `f32`.
    """
    magnitude = max(map(abs, values), default=Fraction(0))
    if not magnitude:
        return Fraction(1)
    if power_of_two:
        return power(min(max(floor_log2(magnitude) - floor_log2(largest), LEAST), MOST))
    return max(floats.nearest(magnitude / largest, floats.F32), power(-126))
