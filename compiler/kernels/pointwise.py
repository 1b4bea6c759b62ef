"""Ops that treat each element alone, and those that change how numbers are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ...ir.rules.pointwise import BINARY, BITWISE, COMPARE, LOGICAL, UNARY
from ..elements import container
from ..execution import Frame, alike, kernel, values


@kernel("quantize")
def quantize(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Codes, carried as the real numbers they stand for."""
    return frame.quantize(op, inputs[0])


@kernel("cast")
def cast_(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Another format."""
    return inputs[0].to(container(op.type.format))


_UNARY: dict[str, Callable[..., Tensor]] = {
    kind: getattr(F, kind, None) or getattr(torch, kind)
    for kind in (*UNARY, "logical_not", "bitwise_not", "isnan", "isinf")
} | {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


@kernel(*_UNARY)
def unary(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """A function of each element."""
    return _UNARY[op.kind](inputs[0], **values(frame, op))


@kernel(*BINARY, *COMPARE, *LOGICAL, *BITWISE)
def binary(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Two tensors, or a tensor and a number on either side."""
    left, right = op.attribute("input"), op.attribute("other")
    operands: list[Any] = [*inputs]
    if left is not None:
        kept = left if op.kind == "pow" else torch.tensor(left, dtype=inputs[0].dtype, device=inputs[0].device)
        operands.insert(0, kept)
    if right is not None:
        tensors = op.kind in ("maximum", "minimum")
        operands.append(torch.tensor(right, dtype=inputs[0].dtype, device=inputs[0].device) if tensors else right)
    mode = op.attribute("rounding_mode")
    return getattr(torch, op.kind)(*operands, **({"rounding_mode": mode} if mode else {}))


@kernel("prelu")
def prelu(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """`x` where positive, else `slope * x`."""
    return F.prelu(*alike(inputs))


@kernel("softmax", "log_softmax")
def softmax(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """`exp(x) / sum(exp(x))` along an axis, or its logarithm."""
    function = F.softmax if op.kind == "softmax" else F.log_softmax
    return function(inputs[0], **values(frame, op))


@kernel("where")
def where(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """A choice by a condition."""
    condition, *rest = inputs
    left, right = op.attribute("input"), op.attribute("other")
    format = container(op.type.format)
    operands: list[Any] = [*rest]
    if left is not None:
        operands.insert(0, torch.tensor(left, dtype=rest[0].dtype if rest else format, device=condition.device))
    if right is not None:
        operands.append(torch.tensor(right, dtype=rest[0].dtype if rest else format, device=condition.device))
    return torch.where(condition, *operands)


@kernel("masked_fill")
def masked_fill(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """A number where a mask holds."""
    return inputs[0].masked_fill(inputs[1], cast(float, op.attribute("value")))


@kernel("full")
def full(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """One number everywhere."""
    shape, value = values(frame, op).values()
    return torch.full(shape, value, dtype=container(op.type.format), device=frame.device)


@kernel("tril", "triu")
def triangle(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Zero on one side of a diagonal."""
    return getattr(torch, op.kind)(inputs[0], **values(frame, op))


@kernel("arange")
def arange(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """The numbers from 0 on."""
    return torch.arange(frame.resolve(op.attribute("end")), dtype=container(op.type.format), device=frame.device)
