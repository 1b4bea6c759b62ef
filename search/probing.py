"""The sensitivity of a task's network: on validation samples by loss and noise, without labels by noise alone."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..compiler.execution import positional
from ..compiler.passes.base import Batch
from .builder import SHARED, TaskBuilder
from .quality import fidelity_batches
from .sensitivity import Damage, Sensitivity, sensitivity
from .space import Space

BATCH = 256
"""Samples that are run at once."""


def task_sensitivity(
    builder: TaskBuilder, space: Space, samples: int, told: Callable[[Damage], None] = lambda damage: None
) -> Sensitivity:
    """What each choice of a space does alone to a task's network.

    Args:
        builder: of the task; its memory of calibration is used and filled.
        space: whose choices.
        samples: how many validation samples to look at; without labels, how many calibration samples.
        told: called with each damage as it is known.

    Raises:
        UsageError: the space chooses no formats.
        NascError: the network's outputs are zero or not finite.
    """
    task, network = builder.task, builder.network.apply(SHARED)
    batches, labels = _labelled(builder, samples)
    if not batches:
        left = samples
        for inputs in fidelity_batches(task, BATCH):
            batch = tuple(t[:left] for t in positional(inputs, network.graph))
            batches.append(batch)
            left -= len(batch[0])
            if left <= 0:
                break
    return sensitivity(network, space, builder.context, batches, labels or None, task.loss, told)


def _labelled(builder: TaskBuilder, samples: int) -> tuple[list[Batch], list[Tensor]]:
    """The first validation samples with their labels; nothing where there are none."""
    data = builder.task.data("validation")
    batches: list[Batch] = []
    labels: list[Tensor] = []
    if data is None:
        return batches, labels
    left = min(samples, len(data))
    for inputs, y in data.batches(BATCH):
        if y is None or left <= 0:
            break
        batches.append(tuple(t[:left] for t in positional(inputs, builder.network.graph)))
        labels.append(y[:left])
        left -= len(labels[-1])
    return batches, labels
