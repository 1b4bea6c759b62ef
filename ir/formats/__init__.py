"""Number formats: how many bits an element takes, which values it can hold, and how a real number is rounded to one.

The reference arithmetic here is exact (rational numbers, no floating point), so that every faster implementation can be
tested against it. A number is stored as `step * (element - zero)`: the format says which elements there are, the step
(`types.Step`) what one of them is worth. Elements are kept as codes: integers are their own, all others have bits. One
file per family says range, spacing and rounding.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from types import ModuleType
from typing import cast

from ..errors import UsageError
from . import floats, integers, logs, signs
from .base import Family, Format, floor_log2, power, round_half_even
from .blocks import EXPONENT_BITS, MX, REAL_BITS, block_step
from .floats import BF16, F8E4M3, F8E5M2, F16, F32, F64, FLOATS
from .integers import I32, I64
from .signs import BINARY, TERNARY

__all__ = [
    "BF16",
    "BINARY",
    "BOOL",
    "EXPONENT_BITS",
    "F8E4M3",
    "F8E5M2",
    "F16",
    "F32",
    "F64",
    "FLOATS",
    "I32",
    "I64",
    "LISTED",
    "MX",
    "REAL_BITS",
    "TERNARY",
    "Family",
    "Format",
    "block_step",
    "code_of",
    "decode",
    "element_of",
    "element_values",
    "elements",
    "encode",
    "floor_log2",
    "format_named",
    "largest",
    "nearest",
    "power",
    "round_half_even",
]

BOOL = Format("bool", 8, "bool", signed=False)

_NAMED = {f.name: f for f in (*FLOATS, BOOL, I32, I64, TERNARY, BINARY)}
_FAMILIES: dict[Family, ModuleType] = {
    "float": floats, "minifloat": floats, "int": integers, "sign": signs, "log": logs,
}  # fmt: skip

LISTED = (
    f"Formats are {', '.join(f.name for f in FLOATS)}, i2 to i16 (signed) and u2 to u16 (unsigned), i32, i64 and bool;"
    " minifloats such as f4e2m1 (1 + exponent + mantissa bits, exponent 1 to 7, mantissa 1 to 10); l3 to l7, ternary"
    f" and binary. Passes and search spaces also take {', '.join(MX)}."
)
"""All formats, as a mend lists them."""


@lru_cache(maxsize=512)
def format_named(name: str) -> Format:
    """The format written `name`.

    Raises:
        UsageError: there is no such format.
    """
    if found := _NAMED.get(name) or integers.named(name) or floats.named(name) or logs.named(name):
        return found
    raise UsageError(f"unknown number format {name!r}", mend=LISTED)


def nearest(value: Fraction, format: Format) -> Fraction:
    """The element of a format that a number is rounded to; see the format's family."""
    return cast(Fraction, _FAMILIES[format.family].nearest(value, format))


def code_of(element: Fraction, format: Format) -> int:
    """The code of an element."""
    return cast(int, _FAMILIES[format.family].code_of(element, format))


def element_of(code: int, format: Format) -> Fraction:
    """The element of a code.

    Raises:
        ValueError: the bits stand for an infinity or for no number.
    """
    return cast(Fraction, _FAMILIES[format.family].element_of(code, format))


@lru_cache(maxsize=64)
def elements(format: Format) -> tuple[Fraction | None, ...]:
    """The elements of a format of up to 16 bits by code, from `low` to `high`; None where a code is no number."""
    return tuple(_element(code, format) for code in range(format.low, format.high + 1))


@lru_cache(maxsize=64)
def element_values(format: Format) -> tuple[float, ...]:
    """The elements of a format of up to 16 bits by code, from `low` to `high`, in binary64; NaN where there is none."""
    if format.family == "minifloat":
        return tuple(floats.value_of(code, format) for code in range(format.high + 1))
    return tuple(float("nan") if e is None else float(e) for e in elements(format))


def _element(code: int, format: Format) -> Fraction | None:
    try:
        found = element_of(code, format)
    except ValueError:
        return None
    return found if nearest(found, format) == found else None


@lru_cache(maxsize=512)
def largest(format: Format) -> Fraction:
    """The largest element."""
    if format.family in ("float", "minifloat"):
        return floats.largest(format)
    return power(logs.most(format)) if format.family == "log" else Fraction(format.high)


def encode(value: Fraction, format: Format, step: Fraction, zero: int = 0) -> int:
    """The code that a real number is stored as.

    For integers that is `clamp(round(value / step) + zero, low, high)`, ties to even; other formats have no zero.
    """
    if format.family == "int":
        return min(max(round_half_even(value / step) + zero, format.low), format.high)
    return code_of(nearest(value / step, format), format)


def decode(code: int, step: Fraction, zero: int = 0) -> Fraction:
    """The real number that an integer code stands for: `step * (code - zero)`."""
    return step * (code - zero)
