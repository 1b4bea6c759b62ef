"""Products of two activations."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir import Op
from ..execution import Frame, kernel, values


@kernel("matmul")
def matmul(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Matrix products."""
    return torch.matmul(*inputs)


@kernel("einsum")
def einsum(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Sums of products by letters."""
    return torch.einsum(cast(str, op.attribute("equation")), *inputs)


@kernel("scaled_dot_product_attention")
def attention(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    """Attention."""
    query, key, value, *mask = inputs
    return F.scaled_dot_product_attention(query, key, value, mask[0] if mask else None, **values(frame, op))
