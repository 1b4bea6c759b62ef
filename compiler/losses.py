"""The loss of a batch: the default one, and whether one of the user's can be judged and trained by."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..ir.errors import UsageError
from .data import apply
from .frontend.user_code import blaming

if TYPE_CHECKING:
    from .frontend.task import Split, Task

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes the network's output and the labels of a batch, gives their mean loss as a scalar tensor."""

MEND = "Give a function of the outputs and labels of a batch that gives their mean loss, a scalar tensor."


def default_loss(output: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy for class labels (whole numbers), mean squared error for real ones.

    Args:
        output: logits [N, C, …], or one logit per sample ([N] or [N, 1]) for two classes; real labels: their shape.
        labels: int64 [N, …] classes, or float32.
    """
    if labels.is_floating_point():
        return functional.mse_loss(output, _like(labels, output))
    if output.numel() == labels.numel():
        return functional.binary_cross_entropy_with_logits(output, _like(labels, output).to(output.dtype))
    return functional.cross_entropy(output, labels)


def loss_value(loss: Loss, outputs: Tensor, labels: Tensor) -> float:
    """The loss of outputs as a number, without gradients.

    Raises:
        UsageError: the loss gives something else than one number.
        NascError: it raised; at the user's line.
    """
    with torch.no_grad():
        return float(cast("Tensor | float", _one_number(loss, outputs, labels)))


def expect_loss(loss: Loss, outputs: Tensor, labels: Tensor) -> None:
    """Refuse a loss that cannot be trained by: it must give one number that depends on the outputs.

    Raises:
        UsageError: it gives something else, or cannot be called.
        NascError: it raised; at the user's line.
    """
    if not callable(loss):
        raise UsageError(f"the loss is a {type(loss).__name__}, expected a function", mend=MEND)
    with torch.enable_grad():
        found = _one_number(loss, outputs.detach().requires_grad_().clone(), labels)
    if not isinstance(found, Tensor):
        raise UsageError(f"the loss gives a {type(found).__name__}, which has no gradients to train by", mend=MEND)
    if not found.requires_grad:
        raise UsageError("the loss gives a number that does not depend on the outputs", mend=MEND)


def check_loss(task: Task, *, trained: bool) -> None:
    """Try a task's own loss on a few samples of its labelled data, before anything that takes long.

    Args:
        task: with a loss.
        trained: whether something will be trained by it, which asks for gradients.

    Raises:
        UsageError: it gives something else than one number.
        NascError: it, or the network, raised.
    """
    if task.loss is default_loss:
        return
    splits: tuple[Split, ...] = ("validation", "train")
    for data in filter(None, map(task.data, splits)):
        inputs, labels = data.take(slice(0, min(8, len(data))))
        if labels is None:
            continue
        with task.importing():
            with torch.no_grad():
                given = cast("object", apply(task.model, inputs))
            outputs = cast(Tensor, given[0] if isinstance(given, tuple | list) else given)
            loss_value(task.loss, outputs, labels)
            if trained:
                expect_loss(task.loss, outputs, labels)
        return


def _one_number(loss: Loss, outputs: Tensor, labels: Tensor) -> object:
    with blaming(f"the loss on outputs {list(outputs.shape)} and labels {list(labels.shape)}", None):
        found = cast("object", loss(outputs, labels))
    if isinstance(found, Tensor) and found.numel() != 1:
        raise UsageError(f"the loss gives a tensor {list(found.shape)}, expected one number", mend=MEND)
    if isinstance(found, Tensor) and found.is_complex():
        raise UsageError("the loss gives a complex number, expected a real one", mend=MEND)
    if not isinstance(found, Tensor | Real):
        raise UsageError(f"the loss gives a {type(found).__name__}, expected one number", mend=MEND)
    return found


def _like(labels: Tensor, output: Tensor) -> Tensor:
    if labels.numel() != output.numel():
        raise UsageError(
            f"the network gives {list(output.shape)} for labels {list(labels.shape)}",
            mend="Give labels of the output's shape, or name a `loss` that takes both.",
        )
    return labels.reshape(output.shape)
