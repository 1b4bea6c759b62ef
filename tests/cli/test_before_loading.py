"""What shows in the options alone is refused before the model, which is code and may take long, is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from nasc.cli import app
from typer.testing import CliRunner

LOADED = "the model was loaded"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(f"raise ValueError({LOADED!r})\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("not a folder")
    return tmp_path


GOOD = {
    "sensitivity": ["--formats", "i2, i4", "--activations", "u4..u8", "--plot", "map.html"],
    "compile": ["-o", "new/folder", "--objective", "own:max", "--constraint", "own>=2", "--tolerance", "30dB"],
    "space": ["--space", "*: weights=[default, f32, mxfp4], width=[50%, 8], block=[drop]", "--width-bounds", "0.5..2"],
    "opt": ["--passes", "cleanup", "-o", "new/net.nasc", "--dump-ir-after-all", "new/dumps"],
    "lower": ["-o", "new/net.nasc"],
    "profile": ["--target", "onnxruntime:cpu"],
    "cost": ["--input", "2x3:i64:0..9"],
}


@pytest.mark.parametrize("command", GOOD)
def test_without_a_fault_the_model_is_loaded(here: Path, command: str) -> None:
    """What the tests below look for is there where it must be."""
    done = CliRunner().invoke(app, [command, "net.py", *GOOD[command]])
    assert LOADED in done.output


NO_FORMAT = ["weights: 'i9x' is no format", "weights may be"]
CASES = {
    "a format": (["sensitivity", "net.py", "--formats", "i9x"], NO_FORMAT),
    "formats backwards": (["sensitivity", "net.py", "--formats", "i8..i2"], ["'i8..i2' is empty or mixed"]),
    "a format for inputs": (["sensitivity", "net.py", "--activations", "mxfp4"], ["activations may be", "found mxfp4"]),
    "a picture": (["sensitivity", "net.py", "--plot", "map.png"], ["found .png", "Write --plot map.html"]),
    "no suffix": (["sensitivity", "net.py", "--plot", "map"], ["found none", "Write --plot map.html"]),
    "a folder for a page": (["sensitivity", "net.py", "--plot", "folder"], ["folder: error:", "this is a folder"]),
    "a page in no folder": (["sensitivity", "net.py", "--plot", "no/map.html"], ["no folder no", "mkdir -p no"]),
    "a page in a file": (["sensitivity", "net.py", "--plot", "file/map.html"], ["file is a file"]),
    "no pass": (["opt", "net.py", "--passes", "frob"], ["no pass 'frob'"]),
    "a pass's format": (["opt", "net.py", "--passes", "quantize{weights=i9x}"], ["i9x"]),
    "a dump after no pass": (["opt", "net.py", "--passes", "cleanup", "--dump-ir-after", "frob"], ["no pass 'frob'"]),
    "dumps into a file": (["opt", "net.py", "--dump-ir-after-all", "file"], ["file is a file"]),
    "a network's name": (["opt", "net.py", "-o", "net.txt"], ["net.txt: error:", "Write net.nasc"]),
    "a network for a folder": (["opt", "net.py", "-o", "."], [".: error: is a folder", "NAME.nasc"]),
    "a file for a folder": (["export", "net.py", "-o", "folder"], ["folder: error: is a folder", "folder/NAME.onnx"]),
    "a file in a file": (["export", "net.py", "-o", "file/net.onnx"], ["file is a file"]),
    "a bar too many": (["opt", "net.py", "--passes", "cleanup |"], ["'cleanup |' ends with '|'"]),
    "mending behind training": (
        ["opt", "net.py", "--passes", "quantize{weights=i4} | calibrate | train | correct-bias"],
        ["correct-bias stands behind train"],
    ),
    "a network in a file": (["opt", "net.py", "-o", "file/net.nasc"], ["file is a file"]),
    "a reproducer's name": (["opt", "net.py", "--reproducer", "r.txt"], ["Write r.nasc"]),
    "no data": (["opt", "net.py", "--data", "gone.py"], ["gone.py: no such file"]),
    "a lowered network in a file": (["lower", "net.py", "-o", "file/net.nasc"], ["file is a file"]),
    "a lowered network's name": (["lower", "net.py", "-o", "net.txt"], ["Write net.nasc"]),
    "no shape": (["cost", "net.py", "--input", "1xq"], ["'1xq' is no shape"]),
    "no weights": (["lower", "net.py", "--weights", "gone.pt"], ["no file", "gone.pt"]),
    "no target to profile": (["profile", "net.py", "--target", "nope"], ["no target 'nope'"]),
    "no batch": (["profile", "net.py", "--batch", "0"], ["at least 1; found 0"]),
    "threads": (["profile", "net.py", "--threads", "999"], ["999 threads are more than"]),
    "no target": (["space", "net.py", "--target", "nope"], ["no target 'nope'"]),
    "a rule's format": (["space", "net.py", "--space", "linear: weights=[i9x]"], NO_FORMAT),
    "a rule's width": (["space", "net.py", "--space", "linear: width=[x]"], ["'x' is no size of a width"]),
    "a rule's block": (["space", "net.py", "--space", "linear: block=[x]"], ["a block cannot be 'x'"]),
    "bounds": (["space", "net.py", "--width-bounds", "5..1"], ["the bounds of widths are empty: from 5 to 1"]),
    "a strategy": (["compile", "net.py", "--search", "tpee"], ["'tpee'"]),
    "a target of a search": (["compile", "net.py", "--target", "nope"], ["no target 'nope'"]),
    "threads of a search": (["compile", "net.py", "--threads", "999"], ["999 threads are more than"]),
    "an objective": (["compile", "net.py", "--objective", "latency:up"], ["expected min or max, found 'up'"]),
    "an objective twice": (
        ["compile", "net.py", "--objective", "size", "--objective", "size:min"],
        ["'size' is given twice"],
    ),
    "a constraint": (["compile", "net.py", "--constraint", "size<=1parsec"], ["found 'parsec'"]),
    "a constraint of nothing": (["compile", "net.py", "--constraint", "much"], ["'much' cannot be read"]),
    "a tolerance": (["compile", "net.py", "--tolerance", "1zz"], ["tolerance '1zz' cannot be read"]),
    "a storage": (["compile", "net.py", "--storage", "nothing://x"], ["'nothing://x' cannot be opened"]),
    "an output in a file": (["compile", "net.py", "-o", "file/out"], ["file/out cannot be used", "--output"]),
    "an output of others": (["compile", "net.py", "-o", "folder"], ["folder holds something else: thesis.tex"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_refused_before_the_model_is_loaded(here: Path, case: str) -> None:
    command, wanted = CASES[case]
    before = sorted(here.rglob("*"))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    text = " ".join(done.output.split())
    assert LOADED not in text
    assert [part for part in wanted if part not in text] == []
    assert sorted(here.rglob("*")) == before
