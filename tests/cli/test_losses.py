"""A loss of the model file's own is tried before anything takes long."""

from __future__ import annotations

from pathlib import Path

import nasc
import pytest
import torch
from nasc.cli import app
from nasc.ir import NascError
from torch import nn
from typer.testing import CliRunner

MODEL = """
import torch
from torch import nn

x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
y = (x.sum(1) > 0).long()
model, example_inputs = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), x[:2]
validation_data = (x, y)
loss = {loss}
"""
TRAINED = """
train_data, training, checkpoint = (x, y), {"epochs": 1}, "net.safetensors"
"""
TENSOR = "the loss gives a tensor [8, 3], expected one number"
NOTHING = "the loss gives a NoneType, expected one number"
FLOAT = "the loss gives a float, which has no gradients to train by"


@pytest.mark.parametrize("more", ["", TRAINED], ids=["trained", "untrained"])
@pytest.mark.parametrize("command", [["compile", "--trials", "2", "-o", "out"], ["sensitivity"]], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("lambda o, l: o", TENSOR),
        ("lambda o, l: None", NOTHING),
        ("lambda o, l: 1 // 0", "net.py:9: error: ZeroDivisionError"),
    ],
)
def test_a_loss_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, said: str, command: list[str], more: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(MODEL.format(loss=loss) + more)
    done = CliRunner().invoke(app, [command[0], "net.py", *command[1:]])
    assert said in " ".join(done.output.split())
    assert isinstance(done.exception, SystemExit), "it is no traceback"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py"], "nothing was begun"


def test_a_loss_without_gradients_is_refused_where_candidates_are_trained(tmp_path: Path) -> None:
    x = torch.randn(120, 6)
    data = {
        "validation_data": (x, (x.sum(1) > 0).long()),
        "train_data": (x, (x.sum(1) > 0).long()),
        "loss": lambda outputs, labels: nn.functional.cross_entropy(outputs, labels).item(),
    }
    with pytest.raises(NascError, match=FLOAT):
        nasc.compile(nn.Linear(6, 3), x[:2], output=tmp_path / "out", train_epochs=1, **data)
    assert not (tmp_path / "out").exists()
