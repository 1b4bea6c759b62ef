"""What a search tells whoever watches it: events as they happen, for a progress display or a log."""

from __future__ import annotations

from dataclasses import dataclass

from .figures import Figures
from .objectives import Constraint, Objective
from .records import Record
from .space import Space


@dataclass(frozen=True)
class Opening:
    """What is known when a search begins.

    Args:
        space: where candidates come from.
        strategy: who proposes them.
        trials: how many may be paid for.
        paid: how many were paid for before, where a study is continued.
        objectives: what is optimised.
        constraints: what candidates must keep.
        baseline: the source network's figures.
        notices: what a reader must know, as sentences.
    """

    space: Space
    strategy: str
    trials: int
    paid: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    baseline: Figures
    notices: tuple[str, ...] = ()


class Observer:
    """Watches a search. Every method may be overridden; by itself each does nothing."""

    def stage(self, text: str) -> None:
        """Something other than a trial begins: `baseline`, `confirming`, `test`, `measuring`, `writing`."""

    def opened(self, opening: Opening) -> None:
        """The trials begin."""

    def notice(self, text: str) -> None:
        """Something a reader must know, as a sentence."""

    def trial_started(self, number: int, origin: str, pipeline: str) -> None:
        """A candidate is about to be evaluated."""

    def rung(self, number: int, name: str) -> None:
        """A trial's evaluation enters a rung: `static`, `calibrate`, `quality`, `measure`, `train`."""

    def trial_finished(self, record: Record, paid: int) -> None:
        """A trial was told; `paid` candidates have been paid for so far."""

    def closed(self) -> None:
        """All is written."""
