"""Rounding with torch: real numbers to the elements of a format, elements to codes, and the steps of blocks.

Equal to the exact reference in `nasc.ir.formats` for every binary32 number; all arithmetic here is exact in
binary32 but for the one division by a step, which is rounded as a runtime rounds it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..ir import Format, Step
from ..ir.formats import BINARY, element_values, floats, floor_log2, largest, logs
from ..ir.formats.blocks import LEAST, MOST

CODES = {
    "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "bool": torch.bool,
    "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2, "i32": torch.int32, "i64": torch.int64,
}  # fmt: skip
"""The torch formats of those that torch has itself."""

HALF_ROOT = 0.7071068286895752
"""The smallest binary32 number above the square root of 1/2."""


def container(format: Format) -> torch.dtype:
    """The torch format that holds codes of an IR format."""
    if format.name in CODES:
        return CODES[format.name]
    if format.bits <= 8:
        return torch.int8 if format.is_int and format.signed else torch.uint8
    return torch.int16 if format.is_int and format.signed else torch.uint16


def nearest(x: Tensor, format: Format) -> Tensor:
    """The elements that real numbers are rounded to, in the torch format of `x` (binary32, or binary64)."""
    if format == BINARY:
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    if format.is_int:
        return torch.round(x).clamp_(format.low, format.high)
    if format.family == "log":
        return _nearest_power(x, format)
    _, exponent = torch.frexp(x)
    exponent = (exponent - 1).clamp_(min=1 - floats.bias(format)) - format.mantissa
    rounded = torch.ldexp(torch.round(_scaled(x, -exponent)), exponent)
    most = float(largest(format))
    return rounded.clamp_(-most, most)


def _scaled(x: Tensor, exponent: Tensor) -> Tensor:
    """`x * 2^exponent` in two factors, since the power alone may be beyond the range of `x`."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(x, half), exponent - half)


def _nearest_power(x: Tensor, format: Format) -> Tensor:
    magnitude = x.abs().clamp_(max=float(largest(format)))
    mantissa, exponent = torch.frexp(magnitude)
    exponent = torch.where(mantissa >= HALF_ROOT, exponent, exponent - 1).clamp_(0, logs.most(format))
    found = torch.ldexp(torch.ones_like(x), exponent)
    return torch.where(magnitude > 0.5, torch.copysign(found, x), torch.where(x.isnan(), x, 0.0))


@lru_cache(maxsize=64)
def _table(format: Format) -> tuple[Tensor, Tensor, Tensor]:
    """The elements by code, the elements in order, and the code of each of those."""
    by_code = element_values(format)
    codes = {element: code for code, element in reversed(list(enumerate(by_code)))}  # of two zeros the first
    ordered = sorted(codes)
    return torch.tensor(by_code), torch.tensor(ordered), torch.tensor([codes[e] for e in ordered])


def codes_of(x: Tensor, format: Format) -> Tensor:
    """The codes of elements, in the torch format that holds them."""
    if format.is_int or format.is_float:
        return x.to(container(format))
    _, ordered, codes = _table(format)
    places = torch.searchsorted(ordered.to(x.device), x.float().contiguous())
    return codes.to(x.device)[places].to(container(format))


def elements_of(codes: Tensor, format: Format) -> Tensor:
    """The elements of codes in binary32, of `i32` codes in binary64."""
    if format.is_int or format.is_float:
        return codes.to(torch.float64 if format.is_int and format.bits > 24 else torch.float32)
    return _table(format)[0].to(codes.device)[codes.to(torch.int64)]


def in_blocks(x: Tensor, axis: int, length: int) -> Tensor:
    """A tensor cut into blocks along an axis: that axis becomes the count of blocks, a last one runs through each.

    The last block is filled up with zeros.
    """
    moved = x.movedim(axis, -1)
    missing = -moved.shape[-1] % length
    if missing:
        moved = torch.nn.functional.pad(moved, (0, missing))
    return moved.unflatten(-1, (-1, length)).movedim(-2, axis)


def block_steps(x: Tensor, format: Format, step: Step) -> Tensor:
    """The steps of a tensor's blocks from their own largest magnitudes; see `nasc.ir.formats.blocks`.

    Returns:
        One binary32 number per block: the shape of `x` with the axis of the blocks cut down to their count.
    """
    assert step.axis is not None and step.block is not None
    peak = in_blocks(x.detach().float().abs(), step.axis, step.block).amax(-1)
    if step.power_of_two:
        exponent = torch.frexp(peak).exponent - 1 - floor_log2(largest(format))
        found = torch.ldexp(torch.ones_like(peak), exponent.clamp_(LEAST, MOST))
    else:
        found = (peak / float(largest(format))).clamp_(min=torch.finfo(torch.float32).tiny)
    return torch.where(peak > 0, found, 1.0)


def spread(steps: Tensor, axis: int | None, block: int | None, shape: torch.Size) -> Tensor:
    """Steps shaped to multiply a tensor: one for all, one per index of an axis, or one per block along it."""
    if axis is None:
        return steps
    if block is not None:
        return steps.repeat_interleave(block, axis).narrow(axis, 0, shape[axis])
    lengths = [1] * len(shape)
    lengths[axis] = -1
    return steps.reshape(lengths)
