"""`nasc space` prints the tables, in full and as JSON, of what `nasc compile` would search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nasc.cli import app
from typer.testing import CliRunner

NET = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 16, 3, padding=1)
    def forward(self, x):
        return x + self.conv2(self.conv1(x).relu())

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.layer1 = nn.Sequential(Block(), Block())
        self.head = nn.Linear(16, 5)
    def forward(self, x):
        return self.head(self.layer1(self.stem(x)).mean((2, 3)))

model = Net
example_inputs = torch.zeros(1, 3, 8, 8)
"""
FOLDER = "a_folder_with_a_name_that_is_far_too_long_for_a_table_column/and_another_one_inside_it_that_is_no_shorter"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("space")
    (home / FOLDER).mkdir(parents=True)
    (home / FOLDER / "net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        done = CliRunner().invoke(app, ["lower", f"{FOLDER}/net.py", "-o", "net.nasc"])
    assert done.exit_code == 0, done.output
    return home


def printed(here: Path, *options: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["space", str(here / "net.nasc"), *options])
    assert done.exit_code == code, done.output
    return done.output


def test_tables_of_widths_blocks_frozen_axes_and_corners(here: Path) -> None:
    shown = printed(here)
    assert "3 free widths of @net in 2 groups" in shown
    assert "layer1.*.conv1 (2)" in shown
    assert "2 blocks that can be dropped" in shown
    assert f"{FOLDER}/net.py:20" in shown, "a person's path is shown whole"
    assert "output %head of the graph" in shown
    for word in ("multiples of", "source", "smallest", "largest", "MACs", "with --widths"):
        assert word in shown


def test_json_has_the_same_and_more(here: Path) -> None:
    found = json.loads(printed(here, "--json", "--target", "onnxruntime:cpu"))
    rows = {row["name"]: row for row in found["widths"]}
    assert rows["layer1.*.conv1"]["choices"] == ["8", "16", "24", "32"]
    assert [b["name"] for b in found["blocks"]] == ["layer1.0", "layer1.1"]
    assert [c["name"] for c in found["corners"]] == ["source", "smallest", "largest"]
    assert "drop{block=[layer1.0, layer1.1]}" in found["corners"][1]["pipeline"]


def test_flags_bound_split_and_narrow_the_space(here: Path) -> None:
    found = json.loads(printed(here, "--json", "--width-bounds", "0.5..2", "--width-multiple", "4"))
    assert {row["name"]: row["choices"] for row in found["widths"]} == {
        "stem": ["8", "16", "24", "32"],
        "layer1.*.conv1": ["16", "32", "48", "64"],
    }
    split = json.loads(printed(here, "--json", "--space", "each layer1.*.conv1: width=[16, 32]"))
    assert [row["name"] for row in split["widths"]] == ["stem", "layer1.0.conv1", "layer1.1.conv1"]
    assert split["size"] == 4
    bits = json.loads(printed(here, "--json", "--no-widths"))
    assert {k["part"] for k in bits["knobs"]} == {"weights", "activations"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--width-bounds", "half"), "'half' is no range"),
        (("--width-bounds", "2..1"), "the bounds of widths are empty"),
        (("--space", "layer3.*: block=drop"), "no block that can be dropped matches 'layer3.*'"),
        (("--width-multiple", "0"), "search.width_multiple must be"),
    ],
)
def test_what_is_refused(here: Path, options: tuple[str, ...], message: str) -> None:
    shown = printed(here, *options, code=2)
    assert message in shown
    assert "Traceback" not in shown
