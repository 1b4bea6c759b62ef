"""A search whose candidates crash, hang, eat memory and are killed while they are measured: it goes on."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nasc.compiler.frontend.lower import lower_module
from nasc.compiler.frontend.model_values import make_task
from nasc.compiler.network import Network
from nasc.search.builder import Candidate, TaskBuilder
from nasc.search.config import configuration
from nasc.search.figures import Figures
from nasc.search.judge import TaskJudge, keep_measurements
from nasc.search.protocols import Problem
from nasc.search.result import Result
from nasc.search.run import search
from nasc.targets import Artifact, target_named
from nasc.targets.isolation.bench import IsolatedBench
from nasc.targets.lock import device_lock
from nasc.targets.measure import Conditions
from support import hostile
from torch import nn

HARM: Mapping[int, str] = {2: "crashes", 4: "hangs", 6: "devours", 8: "killed"}
"""What becomes of which measurement, counted from 0, which is that of the source network."""
SAID = {
    "crashes": "the process of measuring crashed",
    "hangs": "measuring gave no answer within 3 s and was stopped",
    "devours": "measuring ran out of memory (limit 4 GiB)",
    "killed": "the process of measuring was killed from outside (SIGKILL)",
}
TRIALS = 10
LIMIT_S = 3.0


@dataclass(eq=False)
class Saboteur(TaskJudge):
    """A judge that really measures, some candidates of which are really harmful.

    Args:
        harm: what becomes of which measurement.
        done: the pipelines' keys by what became of them.
    """

    harm: Mapping[int, str] = field(default_factory=dict)
    count: int = -1
    now: str = ""

    def measure(self, network: Candidate, metrics: Sequence[str]) -> Figures:
        self.count += 1
        self.now = self.harm.get(self.count, "")
        limit_s = LIMIT_S if self.now == "hangs" else 300.0  # however busy the machine is, the others are not stopped
        self.conditions = replace(self.conditions, limit_s=limit_s)
        assert self._source  # emitted unharmed
        try:
            if self.now != "killed":
                return super().measure(network, metrics)
            bench = self.bench
            assert isinstance(bench, IsolatedBench)
            bench.worker.ready()
            pid = bench.worker.pid
            assert pid is not None
            killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
            killer.start()
            self.now = "hangs"  # it would not end by itself
            try:
                return super().measure(network, metrics)
            finally:
                killer.join()
        finally:
            self.now = ""

    def _emit(self, network: Network, metadata: Mapping[str, str]) -> Artifact:
        artifact = super()._emit(network, metadata)
        return replace(artifact, model=getattr(hostile, self.now)()) if self.now else artifact


def searched(output: Path, harm: Mapping[int, str], isolate: bool = True) -> tuple[Result, Saboteur]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 5))
    x = torch.randn(256, 16)
    task = make_task(module, torch.randn(1, 16), calibration_data=x)
    network = lower_module(module, (x[:1],), {}, name="small")
    flags = {
        "search.trials": TRIALS,
        "search.strategy": "random",
        "search.seeds": False,
        "search.objectives": ["fidelity:max", "latency:min"],
        "search.space": ["each *: width=[8, 16, 24, 32, 40]"],
    }
    settings = configuration(flags, folder=output).settings
    conditions = Conditions(budget_s=0.1, memory_limit_bytes=4 * 2**30)
    judge = Saboteur(
        task,
        network,
        target_named("onnxruntime:cpu"),
        conditions,
        isolate=isolate,
        measured=keep_measurements(output),
        harm=harm,
    )
    builder = TaskBuilder(task, network, 0, judge.assess, settings.training)
    problem = Problem("small", "small.py", builder, judge, judge.target.name)
    try:
        return search(problem, settings, output), judge
    finally:
        judge.close()


def children() -> list[str]:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()


@pytest.mark.slow
def test_each_harm_is_a_failed_candidate_with_its_reason_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))
    before = children()
    result, judge = searched(tmp_path / "out", HARM)
    paid = [trial for trial in result.trials if trial.paid]
    assert len(paid) == TRIALS
    failed = {trial.number: trial.reason or "" for trial in paid if trial.state == "failed"}
    assert len(failed) == len(HARM)
    for said, reason in zip(SAID.values(), failed.values(), strict=True):
        assert reason.startswith(said)
    whole = [trial for trial in paid if trial.state == "complete"]
    assert len(whole) == TRIALS - len(HARM)
    assert all(trial.figures["latency"].ratio is not None for trial in whole), "all were paired with the source"
    assert (tmp_path / "out" / "best" / "model.onnx").is_file()

    told = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    once = [t for t in told if "duplicate_of" not in t]
    assert [t["reason"] for t in once if t["state"] == "failed"] == list(failed.values())
    kept: dict[str, Any] = {}
    for line in (tmp_path / "out" / "measurements.jsonl").read_text().splitlines():
        record = json.loads(line)
        kept[record["name"]] = record
    for trial in whole:
        record = kept[trial.figures["latency"].measurement or ""]
        assert record["latency"]["median_s"] == trial.figures["latency"].value
        assert record["latency"]["rounds_s"] and record["latency"]["reference_rounds_s"]
        assert record["provenance"]["model"] != record["provenance"]["baseline"]

    assert isinstance(judge.bench, IsolatedBench)
    assert judge.bench.worker.started == 1 + len(HARM)
    assert children() == before
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("nasc-")]
    assert not list((tmp_path / "locks").glob("*.holder"))
    with device_lock("cpu", timeout_s=0):
        pass


def test_control_in_the_same_process_an_error_is_survived_but_nothing_else_could_be(tmp_path: Path) -> None:
    """Without isolation the search measures in its own process, and a model that only fails is a failed candidate."""
    result, judge = searched(tmp_path / "out", {3: "devours"}, isolate=False)
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert len(failed) == 1
    assert "Failed to allocate memory" in (failed[0].reason or "")
    assert not isinstance(judge.bench, IsolatedBench)


@dataclass(eq=False)
class Starved(TaskJudge):
    """A judge whose process has no memory when the winner's file is checked.

    Args:
        failures: so many checks fail.
        checks: how many were made.
    """

    failures: int = 0
    checks: int = 0

    def _checked(self, network: Network, artifact: Artifact) -> tuple[dict[str, Any], Figures]:
        self.checks += 1
        if self.checks <= self.failures:
            self.bench.measure(replace(artifact, model=hostile.devours()), self.conditions)
        return super()._checked(network, artifact)


def starved(output: Path, failures: int) -> tuple[Result, Starved]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 5))
    x = torch.randn(256, 16)
    task = make_task(module, torch.randn(1, 16), calibration_data=x)
    network = lower_module(module, (x[:1],), {}, name="small")
    flags = {
        "search.trials": 2,
        "search.strategy": "random",
        "search.seeds": False,
        "search.objectives": ["fidelity:max", "bit_operations:min"],
    }
    settings = configuration(flags, folder=output).settings
    conditions = Conditions(budget_s=0.1, memory_limit_bytes=2**30)
    judge = Starved(task, network, target_named("onnxruntime:cpu"), conditions, failures=failures)
    builder = TaskBuilder(task, network, 0, judge.assess, settings.training)
    try:
        return search(Problem("small", "small.py", builder, judge, judge.target.name), settings, output), judge
    finally:
        judge.close()


def test_a_final_check_that_fails_is_made_again_by_a_new_process(tmp_path: Path) -> None:
    result, judge = starved(tmp_path / "out", 1)
    assert (judge.checks, result.deployed.check["agrees"]) == (2, True)
    assert isinstance(judge.bench, IsolatedBench) and judge.bench.worker.started == 2
    assert not any("not compared" in text for text in result.notices)


def test_a_result_is_written_though_its_final_check_fails_and_the_same_search_checks_it_later(tmp_path: Path) -> None:
    result, judge = starved(tmp_path / "out", 2)
    assert judge.checks == 2
    assert list(result.deployed.check) == ["unchecked"]
    assert "measuring ran out of memory (limit 1 GiB)" in result.deployed.check["unchecked"]
    (said,) = (text for text in result.notices if "was not compared with the network's own execution" in text)
    assert "measuring ran out of memory" in said
    for name in ("best/model.onnx", "best/model.nasc", "best/manifest.json", "report.html"):
        assert (tmp_path / "out" / name).is_file()
    assert "was not compared with" in (tmp_path / "out" / "report.html").read_text()

    again, judge = starved(tmp_path / "out", 0)
    assert (judge.checks, again.deployed.check["agrees"]) == (1, True)
    assert again.deployed.artifact == result.deployed.artifact
