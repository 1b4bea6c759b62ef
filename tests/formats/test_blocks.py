"""Blocks that share a step: the Microscaling formats, block floating point, block minifloat and block log."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from nasc.compiler.elements import block_steps
from nasc.compiler.execution import rounded
from nasc.compiler.weights import Rounded, Source
from nasc.ir import Format, Step, Type, UsageError, format_named, parse_encoding
from nasc.ir.axes import Const, N
from nasc.ir.formats import MX, block_step, largest, nearest
from support.format_laws import exact


def mx_by_the_specification(block: np.ndarray, emax: int, element: object) -> np.ndarray:
    """Section 6.3 with numpy and ml_dtypes: `X = 2^(floor(log2(max |V|)) - emax)`, elements `V / X`, saturated."""
    peak = np.abs(block).max()
    scale = np.float32(2.0) ** (np.floor(np.log2(peak)) - emax) if peak else np.float32(1)
    held = np.clip((block / scale).astype(np.float32), *element.range)  # type: ignore[attr-defined]
    return element.rounded(held) * scale  # type: ignore[attr-defined]


class Element:
    def __init__(self, most: float, dtype: object = None, unit: float = 1.0, least: float | None = None) -> None:
        self.range, self.dtype, self.unit = (-most if least is None else least, most), dtype, unit

    def rounded(self, x: np.ndarray) -> np.ndarray:
        if self.dtype is None:
            return np.rint(x / self.unit) * self.unit
        return x.astype(self.dtype).astype(np.float32)  # type: ignore[call-overload]


SPECIFIED = {
    "mxfp8e4m3": (8, Element(448, ml_dtypes.float8_e4m3fn)),
    "mxfp8e5m2": (15, Element(57344, ml_dtypes.float8_e5m2)),
    "mxfp6e2m3": (2, Element(7.5, ml_dtypes.float6_e2m3fn)),
    "mxfp6e3m2": (4, Element(28, ml_dtypes.float6_e3m2fn)),
    "mxfp4": (2, Element(6, ml_dtypes.float4_e2m1fn)),
    "mxint8": (0, Element(127 / 64, unit=1 / 64, least=-2)),
}


@pytest.mark.parametrize("name", MX)
def test_the_microscaling_formats_are_those_of_the_specification(name: str) -> None:
    emax, element = SPECIFIED[name]
    generator = torch.Generator().manual_seed(3)
    scales = torch.exp2(torch.randint(-40, 40, (64, 1), generator=generator).float())
    x = torch.randn(64, 64, generator=generator) * scales
    x[0] = 0
    x[1, :32] = 1.999  # saturates
    encoding = parse_encoding(name)
    assert encoding.step is not None and encoding.step.block == 32 and encoding.step.power_of_two
    type = Type(encoding.format, (N, Const(64)), Step.blocks(32, 1, power_of_two=True))
    expected = [
        np.concatenate([mx_by_the_specification(b, emax, element) for b in np.split(row, 2)]) for row in x.numpy()
    ]
    np.testing.assert_array_equal(rounded(x, type).numpy(), np.stack(expected))


def test_the_short_names_are_read_and_the_long_ones_printed() -> None:
    assert str(parse_encoding("mxfp4")) == "f4e2m1<block 32 2^>"
    assert parse_encoding("mxfp4") == parse_encoding("f4e2m1<block 32 2^>")
    assert all(parse_encoding(short) == parse_encoding(long) for short, long in MX.items())
    with pytest.raises(UsageError):
        format_named("mxfp4")


def test_weights_are_stored_as_the_codes_of_their_blocks() -> None:
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    for name in ("f4e2m1", "i8", "l4", "f8e4m3", "ternary"):
        format = format_named(name)
        stored = Rounded(Source(x), format, None, 1, 16)
        type = Type(format, (Const(6), Const(40)), Step.blocks(16, 1, power_of_two=True))
        assert torch.equal(stored.real, rounded(x, type))
        assert stored.steps.shape == (6, 3)
        assert torch.equal(stored.steps, block_steps(x, format, Step.blocks(16, 1, power_of_two=True)))
        again = Rounded(Source(stored.real), format, None, 1, 16)
        assert torch.equal(again.real, stored.real) and stored.key != again.key


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_run_along_any_axis(axis: int) -> None:
    x = torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(0))
    format = format_named("i5")
    type = Type(format, (Const(5), Const(7), Const(9)), Step.blocks(4, axis))
    found = rounded(x, type).movedim(axis, -1)
    for row, got in zip(x.movedim(axis, -1).flatten(0, 1), found.flatten(0, 1), strict=True):
        for part, kept in zip(row.split(4), got.split(4), strict=True):
            step = block_step(exact(part), largest(format), power_of_two=False)
            for value, have in zip(exact(part), exact(kept), strict=True):
                want = nearest_of(value, step, format)
                assert abs(have - want) <= abs(want) / 2**23 + step / 2**20


def nearest_of(value: Fraction, step: Fraction, format: Format) -> Fraction:
    return nearest(value / step, format) * step


def test_exponents_end_where_eight_bits_do() -> None:
    tiny, huge = [Fraction(1, 2**149)], [Fraction(2) ** 127 * Fraction(255, 128)]
    one = Fraction(1)
    assert block_step(tiny, one, power_of_two=True) == Fraction(1, 2**127)
    assert block_step(huge, one, power_of_two=True) == Fraction(2) ** 127
    steps = block_steps(
        torch.tensor([[2.0**-149, 0.0], [3e38, 1.0]]), format_named("i2"), Step.blocks(2, 1, power_of_two=True)
    )
    assert exact(steps[:, 0]) == [Fraction(1, 2**127), Fraction(2) ** 127]
