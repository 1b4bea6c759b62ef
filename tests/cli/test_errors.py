"""A user's mistake gets one message with the place and the mend, exit code 2 or 1, and no traceback."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile

import pytest
import torch
from nasc.cli import app
from nasc.cli.app import shown
from nasc.compiler.files import load
from nasc.compiler.reproducer import Reproducer
from nasc.ir import NascError
from safetensors.torch import save_file
from typer.testing import CliRunner

NET = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5))
example_inputs = torch.randn(64, 16)
"""
BRANCH = """
import torch
from torch import nn
class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1
model = Branch()
example_inputs = torch.randn(4, 3)
"""


LATER = """
import torch
from torch import nn
def model():
    return nn.Linear(4, 2)
example_inputs = torch.randn(8, 4)
train_data = validation_data = (torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
training = {"epochs": 1}
checkpoint = "CHECKPOINT"
"""


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `net.nasc` and its tensors."""
    folder = tmp_path_factory.mktemp("lowered")
    (folder / "net.py").write_text(NET)
    assert CliRunner().invoke(app, ["lower", str(folder / "net.py"), "-o", str(folder / "net.nasc")]).exit_code == 0
    return folder


@pytest.fixture
def files(lowered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "nothing.py").write_text("x = 1\n")
    (tmp_path / "boom.py").write_text("import torch\n\nraise ValueError('boom')\n")
    (tmp_path / "branch.py").write_text(BRANCH)
    (tmp_path / "later.py").write_text(LATER.replace("CHECKPOINT", "later.safetensors"))
    (tmp_path / "again.py").write_text(LATER.replace("CHECKPOINT", "out/best/model.safetensors"))
    for name in ("net.nasc", "net.safetensors"):
        copyfile(lowered / name, tmp_path / name)
    text = (tmp_path / "net.nasc").read_text()
    (tmp_path / "torn.nasc").write_text(text[: len(text) // 2])
    (tmp_path / "wrong.nasc").write_text(text.replace("[8, 16]", "[8, 15]").replace("[$0, 16]", "[$0, 15]"))
    (tmp_path / "lonely.nasc").write_text(text)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("not a folder")
    return tmp_path


CASES = {
    "missing file": (["lower", "gone.py"], 2, ["gone.py", "no such file"]),
    "no model": (["lower", "nothing.py"], 2, ["nothing.py", "defines no `model`", "model = "]),
    "exception inside": (["lower", "boom.py"], 1, ["boom.py:3", "ValueError: boom"]),
    "refused by torch.export": (["lower", "branch.py"], 1, ["branch.py:6", "torch.export refuses", "Python branches"]),
    "unknown layer pattern": (["compile", "net.py", "--space", "fc9: weights=[i4]"], 2, ["'fc9'", "0, 2"]),
    "unknown sampler": (["compile", "net.py", "--search", "tpee"], 2, ["'tpee'", "Did you mean tpe?"]),
    "unknown objective": (["compile", "net.py", "--objective", "latncy"], 2, ["'latncy'", "latency"]),
    "unwritable output": (["compile", "net.py", "-o", "file/out"], 2, ["file/out", "--output"]),
    "occupied output": (["compile", "net.py", "-o", "occupied"], 2, ["thesis.tex", "--output"]),
    "torn network": (["opt", "torn.nasc"], 1, ["torn.nasc:", "expected"]),
    "shapes that do not fit": (["opt", "wrong.nasc"], 1, ["%0", "16", "15"]),
    "no tensors beside": (["opt", "lonely.nasc"], 2, ["lonely.safetensors", "no such file"]),
    "unknown pass": (["opt", "net.nasc", "--passes", "resze{0=3}"], 2, ["'resze'", "Did you mean resize?"]),
    "unknown width": (["opt", "net.nasc", "--passes", "resize{fc1=3}"], 2, ["'fc1'", "0, 2"]),
    "frozen width": (["opt", "net.nasc", "--passes", "resize{2=3}"], 2, ["2", "fixed at 5"]),
    "no data": (["opt", "net.nasc", "--passes", "quantize{activations=u8} | calibrate"], 1, ["needs data", "--data"]),
    "another's data": (
        ["opt", "net.nasc", "--data", "later.py", "--passes", "quantize{activations=u8} | calibrate"],
        2,
        ["later.py: its data", "[8, 4]", "[N, 16]", "Name with --data the model file"],
    ),
    "no meter": (["measure", "gone.onnx"], 2, ["gone.onnx", "no such file"]),
    "no result": (["verify", "occupied"], 2, ["manifest.json", "nasc compile"]),
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("it failed", "nasc: error: it failed"),
        ("error: it failed", "nasc: error: it failed"),
        ("net.py:3: error: it failed", "net.py:3: error: it failed"),
        ("my nets/net.py:3: error: it failed", "my nets/net.py:3: error: it failed"),
        ("%0: error: linear %0: it failed", "%0: error: linear %0: it failed"),
        ("graph @my net: error: it failed", "graph @my net: error: it failed"),
        ("the runtime fails: [X] : 1 : error: no", "nasc: error: the runtime fails: [X] : 1 : error: no"),
        ("the runtime fails on the model: error: no", "nasc: error: the runtime fails on the model: error: no"),
        ("it crashed; it said:\nnet.py:3: error: no", "nasc: error: it crashed; it said:\nnet.py:3: error: no"),
    ],
)
def test_a_message_has_its_place_or_the_programs_name(message: str, expected: str) -> None:
    assert shown(NascError(message)) == expected


@pytest.mark.parametrize("case", CASES)
def test_one_message_and_no_traceback(files: Path, case: str) -> None:
    command, code, wanted = CASES[case]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == code, done.output
    assert "error:" in done.output
    assert "Traceback" not in done.output
    assert [text for text in wanted if text not in done.output] == []


REPLACING = {
    "lower": ["lower", "later.py", "-o", "later.nasc"],
    "lower by another path": ["lower", "later.py", "-o", "out/../later.nasc"],
    "lower with weights": ["lower", "net.py", "--weights", "other.safetensors", "-o", "other.nasc"],
    "opt": ["opt", "later.py", "--passes", "cleanup", "-o", "later.nasc"],
    "opt with another's data": ["opt", "net.nasc", "--data", "later.py", "--passes", "cleanup", "-o", "later.nasc"],
    "a reproducer": ["opt", "later.py", "--reproducer", "later.nasc"],
    "a reproducer run again": ["opt", "r.nasc", "--run-reproducer", "--data", "later.py", "-o", "later.nasc"],
    "compile": ["compile", "again.py", "-o", "out"],
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("case", REPLACING)
def test_no_network_takes_the_place_of_a_checkpoint(files: Path, case: str, there: bool) -> None:
    network = load(Path("net.nasc"))
    Reproducer(network, "cleanup").save(files / "r.nasc")
    module = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    save_file(module.state_dict(), "other.safetensors")
    (files / "out" / "best").mkdir(parents=True)
    (files / "out" / "study.json").write_text("{}")
    for name in ("later.safetensors", "out/best/model.safetensors"):
        if there:
            save_file(torch.nn.Linear(4, 2).state_dict(), name)
    before = {p: p.read_bytes() for p in files.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    done = CliRunner().invoke(app, REPLACING[case])
    assert done.exit_code == 2, done.output
    text = " ".join(done.output.split())
    told = "which is no network's" if there and case == "opt with another's data" else "the checkpoint of"
    assert told in text
    assert "Choose another name for the output (-o)." in text
    after = {p: p.read_bytes() for p in files.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert after == before


def test_a_network_beside_its_models_checkpoint_is_written(files: Path) -> None:
    done = CliRunner().invoke(app, ["lower", "later.py", "-o", "lowered.nasc"])
    assert done.exit_code == 0, done.output
    assert "weights are untrained" in " ".join(done.output.split())
    assert CliRunner().invoke(app, ["opt", "lowered.nasc", "--data", "later.py", "-o", "lowered.nasc"]).exit_code == 0
    assert not (files / "later.safetensors").exists()


def test_debug_lets_the_traceback_through(files: Path) -> None:
    done = CliRunner().invoke(app, ["--debug", "lower", "gone.py"])
    assert isinstance(done.exception, NascError)


def test_a_refused_search_computes_and_writes_nothing(files: Path) -> None:
    before = sorted(p.name for p in (files / "occupied").iterdir())
    assert CliRunner().invoke(app, ["compile", "net.py", "-o", "occupied"]).exit_code == 2
    assert sorted(p.name for p in (files / "occupied").iterdir()) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--search", "nosuch"], "no search strategy 'nosuch'"),
        (["--search", "cma-es"], "the strategy cma-es"),
        (["--objective", "acuracy"], "unknown metric 'acuracy'"),
        (["--constraint", "size<=1parsec"], "found 'parsec'"),
        (["--tolerance", "much"], "tolerance 'much'"),
        (["--space", "fc9: weights=[i4]"], "no layer matches 'fc9'"),
    ],
)
def test_settings_are_refused_before_anything_is_trained(files: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["compile", "later.py", "-o", "new", *options])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (files / "new").exists()
    assert not (files / ".cache").exists()


def test_a_search_trains_where_settings_are_good(files: Path) -> None:
    """What the test above looks for is there where it must be."""
    done = CliRunner().invoke(app, ["compile", "later.py", "-o", "new", "--search", "random", "--trials", "1"])
    assert done.exit_code in (0, 1), done.output
    assert list((files / ".cache").glob("later-*.safetensors"))


def test_without_data_quality_is_fidelity_and_the_evidence_holds(files: Path) -> None:
    done = CliRunner().invoke(app, ["compile", "net.py", "--trials", "4", "--search", "random", "-o", "out"])
    assert done.exit_code == 0, done.output
    assert "fidelity" in done.output
    checked = CliRunner().invoke(app, ["verify", "out"])
    assert checked.exit_code == 0, checked.output
    (files / "out" / "best" / "model.onnx").write_bytes(b"other bytes")
    assert CliRunner().invoke(app, ["verify", "out"]).exit_code == 1
