"""`nasc measure`: any ONNX file, with all that one must know to believe the figures or to take them again."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nasc
import numpy as np
import onnx
import pytest
from nasc.cli import app
from nasc.ir import UsageError
from nasc.targets import target_named
from nasc.targets.energy import MeterUnavailableError
from nasc.targets.latency_record import Flag, Latency
from nasc.targets.measure import Conditions, Measurement, gpu_of, measure_model, names
from nasc.targets.provenance import model_digest, size_bytes
from nasc.targets.statistics import Interval, Ratio, Verdict
from onnx import numpy_helper
from support import hostile, powercap
from typer.testing import CliRunner

CPU = target_named("onnxruntime:cpu")


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(hostile.harmless())
    return path


def test_the_record_says_how_it_came_about(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(hostile.harmless(512))
    found = measure_model(CPU, model, baseline=other, conditions=Conditions(budget_s=0.1, threads=1))
    record = json.loads(json.dumps(found.as_dict()))
    how = record["provenance"]
    assert how["model"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert how["baseline"] == hashlib.sha256(other.read_bytes()).hexdigest()
    assert how["runtime"]["provider"] == "CPUExecutionProvider"
    assert how["runtime"]["optimization"] == "all"
    assert how["versions"]["nasc"] == nasc.__version__
    assert how["host"]["processor"] and how["host"]["usable_processors"] >= 1
    assert how["device"] == {"kind": "processor"}
    assert how["conditions"]["metrics"] == ["latency"] and how["conditions"]["threads"] == 1
    assert (how["latency_meter"]["confidence"], how["latency_meter"]["margin"]) == (0.99, 0.02)
    assert how["began"] <= how["ended"]
    latency = record["latency"]
    assert len(latency["rounds_s"]) == len(latency["reference_rounds_s"]) == latency["rounds"] > 0
    assert isinstance(latency["flags"], list)
    assert latency["floor_s"] > 0
    assert record["size_bytes"] == model.stat().st_size


def test_tensors_in_a_file_beside_it_belong_to_a_model(tmp_path: Path) -> None:
    made = onnx.load_from_string(hostile.harmless())
    weight = np.ones((64, hostile.FEATURES), "f4")
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "model.onnx"
    onnx.save(made, str(path), save_as_external_data=True, location="tensors", size_threshold=0)
    both = path.read_bytes() + (tmp_path / "tensors").read_bytes()
    assert model_digest(path) == hashlib.sha256(both).hexdigest()
    assert size_bytes(path) == len(both)
    assert measure_model(CPU, path, conditions=Conditions(budget_s=0.05)).size_bytes == len(both)


def test_the_command_takes_metrics_with_commas_and_prints_json(model: Path) -> None:
    command = [sys.executable, "-m", "nasc", "measure", str(model), "--json", "--budget", "0.05"]
    told = subprocess.run([*command, "--batch", "1"], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(told.stdout)["latency"]["median_s"] > 0
    refused = subprocess.run([*command, "--metric", "latency,speed"], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "there is no metric 'speed'" in refused.stderr and "Traceback" not in refused.stderr
    assert names(["latency,energy", "latency", " "]) == ("latency", "energy")
    assert names("latency") == ("latency",)
    assert nasc.measure(model, metrics="latency", budget_s=0.02, isolate=False).latency is not None


@pytest.mark.parametrize(
    "options", [["--limit", "0"], ["--limit", "-3"], ["--memory", "-1"], ["--memory", "nan"], ["--budget", "inf"]]
)
def test_the_command_refuses_limits_that_make_no_sense(model: Path, options: list[str]) -> None:
    refused = CliRunner().invoke(app, ["measure", str(model), *options])
    assert refused.exit_code == 2
    assert f"the {options[0].strip('-')} must be" in refused.output


def test_a_remark_says_where_times_are_the_threads_own() -> None:
    one = Interval(1e-3, 1e-3, 0.99)
    latency = Latency(1e-3, one, None, None, None, 1, "thread-cpu", 3e-3)
    (remark,) = Measurement("", 1, 1, 1, latency).remarks()
    assert "the thread's processor time" in remark and "on the wall clock the median is 3 ms" in remark
    assert Measurement("", 1, 1, 1, replace(latency, clock="wall")).remarks() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics": ()}, "there is nothing to measure"),
        ({"metrics": ("time",)}, "there is no metric 'time'"),
        ({"batch": 0}, "the batch must be at least 1; found 0"),
        ({"threads": 0}, "the runtime needs at least 1 thread; found 0"),
        ({"budget_s": 0}, "the budget must be more than 0 s; found 0"),
        ({"budget_s": math.nan}, "the budget must be more than 0 s; found nan"),
        ({"budget_s": math.inf}, "the budget must be finite; found inf"),
        ({"limit_s": 0}, "the limit must be more than 0 s; found 0"),
        ({"limit_s": -3}, "the limit must be more than 0 s; found -3"),
        ({"memory_limit_bytes": 0}, "the memory must be more than 0 GiB; found 0"),
        ({"memory_limit_bytes": -(2**30)}, "the memory must be more than 0 GiB; found -1"),
    ],
)
def test_conditions_that_make_no_sense(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Conditions(**change)  # pyright: ignore[reportArgumentType]


def test_energy_without_a_meter_is_an_error_before_anything_runs(model: Path, tmp_path: Path) -> None:
    model.write_bytes(hostile.crashes())  # it would be noticed if it ran
    nowhere = f"rapl:{tmp_path / 'none'}"
    with pytest.raises(MeterUnavailableError, match="no RAPL counters here"):
        nasc.measure(model, metrics=["latency", "energy"], meter=nowhere, isolate=False)
    with pytest.raises(MeterUnavailableError, match="no RAPL counters here"):
        measure_model(CPU, model, conditions=Conditions(("energy",), meter=nowhere))
    with pytest.raises(UsageError, match="there is no meter of energy 'wattmeter'"):
        nasc.measure(model, metrics=["energy"], meter="wattmeter")


def test_energy_of_a_network_in_a_process_of_its_own(model: Path, tmp_path: Path) -> None:
    """A package that draws 40 W all the time: a call uses that for as long as it takes, and nothing above idle."""
    with powercap.running(tmp_path / "powercap", 40.0) as folder:
        found = nasc.measure(model, metrics=["energy"], meter=f"rapl:{folder}", budget_s=3.0)
    energy = found.energy
    assert energy is not None and energy.energy_j is not None and energy.latency_s is not None
    assert energy.energy_j == pytest.approx(40.0 * energy.latency_s, rel=0.05)
    assert "below-resolution" in energy.flags
    assert [row[:2] for row in found.rows()][-1] == ("energy per call, above idle", "below resolution")
    assert "energy: below-resolution" in found.remarks()
    assert found.provenance["device"]["meter"] == "RAPL package-0"
    assert len(found.as_dict()["energy"]["windows_j"]) >= 3


def test_a_processor_has_no_gpu() -> None:
    assert gpu_of(CPU) is None


def test_where_there_were_too_few_rounds_no_interval_is_shown() -> None:
    one = Interval(1e-3, 1e-3, 0.0)
    latency = Latency(1e-3, one, None, None, None, 1, "wall", 1e-3, Ratio(1.0, one), Verdict.AMBIGUOUS, 1e-3)
    shown = {
        flags: Measurement("", 1, 1, 1, replace(latency, flags=flags)).rows() for flags in ((), (Flag.FEW_ROUNDS,))
    }
    assert [row[2] for row in shown[()]][1] == "1 ms to 1 ms"
    assert [row[2] for row in shown[Flag.FEW_ROUNDS,]].count("too few rounds for an interval") == 2


def test_a_meter_that_nothing_asks_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the meter estimate is for energy, and energy is not among the metrics"):
        nasc.measure(tmp_path / "any.onnx", meter="estimate")
