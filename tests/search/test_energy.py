"""Energy as an objective: measured like latency where there is a meter, refused at once where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nasc import compile as nasc_compile
from nasc.compiler.frontend.lower import lower_module
from nasc.compiler.frontend.model_values import make_task
from nasc.ir import UsageError
from nasc.search.builder import TaskBuilder
from nasc.search.config import configuration
from nasc.search.goals import expect_readable, goals
from nasc.search.judge import TaskJudge, keep_measurements
from nasc.search.protocols import Problem
from nasc.targets import target_named
from nasc.targets.measure import Conditions
from support import powercap
from torch import nn

OBJECTIVES = ["fidelity:max", "energy:min"]


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5)).eval()


def test_without_a_meter_a_search_for_energy_ends_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="energy cannot be had here: .*no RAPL counters here"):
        nasc_compile(
            module(),
            torch.randn(1, 16),
            output=tmp_path / "out",
            objectives=OBJECTIVES,
            settings={"measure.meter": f"rapl:{tmp_path / 'none'}"},
            calibration_data=torch.randn(64, 16),
        )
    assert not (tmp_path / "out").exists()


def test_with_a_meter_energy_is_a_measured_figure_with_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))
    model, x = module(), torch.randn(64, 16)
    task = make_task(model, x[:1], calibration_data=x)
    network = lower_module(model, (x[:1],), {}, name="small")
    (tmp_path / "out").mkdir()
    with powercap.running(tmp_path / "powercap", 25.0) as folder:
        conditions = Conditions(budget_s=1.0, meter=f"rapl:{folder}")
        judge = TaskJudge(
            task, network, target_named("onnxruntime:cpu"), conditions, measured=keep_measurements(tmp_path / "out")
        )
        builder = TaskBuilder(task, network, 0, judge.assess, configuration({}, folder=tmp_path).settings.training)
        problem = Problem("small", "small.py", builder, judge, judge.target.name)
        settings = configuration({"search.objectives": OBJECTIVES}, folder=tmp_path).settings
        assert expect_readable(problem, settings) == 2
        assert goals(problem, settings).measured == ("energy",)
        try:
            figure = judge.measure(builder.source(), ["energy"])["energy"]
        finally:
            judge.close()
    assert figure.kind == "measured"
    assert figure.low is not None and figure.high is not None
    assert figure.low <= figure.value <= figure.high
    assert f'"name": "{figure.measurement}"' in (tmp_path / "out" / "measurements.jsonl").read_text()
    assert "below-resolution" in figure.notes
