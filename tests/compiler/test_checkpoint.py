"""Checkpoints in the layouts that trainers write, and what is said of one that does not fit or would run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nasc.compiler.checkpoint import load_weights, make_folder, read_checkpoint
from nasc.compiler.frontend.model_values import task_of
from nasc.ir.errors import NascError, UsageError
from safetensors.torch import save_file
from torch import Tensor, nn


def network(width: int = 4) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: held for name, held in state.items()}


def lightning(state: dict[str, Tensor]) -> dict[str, Any]:
    more = {"criterion.weight": torch.ones(2)}
    return {"epoch": 3, "state_dict": prefixed("model.", state) | more, "optimizer_states": [{"state": {}}]}


LAYOUTS = {
    "plain": lambda state: state,
    "lightning": lightning,
    "tutorial": lambda state: {"epoch": 3, "model_state_dict": state, "loss": torch.tensor(1.0)},
    "timm": lambda state: {"model": state, "args": {"lr": 1}},
    "parallel": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "own attribute": lambda state: prefixed("classifier.body.", state),
    "old batch norm": lambda state: {name: held for name, held in state.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_torch_save(tmp_path: Path, layout: str) -> None:
    source, other = network(), network()
    for held in other.parameters():
        nn.init.normal_(held)
    torch.save(LAYOUTS[layout](dict(source.state_dict())), tmp_path / "net.pt")
    load_weights(other, read_checkpoint(tmp_path / "net.pt"), "net.pt")
    assert all(other.state_dict()[name].equal(held) for name, held in source.state_dict().items())


def test_safetensors_with_tied_weights_kept_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

    source, other = Tied(), Tied()
    state = dict(source.state_dict())
    del state["b.weight"]
    save_file(state, tmp_path / "net.safetensors")
    load_weights(other, read_checkpoint(tmp_path / "net.safetensors"), "net.safetensors")
    assert other.b.weight.equal(source.a.weight)


def test_a_checkpoint_of_another_size_names_the_first_mismatches() -> None:
    with pytest.raises(NascError) as raised:
        load_weights(network(4), network(5).state_dict(), "net.pt")
    lines = str(raised.value).splitlines()
    assert lines[0] == "net.pt does not fit the model (Sequential):"
    assert lines[1].strip() == "0.weight is [5, 3] in the checkpoint and [4, 3] in the model"
    assert lines[4].strip() == "… and 4 more of another shape"


def test_a_checkpoint_of_another_network_names_missing_and_unknown() -> None:
    state = dict(network().state_dict())
    state["head.weight"] = state.pop("2.weight")
    with pytest.raises(NascError) as raised:
        load_weights(network(), state, "net.pt")
    assert "2.weight: not in the checkpoint" in str(raised.value)
    assert "head.weight: not in the model" in str(raised.value)


def test_a_misfit_leaves_the_module_as_it_was() -> None:
    module = network(4)
    before = {name: held.clone() for name, held in module.state_dict().items()}
    with pytest.raises(NascError):
        load_weights(module, network(5).state_dict(), "net.pt")
    assert all(module.state_dict()[name].equal(held) for name, held in before.items())


class Bomb:
    """An object whose unpickling runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, tmp_path / "net.pt")
    with pytest.raises(NascError, match="loading it would run the code in it") as raised:
        read_checkpoint(tmp_path / "net.pt")
    assert "torch.save(model.state_dict(), path)" in str(raised.value)
    assert not (tmp_path / "ran").exists()


class Hyperparameters(dict[str, Any]):
    """What a trainer keeps beside the weights, as Lightning its AttributeDict."""


class Callback:
    """An object of a trainer with state of its own."""

    def __init__(self) -> None:
        self.best = Path("best.ckpt")


def test_objects_of_a_trainer_beside_the_weights_are_passed_over(tmp_path: Path) -> None:
    source, other = network(), network()
    for held in other.parameters():
        nn.init.normal_(held)
    kept = {"hyper_parameters": Hyperparameters(lr=1e-3), "callbacks": {"a": Callback()}}
    torch.save(lightning(dict(source.state_dict())) | kept, tmp_path / "last.ckpt")
    load_weights(other, read_checkpoint(tmp_path / "last.ckpt"), "last.ckpt")
    assert all(other.state_dict()[name].equal(held) for name, held in source.state_dict().items())


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "net.pt")
    with pytest.raises(NascError, match="loading it would run the code in it"):
        read_checkpoint(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_damaged_file(tmp_path: Path, name: str) -> None:
    torch.save(network().state_dict(), tmp_path / "whole.pt")
    (tmp_path / name).write_bytes((tmp_path / "whole.pt").read_bytes()[:200])
    with pytest.raises(NascError, match="not a"):
        read_checkpoint(tmp_path / name)


def test_a_file_without_named_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weights": [torch.ones(2)]}, tmp_path / "net.pt")
    with pytest.raises(NascError, match=r"expected named tensors, .* found epoch, weights"):
        read_checkpoint(tmp_path / "net.pt")


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "gone.pt")


def test_a_task_has_the_checkpoint_s_weights_whatever_its_seed(tmp_path: Path) -> None:
    values = {"model": network, "example_inputs": torch.zeros(1, 3), "checkpoint": "net.pt"}
    source = network()
    for held in source.parameters():
        nn.init.normal_(held)
    torch.save(source.state_dict(), tmp_path / "net.pt")
    task = task_of(values, folder=tmp_path)
    assert not task.untrained
    assert task.with_seed(7).model.state_dict()["0.weight"].equal(source.state_dict()["0.weight"])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NascError, match="file/below: cannot be made: Not a directory"):
        make_folder(tmp_path / "file" / "below")
