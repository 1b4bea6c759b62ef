"""The page on model files: its blocks load and run, and its tables name what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from nasc.api import load_network
from nasc.compiler.data import Rows, Stream
from nasc.compiler.frontend.example_text import TYPES, parse_inputs
from nasc.compiler.frontend.given import parse_arguments
from nasc.compiler.frontend.model_file import load_task
from nasc.compiler.frontend.model_values import NAMES
from nasc.compiler.training import TrainingSettings, trained_checkpoint
from nasc.search.metrics import DIRECTIONS
from nasc.search.quality import quality_of

torch.set_num_threads(1)

PAGE = (Path(__file__).parents[2] / "docs" / "model-file.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {match[1]: block for block in BLOCKS if (match := re.match(r"# (\w+\.py)\n", block))}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for name, block in FILES.items():
        (tmp_path / name).write_text(block)
    return tmp_path


def test_every_block_is_seen() -> None:
    assert PAGE.count("```python\n") == len(BLOCKS) == 5
    assert list(FILES) == ["moons.py", "crops.py", "graded.py"]


def test_the_full_example_trains_and_is_loaded_the_second_time(written: Path) -> None:
    first = trained_checkpoint(load_task(written / "moons.py"))
    assert first.result is not None
    assert trained_checkpoint(load_task(written / "moons.py")).result is None
    quality = quality_of(first.task, first.task.model, "test", ["accuracy", "error"])
    assert quality.values["accuracy"] > 0.95
    assert quality.values["error"] == pytest.approx(1 - quality.values["accuracy"], abs=1e-6)
    assert quality.directions["error"] == "min"


def test_a_network_is_loaded_with_what_was_trained_or_says_that_it_is_not(written: Path) -> None:
    said: list[str] = []
    before = load_network(written / "moons.py", tell=said.append)
    assert len(said) == 1 and "weights are untrained" in said[0]
    kept = trained_checkpoint(load_task(written / "moons.py")).task.model.state_dict()
    after = load_network(written / "moons.py", tell=said.append)
    assert len(said) == 1
    name = next(op.name for op in after.graph.stored)
    assert torch.equal(after.weights.real(name), kept[name])
    assert not torch.equal(before.weights.real(name), kept[name])


def test_the_dataset_that_draws_anew_is_read_item_by_item(written: Path) -> None:
    task = load_task(written / "crops.py")
    assert isinstance(task.required("train"), Stream)
    assert not task.has_data


def test_metrics_of_its_own(written: Path) -> None:
    task = load_task(written / "graded.py")
    assert isinstance(task.required("validation"), Rows)
    quality = quality_of(task, task.model, metrics=list(task.metrics))
    assert quality.directions == {"top2": "max", "calibration": "min", "worst-class": "max"}
    assert all(0 <= value <= 1 for value in quality.values.values())


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in FILES.values()])
def test_programs_run(block: str) -> None:
    exec(compile(block, "docs/model-file.md", "exec"), {"__name__": "docs"})


def table(first: str) -> list[str]:
    """The first column of the table whose heading begins with a word."""
    lines = PAGE[PAGE.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    return [line.split("|")[1].strip().strip("`") for line in lines]


def test_the_tables_name_what_there_is() -> None:
    assert table("name") == list(NAMES)
    assert table("setting") == [field.name for field in fields(TrainingSettings)]
    assert all(f"`{name}`" in PAGE for name in DIRECTIONS)
    types = next(line for line in PAGE.splitlines() if line.startswith("| `--input 2x24:i64` |"))
    assert set(re.findall(r"[a-z]+\d+|bool", types.split("a type:")[1].split(".")[0])) == set(TYPES)


def test_inputs_and_arguments_of_the_page_can_be_read() -> None:
    inputs, arguments = re.findall(r"--input ([\w:=.,]+)", PAGE), re.findall(r"--arg (\w+=\w+)", PAGE)
    assert len(inputs) >= 6 and arguments
    for text in inputs:
        parse_inputs(text)
    parse_arguments(list(dict.fromkeys(arguments)))
