"""Rounding that trains: the integers of a runtime going forward, learned step size gradients going back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..ir import Format
from ..ir.formats import largest
from .elements import nearest


def fake_quantized(x: Tensor, step: Tensor, zero: int | Tensor, low: int, high: int, *, samples: int = 1) -> Tensor:
    """`(clamp(round(x / step) + zero, low, high) - zero) * step`, bit for bit, with gradients for `x` and `step`.

    Args:
        x: real numbers.
        step: positive, one number or of a shape that multiplies `x`.
        zero: the code that means 0, one number or of a shape that is added to `x`.
        low: the smallest code.
        high: the largest code.
        samples: how many samples `x` holds: the gradient of the step is scaled by `1 / sqrt(values * high)`, where
            values are those of one sample that share the step.

    Source: Esser et al., ICLR 2020, equations 1 to 3 and section 2.2.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    values = max(1, x.numel() // max(1, step.numel() * samples))
    scale = 1.0 / math.sqrt(values * max(1, high))
    return _Rounding.apply(x, step, low - zero, high - zero, scale)  # pyright: ignore[reportReturnType]


def fake_elements(x: Tensor, step: Tensor, format: Format, *, samples: int = 1) -> Tensor:
    """`nearest(x / step) * step` in a format that is no plain integer, with gradients as those of `fake_quantized`.

    Rounding passes gradients straight through within the largest element, as for binary numbers in Hubara et al.,
    NeurIPS 2016, section 1.3.

    Args:
        x: real numbers.
        step: positive, one number or of a shape that multiplies `x`.
        format: what the elements are.
        samples: how many samples `x` holds.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    most = float(largest(format))
    scale = 1.0 / math.sqrt(max(1, x.numel() // max(1, step.numel() * samples)) * max(1.0, most))
    step = step.detach() + (step - step.detach()) * scale
    held = (x / step).clamp(-most, most)
    return (nearest(held.detach(), format) + (held - held.detach())) * step


def clamped(x: Tensor, low: int | Tensor, high: int | Tensor) -> Tensor:
    """Numbers held between bounds, either numbers or tensors."""
    if isinstance(low, Tensor):
        return torch.clamp(x, low, torch.as_tensor(high))
    return torch.clamp(x, low, int(high))


class _Rounding(torch.autograd.Function):
    """One node for what would be eight, since small networks train no faster than their nodes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, step: Tensor, low: int | Tensor, high: int | Tensor, scale: float) -> Tensor:
        """Codes times the step."""
        return clamped(torch.round(x / step), low, high) * step

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradients are made of."""
        x, step, low, high, ctx.scale = inputs
        ctx.bounds = None if isinstance(low, Tensor) else (low, high)
        ctx.save_for_backward(x, step, *((low, high) if ctx.bounds is None else ()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Inside the range `1` for x and the rounding error for the step, outside `0` and the bound."""
        (gradient,) = gradients
        x, step, *bounds = ctx.saved_tensors
        ratio = x / step
        bound = clamped(ratio, *(bounds or ctx.bounds))
        inside = ratio == bound
        of_step = None
        if ctx.needs_input_grad[1]:
            error = torch.where(inside, torch.round(bound) - bound, bound)
            of_step = (gradient * error).sum_to_size(step.shape) * ctx.scale
        return gradient * inside, of_step, None, None, None
