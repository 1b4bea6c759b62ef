"""Any quality may be an objective or bear a constraint: the file's own, and those that are not taken by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nasc
import pytest
import torch
from nasc.cli import app
from nasc.ir import NascError
from torch import Tensor, nn
from typer.testing import CliRunner

MODEL = """
import torch
from torch import nn

x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
y = (x.sum(1) > 0).long()
model, example_inputs = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), x[:2]
validation_data, test_data = (x[:200], y[:200]), (x[200:], y[200:])
metrics = {"error": (lambda o, l: (o.argmax(1) != l).float().mean(), "min")}
"""
QUICK: dict[str, Any] = {"settings": {"measure.budget_s": 0.05}}


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def test_a_metric_of_the_model_file_is_an_objective_and_its_result_verifies(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    wanted = ["error:min", "bit_operations:min"]
    result = nasc.compile(
        tmp_path / "net.py", output=tmp_path / "out", objectives=wanted, constraints=["error<=0.9"], trials=3, **QUICK
    )
    for figures in (result.best.figures, result.best.test, *(trial.figures for trial in result.trials)):
        assert figures["error"].value == pytest.approx(1 - figures["accuracy"].value)
    checks = {check.name: check.holds for check in nasc.verify(tmp_path / "out" / "best")}
    assert checks["error on test samples"]


@pytest.mark.parametrize("name", ["f1", "auroc", "precision"])
def test_metrics_that_are_not_taken_by_default_are_objectives(tmp_path: Path, name: str) -> None:
    x, y = data()
    wanted = [f"{name}:max", "bit_operations:min"]
    result = nasc.compile(
        network(), x[:2], validation_data=(x, y), output=tmp_path / "out", objectives=wanted, trials=2, **QUICK
    )
    assert 0 < result.best.figures[name].value <= 1
    assert result.best.figures[name].low is not None


def test_labels_that_are_no_classes_are_searched_by_an_own_metric(tmp_path: Path) -> None:
    x, _ = data()
    hits = lambda outputs, labels: ((outputs > 0) == (labels > 0)).float().mean()  # noqa: E731
    result = nasc.compile(
        network(),
        x[:2],
        validation_data=(x, (x[:, :2] > 0).long()),
        metrics={"hits": hits},
        objectives=["hits:max", "bit_operations:min"],
        output=tmp_path / "out",
        trials=2,
        **QUICK,
    )
    assert 0 < result.best.figures["hits"].value < 1
    assert "accuracy" not in result.best.figures


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (lambda outputs, labels: outputs, r"metric 'm' gives a tensor \[200, 2\], expected one number"),
        (lambda outputs, labels: 1 // 0, "(?s)test_own_metrics.py:.*ZeroDivisionError.*while running metric 'm'"),
        (lambda outputs, labels: None, "metric 'm' gives a NoneType, expected one number"),
    ],
)
def test_a_metric_that_gives_no_number_is_refused(tmp_path: Path, metric: Any, says: str) -> None:
    x, y = data()
    with pytest.raises(NascError, match=says):
        nasc.compile(
            network(), x[:2], validation_data=(x, y), metrics={"m": metric}, objectives=["m"], output=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_a_metric_of_labels_needs_labels(tmp_path: Path) -> None:
    text = MODEL.replace("validation_data, test_data = (x[:200], y[:200]), (x[200:], y[200:])", "")
    (tmp_path / "net.py").write_text(text)
    done = CliRunner().invoke(
        app, ["compile", str(tmp_path / "net.py"), "--objective", "error", "-o", str(tmp_path / "out")]
    )
    assert "has no labelled validation_data, so there is no error" in " ".join(done.output.split())
    done = CliRunner().invoke(
        app, ["compile", str(tmp_path / "net.py"), "--objective", "eror", "-o", str(tmp_path / "out")]
    )
    assert "unknown metric 'eror' Did you mean error" in " ".join(done.output.split())
