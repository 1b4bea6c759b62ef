"""What networks are trained by: samples with labels, the loss, and settings for what nobody names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from .data import Data, Inputs, as_data
from .losses import Loss, default_loss
from .training_settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class Supervision:
    """Samples with labels, and what to make of them.

    Args:
        data: gives the samples; asked when something is trained.
        loss: mean loss of a batch.
        settings: how the source network was trained, as far as is known.
        importing: a context in which the user's data and loss find the modules that they import.
    """

    data: Callable[[], Data]
    loss: Loss = default_loss
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    importing: Callable[[], AbstractContextManager[None]] = nullcontext

    def inputs(self) -> Iterator[Inputs]:
        """The samples without their labels, batch by batch."""
        return (inputs for inputs, _ in self.data().batches(256))

    @staticmethod
    def of(train_data: Any, loss: Loss | None = None) -> Supervision | None:
        """Supervision by what a caller has: a pair `(x, y)` or a Dataset; None where there is nothing."""
        if train_data is None:
            return None
        return Supervision(lambda: as_data(train_data, "train_data"), loss or default_loss)
