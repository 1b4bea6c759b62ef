"""Tensors made from nothing, as far as their shape depends on the batch; the others are computed when lowering."""

from __future__ import annotations

from typing import Any

from .base import Call, Converted, convert


@convert(
    "full.default", "zeros.default", "ones.default", "new_zeros.default", "new_ones.default", "new_full.default",
    "zeros_like.default", "ones_like.default", "full_like.default", "fill.Scalar", "scalar_tensor.default",
    "empty.memory_format", "new_empty.default", "empty_like.default", "zero.default", "fill.Tensor",
)  # fmt: skip
def full(call: Call) -> Converted | None:
    """One number everywhere; tensors that are promised no value get zeros."""
    value: Any = 0.0
    if "ones" in call.kind:
        value = 1.0
    elif "full" in call.kind:
        value = call["fill_value"]
    elif "fill" in call.kind:
        value = call.number("value")
    elif call.kind == "scalar_tensor":
        value = call["s"]
    if not isinstance(value, int | float):
        return None
    return Converted("full", (), {"shape": call.shape, "value": float(value)}, format=call.format)


@convert("arange.default", "arange.start", "arange.start_step")
def arange(call: Call) -> Converted | None:
    """The numbers below the length of the batch."""
    if call.arguments.get("start", 0) != 0 or call.arguments.get("step", 1) != 1:
        return None
    return Converted("arange", (), {"end": call.shape[0]}, format=call.format)
