"""Inputs without labels as callers have them (alone, by name, in batches, a Dataset), given on in a graph's order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy
from torch import Tensor
from torch.utils.data import Dataset

from ..ir import Graph
from .data import Inputs, Rows, Stream, as_data
from .execution import InputError, positional

Batch: TypeAlias = tuple[Tensor, ...]
Data: TypeAlias = "Inputs | Sequence[Inputs] | Dataset[Any] | Callable[[], Iterable[Inputs]] | None"

WRITE_DATA = "Write data=x, data=[(x1, x2)] for several inputs, or a dict by name: inputs alone, without labels."


def batches_of(data: Data) -> Iterable[Inputs]:
    """What a caller has as data, batch by batch."""
    if callable(data) and not isinstance(data, Dataset):
        return data()
    if isinstance(data, Dataset | Rows | Stream):
        return (inputs for inputs, _ in as_data(data, "data").batches(256))
    if isinstance(data, Tensor | numpy.ndarray | Mapping):
        return [cast(Inputs, data)]
    if not isinstance(data, Iterable):
        raise InputError(f"data is a {type(data).__name__}, expected inputs or batches of them", mend=WRITE_DATA)
    return cast("Iterable[Inputs]", data)


def in_order(batch: Inputs, data: Data, graph: Graph) -> Batch:
    """A batch in a graph's order.

    Raises:
        InputError: it holds another number of inputs, or something else than tensors; says how to write it.
    """
    inputs, count = positional(batch, graph), len(graph.inputs)
    if len(inputs) == count:
        return inputs
    listed = ", ".join(f"%{entry.name}" for entry in graph.inputs)
    found = f"data: the graph takes {count} input{'s' * (count != 1)} ({listed}), found a batch of {len(inputs)}"
    if len(inputs) == 1 and isinstance(data, tuple | list) and len(data) == count:
        kind = "tuple" if isinstance(data, tuple) else "list"
        raise InputError(
            f"{found}: a {kind} of {count} is {count} batches",
            mend="For one batch of all inputs write data=[(x1, x2, …)], or a dict by name.",
        )
    raise InputError(found, mend=WRITE_DATA)
