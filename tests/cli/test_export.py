"""`nasc export`, and `nasc verify` of an ONNX file: what is written, what is said of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nasc
import numpy as np
import onnx
import pytest
import torch
from nasc.cli import app
from nasc.compiler.reproducer import Reproducer
from nasc.deploying import export_model
from nasc.making import Source, samples_of
from nasc.targets import target_named
from onnx import numpy_helper
from support.networks import free, network_of
from torch import nn
from typer.testing import CliRunner

torch.set_num_threads(1)

LINES = """
    %a.w: f32[8, 16] = weight
    %a: f32[N, 8] = linear %x, %a.w at "net.py":7
    %r: f32[N, 8] = relu %a at "net.py":7
    %b.w: f32[5, 8] = weight
    %b: f32[N, 5] = linear %r, %b.w at "net.py":8
"""
NET = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5))
example_inputs = torch.randn(64, 16)
"""
KEEPS = """
from torch import nn
import torch
model = lambda: nn.Linear(16, 2)
example_inputs = torch.randn(8, 16)
train_data = validation_data = (torch.randn(8, 16), torch.zeros(8, dtype=torch.long))
training = {"epochs": 1}
checkpoint = "keeps.onnx"
"""
FULL = "quantize{weights=i8, activations=u8} | place | calibrate | legalize"
SHORT = "quantize{weights=i8, activations=u8}"
DATA = ["--data", "net.py"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "keeps.py").write_text(KEEPS)
    network_of(free(LINES)).save(tmp_path / "net.nasc")
    return tmp_path


def run(*command: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, command)
    assert "Traceback" not in done.output
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def exported(*command: str) -> dict[str, Any]:
    code, out, said = run("export", *command, "--json")
    assert code == 0, said
    return json.loads(out)


def holds(record: dict[str, Any]) -> dict[str, bool | None]:
    return {check["name"]: check["holds"] for check in record["checks"]}


def test_a_float_network_is_called_like_its_model_and_agrees(here: Path) -> None:
    code, out, said = run("export", "net.py")
    assert code == 0, said
    assert "wrote net.onnx" in said
    assert "in float" in out and "2 of 2 layers: 0, 2" in out
    assert out.count("holds") == 4
    onnx.checker.check_model("net.onnx", full_check=True)
    x = torch.randn(3, 16)
    (found,) = target_named("onnxruntime:cpu").load(Path("net.onnx")).run([x.numpy()])
    np.testing.assert_allclose(found, nasc.load_network("net.py")(x).numpy(), rtol=1e-4, atol=1e-6)


def test_what_a_pipeline_lacks_for_the_target_is_added_and_told(here: Path) -> None:
    code, out, said = run("export", "net.nasc", *DATA, "--passes", SHORT)
    assert code == 0, said
    assert "were not in the form that onnxruntime:cpu runs: added calibrate" in said
    assert "on integer kernels" in out and "2 QGemm" in out
    short = onnx.load("net.onnx").graph
    full = exported("net.nasc", *DATA, "--passes", FULL)
    assert full["added"] == ""
    assert full["pipeline"] == FULL
    assert onnx.load("net.onnx").graph == short


@pytest.mark.parametrize("command", [("export",), ("verify", "net.onnx", "--against")], ids=lambda c: c[0])
def test_passes_that_leave_steps_unknown_are_told(here: Path, command: tuple[str, ...]) -> None:
    assert run("export", "net.nasc", *DATA, "--passes", FULL)[0] == 0
    code, _, said = run(*command, "net.nasc", *DATA, "--passes", SHORT, "--no-legalize")
    assert code == 1
    assert "the passes leave steps unknown: %" in said and "Add `calibrate` to the passes" in said
    assert "--no-legalize leaves out what is added for the target" in said


def test_a_place_for_the_file_is_looked_at_first(here: Path) -> None:
    Path("broken.py").write_text("1 // 0")
    for place, expected in (
        (".", ". is a folder Name the file in it: NAME.onnx."),
        ("broken.py/net.onnx", "is a file"),
    ):
        code, _, said = run("export", "broken.py", "-o", place)
        assert code == 2 and "ZeroDivision" not in said
        assert expected in said.replace(": error:", "")


def test_the_record_says_what_runs_as_what(here: Path) -> None:
    passes = "quantize{layers=a, weights=i4} | quantize{layers=b, weights=i4, activations=u8}"
    record = exported("net.nasc", *DATA, "--passes", passes, "-o", "mixed.onnx")
    runs = {layer["layer"]: (layer["weights"], layer["inputs"], layer["runs"]) for layer in record["layers"]}
    assert runs == {"a": ("i4", "f32", "stored"), "b": ("i4", "u8", "container")}
    assert record["layers"][0]["reason"] == "its input %x is not quantized"
    assert record["layers"][1]["kernels"] == ["QGemm"]
    assert record["size_bytes"] == Path("mixed.onnx").stat().st_size
    assert record["target"] == "onnxruntime:cpu" and record["beside"] is record["unchecked"] is None
    assert holds(record) == {
        "agreement with torch": True,
        "same top class as torch": True,
        "same integers as torch": True,
        "integer kernels as planned": True,
    }
    said = {entry.key: entry.value for entry in onnx.load("mixed.onnx").metadata_props}
    assert said["nasc.target"] == "onnxruntime:cpu"
    assert said["nasc.pipeline"] == record["pipeline"]


@pytest.mark.parametrize(
    ("passes", "runs"), [("quantize{weights=i4} | calibrate", "stored"), ("convert{to=f16}", "float")]
)
def test_without_codes_between_layers_their_numbers_are_compared(here: Path, passes: str, runs: str) -> None:
    record = exported("net.nasc", "--passes", passes)
    assert [layer["runs"] for layer in record["layers"]] == [runs, runs]
    assert record["added"] == ""
    assert holds(record)["layers as in torch"] is True


def test_a_quantized_network_and_an_onnx_file_are_exported(here: Path) -> None:
    assert run("opt", "net.nasc", *DATA, "--passes", FULL, "-o", "q.nasc")[0] == 0
    code, out, said = run("export", "q.nasc")
    assert code == 0, said
    assert "16 samples of random inputs" in out
    assert "random inputs alone" not in said, "no pass looked at them"
    code, out, said = run("export", "q.onnx", "-o", "again.onnx", "--input", "4x16")
    assert code == 0, said
    assert "4 samples of random inputs" in out and "2 QGemm" in out


def test_random_inputs_that_passes_learn_from_are_told(here: Path) -> None:
    code, _, said = run("export", "net.nasc", "--input", "8x16", "--passes", FULL)
    assert code == 0, said
    assert "random inputs alone: name a model file with real ones, --data model.py" in said
    code, out, said = run("export", "net.nasc", *DATA, "--passes", FULL)
    assert "random inputs alone" not in said
    assert "64 samples of example_inputs" in out


def test_data_of_another_network_are_refused_before_anything_is_written(here: Path) -> None:
    network_of(free("%w: f32[5, 4] = weight\n%y: f32[N, 5] = linear %x, %w", "%x: f32[N, 4]")).save("narrow.nasc")
    code, _, said = run("export", "narrow.nasc", *DATA)
    assert code == 2
    assert "net.py: its data do not go with the network" in said and not Path("narrow.onnx").exists()


def test_without_data_an_added_pass_says_where_it_comes_from(here: Path) -> None:
    code, _, said = run("export", "net.nasc", "--passes", SHORT)
    assert code == 1
    assert "calibrate needs data" in said
    assert "in place | calibrate | legalize, added for onnxruntime:cpu; --no-legalize leaves them out" in said
    code, _, said = run("export", "net.nasc", "--passes", SHORT, "--no-legalize")
    assert code == 1 and "the passes leave steps unknown" in said
    assert not Path("net.onnx").exists()


def test_a_pass_that_fails_leaves_a_reproducer(here: Path) -> None:
    code, _, said = run("export", "net.nasc", *DATA, "--passes", "quantize{weights=i8} | calibrate | resize{a=20}")
    assert code == 1
    assert "`nasc opt nasc-reproducer.nasc --run-reproducer` runs it again" in said
    held = Reproducer.load(here / "nasc-reproducer.nasc")
    assert (held.pipeline, held.data) == ("resize{a=20}", "net.py")
    assert not Path("net.onnx").exists()


def test_a_target_that_is_not_here_is_written_for_and_not_compared(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = target_named("onnxruntime:cuda")
    monkeypatch.setattr(type(cuda), "unavailable", lambda self: "no device" if "cuda" in self.name else None)
    code, out, said = run("export", "net.nasc", "--target", "onnxruntime:cuda", "--passes", "convert{to=f16}")
    assert code == 0, said
    assert "not compared with the network: onnxruntime:cuda cannot run here: no device" in said
    assert "agreement" not in out and Path("net.onnx").exists()
    code, _, said = run("verify", "net.onnx", "--against", "net.nasc", "--passes", "convert{to=f16}")
    assert code == 1 and "onnxruntime:cuda cannot run it here: no device Name another: --target." in said
    elsewhere = ["--target", "onnxruntime:cpu"]
    assert run("verify", "net.onnx", "--against", "net.nasc", "--passes", "convert{to=f16}", *elsewhere)[0] == 0


REFUSED = {
    "unknown pass": (["net.nasc", "--passes", "quantiz"], "there is no pass 'quantiz' Did you mean quantize"),
    "unknown target": (["net.nasc", "--target", "onnxruntime:cp"], "there is no target 'onnxruntime:cp'"),
    "missing model": (["gone.py"], "gone.py: no such file"),
    "another suffix": (["net.nasc", "-o", "net.nasc"], "an ONNX file is called NAME.onnx Write net.onnx."),
    "a folder": (["net.nasc", "-o", "folder.onnx"], "folder.onnx: error: is a folder"),
    "a foreign file": (["net.nasc", "-o", "foreign.onnx"], "is there already, and nasc did not write it"),
    "foreign tensors": (["net.nasc", "-o", "alone.onnx"], "alone.onnx.data: error: is there already"),
    "the model itself": (["mine.onnx"], "mine.onnx: error: the file would take the place of the model itself"),
    "a checkpoint": (["keeps.py"], "keeps.onnx: error: the file would take the place of the checkpoint of keeps.py"),
    "a checkpoint of the data": (["net.nasc", "--data", "keeps.py", "-o", "keeps.onnx"], "the checkpoint of keeps.py"),
    "a reproducer": (["net.nasc", "--reproducer", "r.txt"], "a network's file is called NAME.nasc"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_computes_and_writes_nothing(here: Path, case: str) -> None:
    (here / "folder.onnx").mkdir()
    (here / "foreign.onnx").write_text("years of work")
    (here / "alone.onnx.data").write_text("years of work")
    nasc.export(nasc.load_network("net.nasc"), "mine.onnx")
    before = {path: path.is_file() and path.read_bytes() for path in here.iterdir() if path.name != "__pycache__"}
    command, told = REFUSED[case]
    code, _, said = run("export", *command)
    assert code == 2, said
    assert told in said
    after = {path: path.is_file() and path.read_bytes() for path in here.iterdir() if path.name != "__pycache__"}
    assert after == before


def test_a_file_of_its_own_is_replaced(here: Path) -> None:
    exported("net.nasc")
    first = Path("net.onnx").read_bytes()
    exported("net.nasc", *DATA, "--passes", FULL)
    assert Path("net.onnx").read_bytes() != first


def changed(path: Path, name: str) -> None:
    """Double a stored tensor of a file."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), name))
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("passes", "tensor", "blamed"),
    [(FULL, "a.w/step", "the first below 99.9% is %r.q (net.py:7)"), ("", "b.w", "that differs is %b (net.py:8)")],
)
def test_verify_names_the_first_layer_that_differs(here: Path, passes: str, tensor: str, blamed: str) -> None:
    exported("net.nasc", *DATA, "--passes", passes)
    command = ["verify", "net.onnx", "--against", "net.nasc", *DATA, "--passes", passes]
    code, out, said = run(*command)
    assert code == 0, out + said
    changed(Path("net.onnx"), tensor)
    code, out, _ = run(*command)
    assert code == 1
    assert "FAILS" in out
    code, out, _ = run(*command, "--json")
    checks = {check["check"]: check for check in json.loads(out)}
    assert next(name for name, check in checks.items() if not check["holds"]) == "agreement with torch"
    assert any(blamed in check["found"] for check in checks.values() if check["holds"] is False), out


def test_an_export_that_does_not_agree_says_so_and_fails(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasc import deploying

    written = deploying.export

    def wrongly(network: Any, path: Path, **options: Any) -> Any:
        artifact = written(network, path, **options)
        changed(path, "b.w")
        return artifact

    monkeypatch.setattr(deploying, "export", wrongly)
    code, out, _ = run("export", "net.nasc")
    assert code == 1
    assert "FAILS" in out and "the first of 2 layers that differs is %b (net.py:8)" in out


def test_a_file_that_the_runtime_refuses_is_there_and_the_reason_told(here: Path) -> None:
    lines = "%w: f64[4, 3, 1] = weight\n%y: f64[N, 4, 5] = conv1d %x, %w"
    network_of(free(lines, "%x: f64[N, 3, 5]")).save("wide.nasc")
    code, out, _ = run("export", "wide.nasc", "--json")
    assert code == 1 and Path("wide.onnx").exists()
    record = json.loads(out)
    assert holds(record) == {"agreement with torch": False}
    assert "implementation for Conv" in record["checks"][0]["found"]
    assert "convert them to f32" in record["checks"][0]["found"]


VERIFYING = {
    "nothing to hold it against": (["net.onnx"], 2, "there is nothing to hold this file against"),
    "nothing there": (["none.onnx"], 2, "none.onnx: error: there is no such file"),
    "no ONNX file alone": (["net.py"], 2, "Write it as ONNX first: nasc export net.py"),
    "options without a network": (["out", "--passes", "cleanup"], 2, "speak of the network of --against"),
    "a folder": (["out", "--against", "net.nasc"], 2, "out: error: is a folder Its own evidence is in it"),
    "no ONNX file": (["net.py", "--against", "net.nasc"], 2, "Write it as ONNX first: nasc export net.py"),
    "no file": (["gone.onnx", "--against", "net.nasc"], 2, "gone.onnx: error: there is no such file"),
    "other inputs": (
        ["net.onnx", "--against", "narrow.nasc"],
        1,
        "net.onnx: error: it is not of this network: input x",
    ),
}


@pytest.mark.parametrize("case", VERIFYING)
def test_what_verify_refuses(here: Path, case: str) -> None:
    (here / "out").mkdir()
    nasc.export(nasc.load_network("net.nasc"), "net.onnx")
    network_of(free("%w: f32[5, 4] = weight\n%y: f32[N, 5] = linear %x, %w", "%x: f32[N, 4]")).save("narrow.nasc")
    command, expected, told = VERIFYING[case]
    code, _, said = run("verify", *command)
    assert code == expected, said
    assert told in said


def test_from_python_with_a_network_and_data(here: Path) -> None:
    network, x = nasc.load_network("net.nasc"), torch.randn(32, 16)
    done = export_model(Source(network, SHORT, x), "small.onnx")
    assert done.holds and done.added == "calibrate"
    assert done.rows() == [("on integer kernels", "2 of 2 layers: a, b")]
    assert "on 32 samples of the data given" in done.checks[0].found
    again = export_model(Source("net.nasc", SHORT, x, input="4x16"), "again.onnx")
    assert "on 32 samples of the data given" in again.checks[0].found, "data come before random inputs"
    assert Path("again.onnx").read_bytes() == Path("small.onnx").read_bytes()
    checks = nasc.verify("small.onnx", against=network.apply(FULL, data=x), data=x)
    assert [check.holds for check in checks] == [True] * 4
    assert nasc.verify("small.onnx", against=network, passes=FULL, data=x)[2].holds
    other = nasc.verify("small.onnx", against=network, passes=FULL, data=10 * x)
    assert other[2].holds is False


def test_other_classes_are_another_network(here: Path) -> None:
    """Outputs may be near and tell other classes."""
    x = torch.randn(64, 16)
    ours, theirs = nn.Linear(16, 2), nn.Linear(16, 2)
    with torch.no_grad():
        ours.weight[1] = ours.weight[0] + 0.002 * torch.randn(16)
        ours.bias.zero_()
        theirs.bias.zero_()
        theirs.weight.copy_(ours.weight.flip(0))
    nasc.export(nasc.lower(ours, x[:2], name="net"), "ours.onnx")
    checks = {c.name: c for c in nasc.verify("ours.onnx", against=nasc.lower(theirs, x[:2], name="net"), data=x)}
    assert checks["agreement with torch"].holds
    assert checks["same top class as torch"].holds is False
    assert checks["same top class as torch"].found == "0.00%, expected at least 99.5%"


def test_of_large_networks_fewer_samples_are_compared() -> None:
    lines = "%w: f32[64, 16, 1, 1] = weight\n%y: f32[N, 64, 512, 512] = conv2d %x, %w"
    graph = free(lines, "%x: f32[N, 16, 512, 512]")
    assert samples_of(graph) == 8
    assert samples_of(free(lines.replace("512", "8"), "%x: f32[N, 16, 8, 8]")) == 256
    assert samples_of(free(lines.replace("N", "3").replace("512", "8"), "%x: f32[3, 16, 8, 8]")) == 3
