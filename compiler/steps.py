"""Which step, and which zero, codes should have: by the range they cover, or by the squared error of rounding."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..ir import Format, Step, format_named
from ..ir.formats import BINARY, largest
from .elements import nearest

SHRINK = torch.linspace(1.0, 0.2, 33)
"""The clipping ranges that `mse` tries, relative to the largest magnitude."""
SWEEPS = ((True, True), (True, False), (False, True))
"""Which ends of the range of asymmetric weights `mse` narrows, sweep by sweep."""
NEAR = torch.linspace(0.85, 1.15, 17)
"""The steps that `mse` tries at the end beside each zero, relative to the best so far."""


def symmetric_steps(rows: Tensor, format: Format, *, mse: bool, power_of_two: bool) -> Tensor:
    """One step per row for elements around zero; shape [rows]. Of ternary and binary ones always the best.

    Args:
        rows: real numbers, [rows, values].
        format: what the codes are stored in.
        mse: try narrower ranges and keep the one with the smallest squared error.
        power_of_two: only powers of two.
    """
    least, most = rows.amin(dim=1), rows.amax(dim=1)  # several times as fast as aminmax
    peak = torch.maximum(-least, most)
    peak = torch.where(peak > 0, peak.clamp(min=1e-30), 1.0)  # any step holds zeros; this one breaks nothing
    full = (peak / float(largest(format))).to(torch.float32)
    if format.family == "sign":
        best = sign_steps(rows, format)
        near = torch.floor(torch.log2(best))
        candidates = torch.exp2(torch.stack([near, near + 1])) if power_of_two else best[None, :]
    elif power_of_two:
        top = torch.ceil(torch.log2(full))
        candidates = torch.exp2(top[None, :] - torch.arange(4 if mse else 1)[:, None])
    else:
        candidates = full[None, :] * (SHRINK[:, None] if mse else torch.ones(1, 1))
    candidates = candidates.clamp(min=torch.finfo(torch.float32).tiny)
    if candidates.shape[0] == 1:
        return candidates[0]
    best, error = candidates[0], torch.full_like(candidates[0], math.inf)
    for steps in candidates:
        elements = nearest(rows / steps[:, None], format)
        found = (elements * steps[:, None] - rows).square().sum(dim=1)
        better = found < error
        best, error = torch.where(better, steps, best), torch.where(better, found, error)
    return best


def sign_steps(rows: Tensor, format: Format) -> Tensor:
    """One step per row with the smallest squared error of binary or ternary elements; shape [rows].

    It is the mean magnitude: of all values, or of those `k` largest for which `(their sum)^2 / k` is the largest.

    Source: Rastegari et al., ECCV 2016, equation 6; Li and Liu, arXiv:1605.04711, equation 4.
    """
    sums = rows.abs().sort(dim=1, descending=True).values.double().cumsum(dim=1)
    if format == BINARY:
        found = sums[:, -1] / rows.shape[1]
    else:
        counts = torch.arange(1, rows.shape[1] + 1)
        best = (sums.square() / counts).argmax(dim=1, keepdim=True)
        found = (sums.gather(1, best) / (best + 1))[:, 0]
    return torch.where(found > 0, found.clamp(min=1e-30), 1.0).to(torch.float32)


def affine_steps(
    rows: Tensor, format: Format, *, mse: bool, power_of_two: bool, share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """One step and one zero per row, such that 0 is exactly a code; both of shape [rows].

    Args:
        rows: real numbers, [rows, values].
        format: an integer format.
        mse: keep the step and zero with the smallest squared error, see `refined`; otherwise cover all values.
        power_of_two: only powers of two.
        share: of the values, how many to leave out at each end.
    """
    if share:
        ordered, last = rows.sort(dim=1).values, rows.shape[1] - 1
        low, high = ordered[:, round(share * last)], ordered[:, round((1 - share) * last)]
    else:
        low, high = rows.amin(dim=1), rows.amax(dim=1)
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    return refined(rows, low, high, format, power_of_two) if mse else codes_between(low, high, format, power_of_two)


def refined(rows: Tensor, low: Tensor, high: Tensor, format: Format, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """One step and one zero per row with a small squared error, never larger than that of symmetric codes.

    Both ends of the range are narrowed together, then one after the other; symmetric codes of as many bits are tried;
    at last zeros one code away and steps near the best one, which ends on a grid miss.
    """
    best = codes_between(low, high, format, power_of_two)
    error = affine_error(rows, *best, format)

    def take(found: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal best, error
        now = affine_error(rows, *found, format)
        better = now < error
        best = torch.where(better, found[0], best[0]), torch.where(better, found[1], best[1])
        error = torch.where(better, now, error)
        return better

    for of_low, of_high in SWEEPS:
        least, most = low, high
        for shrink in SHRINK.tolist():
            bottom, top = least * (shrink if of_low else 1.0), most * (shrink if of_high else 1.0)
            better = take(codes_between(bottom, top, format, power_of_two))
            low, high = torch.where(better, bottom, low), torch.where(better, top, high)
    signed = format_named(f"i{format.bits}")
    steps = symmetric_steps(rows, signed, mse=True, power_of_two=power_of_two)
    take((steps, torch.full_like(best[1], format.low - signed.low)))
    steps, zeros = best
    for away in (-1, 0, 1):
        near = (zeros + away).clamp(format.low, format.high)
        for factor in (0.5, 1.0, 2.0) if power_of_two else NEAR.tolist():
            take(((steps * factor).clamp(min=torch.finfo(torch.float32).tiny), near))
    return best


def codes_between(low: Tensor, high: Tensor, format: Format, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """For each range the step in binary32 and the zero, see `affine_step`."""
    span = torch.where(high > low, (high - low).clamp(min=1e-30), 1.0)
    steps = (span / (format.high - format.low)).clamp(min=1e-30)
    if power_of_two:
        steps = torch.exp2(torch.ceil(torch.log2(steps)))
    steps = steps.float()
    zeros = (format.low + torch.round(-low / steps)).clamp(format.low, format.high)
    return steps, zeros.to(torch.int32)


def affine_error(rows: Tensor, steps: Tensor, zeros: Tensor, format: Format) -> Tensor:
    """The squared error of rounding each row; shape [rows]."""
    low, high = (format.low - zeros).to(rows), (format.high - zeros).to(rows)
    codes = torch.round(rows / steps[:, None]).clamp_(low[:, None], high[:, None])
    return codes.mul_(steps[:, None]).sub_(rows).square_().sum(dim=1)


def affine_step(low: float, high: float, format: Format, power_of_two: bool = False) -> Step:
    """The step and zero whose codes reach from `low` to `high`, with 0 exactly on a code."""
    span = max(high - low, 1e-30) if high > low else 1.0
    value = span / (format.high - format.low)
    if power_of_two:
        value = 2.0 ** math.ceil(math.log2(value))
    step = Step.of(max(value, 1e-30))
    assert step.value is not None
    zero = min(max(format.low + round(-low / step.value), format.low), format.high)
    return replace(Step.of(step.value, zero), power_of_two=power_of_two or step.power_of_two)


def best_range(values: Tensor, low: float, high: float, format: Format, power_of_two: bool) -> tuple[float, float]:
    """The range between `low` and `high` whose codes give the smallest squared error."""
    best, error = (low, high), math.inf
    tried: set[Step] = set()
    for shrink_low in SHRINK[::2].tolist() if low < 0 else [1.0]:
        for shrink_high in SHRINK[::2].tolist() if low < 0 else SHRINK.tolist():
            step = affine_step(low * shrink_low, high * shrink_high, format, power_of_two)
            if step in tried:
                continue
            tried.add(step)
            assert step.value is not None and step.zero is not None
            codes = (torch.round(values / step.value) + step.zero).clamp_(format.low, format.high)
            found = float(((codes - step.zero) * step.value - values).square().mean())
            if found < error:
                best, error = (low * shrink_low, high * shrink_high), found
    return best
