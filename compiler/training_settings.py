"""How to train: the settings a model file's `training` dict may name."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..ir.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: what a model file's `training` dict may name, with the values it has when not named.

    Args:
        epochs: passes over the training data, at most.
        batch_size: samples per step.
        learning_rate: the rate, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (adam, sgd) or decoupled decay (adamw).
        schedule: `one-cycle` (Smith and Topin, arXiv:1708.07120) or `constant`.
        optimizer: `adam`, `adamw`, or `sgd` (momentum 0.9).
        patience: stop after this many epochs without a better validation loss; None trains all epochs.
        seed: of the initial weights, the order of samples and dropout.

    Raises:
        UsageError: a value is out of its range.
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _expect(_is_count(self.epochs, 1), "epochs", self.epochs, "a whole number from 1")
        _expect(_is_count(self.batch_size, 1), "batch_size", self.batch_size, "a whole number from 1")
        _expect(_is_real(self.learning_rate) and self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _expect(_is_real(self.weight_decay) and self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or above")
        _expect(self.schedule in ("one-cycle", "constant"), "schedule", self.schedule, "'one-cycle' or 'constant'")
        _expect(self.optimizer in ("adam", "adamw", "sgd"), "optimizer", self.optimizer, "'adam', 'adamw' or 'sgd'")
        _expect(
            self.patience is None or _is_count(self.patience, 1), "patience", self.patience, "a whole number or None"
        )
        _expect(_is_count(self.seed, 0), "seed", self.seed, "a whole number from 0")

    @classmethod
    def of(cls, named: dict[str, Any]) -> TrainingSettings:
        """Settings from a dict as written in a model file.

        Raises:
            UsageError: a name is unknown, with the nearest ones; or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in named:
            if name not in known:
                raise UsageError(f"training has no setting {name!r}", mend=did_you_mean(str(name), known))
        return cls(**named)

    def text(self) -> str:
        """All settings on one line, in order: the same text is the same training."""
        return ", ".join(f"{name}={value!r}" for name, value in asdict(self).items())


def _expect(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"training: {name}={value!r}, expected {expected}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def epochs_text(count: int) -> str:
    """`1 epoch`, `3 epochs`."""
    return "1 epoch" if count == 1 else f"{count} epochs"
