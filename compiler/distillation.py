"""Learn from a network's outputs beside the labels: what distillation adds to a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..ir.errors import UsageError
from .data import Inputs, apply
from .losses import Loss


@dataclass(frozen=True)
class Teacher:
    """A network to learn from.

    Labels say which class a sample is of, a teacher how likely it is of each. Where classes overlap, most of the noise
    in labels is gone in its outputs, so a small network comes to the same quality in fewer samples.

    Args:
        run: the network; takes what the student takes.
        share: of the distance to its outputs in the loss; the rest is the loss on the labels. Between 0 and 1.

    Raises:
        UsageError: the share is none.

    Source: Hinton, Vinyals, Dean, arXiv:1503.02531, section 2, at temperature 1.
    """

    run: Callable[..., Any]
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"the share of distillation in the loss is between 0 and 1; found {self.share:g}")

    def outputs(self, inputs: Inputs) -> Tensor:
        """What it says of some samples: its first output."""
        with torch.no_grad():
            given = apply(self.run, inputs)
        return cast(Tensor, given[0] if isinstance(given, tuple | list) else given)


def distance(output: Tensor, goal: Tensor, labels: Tensor) -> Tensor:
    """How far outputs are from a teacher's: cross-entropy to its probabilities for classes, else the squared error.

    Args:
        output: the student's, [N, C, …], or one logit per sample for two classes, or real numbers.
        goal: the teacher's, of the same shape.
        labels: say which it is, as in `training.default_loss`.

    Raises:
        UsageError: the shapes differ.
    """
    if output.shape != goal.shape:
        raise UsageError(f"the network gives {list(output.shape)}, the network to learn from {list(goal.shape)}")
    if labels.is_floating_point():
        return functional.mse_loss(output, goal)
    if output.numel() == labels.numel():
        return functional.binary_cross_entropy_with_logits(output, goal.sigmoid())
    return functional.cross_entropy(output, goal.softmax(1))


def blended(loss: Loss, share: float, output: Tensor, goal: Tensor, labels: Tensor) -> Tensor:
    """The loss on the labels and the distance to a teacher's outputs, by the latter's share."""
    apart = distance(output, goal, labels)
    return apart if share == 1 else (1 - share) * loss(output, labels) + share * apart
