"""Integers and fixed point."""

from __future__ import annotations

from fractions import Fraction

from nasc.ir import Format, Step, format_named, parse_encoding
from nasc.ir.formats import nearest
from support.format_laws import FormatLaws


class TestSigned(FormatLaws):
    names = ("i2", "i3", "i4", "i5", "i8", "i9", "i12", "i16")
    symmetric = False  # -2^(n-1) has no counterpart

    def independent(self, value: Fraction, format: Format) -> Fraction:
        below = value.numerator // value.denominator
        rest = value - below
        found = below + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1))
        low, high = -(2 ** (format.bits - 1)), 2 ** (format.bits - 1) - 1
        return Fraction(max(low, min(high, found)))


class TestUnsigned(TestSigned):
    names = ("u2", "u4", "u8", "u16")

    def independent(self, value: Fraction, format: Format) -> Fraction:
        shifted = super().independent(max(value, Fraction(0)), format_named("i16"))
        return min(max(shifted, Fraction(0)), Fraction(2**format.bits - 1))


def test_fixed_point_is_an_integer_with_a_step_that_is_a_power_of_two() -> None:
    """Width 8, fraction 4: 8 bits, from -8 to 7.9375 in steps of 1/16."""
    q8_4 = parse_encoding("i8<2^-4>")
    assert (q8_4.bits, q8_4.step) == (8, Step.of(1 / 16))
    values = [nearest(Fraction(x) * 16, q8_4.format) / 16 for x in (-100, 100, Fraction(1, 32), Fraction(3, 32))]
    assert values == [-8, Fraction(127, 16), 0, Fraction(1, 8)]
