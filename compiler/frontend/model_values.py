"""The values of a model file, checked one by one and put together to a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from ...ir.errors import UsageError
from ..checkpoint import load_weights, read_checkpoint
from ..data import FORMS, as_inputs, seeded, tensors_of
from ..losses import default_loss
from ..training_settings import TrainingSettings
from .task import SPLITS, ExampleInputs, LazyData, Split, Task, check_runs
from .user_code import Surroundings, blaming

WHAT_TO_WRITE: dict[str, str] = {
    "model": "model = Net()  # an nn.Module, or a function (or class) that makes one without arguments",
    "example_inputs": "example_inputs = torch.randn(1, 16)  # or a tuple, or a dict of keyword tensors, or a function",
    "train_data": f"train_data = (x, y)  # {FORMS}",
    "validation_data": f"validation_data = (x, y)  # {FORMS}",
    "test_data": f"test_data = (x, y)  # {FORMS}",
    "calibration_data": f"calibration_data = x  # inputs alone, {FORMS}",
    "checkpoint": 'checkpoint = "net.safetensors"  # relative to the model file',
    "loss": "loss = torch.nn.functional.cross_entropy  # takes outputs and labels",
    "metrics": 'metrics = {"error": (function_of_outputs_and_labels, "min")}',
    "training": 'training = {"epochs": 20, "batch_size": 256, "learning_rate": 1e-3, "seed": 0}',
    "classes": 'classes = ["cat", "dog"]',
}
"""The names of a model file, each with a line that shows how to write it."""

NAMES = tuple(WHAT_TO_WRITE)


def make_task(model: object, example_inputs: object, *, name: str | None = None, **named: Any) -> Task:
    """A task from Python values under the names of a model file (`train_data=`, `loss=`, …), checked in the same way.

    Raises:
        UsageError: a name is unknown or a value of the wrong type; the message says what to write.
        NascError: the model does not run on its example inputs, or the checkpoint does not fit.
    """
    return task_of({"model": model, "example_inputs": example_inputs, **named}, name=name)


def task_of(
    values: Mapping[str, Any],
    *,
    name: str | None = None,
    source: str = "python",
    folder: Path | None = None,
    code: str = "",
    surroundings: Surroundings | None = None,
    remake: Callable[[int], object] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Task:
    """A task from named values.

    Args:
        values: by the names in `NAMES`; those that are absent are not in the mapping.
        name: short name of the network; its class's name in lower case if None.
        source: what errors call the place.
        folder: what a relative checkpoint is relative to.
        code: text of the code that makes the network.
        surroundings: the folder that the person's code imports from.
        remake: gives `model`'s value anew with the seed's random numbers, where the value is a finished network.
        arguments: keyword arguments of the function or class that makes the model.

    Raises:
        UsageError: a value is of the wrong type.
        NascError: the person's code raised, or the checkpoint does not fit.
    """
    for unknown in set(values) - set(NAMES):
        raise UsageError(f"{source}: a task has no {unknown!r}", mend=f"Known: {', '.join(NAMES)}.")
    for required in ("model", "example_inputs"):
        if required not in values:
            raise UsageError(f"{source}: defines no `{required}`", mend=f"Write: {WHAT_TO_WRITE[required]}")
    training = _training(values.get("training"), source)
    make = _maker(values["model"], source, surroundings, remake, arguments or {})
    example = _example(values["example_inputs"], source, surroundings)
    seed = 0 if training is None else training.seed
    given = values["model"]
    as_given = isinstance(given, nn.Module) and (seed == 0 or make is None)  # files run under seed 0
    model = given.eval() if as_given else cast("Callable[[int], nn.Module]", make)(seed)
    checkpoint, untrained = _checkpoint(values.get("checkpoint"), folder, source, training, values), False
    if checkpoint is not None:
        untrained = not checkpoint.is_file()
        if not untrained:
            load_weights(model, read_checkpoint(checkpoint), str(checkpoint))
    check_runs(model, example, f"the model of {source}", surroundings)
    return Task(
        name=name or type(model).__name__.lower(),
        source=source,
        model=model,
        example_inputs=example,
        splits=_splits(values, surroundings, example),
        loss=_callable(values.get("loss", default_loss), "loss", source),
        metrics=_metrics(values.get("metrics", {}), source),
        training=training,
        checkpoint=checkpoint,
        untrained=untrained,
        classes=_classes(values.get("classes"), source),
        code=code,
        make=make,
        surroundings=surroundings,
        folder=folder,
    )


def wrong(name: str, value: object, expected: str, source: str) -> UsageError:
    """The error for a value of the wrong type."""
    return UsageError(
        f"{source}: `{name}` is {described_value(value)}, expected {expected}", mend=f"Write: {WHAT_TO_WRITE[name]}"
    )


def described_value(value: object) -> str:
    """What a value is, in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a {type(value).__name__}" if not isinstance(value, int | float | str) else f"{value!r}"


def _maker(
    value: object,
    source: str,
    surroundings: Surroundings | None,
    remake: Callable[[int], object] | None,
    arguments: Mapping[str, Any],
) -> Callable[[int], nn.Module] | None:
    if not isinstance(value, nn.Module) and not callable(value):
        raise wrong("model", value, "an nn.Module or a function that makes one", source)
    if arguments and isinstance(value, nn.Module):
        raise UsageError(
            f"{source}: `model` is one finished network, so it takes no arguments ({', '.join(arguments)})",
            mend="Give a function (or the class) that makes the network.",
        )
    again: Callable[[int], object] | None = remake
    if not isinstance(value, nn.Module):

        def call(seed: int) -> object:
            said = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
            with blaming(f"model({said})", surroundings), seeded(seed):
                return value(**arguments)

        again = call
    if again is None:
        return None

    def make(seed: int) -> nn.Module:
        made = again(seed)
        if not isinstance(made, nn.Module):
            raise wrong("model", made, "the function to give an nn.Module", source)
        return made.eval()

    return make


def _example(value: object, source: str, surroundings: Surroundings | None) -> ExampleInputs:
    if callable(value):
        with blaming("example_inputs()", surroundings), seeded(0):
            value = cast("Callable[[], object]", value)()
    if value is None:
        raise wrong("example_inputs", value, "tensors", source)
    try:
        inputs = as_inputs(value, "example_inputs")
    except UsageError as error:
        raise UsageError(f"{source}: {error.message}", mend=f"Write: {WHAT_TO_WRITE['example_inputs']}") from error
    if any(held.ndim == 0 for held in tensors_of(inputs)):
        raise UsageError(f"{source}: `example_inputs` has a tensor without axes; axis 0 counts samples")
    if isinstance(inputs, dict):
        return ExampleInputs((), inputs)
    return ExampleInputs(inputs if isinstance(inputs, tuple) else (inputs,), {})


def _splits(
    values: Mapping[str, Any], surroundings: Surroundings | None, example: ExampleInputs
) -> dict[Split, LazyData]:
    splits: dict[Split, LazyData] = {}
    for split in SPLITS:
        name = f"{split}_data"
        if values.get(name) is not None:
            splits[split] = LazyData(values[name], name, surroundings, example)
    return splits


def _checkpoint(
    value: object, folder: Path | None, source: str, training: TrainingSettings | None, values: Mapping[str, Any]
) -> Path | None:
    """The checkpoint's path; one that is not there is only good where training can make it."""
    if value is None:
        return None
    if not isinstance(value, str | Path):
        raise wrong("checkpoint", value, "a path", source)
    path = (folder or Path()) / Path(value).expanduser()
    if not path.is_file() and (training is None or "train_data" not in values):
        raise UsageError(
            f"{source}: checkpoint {value!r}: there is no file {path}",
            mend="Mend the path, or give `training` settings and `train_data` to have one trained on first use.",
        )
    return path


def _training(value: object, source: str) -> TrainingSettings | None:
    if value is None or isinstance(value, TrainingSettings):
        return value
    if not isinstance(value, dict):
        raise wrong("training", value, "a dict of settings", source)
    try:
        return TrainingSettings.of(cast("dict[str, Any]", value))
    except UsageError as error:
        raise UsageError(f"{source}: {error.message}", mend=error.mend) from error


def _metrics(value: object, source: str) -> dict[str, Any]:
    expected = "a dict: name -> torchmetrics factory, function of outputs and labels, or (one of these, 'max' or 'min')"
    if not isinstance(value, dict):
        raise wrong("metrics", value, expected, source)
    for name, metric in cast("dict[object, object]", value).items():
        pair = cast("tuple[object, ...]", metric if isinstance(metric, tuple) else (metric, "max"))
        if not isinstance(name, str) or len(pair) != 2 or not callable(pair[0]) or pair[1] not in ("max", "min"):
            raise wrong("metrics", value, f"{expected}; found {name!r}: {metric!r}", source)
    return cast("dict[str, Any]", value)


def _callable(value: object, name: str, source: str) -> Any:
    if not callable(value) or isinstance(value, type):
        raise wrong(name, value, "a function of outputs and labels that gives a scalar tensor", source)
    return value


def _classes(value: object, source: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise wrong("classes", value, "the names of the classes in order of their labels", source)
    return tuple(str(name) for name in cast("Iterable[object]", value))
