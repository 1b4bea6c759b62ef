"""Training: it learns, repeats itself bit for bit, stops early at the best state, and keeps what it made by content."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from nasc.compiler.data import Stream, seeded
from nasc.compiler.frontend.model_file import load_task
from nasc.compiler.frontend.model_values import make_task
from nasc.compiler.frontend.task import weights_digest
from nasc.compiler.losses import default_loss
from nasc.compiler.training import (
    Epoch,
    TrainingSettings,
    cache_folder,
    mean_loss,
    train,
    trained_checkpoint,
)
from nasc.ir.errors import NascError, UsageError
from torch import Tensor, nn
from torch.nn import functional

torch.set_num_threads(1)


def points(count: int = 600, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three clouds in the plane and which one each point is of."""
    with seeded(seed):
        y = torch.arange(count) % 3
        return torch.randn(count, 2) * 0.4 + torch.tensor([[0.0, 1.5], [1.5, 0.0], [-1.5, 0.0]])[y], y


def network(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def accuracy(module: nn.Module) -> float:
    x, y = points(seed=1)
    with torch.no_grad():
        return (module(x).argmax(1) == y).float().mean().item()


QUICK = TrainingSettings(epochs=6, batch_size=64, learning_rate=0.02)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
def test_it_learns(optimizer: Any, schedule: Any) -> None:
    module = network()
    before = accuracy(module.eval())
    result = train(module, points(), replace(QUICK, optimizer=optimizer, schedule=schedule))
    assert accuracy(module) > max(0.9, before)
    assert not module.training
    assert result.ended == "finished"
    assert result.kept_epoch == 6
    assert result.epochs[-1].training_loss < result.epochs[0].training_loss
    assert result.duration_s >= result.epochs[0].elapsed_s > 0


def test_one_seed_gives_the_same_bits_and_another_seed_others() -> None:
    digests: list[str] = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)  # the program's own random numbers must not matter
        module = network()
        train(module, points(), replace(QUICK, seed=seed), validation=points(99, seed=3))
        digests.append(weights_digest(module))
    assert digests[0] == digests[1] != digests[2]


def test_the_program_s_random_numbers_go_on_as_if_nothing_had_been() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(network(), points(), QUICK)
    assert torch.rand(3).equal(expected)


def test_a_dataset_trains_as_its_tensors_do() -> None:
    x, y = points(40)
    held, streamed = network(), network()
    train(held, (x, y), replace(QUICK, epochs=2))
    train(streamed, Stream([(a, int(b)) for a, b in zip(x, y, strict=True)], "data"), replace(QUICK, epochs=2))  # type: ignore[arg-type]
    assert weights_digest(held) == weights_digest(streamed)


def test_patience_stops_and_puts_the_best_state_back() -> None:
    module = network()
    x, y = points(60)
    wrong = (points(60, seed=4)[0], (y + 1) % 3)  # the better the training, the worse this gets
    told: list[Epoch] = []
    states: list[str] = []

    def progress(epoch: Epoch) -> None:
        told.append(epoch)
        states.append(weights_digest(module))

    settings = replace(QUICK, epochs=30, schedule="constant", patience=3)
    result = train(module, (x, y), settings, validation=wrong, progress=progress)
    losses = [epoch.validation_loss for epoch in result.epochs]
    assert result.ended == "patience"
    assert len(told) == len(result.epochs) < 30
    assert result.kept_epoch == losses.index(min(losses)) + 1 == len(losses) - 3
    assert weights_digest(module) == states[result.kept_epoch - 1] != states[-1]
    assert mean_loss(module, Stream(list(zip(*wrong, strict=True)), "wrong"), default_loss, 60) == pytest.approx(  # type: ignore[arg-type]
        min(losses), rel=1e-6
    )


def test_stop_ends_it() -> None:
    result = train(network(), points(), QUICK, stop=lambda epoch: epoch.number == 2)
    assert (len(result.epochs), result.ended, result.kept_epoch) == (2, "stopped", 2)


def test_a_left_over_of_one_sample_does_not_break_batch_norm() -> None:
    x, y = points(65)
    train(network(), (x, y), QUICK)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NascError, match=r"training loss of epoch 1 is (nan|inf).*learning rate") as raised:
        train(network(), (points()[0] * torch.nan, points()[1]), QUICK)
    assert "Lower learning_rate" in str(raised.value)
    with pytest.raises(NascError, match="validation loss of epoch 1 is nan"):
        train(network(), points(), QUICK, validation=(points()[0] * torch.nan, points()[1]))


def test_data_without_labels_patience_without_validation_nothing_to_train() -> None:
    with pytest.raises(UsageError, match="training needs labels"):
        train(network(), Stream([torch.ones(2)] * 4, "data"), QUICK)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="labels to train by go from 0 to 3, but the network tells 3 classes apart"):
        train(network(), (points()[0], torch.arange(600) % 4), QUICK)
    with pytest.raises(UsageError, match="patience=2 needs validation data"):
        train(network(), points(), replace(QUICK, patience=2))
    with pytest.raises(UsageError, match="there is nothing to train"):
        train(network().requires_grad_(False), points(), QUICK)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "epochs=0, expected a whole number from 1"),
        ({"epochs": True}, "epochs=True"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"learning_rate": 0}, "learning_rate=0, expected above 0"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"schedule": "cosine"}, "schedule='cosine', expected 'one-cycle' or 'constant'"),
        ({"optimizer": "lion"}, "optimizer='lion', expected 'adam', 'adamw' or 'sgd'"),
        ({"patience": 0}, "patience=0"),
        ({"seed": -1}, "seed=-1"),
        ({"epoch": 3}, "training has no setting 'epoch'"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as raised:
        TrainingSettings.of(change)
    assert says in str(raised.value)


def test_settings_text_tells_settings_apart() -> None:
    assert TrainingSettings().text() != TrainingSettings(seed=1).text()
    assert TrainingSettings.of({"epochs": 3}).text().startswith("epochs=3, batch_size=256, ")


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=["flat", "column"])
@pytest.mark.parametrize("labels", [(0, 2), (-1, 1)])
def test_labels_that_one_logit_cannot_tell_are_refused(shape: tuple[int, ...], labels: tuple[int, int]) -> None:
    x, y = points()
    module = nn.Sequential(nn.Linear(x.shape[1], 1), nn.Flatten(0) if len(shape) == 1 else nn.Identity())
    wrong = torch.where(y > 0, max(labels), min(labels))
    said = f"go from {labels[0]} to {labels[1]}, but the network tells 2 classes apart\n  Give labels 0 and 1 for one"
    with pytest.raises(UsageError, match=said):
        train(module, (x, wrong), QUICK)
    train(module, (x, (y > 0).long()), replace(QUICK, epochs=1))


def test_default_losses() -> None:
    logits, y = torch.randn(6, 3), torch.arange(6) % 3
    assert default_loss(logits, y).equal(functional.cross_entropy(logits, y))
    assert default_loss(logits[:, :1], y % 2).equal(
        functional.binary_cross_entropy_with_logits(logits[:, 0], (y % 2).float())
    )
    real = torch.rand(6)
    assert default_loss(real[:, None] + 1, real).item() == pytest.approx(1.0)  # not broadcast to 6 x 6
    with pytest.raises(UsageError, match=r"gives \[6, 3\] for labels \[6\]"):
        default_loss(logits, real)


# Kept checkpoints.

FILE = """
import torch
from torch import nn
def model():
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
example_inputs = torch.zeros(1, 2)
checkpoint = "net.safetensors"
training = {"epochs": 2, "batch_size": 32, "learning_rate": 0.02}
def train_data():
    y = torch.arange(90) % 3
    return torch.eye(3)[y][:, :2] + torch.linspace(0, 0.1, 90)[:, None], y
def validation_data():
    return train_data()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(FILE)
    return tmp_path / "net.py"


def test_a_second_call_loads_what_the_first_trained(file: Path) -> None:
    told: list[Epoch] = []
    task = load_task(file)
    assert task.untrained
    first = trained_checkpoint(task, progress=told.append)
    assert [epoch.number for epoch in told] == [1, 2]
    assert first.result is not None
    assert first.path.parent == file.parent / ".cache" == cache_folder(task)
    assert not first.task.untrained
    again = trained_checkpoint(load_task(file), progress=told.append)
    assert len(told) == 2
    assert again.result is None
    assert again.path == first.path
    assert again.task.weights_digest() == first.task.weights_digest() != load_task(file).weights_digest()


def test_the_task_given_is_not_changed(file: Path) -> None:
    task = load_task(file)
    before = task.weights_digest()
    first = trained_checkpoint(task)
    assert task.weights_digest() == before
    assert trained_checkpoint(task).path == first.path


def test_training_anew_gives_the_same_file(file: Path, tmp_path: Path) -> None:
    one = trained_checkpoint(load_task(file), tmp_path / "one")
    two = trained_checkpoint(load_task(file), tmp_path / "two")
    assert one.path.name == two.path.name
    assert one.path.read_bytes() == two.path.read_bytes()
    assert sorted(kept.suffix for kept in (tmp_path / "one").iterdir()) == [".lock", ".safetensors"]


def changed(old: str, new: str) -> str:
    assert old in FILE
    return FILE.replace(old, new)


@pytest.mark.parametrize(
    "text",
    [
        changed("nn.ReLU", "nn.Tanh"),
        changed("Linear(8, 3)", "Linear(8, 3, bias=False)"),
        changed('"epochs": 2', '"epochs": 3'),
        changed("0, 0.1, 90", "0, 0.2, 90"),
        FILE + 'training["seed"] = 1\n',
        FILE + "loss = lambda output, y: nn.functional.cross_entropy(output, y, label_smoothing=0.1)\n",
    ],
)
def test_what_changes_the_training_changes_the_file(file: Path, text: str) -> None:
    first = trained_checkpoint(load_task(file))
    file.write_text(text)
    other = trained_checkpoint(load_task(file))
    assert other.result is not None
    assert other.path != first.path


def test_a_module_beside_the_file_counts_too_and_a_remark_does_not(file: Path) -> None:
    (file.parent / "blocks.py").write_text("from torch.nn import ReLU as Act\n")
    file.write_text("from blocks import Act\n" + FILE.replace("nn.ReLU", "Act"))
    first = trained_checkpoint(load_task(file))
    file.write_text("# a remark\n" + file.read_text())
    assert trained_checkpoint(load_task(file)).path == first.path
    (file.parent / "blocks.py").write_text("from torch.nn import SiLU as Act\n")
    assert trained_checkpoint(load_task(file)).path != first.path


def test_a_loss_that_fails_shows_the_users_line(file: Path) -> None:
    file.write_text(FILE + "def loss(output, y):\n    return output - y\n")
    with pytest.raises(NascError) as raised:
        trained_checkpoint(load_task(file))
    place, line = str(raised.value).splitlines()[:2]
    assert "net.py:15: error: RuntimeError: The size of tensor a (3)" in place
    assert line.strip() == "return output - y"


def test_a_dataset_that_fails_later_shows_the_users_line(file: Path) -> None:
    items = """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 30
    def __getitem__(self, index):
        if self.strict and index == 20:
            raise OSError("no picture 20")
        return torch.rand(2), index % 3
    strict = False
train_data = Data()
"""
    file.write_text(FILE.replace("import torch\n", "import torch, torch.utils.data\n", 1) + items)
    task = load_task(file)
    stream = task.required("train")
    assert isinstance(stream, Stream)
    stream.dataset.strict = True  # type: ignore[attr-defined]
    with pytest.raises(NascError, match=r"(?s)net\.py:20: error: OSError: no picture 20.*while running train_data"):
        trained_checkpoint(task)


def test_another_seed_is_another_checkpoint(file: Path) -> None:
    task = load_task(file)
    assert trained_checkpoint(task).path != trained_checkpoint(task.with_seed(1)).path
    assert trained_checkpoint(task.with_seed(1)).result is None


def test_a_checkpoint_that_is_there_is_taken_and_nothing_trained(file: Path) -> None:
    trained = trained_checkpoint(load_task(file))
    (file.parent / "net.safetensors").write_bytes(trained.path.read_bytes())
    task = load_task(file)
    assert not task.untrained
    assert task.weights_digest() == trained.task.weights_digest()
    again = trained_checkpoint(task)
    assert (again.task, again.path, again.result) == (task, file.parent / "net.safetensors", None)


def test_a_damaged_kept_file_is_named(file: Path) -> None:
    kept = trained_checkpoint(load_task(file)).path
    kept.write_bytes(b"x" * 20)
    with pytest.raises(NascError, match=kept.name):
        trained_checkpoint(load_task(file))


def test_a_task_without_settings() -> None:
    with pytest.raises(UsageError, match="names no `training` settings"):
        trained_checkpoint(make_task(nn.Linear(2, 3), torch.zeros(1, 2), train_data=points()))


def test_where_checkpoints_are_kept_if_the_folder_cannot_be_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert cache_folder(task) == tmp_path / "mine" / "nasc"


def test_whoever_waits_for_the_lock_loads_what_the_other_trained(file: Path, tmp_path: Path) -> None:
    trained = trained_checkpoint(load_task(file), tmp_path / "elsewhere").path
    kept = file.parent / ".cache" / trained.name
    kept.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(kept.with_suffix(".lock")):  # the other process is at work
            waiting = pool.submit(trained_checkpoint, load_task(file))
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
            kept.write_bytes(trained.read_bytes())
        assert waiting.result(timeout=60).result is None
