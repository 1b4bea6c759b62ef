"""How far two runs of a network agree, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..ir import NascError

Run: TypeAlias = "Callable[..., Any]"
"""Takes the inputs as separate arguments, and gives an array or a sequence of arrays."""


@dataclass(frozen=True)
class OutputAgreement:
    """How far one output of two runs agrees; the first run is the reference.

    Args:
        max_difference: largest absolute difference, in units of the reference's largest absolute value.
        sqnr_db: power of the reference over power of the difference, in decibels; infinite where they are equal.
        top1: share of rows whose largest entry along the last axis is the same; None for vectors and single columns.
        elements: how many numbers were compared.
    """

    max_difference: float
    sqnr_db: float
    top1: float | None
    elements: int


@dataclass(frozen=True)
class Agreement:
    """How far two runs agree.

    Args:
        outputs: one entry per output, in order.
    """

    outputs: tuple[OutputAgreement, ...]

    @property
    def max_difference(self) -> float:
        """The largest of all outputs."""
        return max(o.max_difference for o in self.outputs)

    @property
    def sqnr_db(self) -> float:
        """The smallest of all outputs."""
        return min(o.sqnr_db for o in self.outputs)

    @property
    def top1(self) -> float | None:
        """The smallest of all outputs that have classes."""
        return min((o.top1 for o in self.outputs if o.top1 is not None), default=None)


def agree(reference: Run, other: Run, inputs: Sequence[Any]) -> Agreement:
    """Run both on the same inputs and compare each output.

    Args:
        reference: the run to compare with.
        other: the run in question.
        inputs: what both are given, as separate arguments.

    Raises:
        NascError: they give different numbers of outputs, other shapes, or the reference gives what is not finite.
    """
    expected, found = (_arrays(run(*inputs)) for run in (reference, other))
    if len(expected) != len(found):
        raise NascError(f"the runs give {len(expected)} and {len(found)} outputs")
    return Agreement(tuple(_compare(i, a, b) for i, (a, b) in enumerate(zip(expected, found, strict=True))))


def _arrays(result: Any) -> list[NDArray[Any]]:
    several = result if isinstance(result, list | tuple) else [result]
    return [np.asarray(value) for value in several]


def _compare(index: int, expected: NDArray[Any], found: NDArray[Any]) -> OutputAgreement:
    if expected.shape != found.shape:
        raise NascError(f"output {index} has the shapes {list(expected.shape)} and {list(found.shape)}")
    a, b = expected.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(a).all():
        raise NascError(f"output {index} of the reference holds values that are not finite")
    largest, difference = float(np.abs(a).max(initial=0)), np.abs(a - b)
    worst = float(np.nan_to_num(difference, nan=np.inf).max(initial=0))
    top1 = None
    if a.ndim >= 2 and a.shape[-1] > 1 and a.size:
        top1 = float((a.argmax(-1) == b.argmax(-1)).mean())
    return OutputAgreement(worst / largest if largest else worst, sqnr_db(a, b), top1, a.size)


def sqnr_db(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """The ratio of a signal's power to that of an error, `10 log10(sum(a^2) / sum((a - b)^2))`, in decibels."""
    noise = float(((reference - other) ** 2).sum())
    signal = float((reference**2).sum())
    if noise == 0:
        return float("inf")
    if not np.isfinite(noise) or signal == 0:
        return float("-inf")
    return float(10 * np.log10(signal / noise))
