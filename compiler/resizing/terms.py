"""What an axis term says of indices: where each comes from, and which index of a width it belongs to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...ir import Axis, Product, Sum, Width
from ...ir.axes import size


def gather_index(axis: Axis, sizes: Mapping[str, int], maps: Mapping[str, Tensor]) -> Tensor:
    """For each new index along an axis term the old index it comes from, or -1: row-major for products, laid end to
    end for sums, by the maps of its widths."""
    match axis:
        case Width(name) if name in maps:
            return maps[name]
        case Product(terms):
            index = torch.zeros(1, dtype=torch.long)
            for term in terms:
                inner, length = gather_index(term, sizes, maps), size(term, sizes)
                joined = index[:, None] * length + inner[None, :]
                index = torch.where((index[:, None] < 0) | (inner[None, :] < 0), -1, joined).reshape(-1)
            return index
        case Sum(terms):
            pieces: list[Tensor] = []
            offset = 0
            for term in terms:
                inner = gather_index(term, sizes, maps)
                pieces.append(torch.where(inner < 0, -1, inner + offset))
                offset += size(term, sizes)
            return torch.cat(pieces)
        case _:
            return torch.arange(size(axis, sizes))


def owners(axis: Axis, width: str, sizes: Mapping[str, int]) -> Tensor:
    """For each index along an axis term the index of `width` it belongs to, or -1."""
    match axis:
        case Width(name) if name == width:
            return torch.arange(sizes[name])
        case Product(terms):
            result = torch.full((1,), -1)
            for term in terms:
                inner = owners(term, width, sizes)
                result = torch.maximum(result[:, None], inner[None, :]).reshape(-1)
            return result
        case Sum(terms):
            return torch.cat([owners(t, width, sizes) for t in terms])
        case _:
            return torch.full((size(axis, sizes),), -1)


def axis_mask(axis: Axis, sizes: Mapping[str, int], kept: Mapping[str, Tensor], batch: int = 1) -> Tensor:
    """Which indices along an axis term are left when only some indices of its widths are; bool."""
    match axis:
        case Width(name) if name in kept:
            return kept[name]
        case Product(terms):
            result = torch.ones(1, dtype=torch.bool)
            for term in terms:
                result = (result[:, None] & axis_mask(term, sizes, kept, batch)[None, :]).reshape(-1)
            return result
        case Sum(terms):
            return torch.cat([axis_mask(t, sizes, kept, batch) for t in terms])
        case _:
            return torch.ones(size(axis, sizes, batch), dtype=torch.bool)
