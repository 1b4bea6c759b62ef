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
    (tmp_path / "file").write_text("not a folder")
    return tmp_path


@pytest.mark.parametrize("command", [("sensitivity",)])
def test_without_a_fault_the_model_is_loaded(here: Path, command: tuple[str, ...]) -> None:
    """What the tests below look for is there where it must be."""
    done = CliRunner().invoke(app, [command[0], "net.py", *command[1:]])
    assert LOADED in done.output


CASES = {
    "a picture": (["sensitivity", "net.py", "--plot", "map.png"], ["found .png", "Write --plot map.html"]),
    "no suffix": (["sensitivity", "net.py", "--plot", "map"], ["found none", "Write --plot map.html"]),
    "a folder for a page": (["sensitivity", "net.py", "--plot", "folder"], ["folder: error:", "this is a folder"]),
    "a page in no folder": (["sensitivity", "net.py", "--plot", "no/map.html"], ["no folder no", "mkdir -p no"]),
    "a page in a file": (["sensitivity", "net.py", "--plot", "file/map.html"], ["file is a file"]),
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
