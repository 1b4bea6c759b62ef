"""What is kept of every trial: one line of `trials.jsonl`, and all that a continued search needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .figures import Figure, Figures, as_dict, of_dict

TRAINED = 1_000_000
"""Added to a trial's number for what training made of it at the end of the search."""
BRED = 1_000_000_000
"""Added to the number of a candidate of `generations`, counted from 0."""

State = Literal["complete", "pruned", "failed"]


def label(number: int) -> str:
    """How people call a trial of this number."""
    bred, rest = divmod(number, BRED)
    trained, first = divmod(rest, TRAINED)
    return f"{'g' if bred else ''}{first}{' trained' if trained else ''}"


@dataclass(frozen=True)
class Record:
    """A trial that was told.

    Args:
        number: of the trial in the study; numbers of interrupted trials are missing.
        state: all figures known; ended early by a rung of the evaluation; or failed.
        origin: who proposed it: a strategy's name, or what the search itself had in mind.
        pipeline: the candidate.
        assignment: the choice of each knob.
        key: of its structure; None where building it failed.
        figures: what is known of it.
        rungs: seconds that each step of its evaluation took.
        reason: why it was ended early, or failed.
        violations: by how much each constraint is missed, relative to its bound; 0 or less is kept.
        timing: the timing key, where it was measured.
        curve: quality after each epoch of training.
        duplicate_of: the trial that paid for it.
        trace: the traceback of a failure that is a fault of nasc or of a library.
        epochs: of training after the search; 0 for what the search itself evaluated.
        forecast: latency as it was expected before measuring; an estimate that no figure stands on.
    """

    number: int
    state: State
    origin: str
    pipeline: str
    assignment: Mapping[str, str]
    key: str | None = None
    figures: Figures = field(default_factory=dict[str, Figure])
    rungs: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str | None = None
    violations: Mapping[str, float] = field(default_factory=dict[str, float])
    timing: str | None = None
    curve: tuple[Figure, ...] = ()
    duplicate_of: int | None = None
    trace: str | None = None
    epochs: int = 0
    forecast: Figure | None = None

    @property
    def label(self) -> str:
        """How people call it: the trial's number, and whether it was trained after the search."""
        return label(self.number)

    @property
    def bred(self) -> bool:
        """Whether it comes of `generations`, which chose it by the validation quality of trained candidates."""
        return self.number >= BRED

    @property
    def paid(self) -> bool:
        """Whether it cost something."""
        return self.duplicate_of is None

    @property
    def feasible(self) -> bool:
        """Whether it is complete and keeps all constraints."""
        return self.state == "complete" and all(v <= 0 for v in self.violations.values())

    def repeated(self, number: int, origin: str, pipeline: str, assignment: Mapping[str, str]) -> Record:
        """The same result for a trial that proposed the same candidate again."""
        first = self.number if self.duplicate_of is None else self.duplicate_of
        return replace(
            self, number=number, origin=origin, pipeline=pipeline, assignment=assignment, duplicate_of=first, rungs={}
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without what is empty."""
        data: dict[str, Any] = {
            "number": self.number,
            "state": self.state,
            "origin": self.origin,
            "pipeline": self.pipeline,
            "assignment": dict(self.assignment),
            "key": self.key,
            "figures": as_dict(self.figures),
            "rungs": {name: round(seconds, 6) for name, seconds in self.rungs.items()},
            "reason": self.reason,
            "violations": dict(self.violations),
            "timing": self.timing,
            "curve": [figure.as_dict() for figure in self.curve],
            "duplicate_of": self.duplicate_of,
            "trace": self.trace,
            "epochs": self.epochs or None,
            "forecast": None if self.forecast is None else self.forecast.as_dict(),
        }
        return {k: v for k, v in data.items() if v is not None and v != {} and v != []}

    @staticmethod
    def of(data: Mapping[str, Any]) -> Record:
        """The record that `as_dict` gave."""
        known: dict[str, Any] = {"assignment": {}, **data}
        known["figures"] = of_dict(known.get("figures", {}))
        known["curve"] = tuple(Figure.of(entry) for entry in known.get("curve", ()))
        if known.get("forecast") is not None:
            known["forecast"] = Figure.of(known["forecast"])
        return Record(**known)
