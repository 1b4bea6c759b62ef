"""Formats by name, their ranges, and the exact reference of rounding."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasc.ir import Format, Step, UsageError, format_named
from nasc.ir.formats import FLOATS, decode, encode, round_half_even
from support.drawing import integer_formats


def test_floats_have_sign_exponent_and_mantissa() -> None:
    for format in FLOATS:
        assert format.bits == 1 + format.exponent + format.mantissa
        assert format.is_float and not format.is_int and format_named(format.name) is format


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("i2", -2, 1), ("u2", 0, 3), ("i8", -128, 127), ("u16", 0, 65535), ("i32", -(2**31), 2**31 - 1)],
)
def test_ranges_of_integers(name: str, low: int, high: int) -> None:
    format = format_named(name)
    assert (format.low, format.high) == (low, high)
    assert format.is_int and not format.is_float and str(format) == name


@pytest.mark.parametrize("name", ["i1", "u17", "i0", "i08", "f31", "int8", "", "I8", "u32"])
def test_unknown_formats_list_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown number format '{name}'\n  Formats are f64, f32, f16"):
        format_named(name)


reals = st.fractions(-(10**6), 10**6)
some_steps = st.fractions(Fraction(1, 10**6), 10**3).filter(lambda s: s > 0)


@given(reals, integer_formats, some_steps, st.data())
def test_the_code_is_the_nearest_in_range(value: Fraction, format: Format, step: Fraction, data: st.DataObject) -> None:
    """No other code of the format stands for a number nearer to the value; of two equally near the even is taken."""
    zero = data.draw(st.integers(format.low, format.high))
    code = encode(value, format, step, zero)
    assert format.low <= code <= format.high
    error = abs(decode(code, step, zero) - value)
    for other in {code - 1, code + 1, format.low, format.high}:
        if format.low <= other <= format.high:
            assert error <= abs(decode(other, step, zero) - value)
    if error == step / 2:
        assert (code - zero) % 2 == 0 or code in (format.low, format.high)


@given(integer_formats, some_steps, st.data())
def test_codes_stand_for_themselves(format: Format, step: Fraction, data: st.DataObject) -> None:
    zero = data.draw(st.integers(format.low, format.high))
    code = data.draw(st.integers(format.low, format.high))
    assert encode(decode(code, step, zero), format, step, zero) == code
    assert decode(zero, step, zero) == 0


@pytest.mark.parametrize(
    ("value", "expected"), [("1/2", 0), ("3/2", 2), ("5/2", 2), ("-1/2", 0), ("-3/2", -2), ("7/3", 2)]
)
def test_ties_go_to_even(value: str, expected: int) -> None:
    assert round_half_even(Fraction(value)) == expected


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), 1e39, 3.5e38, 1e-46])
def test_a_step_is_a_positive_binary32_number(value: float) -> None:
    with pytest.raises(ValueError, match="a step must be a positive binary32 number"):
        Step.of(value)


def test_what_a_step_forgets() -> None:
    assert Step.of(0.1, 7).forget() == Step(zero=None)
    assert Step.of(0.1).forget() == Step(zero=0)
    assert Step.of(0.25, 7).forget() == Step(zero=None, power_of_two=True)
    assert Step.per(1, known=True).forget() == Step.per(1, known=False)
