"""How good a network's outputs are: against labels, or (fidelity) against the outputs of the network it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from ..compiler.data import Batch, Inputs, Rows, apply
from ..compiler.frontend.task import Split, Task
from ..compiler.losses import Loss, default_loss
from ..compiler.threads import counting_flop, fitting_threads
from ..ir.errors import NascError, UsageError
from .metrics import Direction, Metric, class_count, correctness, expect_finite, kind_of, metric_named

Run: TypeAlias = Callable[..., Any]
"""A network to call: takes a batch of inputs, gives a tensor or several (torch, or numpy from a runtime)."""

FIDELITY_CAP_DB = 20 * math.log10(2**24)
"""Fidelity is cut here, 144.5 dB: the rounding of binary32 itself. Equal outputs have this, not infinity."""

JACKKNIFE_BLOCKS = 16


@dataclass(frozen=True)
class Quality:
    """How good some outputs are.

    Args:
        kind: `labels`, or `fidelity` where there are none and the source network's outputs take their place.
        samples: how many samples it was seen on.
        values: by metric.
        standard_errors: of the values, where they can be had.
        directions: which way each metric is better.
        correct: float32 [samples], 1 where the sample is told right (`fidelity`: as the source network tells it), to
            be paired with another network's; None where there are no classes.
    """

    kind: Literal["labels", "fidelity"]
    samples: int
    values: Mapping[str, float]
    standard_errors: Mapping[str, float]
    directions: Mapping[str, Direction]
    correct: Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Difference:
    """A mean difference over the same samples, with its standard error."""

    mean: float
    standard_error: float
    samples: int


def evaluate(
    run: Run,
    x: Inputs,
    y: Tensor,
    metrics: Sequence[str] | None = None,
    batch_size: int = 1024,
    *,
    loss: Loss = default_loss,
    own: Mapping[str, Any] | None = None,
) -> Quality:
    """Quality of outputs against labels.

    Args:
        run: the network.
        x: inputs, axis 0 counts samples.
        y: labels: int64 classes or float32 values, one per sample.
        metrics: names, the file's own or those of `metrics.DIRECTIONS`; accuracy and loss for classes, loss and mae for
            real labels if None.
        batch_size: samples per call of `run`.
        loss: what `loss` is.
        own: the model file's metrics.

    Raises:
        UsageError: a metric is unknown, or does not go with these labels.
        NascError: outputs are not finite.
    """
    return evaluate_batches(run, Rows(x, y).batches(batch_size), metrics, loss=loss, own=own)


def evaluate_batches(
    run: Run,
    batches: Iterable[Batch],
    metrics: Sequence[str] | None = None,
    *,
    more: Sequence[str] = (),
    loss: Loss = default_loss,
    own: Mapping[str, Any] | None = None,
) -> Quality:
    """As `evaluate`, on batches of inputs and labels, with `more` metrics behind those named or taken by default.

    Standard errors: of accuracy from its samples, sqrt(p (1 - p) / n) where each is right or wrong; of the other named
    metrics by leaving out one sixteenth of the samples at a time (jackknife, Efron and Tibshirani 1993, chapter 11);
    of the model file's own metrics none.
    """
    outputs, labels = _outputs_and_labels(run, batches)
    named = dict.fromkeys((*(_default_metrics(outputs, labels, more) if metrics is None else metrics), *more))
    chosen = [metric_named(name, loss, own) for name in named]
    correct = None
    if class_count(outputs, labels):
        kind_of(outputs, labels)  # refuses labels out of range
        correct = correctness(outputs, labels)
    values: dict[str, float] = {}
    errors: dict[str, float] = {}
    with torch.no_grad(), fitting_threads(100 * outputs.numel()):
        for metric in chosen:
            values[metric.name] = _expect_number(metric, metric.compute(outputs, labels))
            if (error := _standard_error(metric, outputs, labels, correct)) is not None:
                errors[metric.name] = error
    directions: dict[str, Direction] = {metric.name: metric.direction for metric in chosen}
    return Quality("labels", len(labels), values, errors, directions, correct)


def _default_metrics(outputs: Tensor, labels: Tensor, more: Sequence[str]) -> tuple[str, ...]:
    """What is taken where nothing is named; nothing where labels are no classes and other metrics are taken anyway."""
    if labels.is_floating_point():
        return ("loss", "mae")
    return () if more and not class_count(outputs, labels) else ("accuracy", "loss")


def outputs_of(run: Run, batches: Iterable[Inputs]) -> tuple[Tensor, ...]:
    """What a network gives for all batches, one tensor [samples, …] per output.

    Raises:
        NascError: outputs are not finite.
    """
    parts = list(_runs(run, batches))
    if not parts:
        raise UsageError("there are no samples to run the network on")
    outputs = tuple(torch.cat(column) for column in zip(*parts, strict=True))
    for held in outputs:
        expect_finite(held, "the network")
    return outputs


def fidelity(run: Run, reference: tuple[Tensor, ...], batches: Iterable[Inputs]) -> Quality:
    """How close a network stays to its source, where there are no labels.

    `fidelity` is the signal-to-quantization-noise ratio 10 log10(sum of reference² / sum of (reference - output)²) in
    dB, of the worst output where there are several; its standard error is that of the ratio of two means (delta
    method). `agreement` is the share of samples with the same highest score on axis 1 of the first output.

    Args:
        run: the network.
        reference: the source network's outputs on the same samples (`outputs_of`).
        batches: the samples' inputs.

    Raises:
        NascError: outputs are not finite or of another shape, or the source network gives nothing but zeros.
    """
    outputs = outputs_of(run, batches)
    shapes, expected = [list(held.shape) for held in outputs], [list(held.shape) for held in reference]
    if shapes != expected:
        raise NascError(f"the network gives outputs {shapes}, the source network {expected}")
    ratios = [_sqnr(held, wanted) for held, wanted in zip(outputs, reference, strict=True)]
    worst, error = min(ratios, key=lambda ratio: ratio[0])
    values, correct = {"fidelity": worst}, None
    errors = {"fidelity": error} if math.isfinite(error) else {}
    if reference[0].ndim > 1 and reference[0].shape[1] > 1:
        correct = correctness(outputs[0], reference[0].argmax(1))
        values["agreement"], errors["agreement"] = float(correct.double().mean()), _error_of_mean(correct)
    directions: dict[str, Direction] = dict.fromkeys(values, "max")
    return Quality("fidelity", len(outputs[0]), values, errors, directions, correct)


def quality_of(
    task: Task,
    run: Run,
    split: Split = "validation",
    metrics: Sequence[str] | None = None,
    batch_size: int = 1024,
    *,
    more: Sequence[str] = (),
    reference: tuple[Tensor, ...] | None = None,
) -> Quality:
    """Quality of a network on a task: on labelled data of the split, else fidelity on the task's calibration inputs.

    Args:
        task: names the data, the loss and metrics of its own.
        run: the network.
        split: the data to see it on.
        metrics: as in `evaluate`.
        batch_size: samples per call of `run`.
        more: metrics to take beside the default ones.
        reference: outputs of `task.model` on `fidelity_batches(task)`, so that they are not made again each time.

    Raises:
        UsageError: metrics are asked for that need labels, and there are none.
    """
    data = task.data(split)
    if data is not None and next(data.batches(1))[1] is not None:
        return evaluate_batches(run, data.batches(batch_size), metrics, more=more, loss=task.loss, own=task.metrics)
    if unknown := {*(metrics or ()), *more} - {"fidelity", "agreement"}:
        raise UsageError(
            f"{task.source} has no labelled {split}_data, so there is no {' or '.join(sorted(unknown))}",
            mend=f"Write {split}_data = (x, y) in it, or ask for fidelity or agreement.",
        )
    if reference is None:
        reference = outputs_of(task.model, fidelity_batches(task, batch_size))
    return fidelity(run, reference, fidelity_batches(task, batch_size))


def fidelity_batches(task: Task, batch_size: int = 1024) -> Iterable[Inputs]:
    """The inputs that fidelity is seen on: the task's calibration inputs, at most 4,096."""
    return task.calibration_batches(samples=4096, size=batch_size)


def paired_difference(a_correct: Tensor, b_correct: Tensor) -> Difference:
    """Mean of a - b over the same samples, and its standard error: what tells two networks apart.

    It is far smaller than the difference of two independent accuracies', because most samples are told alike.

    Raises:
        UsageError: they are not of the same samples.
    """
    if a_correct.shape != b_correct.shape or a_correct.ndim != 1:
        raise UsageError(f"cannot pair {list(a_correct.shape)} samples with {list(b_correct.shape)}")
    apart = a_correct.double() - b_correct.double()
    count = len(apart)
    spread = float(apart.std()) if count > 1 else math.inf
    return Difference(float(apart.mean()), spread / math.sqrt(count), count)


def _outputs_and_labels(run: Run, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    labels: list[Tensor] = []

    def inputs_alone() -> Iterator[Inputs]:
        for inputs, y in batches:
            if y is None:
                raise UsageError("quality needs labels", mend="Give a pair of tensors (x, y).")
            labels.append(y)
            yield inputs

    outputs = [several[0] for several in _runs(run, inputs_alone())]
    if not labels:
        raise UsageError("there are no samples to see the quality on")
    every, wanted = torch.cat(outputs), torch.cat(labels)
    if len(every) != len(wanted):
        raise NascError(f"the network gives {len(every)} rows for {len(wanted)} samples")
    expect_finite(every, "the network")
    return every, wanted


def _runs(run: Run, batches: Iterable[Inputs]) -> Iterator[tuple[Tensor, ...]]:
    """The outputs of each batch; a small network runs on one thread, as the first batch's work says."""
    flop: int | None = None
    for inputs in batches:
        with fitting_threads(flop or 0):
            if flop is None:
                outputs, flop = counting_flop(partial(_run, run, inputs))
            else:
                outputs = _run(run, inputs)
        yield outputs


def _run(run: Run, inputs: Inputs) -> tuple[Tensor, ...]:
    """One call; outputs as tensors on the CPU, numpy arrays among them."""
    if isinstance(run, nn.Module) and run.training:
        raise NascError(
            "the network is in training mode, where batch norm and dropout give other outputs: call .eval()"
        )
    with torch.no_grad():
        given = apply(run, inputs)
    several = cast("Sequence[Any]", given) if isinstance(given, tuple | list) else (given,)
    return tuple(_readable(torch.as_tensor(held).detach().cpu()) for held in several)


def _readable(held: Tensor) -> Tensor:
    """Half and brain floats as float32, which all metrics read."""
    return held.float() if held.dtype in (torch.float16, torch.bfloat16) else held


def _expect_number(metric: Metric, value: float) -> float:
    if math.isnan(value):
        raise NascError(
            f"{metric.name} is not a number on these samples",
            mend="AUROC needs samples of more than one class." if metric.name == "auroc" else None,
        )
    return value


def _standard_error(metric: Metric, outputs: Tensor, labels: Tensor, correct: Tensor | None) -> float | None:
    if metric.own or len(labels) < 2:
        return None
    if metric.name == "accuracy" and correct is not None:
        return _error_of_mean(correct)
    blocks = min(JACKKNIFE_BLOCKS, len(labels))
    block = torch.arange(len(labels)) % blocks
    without = [metric.compute(outputs[block != left_out], labels[block != left_out]) for left_out in range(blocks)]
    spread = torch.tensor(without, dtype=torch.float64)
    if not bool(torch.isfinite(spread).all()):
        return None
    return math.sqrt((blocks - 1) / blocks * float(((spread - spread.mean()) ** 2).sum()))


def _error_of_mean(each: Tensor) -> float:
    """Standard error of a mean: for zeros and ones sqrt(p (1 - p) / n)."""
    return float(each.double().std(correction=0)) / math.sqrt(len(each))


def _sqnr(outputs: Tensor, reference: Tensor) -> tuple[float, float]:
    """Signal-to-noise ratio and its standard error, both in dB."""
    signal = reference.double().reshape(len(reference), -1).square().sum(1)
    noise = (reference.double() - outputs.double()).reshape(len(reference), -1).square().sum(1)
    if not float(signal.sum()):
        raise NascError(
            "the source network's outputs are all zero, so nothing can be said of fidelity to them",
            mend="Load its trained weights (`checkpoint`), or give `validation_data` with labels.",
        )
    ratio = float(noise.sum() / signal.sum())
    if ratio <= 10 ** (-FIDELITY_CAP_DB / 10):
        return FIDELITY_CAP_DB, 0.0
    if len(signal) < 2:
        return -10 * math.log10(ratio), math.inf
    residual = (noise - ratio * signal) / signal.mean()
    of_ratio = float(residual.std()) / math.sqrt(len(signal))
    return -10 * math.log10(ratio), 10 / math.log(10) * of_ratio / ratio
