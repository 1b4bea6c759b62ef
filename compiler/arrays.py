"""Networks from graphs and plain arrays, as files of other formats hold them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ir import Graph, infer, verify
from .files import STEPS, ZEROS, recipe_of
from .network import Network
from .weights import Store

AS_BITS = {
    "bfloat16": (np.int16, torch.bfloat16),
    "float8_e4m3fn": (np.uint8, torch.float8_e4m3fn),
    "float8_e5m2": (np.uint8, torch.float8_e5m2),
}
"""Formats that numpy knows through ml_dtypes alone, which torch does not read."""


def network_from(
    graph: Graph, arrays: Mapping[str, Any], steps: Mapping[str, Any], zeros: Mapping[str, Any], place: str
) -> Network:
    """The network of a graph that was read, its widths found.

    Args:
        graph: a graph with all types, lengths as numbers.
        arrays: numbers or codes of its stored values; shared, not copied, where they may be written to.
        steps: the steps of stored values that have several.
        zeros: the zeros of stored values whose steps have zeros of their own, as codes of their format.
        place: what errors call the source.

    Raises:
        NascError: graph and arrays do not fit each other, or a rule does not hold.
    """
    inferred = infer(graph).graph
    verify(inferred, after="reading")
    tensors = {name: tensor_of(array) for name, array in arrays.items()}
    tensors |= {name + STEPS: tensor_of(array) for name, array in steps.items()}
    tensors |= {name + ZEROS: tensor_of(array) for name, array in zeros.items()}
    return Network(inferred, Store({op.name: recipe_of(op, tensors, inferred, Path(place)) for op in inferred.stored}))


def tensor_of(array: Any) -> Tensor:
    """An array as a tensor: on the same memory where that may be written to, as torch wants it."""
    found = np.asarray(array)
    if not found.flags.writeable or not found.flags.c_contiguous:
        found = np.array(found)
    if found.dtype.name in AS_BITS:
        bits, format = AS_BITS[found.dtype.name]
        return torch.from_numpy(found.view(bits)).view(format)
    return torch.from_numpy(found)
