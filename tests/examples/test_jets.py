"""The jet examples: what they compute, that their splits are apart, and that training them gives the known accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from nasc.compiler.data import Rows
from nasc.compiler.frontend.model_file import load_task
from nasc.compiler.frontend.task import Task
from nasc.compiler.training import trained_checkpoint
from nasc.search.quality import quality_of
from torch import Tensor, nn

torch.set_num_threads(1)
EXAMPLES = Path(__file__).parents[2] / "examples"


def rows(task: Task, split: str) -> tuple[Tensor, Tensor]:
    data = task.required(split)  # type: ignore[arg-type]
    assert isinstance(data, Rows)
    assert isinstance(data.x, Tensor)
    assert data.y is not None
    return data.x, data.y


@pytest.mark.parametrize(("name", "widths"), [("jets.py", [16, 64, 32, 32, 5]), ("mlp16.py", [16, 16, 16, 5])])
def test_widths_and_names(name: str, widths: list[int]) -> None:
    task = load_task(EXAMPLES / name)
    layers = {name: layer for name, layer in task.model.named_modules() if isinstance(layer, nn.Linear)}
    assert list(layers) == [f"fc{number}" for number in range(1, len(widths))]
    assert [layers["fc1"].in_features, *(layer.out_features for layer in layers.values())] == widths
    norms = [name for name, layer in task.model.named_modules() if isinstance(layer, nn.BatchNorm1d)]
    assert norms == [f"bn{number}" for number in range(1, len(widths) - 1)]
    assert task.untrained
    assert task.has_data
    assert task.classes is not None
    assert len(task.classes) == 5


def test_no_validation_row_is_a_training_row_and_no_test_row_either() -> None:
    task = load_task(EXAMPLES / "jets.py")
    with numpy.load(EXAMPLES / "data" / "jets.npz") as held:
        train, test = held["x_train"], held["x_test"]
    x, v, t = (rows(task, split)[0].numpy() for split in ("train", "validation", "test"))
    assert len(v) == len(train) // 10 == 4140
    assert numpy.array_equal(numpy.concatenate([x, v]), train)  # each row of the file once: the last tenth is held out
    assert numpy.array_equal(t, test)
    seen, held_out, judged = ({row.tobytes() for row in part} for part in (x, v, t))
    assert not seen & held_out
    assert not (seen | held_out) & judged


def test_the_network_standardises_raw_features_by_the_training_rows() -> None:
    task = load_task(EXAMPLES / "jets.py")
    x, _ = rows(task, "train")
    state = task.model.state_dict()
    assert state["mean"].equal(x.mean(0))
    assert state["std"].equal(x.std(0))
    bare = load_task(EXAMPLES / "jets.py").model
    bare.get_buffer("mean").zero_()
    bare.get_buffer("std").fill_(1)
    task.model.load_state_dict(
        {name: held for name, held in bare.state_dict().items() if name[:2] in ("fc", "bn")}, False
    )
    with torch.no_grad():
        assert task.model(x[:50]).equal(bare((x[:50] - x.mean(0)) / x.std(0)))
    assert not torch.allclose(bare(x[:50]), task.model(x[:50]), atol=0.1)


@pytest.mark.parametrize(("name", "least"), [("jets.py", 0.712), ("mlp16.py", 0.70)])
def test_trained_on_first_use_it_reaches_the_known_accuracy(name: str, least: float, tmp_path: Path) -> None:
    trained = trained_checkpoint(load_task(EXAMPLES / name), tmp_path)
    quality = quality_of(trained.task, trained.task.model, "test")
    assert least < quality.values["accuracy"] < 0.73  # data/README.md: 0.717 to 0.720 for 16-64-32-32-5, three seeds
