"""Load a model file. It is code and runs as code: load only files you would run with `python`."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ...ir.errors import UsageError, nearest
from ..data import seeded
from ..network import Network
from ..training_settings import TrainingSettings
from .given import Given
from .imports import imported_files
from .model_values import NAMES, WHAT_TO_WRITE, task_of
from .sources import FORMS, Reader, from_attribute, from_network, from_program
from .task import Task
from .user_code import Surroundings, execute, shown


def load_task(
    source: str | Path,
    *,
    given: Given | None = None,
    seed: int | None = None,
    readers: Mapping[str, Reader] | None = None,
) -> Task:
    """The task that a model file describes, or another form of `FORMS`.

    A model file is executed: it can do whatever you can. While it runs, and while functions of it run later, the folder
    it lies in is importable; afterwards `sys.path` and `sys.modules` are as before. It runs under random seed 0 (or the
    seed in its `training`), so a network it makes has the same initial weights each time.

    Args:
        source: `model.py`, `package.module:attribute` (a module, or what makes one, such as
            `torchvision.models:resnet18`), `timm:NAME`, `model.pt2` of `torch.export.save`, `model.nasc`.
        given: what is said beside it: example inputs, weights, arguments of what makes the model.
        seed: takes the place of the seed in the file's training settings.
        readers: more files that hold networks, by suffix: what reads each.

    Raises:
        UsageError: no such file or attribute; a name is missing or misspelt; a value is of the wrong type.
        NascError: the code raised (shown at its own line), or the checkpoint does not fit.
    """
    text, given = str(source), given or Given()
    known = {".nasc": Network.load, **(readers or {})}
    suffix = Path(text).suffix
    if suffix in known:
        task = from_network(Path(text), given, known[suffix])
    elif suffix == ".pt2":
        task = from_program(Path(text), given)
    else:
        task = _from_file(text, given) if _is_path(text) else from_attribute(text, given)
    task = replace(task, words=given.words)
    return task if seed is None else task.with_seed(seed)


def _is_path(text: str) -> bool:
    if text.endswith(".py") or Path(text).exists():
        return True
    if ":" in text:
        return False
    raise UsageError(
        f"{text}: no such file" if "/" in text or "\\" in text else f"{text!r} names no model", mend=f"Give {FORMS}."
    )


def expect_model_file(text: str) -> Path:
    """The path of a model file, which is not executed.

    Raises:
        UsageError: there is no such file, or it is no Python file.
    """
    path = Path(text)
    if path.is_dir():
        raise UsageError(f"{text}: is a folder, expected a model file such as {path / 'model.py'}")
    if not path.is_file():
        near = (
            nearest(path.name, sorted(found.name for found in path.parent.glob("*.py"))) if path.parent.is_dir() else []
        )
        mend = f"Did you mean {' or '.join(str(path.with_name(name)) for name in near)}?" if near else None
        raise UsageError(f"{text}: no such file", mend=mend or "Give the path of a model file.")
    if path.suffix != ".py":
        raise UsageError(
            f"{text}: a model file is Python and ends in .py",
            mend="Define `model` and `example_inputs` in a .py file; it can name this file as its `checkpoint`. "
            "A program of torch.export.save ends in .pt2.",
        )
    return path.resolve()


def _from_file(text: str, given: Given) -> Task:
    path, checkpoint = expect_model_file(text), given.checkpoint()
    place, surroundings = shown(path), Surroundings(path.parent)
    with seeded(0):
        module = execute(path, surroundings)
    values = _values(module, place)
    if (example := given.example()) is not None:
        values["example_inputs"] = example
    if checkpoint is not None:
        values["checkpoint"] = checkpoint

    def remake(seed: int) -> object:
        with seeded(seed):
            return vars(execute(path, surroundings)).get("model")

    return task_of(
        values,
        name=path.stem,
        source=place,
        folder=path.parent,
        code=_code(path, surroundings),
        surroundings=surroundings,
        remake=remake,
        arguments=given.arguments,
    )


def _values(module: ModuleType, place: str) -> dict[str, Any]:
    """What the file says under our names; a near miss of one that is not there is an error rather than a silence."""
    defined = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    values = {name: defined[name] for name in NAMES if defined.get(name) is not None}
    absent = [name for name in NAMES if name not in values]
    for name, value in defined.items():
        likely = [ours for ours in absent if name not in NAMES and _could_be(ours, value)]
        meant = max(likely, key=lambda ours: _likeness(name, ours), default=None)
        if meant is not None and _likeness(name, meant) >= (0.8 if _is_function(value) else 0.7):
            raise UsageError(
                f"{place}: defines `{name}`, which nasc does not read: did you mean `{meant}`?",
                mend=f"Rename it, or begin it with an underscore if it is your own. Write: {WHAT_TO_WRITE[meant]}",
            )
    if "model" not in values:
        modules = [name for name, value in defined.items() if _could_be("model", value)]
        found = f" (it has {', '.join(modules[:3])})" if modules else ""
        raise UsageError(f"{place}: defines no `model`{found}", mend=f"Write: {WHAT_TO_WRITE['model']}")
    return values


_SHORT = {"val": "validation", "valid": "validation", "calib": "calibration", "set": "data", "dataset": "data"}


def _likeness(name: str, ours: str) -> float:
    """How alike a name and one of ours are, from 0 to 1; usual short forms count as what they stand for."""
    words = "_".join(_SHORT.get(word, word) for word in name.lower().split("_"))
    return difflib.SequenceMatcher(None, words, ours).ratio()


def _could_be(ours: str, value: object) -> bool:
    """Whether a value under a name like ours is of a kind that ours takes (an import or a helper is not)."""
    if isinstance(value, ModuleType):
        return False
    if ours == "model":
        return isinstance(value, nn.Module) or (
            isinstance(value, type) and issubclass(value, nn.Module) and value.__module__.startswith("_nasc_model_file")
        )
    if ours.endswith("_data") or ours == "example_inputs":
        pair = isinstance(value, tuple | list) and len(value) == 2
        tensors = ours == "example_inputs" and isinstance(value, torch.Tensor | dict)
        return pair or tensors or isinstance(value, Dataset) or _is_function(value)
    kinds: dict[str, Callable[[object], bool]] = {
        "checkpoint": lambda value: isinstance(value, str | Path),
        "loss": lambda value: callable(value) and not isinstance(value, type),
        "metrics": lambda value: isinstance(value, dict),
        "training": lambda value: isinstance(value, dict | TrainingSettings),
        "classes": lambda value: isinstance(value, list | tuple),
    }
    return kinds[ours](value)


def _is_function(value: object) -> bool:
    return callable(value) and not isinstance(value, type | nn.Module)


def _code(path: Path, surroundings: Surroundings) -> str:
    """The file's code, and that of its folder's modules that it imports, without comments and layout.

    Those that it imports by computed names are known where the folder was not on `sys.path` before.
    """
    files = imported_files(path)
    loaded = (getattr(module, "__file__", None) for module in surroundings.modules.values())
    others = {Path(file).resolve() for file in loaded if file and file.endswith(".py")}
    others -= {file.resolve() for file in files}
    return "\n".join(ast.dump(ast.parse(file.read_bytes())) for file in (*files, *sorted(others)))
