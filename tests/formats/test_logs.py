"""Logarithmic formats."""

from __future__ import annotations

from fractions import Fraction

from nasc.ir import Format, format_named
from nasc.ir.formats import elements, nearest
from support.format_laws import FormatLaws


class TestLogs(FormatLaws):
    names = ("l3", "l4", "l5", "l6", "l7")

    def independent(self, value: Fraction, format: Format) -> Fraction:
        """The power with the smallest ratio to the number, whichever of the two is the larger."""
        magnitude = abs(value)
        if magnitude <= Fraction(1, 2):
            return Fraction(0)
        powers = [Fraction(2) ** k for k in range(2 ** (format.bits - 1) - 1)]
        found = min(powers, key=lambda p: max(p / magnitude, magnitude / p))
        return found if value > 0 else -found


def test_elements_are_powers_of_two_and_zero() -> None:
    assert sorted({e for e in elements(format_named("l4")) if e is not None}) == [
        -64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64,
    ]  # fmt: skip


def test_the_exponent_is_rounded_not_the_number() -> None:
    """2.9 is nearer to 2 than to 4, its exponent 1.54 is nearer to 2."""
    l4 = format_named("l4")
    assert [nearest(Fraction(x), l4) for x in ("2.82", "2.83", "2.9", "-2.9", "90", "91")] == [2, 4, 4, -4, 64, 64]
