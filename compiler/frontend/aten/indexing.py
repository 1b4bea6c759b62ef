"""Ops that look values up by their position."""

from __future__ import annotations

import torch
from torch import fx

from .base import Call, Converted, Operand, convert


@convert("embedding.default")
def embedding(call: Call) -> Converted:
    """Rows of a table."""
    return Converted("embedding", call.nodes("indices", "weight"), {"padding_idx": call["padding_idx"]})


@convert("index.Tensor")
def index(call: Call) -> Operand | None:
    """Elements by tensors of positions."""
    given = call["indices"]
    dims = tuple(i for i, node in enumerate(given) if isinstance(node, fx.Node))
    nodes = tuple(given[d] for d in dims)
    if any(call.tensor(n).dtype in (torch.bool, torch.uint8) for n in nodes):
        return None
    return Converted("index", (call.first, *nodes), {"dims": dims})


@convert("index_select.default")
def index_select(call: Call) -> Operand | None:
    """Some indices of one axis."""
    dim = call.dim(call["dim"])
    if not call.same_length("self", dim) or call.tensor("index").dim() != 1:
        return None
    return Converted("index_select", call.nodes("self", "index"), {"dim": dim})


@convert("gather.default")
def gather(call: Call) -> Operand | None:
    """One value per position."""
    dim = call.dim(call["dim"])
    if not call.same_length("self", dim):
        return None
    return Converted("gather", call.nodes("self", "index"), {"dim": dim})
