"""Floats and minifloats: the formats of IEEE and OCP, and any other exponent and mantissa."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
from nasc.ir import UsageError, format_named
from nasc.ir.formats import elements, floats, largest, nearest
from support.format_laws import FormatLaws


class TestFloats(FormatLaws):
    names = ("f16", "bf16", "f8e4m3", "f8e5m2")
    dtypes: ClassVar[dict[str, Any]] = {
        "f16": np.float16,
        "bf16": ml_dtypes.bfloat16,
        "f8e4m3": ml_dtypes.float8_e4m3fn,
        "f8e5m2": ml_dtypes.float8_e5m2,
    }


class TestMinifloats(FormatLaws):
    names = ("f3e1m1", "f4e2m1", "f4e1m2", "f5e2m2", "f6e2m3", "f6e3m2", "f7e3m3", "f8e3m4", "f8e2m5", "f9e5m3",
             "f12e4m7", "f16e5m10", "f16e7m8")  # fmt: skip


class TestMicroscaling(FormatLaws):
    """The element formats of the OCP Microscaling specification."""

    names = ("f4e2m1", "f6e2m3", "f6e3m2")
    dtypes: ClassVar[dict[str, Any]] = {
        "f4e2m1": ml_dtypes.float4_e2m1fn,
        "f6e2m3": ml_dtypes.float6_e2m3fn,
        "f6e3m2": ml_dtypes.float6_e3m2fn,
    }


@pytest.mark.parametrize(
    ("name", "most", "least_normal", "least"),
    [
        ("f4e2m1", 6, 1, 0.5), ("f6e2m3", 7.5, 1, 0.125), ("f6e3m2", 28, 0.25, 0.0625),  # OCP MX 1.0, table 4 to 6
        ("f8e4m3", 448, 2.0**-6, 2.0**-9), ("f8e5m2", 57344, 2.0**-14, 2.0**-16),  # OCP OFP8 1.0, table 1
        ("f16", 65504, 2.0**-14, 2.0**-24), ("bf16", (2 - 2**-7) * 2.0**127, 2.0**-126, 2.0**-133),
        ("f32", (2 - 2**-23) * 2.0**127, 2.0**-126, 2.0**-149), ("f64", 1.7976931348623157e308, 2.0**-1022, 5e-324),
    ],
)  # fmt: skip
def test_the_numbers_of_the_specifications(name: str, most: float, least_normal: float, least: float) -> None:
    format = format_named(name)
    assert largest(format) == Fraction(most)
    assert Fraction(2) ** (1 - floats.bias(format)) == Fraction(least_normal)
    assert nearest(Fraction(least), format) == Fraction(least)
    assert nearest(Fraction(least) * Fraction(51, 100), format) == Fraction(least)
    assert nearest(Fraction(least) / 2, format) == 0


def test_reading_and_rounding_f64_is_python() -> None:
    third = nearest(Fraction(1, 3), format_named("f64"))
    assert third == Fraction(1 / 3)


def test_all_bits_of_small_minifloats_are_numbers() -> None:
    assert sorted({float(e) for e in elements(format_named("f4e2m1")) if e is not None and e >= 0}) == [
        0, 0.5, 1, 1.5, 2, 3, 4, 6,
    ]  # fmt: skip
    assert None not in elements(format_named("f6e3m2"))
    assert elements(format_named("f8e4m3")).count(None) == 2
    assert elements(format_named("f8e5m2")).count(None) == 8


@pytest.mark.parametrize("name", ["f5e2m1", "f4e0m3", "f4e3m0", "f17e6m10", "f9e8m0", "f10e8m1", "f04e2m1", "f4e2m01"])
def test_what_is_no_minifloat(name: str) -> None:
    with pytest.raises(UsageError, match=r"minifloats such as f4e2m1 \(1 \+ exponent \+ mantissa bits"):
        format_named(name)
