"""VGG7 on a CIFAR-10 folder in both layouts, on the digits that take its place, and against a pickle that runs code."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from nasc.compiler.data import Rows
from nasc.compiler.frontend.model_file import load_task
from nasc.compiler.frontend.task import Task
from nasc.compiler.training import trained_checkpoint
from nasc.ir.errors import NascError
from nasc.search.quality import quality_of
from torch import Tensor, nn

torch.set_num_threads(1)
EXAMPLE = Path(__file__).parents[2] / "examples" / "vgg7.py"
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGG7_WIDTH", "0.03125")
    monkeypatch.delenv("CIFAR10", raising=False)


def batch(number: int, rows: int = 20) -> tuple[numpy.ndarray, list[int]]:
    drawn = numpy.random.default_rng(number)
    return drawn.integers(0, 256, (rows, 3072), dtype=numpy.uint8), drawn.integers(0, 10, rows).tolist()


def python_folder(folder: Path, protocol: int = 2) -> Path:
    """The layout of cifar-10-python.tar.gz."""
    folder.mkdir()
    for number, name in enumerate(NAMES):
        images, labels = batch(number)
        held = {b"batch_label": name.encode(), b"labels": labels, b"data": images, b"filenames": [b"a.png"] * 20}
        (folder / name).write_bytes(pickle.dumps(held, protocol=protocol))
    return folder


def binary_folder(folder: Path) -> Path:
    """The layout of cifar-10-binary.tar.gz."""
    folder.mkdir()
    for number, name in enumerate(NAMES):
        images, labels = batch(number)
        records = numpy.concatenate([numpy.array(labels, dtype=numpy.uint8)[:, None], images], 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def rows(task: Task, split: str) -> tuple[Tensor, Tensor]:
    data = task.required(split)  # type: ignore[arg-type]
    assert isinstance(data, Rows)
    assert isinstance(data.x, Tensor)
    assert data.y is not None
    return data.x, data.y


def test_both_layouts_hold_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [python_folder(tmp_path / "cifar-10-batches-py"), python_folder(tmp_path / "new", protocol=4)]
    folders += [binary_folder(tmp_path / "bin"), tmp_path]  # the last holds cifar-10-batches-py
    images = numpy.concatenate([batch(number)[0] for number in range(5)]).reshape(-1, 3, 32, 32)
    labels = [label for number in range(5) for label in batch(number)[1]]
    for folder in folders:
        monkeypatch.setenv("CIFAR10", str(folder))
        task = load_task(EXAMPLE)
        (x, y), (v, w), (t, u) = (rows(task, split) for split in ("train", "validation", "test"))
        assert [len(x), len(v), len(t)] == [90, 10, 20]
        assert torch.cat([x, v]).equal(torch.from_numpy(images).float() / 255)
        assert torch.cat([y, w]).tolist() == labels
        assert t.equal(torch.from_numpy(batch(5)[0].reshape(-1, 3, 32, 32)).float() / 255)
        assert u.tolist() == batch(5)[1]
        assert task.classes is not None
        assert task.classes[3] == "cat"
    assert capsys.readouterr().err == ""


def test_a_python_2_pickle_with_numbers_for_truth_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real files were pickled by Python 2: dtype('u1', 0, 1), old module names and text for bytes."""
    images, labels = batch(0, rows=2)
    raw = b"".join(b"\\x%02x" % value for value in images.tobytes())
    text = (
        b"(dp0\nS'data'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntS'b'\ntR(I1\n(I2\nI3072\nt"
        b"cnumpy\ndtype\np4\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'" + raw + b"'\ntb"
        b"sS'labels'\n(lp5\nI%d\naI%d\nas." % tuple(labels)
    )
    folder = python_folder(tmp_path / "cifar")
    for name in NAMES:
        (folder / name).write_bytes(text)
    monkeypatch.setenv("CIFAR10", str(folder))
    task = load_task(EXAMPLE)
    assert rows(task, "test")[0].equal(torch.from_numpy(images.reshape(2, 3, 32, 32)).float() / 255)
    assert rows(task, "test")[1].tolist() == labels


class Bomb:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.made = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


@pytest.mark.parametrize("where", ["whole", "inside"])
def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trace = python_folder(tmp_path / "cifar"), tmp_path / "ran"
    bomb = Bomb(Path.touch, trace)
    pickle.loads(pickle.dumps(bomb))
    assert trace.exists()  # the bomb is one
    trace.unlink()
    held = bomb if where == "whole" else {b"data": batch(0)[0], b"labels": [1] * 20, b"more": bomb}
    (folder / "data_batch_3").write_bytes(pickle.dumps(held))
    monkeypatch.setenv("CIFAR10", str(folder))
    with pytest.raises(
        NascError, match=r"refused to load pathlib\.[\w.]+: a CIFAR-10 batch holds only numpy"
    ) as raised:
        load_task(EXAMPLE)
    assert "cifar10.py:" in str(raised.value)
    assert not trace.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__])
def test_builtins_are_refused(function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = python_folder(tmp_path / "cifar")
    (folder / "data_batch_1").write_bytes(pickle.dumps(Bomb(function, "1")))
    monkeypatch.setenv("CIFAR10", str(folder))
    with pytest.raises(NascError, match=rf"refused to load builtins\.{function.__name__}"):
        load_task(EXAMPLE)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps([1, 2]), "expected a dict with data and labels, found list"),
        (pickle.dumps({b"images": 1}), "expected data and labels, found images"),
        (pickle.dumps({b"data": batch(0)[0][:, :100], b"labels": [0] * 20}), "is no batch of CIFAR-10"),
        (pickle.dumps({b"data": batch(0)[0], b"labels": [10] * 20}), "is no batch of CIFAR-10"),
        (b"", "EOFError"),
    ],
)
def test_a_file_that_is_no_batch(content: bytes, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = python_folder(tmp_path / "cifar")
    (folder / "data_batch_2").write_bytes(content)
    monkeypatch.setenv("CIFAR10", str(folder))
    with pytest.raises(NascError, match=says):
        load_task(EXAMPLE)


def test_a_cut_binary_file_and_a_folder_without_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = binary_folder(tmp_path / "bin")
    (folder / "data_batch_2.bin").write_bytes(b"x" * 3074)
    monkeypatch.setenv("CIFAR10", str(folder))
    with pytest.raises(NascError, match="3074 bytes are no whole number of records of 3073"):
        load_task(EXAMPLE)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CIFAR10", str(tmp_path / "empty"))
    with pytest.raises(NascError, match="holds neither data_batch_1 nor data_batch_1"):
        load_task(EXAMPLE)
    folder = python_folder(tmp_path / "part")
    (folder / "test_batch").unlink()
    monkeypatch.setenv("CIFAR10", str(folder))
    task = load_task(EXAMPLE)
    with pytest.raises(NascError, match="FileNotFoundError"):
        task.required("test")


def test_digits_take_its_place_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    task = load_task(EXAMPLE)
    said = capsys.readouterr()
    assert said.out == ""
    assert "CIFAR10 names no folder: scikit-learn's handwritten digits" in said.err
    parts = {split: rows(task, split) for split in ("train", "validation", "test")}
    assert [len(y) for _, y in parts.values()] == [1295, 143, 359]
    for x, y in parts.values():
        assert x.shape[1:] == (3, 32, 32)
        assert 0 <= x.min() < x.max() <= 1
        assert set(y.tolist()) == set(range(10))
    seen, held_out, judged = ({row.numpy().tobytes() for row in x} for x, _ in parts.values())
    assert not seen & held_out
    assert not (seen | held_out) & judged


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(NascError, match="pip install scikit-learn, or set CIFAR10 to the folder") as raised:
        load_task(EXAMPLE)
    assert "vgg7.py:" in str(raised.value)


def test_layers_and_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGG7_WIDTH", "1")
    model = load_task(EXAMPLE).model
    widths = {
        name: len(layer.weight) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    assert list(widths) == [*(f"conv{number}" for number in range(1, 7)), "fc1", "fc2"]
    assert list(widths.values()) == [128, 128, 256, 256, 512, 512, 1024, 10]


def test_a_narrow_one_learns_the_digits(tmp_path: Path) -> None:
    trained = trained_checkpoint(load_task(EXAMPLE), tmp_path)
    assert quality_of(trained.task, trained.task.model, "test").values["accuracy"] > 0.9
