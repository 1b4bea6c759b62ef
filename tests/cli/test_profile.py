"""`nasc cost`, `nasc profile`, `nasc measure --energy estimate`, `nasc doctor --calibrate` as a user sees them."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from nasc.cli import app
from nasc.targets import doctor
from nasc.targets.device_profile import DeviceProfile, Level
from nasc.targets.isolation.bench import IsolatedBench
from nasc.targets.lock import holders
from nasc.targets.onnxruntime.target import OnnxRuntime
from support import hostile
from typer.testing import CliRunner

NET = """nasc 1
graph @net(%x: f32[N, 16]) {
  %fc.weight: f32[8, 16] = weight
  %fc: f32[N, 8] = linear %x, %fc.weight at "net.py":7
  %act: f32[N, 8] = relu %fc at "net.py":8
  %head.weight: f32[5, 8] = weight
  %head: f32[N, 5] = linear %act, %head.weight at "net.py":9
  return %head
}
"""


def calibrated(target: OnnxRuntime, threads: int = 1) -> DeviceProfile:
    """A calibration that takes no time."""
    device, runtime = target.identity()
    levels = (Level("L1", 1 << 15, 1e11), Level("memory", None, 1e10))
    return DeviceProfile(
        target.name, device, runtime, threads, {"f32": 5e10}, levels, 2e-6, 3e-7, "2026-01-01T00:00:00"
    )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import torch
    from nasc.compiler.network import Network
    from nasc.compiler.weights import Source, Store
    from nasc.ir import parse
    from nasc.ir.axes import size

    monkeypatch.setenv("NASC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(OnnxRuntime, "calibrate", calibrated)
    graph = parse(NET)
    recipes = {op.name: Source(torch.randn([size(a, {}) for a in op.type.axes])) for op in graph.stored}
    Network(graph, Store(recipes)).save(tmp_path / "net.nasc")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Any:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done


def test_costs_are_printed_per_op_and_in_total(files: Path) -> None:
    text = run("cost", "net.nasc").stdout
    assert "net.py:7" in text and "168" in text
    found = json.loads(run("cost", "net.nasc", "--json").stdout)
    assert found["totals"]["macs"] == 16 * 8 + 8 * 5 == sum(n["macs"] for n in found["nodes"])
    assert [n["name"] for n in found["nodes"]] == ["fc", "act", "head"]
    assert found["nodes"][0]["location"] == "net.py:7"


def test_a_profile_names_layers_lines_and_bounds(files: Path) -> None:
    done = run("profile", "net.nasc", "--target", "onnxruntime:cpu", "--budget", "0.1", "--batch", "64")
    assert "calibrating onnxruntime:cpu" in done.stderr
    assert "fc" in done.stdout and "net.py:7" in done.stdout and "achieved" in done.stdout
    assert "latency without the profiler" in done.stdout and "the least this device needs" in done.stdout
    assert "batch 64" in done.stdout
    again = run("profile", "net.nasc", "--target", "onnxruntime:cpu", "--budget", "0.1", "--json")
    assert "calibrating" not in again.stderr
    found = json.loads(again.stdout)
    assert {k["layer"] for k in found["layers"]} == {"fc", "head"}
    assert found["device"]["peaks"] == {"f32": 5e10}
    assert found["bound_s"] > 2e-6
    assert all(k["roof"] is not None for k in found["kernels"])


def test_a_profile_without_bounds_calibrates_nothing(files: Path) -> None:
    done = run("profile", "net.nasc", "--target", "onnxruntime:cpu", "--budget", "0.1", "--no-bounds", "--json")
    found = json.loads(done.stdout)
    assert (found["device"], found["bound_s"], found["kernels"][0]["roof"]) == (None, None, None)
    assert not (files / "cache").exists()


@pytest.fixture
def hangs(files: Path) -> Path:
    path = files / "hangs.onnx"
    path.write_bytes(hostile.hangs())
    return path


WORDS = ("--target", "onnxruntime:cpu", "--budget", "0.1")


def test_a_profile_runs_in_a_process_of_its_own_unless_told_otherwise(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(run("profile", "net.nasc", *WORDS, "--json").stdout)["provenance"]["lock"] == "held by the caller"

    def never(*_: object, **__: object) -> None:
        raise AssertionError("no process was asked for")

    monkeypatch.setattr(IsolatedBench, "__init__", never)
    alone = json.loads(run("profile", "net.nasc", *WORDS, "--no-isolate", "--json").stdout)
    assert alone["provenance"]["lock"] == "taken here"
    assert alone["latency"]["rounds_s"] and alone["kernels"][0]["times_s"]


def test_an_endless_profile_ends_at_its_limit(hangs: Path) -> None:
    done = CliRunner().invoke(app, ["profile", hangs.name, *WORDS, "--no-bounds", "--limit", "2"])
    assert done.exit_code == 1
    assert "nasc: error: profiling gave no answer within 2 s and was stopped\n  Allow more time: --limit" in done.stderr


def test_a_profile_of_a_devourer_ends_at_its_memory(files: Path) -> None:
    (files / "devours.onnx").write_bytes(hostile.devours())
    done = CliRunner().invoke(app, ["profile", "devours.onnx", *WORDS, "--no-bounds", "--memory", "0.75"])
    assert done.exit_code == 1
    assert "profiling ran out of memory (limit 0.75 GiB)" in done.stderr and "Allow more: --memory" in done.stderr


def test_ctrl_c_stops_a_profile_and_leaves_nothing(hangs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hangs.parent / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(hangs.parent / "tmp"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    done = CliRunner().invoke(app, ["profile", hangs.name, *WORDS, "--no-bounds"])
    signal.signal(signal.SIGINT, before)
    assert (done.exit_code, done.stderr) == (130, "stopped\n")
    assert list((hangs.parent / "tmp").iterdir()) == []
    assert holders(hangs.parent / "locks") == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "0"], "the batch must be at least 1; found 0"),
        (["--threads", "0"], "the runtime needs at least 1 thread; found 0"),
        (["--budget", "-1"], "the budget must be more than 0 s; found -1"),
        (["--limit", "0"], "the limit must be more than 0 s; found 0"),
        (["--memory", "-1"], "the memory must be more than 0 GiB; found -1"),
        (["--memory", "nan"], "the memory must be a finite number of GiB; found nan"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--no-isolate"]])
def test_options_of_a_profile_that_make_no_sense_are_said_before_anything_runs(
    files: Path, words: list[str], said: str, more: list[str]
) -> None:
    done = CliRunner().invoke(app, ["profile", "net.nasc", *words, *more])
    assert done.exit_code == 2
    assert done.stderr.startswith("nasc: error: " + said)
    assert not (files / "cache").exists()


def test_a_profile_of_a_model_that_reads_text_is_refused(files: Path) -> None:
    (files / "text.onnx").write_bytes(hostile.reads_text())
    for more in ([], ["--no-isolate"]):
        done = CliRunner().invoke(app, ["profile", "text.onnx", *WORDS, "--no-bounds", *more])
        assert done.exit_code == 1
        assert done.stderr.startswith("nasc: error: input x is string")


def test_a_missing_model_is_named(files: Path) -> None:
    done = CliRunner().invoke(app, ["profile", "none.onnx"])
    assert done.exit_code == 2
    assert "none.onnx: error: there is no such file" in done.stderr


def test_energy_is_estimated_only_where_asked_and_called_so(files: Path) -> None:
    import nasc

    nasc.export(nasc.load_network("net.nasc"), "net.onnx")
    words = ["measure", "net.onnx", "--target", "onnxruntime:cpu", "--budget", "0.2", "--no-isolate"]
    plain = json.loads(run(*words, "--json").stdout)
    assert plain["energy"] is None
    done = run(*words, "--energy", "estimate")
    assert "energy per call, estimated" in done.stdout
    assert "energy: estimated" in done.stderr
    found = json.loads(run(*words, "--metric", "energy", "--meter", "estimate", "--json").stdout)
    assert (found["energy"]["grade"], found["energy"]["flags"]) == ("estimated", ["estimated"])
    assert found["latency"] is None
    assert found["energy"]["energy_j"] > 168 * 4.6e-12  # the arithmetic, and its bytes on top


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--energy", "guess"], "--energy takes `estimate`; found 'guess'"),
     (["--energy", "estimate", "--meter", "rapl"], "--energy estimate counts, and --meter rapl measures")],
)  # fmt: skip
def test_energy_options_that_make_no_sense(files: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["measure", "net.onnx", *words])
    assert done.exit_code == 2
    assert said in done.stderr


def test_doctor_says_what_is_calibrated_and_calibrates(files: Path) -> None:
    (before,) = (f for f in doctor.peaks() if f.what == "onnxruntime:cpu")
    assert (before.state, before.mend) == ("note", "nasc doctor --calibrate")
    done = {f.what: f for f in doctor.peaks(calibrate=True)}
    assert done["onnxruntime:cpu: peak f32"].found == "50 GMAC/s"
    after = {f.what: f for f in doctor.peaks()}
    assert after == done
    for wrong, said in (("0", "at least 1 thread; found 0"), ("9999", "9999 threads are more than the")):
        refused = CliRunner().invoke(app, ["doctor", "--calibrate", "--threads", wrong])
        assert refused.exit_code == 2 and said in refused.stderr and refused.stdout == ""
    (other,) = (f for f in doctor.peaks(threads=2) if f.what == "onnxruntime:cpu")
    assert other.mend == "nasc doctor --calibrate --threads 2"


def test_lengths_that_a_file_leaves_open_are_asked_for(files: Path) -> None:
    from onnx import TensorProto, helper, save

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "g", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), files / "open.onnx")
    quick = ["profile", "open.onnx", "--budget", "0.1", "--no-isolate", "--json"]
    refused = CliRunner().invoke(app, quick)
    assert refused.exit_code != 0
    found = CliRunner().invoke(app, [*quick, "--input", "2x3x8x8"])
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert record["provenance"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 3, 8, 8]}]
    assert record["batch"] == 2
