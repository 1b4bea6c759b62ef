"""The data of a task: rows held as tensors where they fit, or read from a dataset batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ..ir.errors import UsageError

Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""What a network reads: one tensor, several positional ones, or keyword ones; axis 0 of each counts samples."""

Batch: TypeAlias = tuple[Inputs, Tensor | None]
"""Inputs and labels of some samples; labels are None where the data have none."""

HELD_BYTES = 2 << 30
"""Datasets up to this size are held as tensors; larger ones are read again each time."""

FORMS = "a Dataset, a pair of tensors (x, y), or a function that gives one"


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples held as tensors: inputs `x` and labels `y`, one per index of axis 0."""

    x: Inputs
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(tensors_of(self.x)[0])

    def take(self, index: Tensor | slice) -> Batch:
        """The samples at these indices."""
        return map_inputs(lambda held: held[index], self.x), None if self.y is None else self.y[index]

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, `size` at a time (the last batch may be smaller)."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))

    @cached_property
    def digest(self) -> str:
        """sha256 over names, types, shapes and bytes of the tensors, in hexadecimal."""
        digest = hashlib.sha256(b"rows")
        _add_batch(digest, (self.x, self.y))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Stream:
    """Samples read from a map-style dataset whenever they are asked for: too many to hold, or drawn anew each time."""

    dataset: Dataset[Any]
    name: str
    reading: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while items are read: errors of a person's dataset are then shown at their own line."""

    def __len__(self) -> int:
        return len(cast("Sequence[Any]", self.dataset))

    def take(self, index: Tensor | slice) -> Batch:
        """The samples at these indices."""
        chosen = range(len(self))[index] if isinstance(index, slice) else cast("list[int]", index.tolist())
        with self.reading():
            return _stack([self.dataset[position] for position in chosen], self.name)

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, `size` at a time (the last batch may be smaller)."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))

    @cached_property
    def digest(self) -> str:
        """sha256 over one reading of all samples under seed 0, in hexadecimal."""
        digest = hashlib.sha256(b"stream")
        with seeded(0):
            for batch in self.batches(256):
                _add_batch(digest, batch)
        return digest.hexdigest()


Data: TypeAlias = Rows | Stream


def as_data(value: object, name: str) -> Data:
    """What a person gave as data, as rows or a stream.

    Labels are made int64 (classes) or float32. A dataset whose items are the same each time they are read is held as
    tensors if it is at most `HELD_BYTES` large; one that draws its items anew (augmentation) stays a stream.

    Args:
        value: a `Dataset`, a pair `(x, y)`, or inputs alone; x is a tensor, a tuple or a dict of tensors; numpy arrays
            are taken for tensors.
        name: what to call it in errors, such as `train_data`.

    Raises:
        UsageError: it is none of these, is empty, or labels and inputs differ in number.
    """
    if isinstance(value, Rows | Stream):
        return value
    if isinstance(value, DataLoader):
        raise UsageError(f"{name} is a DataLoader, expected {FORMS}", mend=f"Write {name} = the_loader.dataset")
    if isinstance(value, IterableDataset):
        raise UsageError(
            f"{name} is an IterableDataset, which has no length and no order",
            mend="Give a Dataset with __len__ and __getitem__, or a pair of tensors (x, y).",
        )
    if isinstance(value, TensorDataset):
        tensors = list(value.tensors)
        y = tensors.pop() if len(tensors) > 1 else None
        return _rows(tensors[0] if len(tensors) == 1 else tuple(tensors), y, name)
    if isinstance(value, tuple | list):
        pair = cast("Sequence[object]", value)
        if len(pair) != 2:
            raise UsageError(
                f"{name} is a {type(value).__name__} of {len(pair)}, expected {FORMS}",
                mend="For several inputs write ((x1, x2), y).",
            )
        return _rows(pair[0], pair[1], name)
    if isinstance(value, Tensor | numpy.ndarray | dict):
        return _rows(cast("object", value), None, name)
    like_dataset = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    if like_dataset and not isinstance(value, str | bytes | Mapping):
        return _from_dataset(cast("Dataset[Any]", value), name)
    raise UsageError(f"{name} is a {type(value).__name__}, expected {FORMS}", mend=f"Write {name} = (x, y)")


def as_inputs(value: object, name: str) -> Inputs:
    """A tensor, a tuple of tensors or a dict of tensors (numpy arrays are taken for tensors).

    Raises:
        UsageError: it is something else.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, numpy.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, tuple | list) and value:
        return tuple(_tensor(part, f"{name}[{place}]") for place, part in enumerate(cast("Sequence[object]", value)))
    if isinstance(value, dict) and value:
        named = cast("dict[object, object]", value)
        return {str(key): _tensor(part, f"{name}[{key!r}]") for key, part in named.items()}
    raise UsageError(
        f"{name} is {_described(value)}, expected a tensor, a tuple of tensors, or a dict of keyword tensors"
    )


def apply(run: Callable[..., Any], inputs: Inputs) -> Any:
    """Call a network on its inputs, positional or by keyword."""
    if isinstance(inputs, Tensor):
        return run(inputs)
    return run(**inputs) if isinstance(inputs, dict) else run(*inputs)


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """The tensors of the inputs, in order."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, dict) else inputs)


def map_inputs(change: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """The same inputs with each tensor changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: change(held) for name, held in inputs.items()}
    return tuple(change(held) for held in inputs)


def described(inputs: Inputs) -> str:
    """Types and shapes of one sample, such as `float32[16]` or `(float32[3, 8], int64[4])`."""

    def one(held: Tensor) -> str:
        return f"{str(held.dtype).removeprefix('torch.')}{list(held.shape[1:])}"

    if isinstance(inputs, Tensor):
        return one(inputs)
    if isinstance(inputs, dict):
        return "{" + ", ".join(f"{name}: {one(held)}" for name, held in inputs.items()) + "}"
    return "(" + ", ".join(map(one, inputs)) + ")"


class seeded:
    """A context in which torch's global random numbers start from a seed; outside they go on as if it had not been."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        in_use = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        self._fork = torch.random.fork_rng(devices=in_use)

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *raised: Any) -> None:
        self._fork.__exit__(*raised)


def add_tensor(digest: Any, name: str, held: Tensor) -> None:
    """Feed a tensor's name, type, shape and bytes to a hash."""
    held = held.detach().cpu().contiguous()
    digest.update(f"{name}:{held.dtype}:{list(held.shape)}:".encode())
    digest.update(held.reshape(-1).view(torch.uint8).numpy().data if held.numel() else b"")


def _add_batch(digest: Any, batch: Batch) -> None:
    inputs, labels = batch
    named = inputs if isinstance(inputs, dict) else {str(place): x for place, x in enumerate(tensors_of(inputs))}
    for name, held in named.items():
        add_tensor(digest, name, held)
    if labels is not None:
        add_tensor(digest, "labels", labels)


def _rows(x: object, y: object, name: str) -> Rows:
    inputs = as_inputs(x, f"{name}'s x")
    counts = {len(held) if held.ndim else -1 for held in tensors_of(inputs)}
    if len(counts) > 1 or -1 in counts:
        raise UsageError(
            f"{name}'s inputs have {described(inputs)} per sample but {sorted(counts)} samples",
            mend="Every input needs one row per sample.",
        )
    labels = None if y is None else _labels(_tensor(y, f"{name}'s y"))
    if counts == {0}:
        raise UsageError(f"{name} has no samples")
    if labels is not None and (labels.ndim == 0 or len(labels) not in counts):
        raise UsageError(
            f"{name} has {counts.pop()} rows of x but {len(labels) if labels.ndim else 'one scalar as'} labels y",
            mend="Give one label per row.",
        )
    return Rows(inputs, labels)


def _from_dataset(dataset: Dataset[Any], name: str) -> Data:
    stream = Stream(dataset, name)
    if not len(stream):
        raise UsageError(f"{name} has no samples")
    first = stream.take(slice(0, 1))
    sample_bytes = sum(held.nbytes for held in tensors_of(first[0]))
    if sample_bytes * len(stream) > HELD_BYTES or _drawn_anew(stream):
        return stream
    return _rows(*stream.take(slice(0, len(stream))), name)


def _drawn_anew(stream: Stream) -> bool:
    """Whether reading an item twice gives two different things (seen on up to eight items)."""
    few = torch.linspace(0, len(stream) - 1, min(8, len(stream))).long()
    with seeded(0):
        once, again = stream.take(few), stream.take(few)
    pairs = zip(tensors_of(once[0]), tensors_of(again[0]), strict=True)
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def _stack(items: list[Any], name: str) -> Batch:
    """Put dataset items, each `(x, y)` or `x`, on top of each other."""
    pairs = [
        (item[0], item[1]) if isinstance(item, tuple | list) and len(item) == 2 else (item, None) for item in items
    ]
    inputs = [as_inputs(x, f"the x of an item of {name}") for x, _ in pairs]
    shapes = {described(map_inputs(lambda held: held[None], x)) for x in inputs}
    if len(shapes) > 1:
        raise UsageError(
            f"items of {name} differ in shape: {' and '.join(sorted(shapes)[:2])}",
            mend="Crop, pad or resize them to one shape.",
        )
    parts = [torch.stack(column) for column in zip(*map(tensors_of, inputs), strict=True)]
    first = inputs[0]
    x: Inputs = parts[0] if isinstance(first, Tensor) else tuple(parts)
    if isinstance(first, dict):
        x = dict(zip(first, parts, strict=True))
    if pairs[0][1] is None:
        return x, None
    return x, _labels(torch.stack([torch.as_tensor(y) for _, y in pairs]))


def _labels(y: Tensor) -> Tensor:
    return y.to(torch.float32 if y.is_floating_point() else torch.int64)


def _tensor(value: object, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, numpy.ndarray):
        return torch.from_numpy(value)
    raise UsageError(f"{name} is {_described(value)}, expected a tensor", mend="Use torch.as_tensor(...).")


def _described(value: object) -> str:
    kind = type(value)
    place = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"a {place}{kind.__qualname__}"
