"""Forecast latencies from the profiles of candidates that were measured, so that hopeless ones need no measuring.

A forecast ends a candidate only where its whole interval lies on the wrong side, and is kept as what it is: an
estimate. Every figure that the search trades or reports is measured; what forecasts were worth is told in the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ..targets.latency_model import FEWEST, Example, LatencyModel, OpWork, disturbed, fit, spearman
from .figures import Figure, clearly_better, value_text
from .files import append_line
from .objectives import Constraint, Objective
from .records import Record

EXAMPLES = "forecast.jsonl"
"""One line per candidate that was measured and profiled."""
LATENCY = "latency"
GROWTH = 1.2
"""The model is fitted anew when there are so many times the examples of the last fit."""


@dataclass
class Forecast:
    """A model of latency that learns while the search goes on.

    Args:
        output: folder where examples are kept, so that a continued search knows them.
        baseline: the source network's latency. Other latencies are taken as their ratio to it, measured in turns,
            times this one, so that a machine that becomes slower or faster meanwhile changes nothing.
        examples: the candidates that were measured and profiled.
        pairs: forecasts and what was measured afterwards, in seconds.
        unmeasured: candidates that a forecast ended.
    """

    output: Path
    baseline: Figure
    examples: list[Example] = field(default_factory=list[Example])
    pairs: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    unmeasured: int = 0
    _model: LatencyModel | None = None

    @staticmethod
    def opened(output: Path, baseline: Figure, records: Sequence[Record]) -> Forecast:
        """The forecast of a new search, or of one that goes on.

        Args:
            output: the search's folder.
            baseline: the source network's latency.
            records: the trials that were told.
        """
        found = Forecast(output, baseline)
        path = output / EXAMPLES
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found.examples = [example_of(data) for line in lines if (data := _whole(line)) is not None]
        for record in records:
            if record.paid:
                found.told(record)
        return found

    def foresee(self, work: Sequence[OpWork]) -> Figure | None:
        """The latency to expect of a network; None while too little is known, or of ops that nothing is known of.

        Args:
            work: what its ops have to do.
        """
        if len(self.examples) < FEWEST:
            return None
        if self._model is None or len(self.examples) >= GROWTH * self._model.examples:
            self._model = fit(self.examples)
        found = self._model.predict(work)
        if found.unknown:
            return None
        note = f"forecast from the profiles of {len(self.examples)} networks"
        return Figure(found.seconds, "estimated", low=found.low, high=found.high, notes=(note,))

    def learn(self, work: Sequence[OpWork], times_s: Mapping[str, float], latency: Figure) -> None:
        """Take in a candidate that was measured, unless its profile was disturbed.

        Args:
            work: what its ops have to do.
            times_s: what each op took by the profiler; they are made to add up to the latency.
            latency: as it was measured.
        """
        if disturbed(times_s, latency.value):
            return
        latency_s, _ = in_turns(latency, self.baseline)
        scale = latency_s / (sum(times_s.values()) or 1.0)
        example = Example(tuple(work), {name: time_s * scale for name, time_s in times_s.items()}, latency_s)
        self.examples.append(example)
        append_line(self.output / EXAMPLES, as_dict(example))

    def told(self, record: Record) -> None:
        """Hold a trial's forecast against what became of it."""
        if record.forecast is None:
            return
        if LATENCY in record.figures:
            self.pairs.append((record.forecast.value, in_turns(record.figures[LATENCY], self.baseline)[0]))
        elif record.state == "pruned" and record.reason is not None and record.reason.startswith(REASON):
            self.unmeasured += 1

    def summary(self) -> str | None:
        """What forecasts were worth, as a sentence; None where there were none."""
        if not self.pairs and not self.unmeasured:
            return None
        text = f"{self.unmeasured} candidates were not measured because of their forecast latency"
        if self.pairs:
            error = median(abs(guess / found - 1) for guess, found in self.pairs)
            rank = spearman(*zip(*self.pairs, strict=True))
            text += f"; of {len(self.pairs)} that were, forecasts missed by {error:.1%} (median)"
            text += f", rank correlation {rank:.2f}"
        return text


def in_turns(latency: Figure, baseline: Figure) -> tuple[float, float]:
    """A latency and the upper end of its interval, by their ratio to the baseline where that was measured."""
    if latency.ratio is not None:
        high = latency.ratio if latency.ratio_high is None else latency.ratio_high
        return latency.ratio * baseline.value, high * baseline.value
    return latency.value, latency.value if latency.high is None else latency.high


REASON = "forecast: "
"""How the reason of a candidate begins that a forecast ended."""


def missed(constraints: Sequence[Constraint], forecast: Figure, baseline: Figure, confidence: float) -> str | None:
    """The constraint that even the better end of a forecast misses, as a reason; None where there is none."""
    best = Figure(forecast.value if forecast.low is None else forecast.low, "estimated")
    for constraint in constraints:
        if constraint.metric.name == LATENCY and constraint.violation(best, baseline, confidence) > 0:
            return f"{REASON}{_shown(constraint.metric, forecast)} misses {constraint}"
    return None


def beaten(
    record: Record,
    forecast: Figure,
    known: Sequence[Record],
    objectives: Sequence[Objective],
    baseline: Figure,
    confidence: float,
) -> str | None:
    """The trial that is clearly better in quality, no worse in other costs, and faster than the better end of a
    forecast, as a reason; None where there is none.

    Args:
        record: the candidate, all but its latency known.
        forecast: its latency to expect.
        known: trials that were told.
        objectives: what is searched for; latency among them, to be small.
        baseline: the source network's latency.
        confidence: of clear differences.
    """
    wanted = {o.metric.name: o for o in objectives}
    if LATENCY not in wanted or wanted[LATENCY].direction != "min" or forecast.low is None:
        return None
    others = [o for o in objectives if o.metric.name != LATENCY]
    if not any(o.metric.is_quality for o in others):
        return None
    for other in known:
        if not other.feasible or LATENCY not in other.figures:
            continue
        _, slowest = in_turns(other.figures[LATENCY], baseline)
        if slowest < forecast.low and all(_no_worse(other, record, o, confidence) for o in others):
            return f"{REASON}{_shown(wanted[LATENCY].metric, forecast)}; trial {other.label} is better and faster"
    return None


def _no_worse(other: Record, record: Record, objective: Objective, confidence: float) -> bool:
    name = objective.metric.name
    if name not in other.figures or name not in record.figures:
        return False
    theirs, ours = other.figures[name], record.figures[name]
    if objective.metric.is_quality:
        return clearly_better(theirs, ours, objective.direction, confidence)
    return theirs.value <= ours.value if objective.direction == "min" else theirs.value >= ours.value


def _shown(metric: Any, forecast: Figure) -> str:
    ends = [value_text(metric, end) for end in (forecast.low, forecast.high) if end is not None]
    return f"latency {value_text(metric, forecast.value)} ({' to '.join(ends)})"


def as_dict(example: Example) -> dict[str, Any]:
    """An example as plain data."""
    return {
        "latency_s": example.latency_s,
        "times_s": dict(example.times_s),
        "work": [[entry.name, list(entry.kind), list(entry.amounts)] for entry in example.work],
    }


def example_of(data: Mapping[str, Any]) -> Example:
    """The example that `as_dict` gave."""
    work = tuple(OpWork(name, tuple(kind), tuple(amounts)) for name, kind, amounts in data["work"])
    return Example(work, data["times_s"], data["latency_s"])


def _whole(line: str) -> dict[str, Any] | None:
    """A line's data; None for one that a kill cut off."""
    try:
        return json.loads(line)
    except ValueError:
        return None
