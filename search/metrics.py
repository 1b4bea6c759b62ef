"""Metrics of outputs against labels, by name: each evaluation makes its own fresh torchmetrics objects."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor

from ..compiler.frontend.user_code import blaming
from ..compiler.losses import Loss, loss_value
from ..ir.errors import NascError, UsageError, did_you_mean

Direction: TypeAlias = Literal["max", "min"]
"""Which way a metric is better."""

Kind: TypeAlias = Literal["multiclass", "binary", "regression"]
"""What the labels are: one of several classes, one of two, or real numbers."""

DIRECTIONS: Mapping[str, Direction] = {
    "accuracy": "max",
    "loss": "min",
    "precision": "max",
    "recall": "max",
    "f1": "max",
    "auroc": "max",
    "mae": "min",
}
"""The metrics known by name: `loss` for all labels, `mae` for real ones, the others for classes."""


@dataclass(frozen=True)
class Metric:
    """A number that says how well outputs fit labels, and which way it is better.

    Args:
        name: as in objectives and reports.
        direction: `max` if more is better.
        compute: takes outputs and labels of all samples; keeps nothing from one call to the next.
        own: the model file defines it (its standard error is not estimated, for it may be costly).
    """

    name: str
    direction: Direction
    compute: Callable[[Tensor, Tensor], float]
    own: bool = False


def metric_named(name: str, loss: Loss, own: Mapping[str, Any] | None = None) -> Metric:
    """The metric of this name: one of the model file's own, or one of `DIRECTIONS`.

    Precision, recall and F1 of more than two classes are means over the classes (macro averages); of two classes they
    are those of class 1. AUROC is that of class 1, or the mean over the classes that occur of each against the rest;
    where all samples are of one class it is not a number.

    Args:
        name: the metric.
        loss: what `loss` is.
        own: the model file's metrics: name -> torchmetrics factory or object, function of outputs and labels, or a pair
            of one of these and `max` or `min`. Without a direction it is torchmetrics' `higher_is_better`, else `max`.

    Raises:
        UsageError: no metric has this name, or what the file gives is none.
    """
    if own and name in own:
        return _own_metric(name, own[name])
    if name not in DIRECTIONS:
        raise UsageError(f"there is no metric {name!r}", mend=did_you_mean(name, [*(own or ()), *DIRECTIONS]))
    if name == "loss":
        return Metric(name, "min", lambda outputs, labels: loss_value(loss, outputs, labels))
    return Metric(name, DIRECTIONS[name], lambda outputs, labels: _standard(name, outputs, labels))


def kind_of(outputs: Tensor, labels: Tensor) -> Kind:
    """What the labels are.

    Args:
        outputs: [N, C, …] scores of classes; one score per sample ([N] or [N, 1]) is that of class 1 of two.
        labels: int64 [N, …] classes, or float32.

    Raises:
        UsageError: labels are no classes of these outputs.
    """
    if labels.is_floating_point():
        return "regression"
    if not (classes := class_count(outputs, labels)):
        raise UsageError(
            f"the network gives {list(outputs.shape)} for class labels {list(labels.shape)}",
            mend="Give outputs one axis more than labels, axis 1, with a score per class; or name your own `metrics`.",
        )
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        raise UsageError(f"labels go from {least} to {most}, but the network tells {classes} classes apart")
    return "binary" if classes == 2 else "multiclass"


def class_count(outputs: Tensor, labels: Tensor) -> int:
    """How many classes the outputs score for each label; 0 if they do not (real labels, several labels per sample)."""
    if labels.is_floating_point():
        return 0
    if outputs[:1].numel() == 1 and outputs.numel() == labels.numel():
        return 2
    return outputs.shape[1] if outputs.ndim == labels.ndim + 1 else 0


def predictions(outputs: Tensor) -> Tensor:
    """The class each sample is taken for: the highest score on axis 1, or the sign of a single logit.

    A single score is a logit (class 1 above 0), unless all of them lie in 0…1: then it is a probability (above 1/2).
    """
    if outputs[:1].numel() == 1:
        return (_probability_of_one(outputs) > 0.5).long()
    return outputs.argmax(1)


def correctness(outputs: Tensor, labels: Tensor) -> Tensor:
    """float32 [N]: 1 for each sample told right, 0 for the others; the share where a sample has many labels."""
    right = predictions(outputs).reshape(labels.shape) == labels
    return right.reshape(len(labels), -1).float().mean(1)


def _standard(name: str, outputs: Tensor, labels: Tensor) -> float:
    """One of the named metrics; torchmetrics is imported here because that takes seconds."""
    import torchmetrics
    from torchmetrics import classification

    kind = kind_of(outputs, labels)
    if (name == "mae") != (kind == "regression"):
        raise UsageError(
            f"{name} is no metric for {'real-valued' if kind == 'regression' else 'class'} labels",
            mend="For real labels use loss or mae; for classes "
            + ", ".join(name for name in DIRECTIONS if name != "mae")
            + ".",
        )
    if name == "mae":
        metric = torchmetrics.MeanAbsoluteError()
        return _fresh(metric, outputs.reshape(labels.shape), labels)
    if name == "auroc":
        scores, labels = _scores(outputs), labels.reshape(-1)
        present = [1] if kind == "binary" else labels.unique().tolist()
        one_against_rest = [(scores[:, one], (labels == one).long()) for one in present]
        if any(len(these.unique()) < 2 for _, these in one_against_rest):
            return math.nan  # all samples are of one class: there is no order to be right about
        areas = [_fresh(classification.BinaryAUROC(), score, these) for score, these in one_against_rest]
        return sum(areas) / len(areas)
    guessed, labels = predictions(outputs).reshape(-1), labels.reshape(-1)
    if kind == "binary":
        made = {
            "accuracy": classification.BinaryAccuracy,
            "precision": classification.BinaryPrecision,
            "recall": classification.BinaryRecall,
            "f1": classification.BinaryF1Score,
        }[name]()
    elif name == "accuracy":
        made = classification.MulticlassAccuracy(outputs.shape[1], average="micro")
    else:
        made = {
            "precision": classification.MulticlassPrecision,
            "recall": classification.MulticlassRecall,
            "f1": classification.MulticlassF1Score,
        }[name](outputs.shape[1], average="macro")
    return _fresh(made, guessed, labels)


def _fresh(metric: Any, outputs: Tensor, labels: Tensor) -> float:
    """Feed a metric object nobody has used before, once, and read it."""
    metric.update(outputs, labels)
    return float(metric.compute())


def _scores(outputs: Tensor) -> Tensor:
    """Probabilities [M, C] in float64, so that confident samples keep their order."""
    if outputs[:1].numel() == 1:
        one = _probability_of_one(outputs).reshape(-1)
        return torch.stack([1 - one, one], 1)
    rows = outputs.movedim(1, -1).reshape(-1, outputs.shape[1]).double()
    are_shares = bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-3).all())
    return rows if are_shares else rows.softmax(1)


def _probability_of_one(outputs: Tensor) -> Tensor:
    wide = outputs.double()
    return wide if bool(((wide >= 0) & (wide <= 1)).all()) else wide.sigmoid()


def _own_metric(name: str, given: Any) -> Metric:
    made, direction = cast("tuple[Any, Direction | None]", given if isinstance(given, tuple) else (given, None))
    if _is_function_of_two(made):

        def call(outputs: Tensor, labels: Tensor) -> float:
            with blaming(f"metric {name!r}", None):
                return _number(name, made(outputs, labels))

        return Metric(name, direction or "max", call, own=True)
    better = getattr(_made(name, made), "higher_is_better", None)

    def compute(outputs: Tensor, labels: Tensor) -> float:
        metric = _made(name, made)
        with blaming(f"metric {name!r}", None):
            metric.update(outputs, labels)
            return _number(name, metric.compute())

    return Metric(name, direction or ("min" if better is False else "max"), compute, own=True)


def _made(name: str, given: Any) -> Any:
    """A torchmetrics object that nobody has used: from a factory, or a copy of a finished one with nothing in it."""
    import torchmetrics

    if isinstance(given, torchmetrics.Metric):
        metric = given.clone()
        metric.reset()
        return metric
    if callable(given) and not _required(given):
        with blaming(f"metric {name!r}", None):
            metric = given()
        if isinstance(metric, torchmetrics.Metric):
            return metric
    raise UsageError(
        f"metric {name!r} is neither a torchmetrics factory nor a function of outputs and labels",
        mend=f'Write metrics = {{"{name}": lambda: MulticlassAccuracy(num_classes=5)}}, or a function of both.',
    )


def _is_function_of_two(given: Any) -> bool:
    is_metric = isinstance(given, type) or hasattr(given, "update")
    return callable(given) and not is_metric and len(_required(given)) == 2


def _required(given: Callable[..., Any]) -> list[str]:
    """Names of the arguments that a call cannot leave out (one without a name where Python cannot tell)."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(given).parameters.values()
    except ValueError:  # some built-in types have no signature
        return [""]
    return [each.name for each in parameters if each.default is each.empty and each.kind in plain]


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise NascError(f"metric {name!r} gives a tensor {list(value.shape)}, expected one number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise NascError(f"metric {name!r} gives a {type(value).__name__}, expected one number") from None


def expect_finite(outputs: Tensor, what: str) -> None:
    """Refuse outputs that are not numbers: `argmax` would take them for a class.

    Raises:
        NascError: some are not finite.
    """
    if not bool(torch.isfinite(outputs).all()):
        rows = int((~torch.isfinite(outputs)).reshape(len(outputs), -1).any(1).sum())
        raise NascError(f"{what} gives values that are not finite for {rows} of {len(outputs)} samples")
