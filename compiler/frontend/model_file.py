"""Load a model file. It is code and runs as code: load only files you would run with `python`."""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ...ir.errors import UsageError, did_you_mean, nearest
from ..data import seeded
from ..training_settings import TrainingSettings
from .model_values import NAMES, WHAT_TO_WRITE, task_of
from .task import Task
from .user_code import Surroundings, blaming, execute, shown


def load_task(source: str | Path, *, input_shape: str | None = None, seed: int | None = None) -> Task:
    """The task that a model file, or an attribute of an importable module, describes.

    The file is executed: it can do whatever you can. While it runs, and while functions of it run later, the folder it
    lies in is importable; afterwards `sys.path` and `sys.modules` are as before. It runs under random seed 0 (or the
    seed in its `training`), so a network it makes has the same initial weights each time.

    Args:
        source: `model.py`, or `package.module:attribute` (a module, or what makes one without arguments), such as
            `torchvision.models:resnet18`.
        input_shape: shapes of random example inputs where the source names none: `1x3x224x224`; several with commas.
        seed: takes the place of the seed in the file's training settings.

    Raises:
        UsageError: no such file or attribute; a name is missing or misspelt; a value is of the wrong type.
        NascError: the code raised (shown at its own line), or the checkpoint does not fit.
    """
    text = str(source)
    task = _from_file(text, input_shape) if _is_path(text) else _from_attribute(text, input_shape)
    return task if seed is None else task.with_seed(seed)


def example_of_shape(text: str) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Random tensors (normal, seed 0) of the shapes in a text such as `1x3x224x224` or `1x16,1x4`.

    Raises:
        UsageError: it is no list of shapes.
    """
    shapes: list[list[int]] = []
    for part in text.split(","):
        sizes = part.strip().lower().split("x")
        if not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise UsageError(f"input shape {text!r} is no shape", mend="Write it as 1x3x224x224, the batch first.")
        shapes.append([int(size) for size in sizes])
    with seeded(0):
        made = tuple(torch.randn(shape) for shape in shapes)
    return made[0] if len(made) == 1 else made


def _is_path(text: str) -> bool:
    if text.endswith(".py") or Path(text).exists():
        return True
    if ":" in text:
        return False
    raise UsageError(
        f"{text}: no such file" if "/" in text or "\\" in text else f"{text!r} names no model",
        mend="Give a model file (model.py) or package.module:attribute (torchvision.models:resnet18).",
    )


def _from_file(text: str, input_shape: str | None) -> Task:
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
            mend="Define `model` and `example_inputs` in a .py file; it can name this file as its `checkpoint`.",
        )
    path = path.resolve()
    place, surroundings = shown(path), Surroundings(path.parent)
    with seeded(0):
        module = execute(path, surroundings)
    values = _values(module, place)
    if "example_inputs" not in values and input_shape is not None:
        values["example_inputs"] = example_of_shape(input_shape)

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
    )


def _from_attribute(text: str, input_shape: str | None) -> Task:
    name, _, attribute = text.partition(":")
    surroundings = Surroundings(Path.cwd())
    if not name or not attribute or not all(part.isidentifier() for part in (*name.split("."), attribute)):
        raise UsageError(
            f"{text!r} names no model",
            mend="Give a model file (model.py) or package.module:attribute (torchvision.models:resnet18).",
        )
    with blaming(f"import {name}", surroundings), seeded(0):
        module = importlib.import_module(name)
    if not hasattr(module, attribute):
        known = [known for known in dir(module) if not known.startswith("_")]
        raise UsageError(f"{name} has no attribute {attribute!r}", mend=did_you_mean(attribute, known))
    if input_shape is None:
        raise UsageError(
            f"{text}: what are its inputs?", mend="Give the shape with the batch first: --input 1x3x224x224"
        )
    values = {"model": getattr(module, attribute), "example_inputs": example_of_shape(input_shape)}
    return task_of(values, name=attribute, source=text, surroundings=surroundings)


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
    """The file's code, and that of its folder's modules it has imported, without comments and layout."""
    files = {getattr(module, "__file__", None) for module in surroundings.modules.values()}
    texts = [Path(file) for file in sorted(str(file) for file in files if file) if file.endswith(".py")]
    return "\n".join(ast.dump(ast.parse(file.read_bytes())) for file in (path, *texts))
