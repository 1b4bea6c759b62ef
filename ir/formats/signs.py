"""Ternary (-1, 0, 1; 2 bits) and binary (-1, 1; 1 bit) elements, which a step scales.

Rounding: ternary to nearest, ties to even, so 0.5 becomes 0, and saturating; binary to the sign, 0 to 1. The step with
the smallest squared error is the mean of the magnitudes that are kept: Rastegari et al., ECCV 2016, section 3.1
(binary); Li and Liu, arXiv:1605.04711, section 2 (ternary).
"""

from __future__ import annotations

from fractions import Fraction

from .base import Format, round_half_even

TERNARY = Format("ternary", 2, "sign")
BINARY = Format("binary", 1, "sign")


def nearest(value: Fraction, format: Format) -> Fraction:
    """The element nearest to a number."""
    if format == BINARY:
        return Fraction(1 if value >= 0 else -1)
    return Fraction(min(max(round_half_even(value), -1), 1))


def code_of(element: Fraction, format: Format) -> int:
    """An element is its own code."""
    return int(element)


def element_of(code: int, format: Format) -> Fraction:
    """A code is its own element."""
    return Fraction(code)
