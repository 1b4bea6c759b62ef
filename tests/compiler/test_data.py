"""Forms of data: tensors, datasets that are held, datasets that are streamed, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from nasc.compiler import data as module
from nasc.compiler.data import Rows, Stream, as_data, seeded
from nasc.ir.errors import UsageError
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10) % 3


class Listed(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Noisy(Listed):
    def __getitem__(self, index: int) -> Any:
        x, y = self.items[index]
        return x + torch.rand(()), y


PAIRS = [(x, int(y)) for x, y in zip(X, Y, strict=True)]


@pytest.mark.parametrize(
    "value",
    [
        (X, Y),
        [X, Y.to(torch.uint8)],
        (X.numpy(), Y.numpy().astype(numpy.int16)),
        TensorDataset(X, Y),
        Listed(PAIRS),
        Listed([(x.numpy(), numpy.int64(y)) for x, y in PAIRS]),
    ],
)
def test_forms_of_the_same_rows(value: object) -> None:
    rows = as_data(value, "train_data")
    assert isinstance(rows, Rows)
    assert isinstance(rows.x, Tensor)
    assert rows.x.equal(X)
    assert rows.y is not None
    assert rows.y.dtype == torch.int64
    assert rows.y.equal(Y)
    assert rows.digest == as_data((X, Y), "train_data").digest


def test_real_labels_become_float32_and_inputs_alone_have_none() -> None:
    rows = as_data((X, Y.double() / 3), "train_data")
    assert rows.take(slice(0, 1))[1] is not None
    assert isinstance(rows, Rows)
    assert rows.y is not None
    assert rows.y.dtype == torch.float32
    assert as_data(X, "calibration_data").take(slice(0, 2))[1] is None


def test_several_inputs_by_place_and_by_name() -> None:
    rows = as_data(((X, X[:, 0]), Y), "train_data")
    (first, second), _ = rows.take(slice(3, 5))
    assert first.equal(X[3:5])
    assert second.equal(X[3:5, 0])
    assert isinstance(as_data(({"a": X}, Y), "train_data").take(slice(0, 1))[0], dict)
    listed = as_data(Listed([({"a": x, "b": x[0]}, y) for x, y in PAIRS]), "train_data")
    assert isinstance(listed, Rows)
    assert isinstance(listed.x, dict)
    assert listed.x["b"].equal(X[:, 0])


def test_a_dataset_that_draws_anew_stays_a_stream() -> None:
    data = as_data(Noisy(PAIRS), "train_data")
    assert isinstance(data, Stream)
    first, labels = next(data.batches(4))
    assert isinstance(first, Tensor)
    assert labels is not None
    assert labels.equal(Y[:4])
    assert not first.equal(next(data.batches(4))[0])  # type: ignore[arg-type]
    assert [len(batch[1]) for batch in data.batches(4) if batch[1] is not None] == [4, 4, 2]
    assert data.digest == as_data(Noisy(PAIRS), "train_data").digest


def test_a_dataset_too_large_to_hold_stays_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", X.nbytes - 1)
    data = as_data(Listed(PAIRS), "train_data")
    assert isinstance(data, Stream)
    taken = data.take(torch.tensor([7, 1]))[0]
    assert isinstance(taken, Tensor)
    assert taken.equal(X[[7, 1]])


def test_missing_values_do_not_look_drawn_anew() -> None:
    assert isinstance(as_data(Listed([(torch.tensor([torch.nan]), 0)] * 3), "train_data"), Rows)


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(PAIRS)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Endless(), "IterableDataset, which has no length"),
        (Listed([(torch.ones(2), 0), (torch.ones(3), 0)]), "differ in shape"),
        (Listed([("a.png", 0)]), "is a str, expected a tensor"),
        (Listed([]), "has no samples"),
        (((X, X[:3]), Y), "samples"),
        ("data.npz", "is a str, expected a Dataset"),
    ],
)
def test_what_is_refused(value: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        as_data(value, "train_data")


def test_digest_sees_types_shapes_and_labels() -> None:
    digests = [
        as_data(value, "d").digest
        for value in ((X, Y), (X.reshape(10, 1, 2), Y), (X.double(), Y), (X, Y.float()), X, (X, Y.flip(0)))
    ]
    assert len(set(digests)) == len(digests)


def test_seeded_puts_the_random_numbers_back() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(5):
        inside = torch.rand(2)
    assert torch.rand(2).equal(expected)
    with seeded(5):
        assert torch.rand(2).equal(inside)
