"""Inputs and data as callers have them: tensors, arrays, tuples and dicts by name, alone or in batches."""

from __future__ import annotations

from typing import Any

import nasc
import numpy
import pytest
import torch
from nasc.compiler.cohort import Cohort
from nasc.compiler.execution import InputError
from nasc.compiler.network import Network
from nasc.ir import NascError
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

FEW = "quantize{weights=i4, activations=u6} | calibrate"


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 8)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.relu(self.a(image) + self.b(mask))


def inputs() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"image": torch.randn(64, 6), "mask": torch.randn(64, 4)}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(1)
    return nasc.lower(Two().eval(), {name: held[:4] for name, held in inputs().items()})


def test_a_network_and_its_module_take_a_dict(network: Network) -> None:
    x = inputs()
    wanted = network(x["image"], x["mask"])
    arrays = {name: held.numpy() for name, held in x.items()}
    other_order = {"mask": x["mask"], "image": x["image"]}
    for run in (network, network.module(), lambda *given, **named: Cohort([network])(*given, **named)[0]):
        for given in (x, arrays, other_order, tuple(x.values())):
            torch.testing.assert_close(run(given), wanted)
        torch.testing.assert_close(run(*arrays.values()), wanted)
        torch.testing.assert_close(run(**arrays), wanted)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": torch.zeros(2, 6)}, "the inputs lack 'mask'; found image"),
        ({}, "the inputs lack 'image'; found none"),
        ({"image": torch.zeros(2, 6), "mask": [0.0]}, "input %mask is a list, expected a tensor\n  Give inputs alone"),
        (3.0, "input %image is a float, expected a tensor"),
    ],
)
def test_a_call_on_something_else_is_refused(network: Network, given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        network(given)
    with pytest.raises(InputError, match=said):
        network.module()(given)


def test_inputs_by_position_and_by_name_at_once_are_refused(network: Network) -> None:
    x = inputs()
    with pytest.raises(InputError, match=r"by position \(1\) and by name \(mask\)"):
        network(x["image"], mask=x["mask"])


def batches(kind: str) -> Any:
    x = inputs()
    arrays = {name: held.numpy() for name, held in x.items()}
    rows = [{name: held[at] for name, held in x.items()} for at in range(64)]
    return {
        "arrays": arrays,
        "a batch of arrays": [tuple(arrays.values())],
        "dicts": [{name: held[:32] for name, held in x.items()}, {name: held[32:] for name, held in arrays.items()}],
        "a function": lambda: [x],
        "a loader": DataLoader(TensorDataset(*x.values()), batch_size=16),
        "a loader of dicts": DataLoader(rows, batch_size=16),  # type: ignore[arg-type]
    }[kind]


KINDS = ["arrays", "a batch of arrays", "dicts", "a function", "a loader", "a loader of dicts"]


@pytest.mark.parametrize("kind", KINDS)
def test_data_may_be_whatever_gives_inputs(network: Network, kind: str) -> None:
    wanted = network.apply(FEW, data=inputs())
    assert network.apply(FEW, data=batches(kind)).key == wanted.key


def test_data_of_one_input_may_be_an_array_or_a_dataset_with_labels() -> None:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    network = nasc.lower(nn.Linear(6, 3), x[:2])
    wanted = network.apply(FEW, data=x)
    for data in (x.numpy(), [x.numpy()], TensorDataset(x, torch.zeros(64))):
        assert network.apply(FEW, data=data).key == wanted.key
    with pytest.raises(InputError, match=r"takes 1 input \(%input\), found a batch of 2\n  Write .*without labels"):
        network.apply(FEW, data=DataLoader(TensorDataset(x, torch.zeros(64))))


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_inputs_are_not_several_batches(network: Network, kind: type, tmp_path: Any) -> None:
    x = kind(inputs().values())
    said = rf"a batch of 1: a {kind.__name__} of 2 is 2 batches\n  For one batch of all inputs write data=\[\(x1, x2"
    with pytest.raises(NascError, match=said):
        network.apply(FEW, data=x)
    file = tmp_path / "net.onnx"
    nasc.export(network, file)
    with pytest.raises(NascError, match=said):
        nasc.verify(file, against=network, data=x)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            [(inputs(), torch.zeros(64))],
            "input %image is a dict, expected a tensor\n  Give inputs alone, without labels",
        ),
        (7, "data is a int, expected inputs or batches of them"),
        ([7], "input %image is a int, expected a tensor"),
        (numpy.zeros((4, 6), numpy.float32), r"takes 2 inputs \(%image, %mask\), found a batch of 1\n  Write data=x"),
    ],
)
def test_data_that_are_none_are_refused(network: Network, data: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        network.apply(FEW, data=data)
