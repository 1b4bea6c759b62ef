"""The page on ONNX: its commands run, one after the other, and say what the page says that they say."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from nasc.cli import app
from nasc.deploying import PIPELINE, TARGET
from typer.testing import CliRunner

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "onnx.md").read_text()


def test_the_commands_run_and_print_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    nasc ((?:export|verify) .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    printed = [CliRunner().invoke(app, shlex.split(command)) for command in commands]
    assert [done.exit_code for done in printed] == [0, 0], [done.output for done in printed]
    assert (tmp_path / "small.onnx").is_file()
    (record,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    title, *lines = record.splitlines()
    assert len(lines) == 5
    assert re.sub(r"[\d.]+ kB", "", title) in re.sub(r"[\d.]+ kB", "", printed[0].stdout)
    for line in lines:
        label = re.split(r" {2,}", line)[0]
        assert re.search(rf"^ *{re.escape(label)} +", printed[0].stdout, re.MULTILINE), label
    for line in lines[1:]:
        assert re.search(rf"^ *{re.escape(re.split(' {2,}', line)[0])} +holds", printed[1].stdout, re.MULTILINE)


def test_the_metadata_are_called_so() -> None:
    assert f"`{TARGET}` and `{PIPELINE}`" in PAGE
