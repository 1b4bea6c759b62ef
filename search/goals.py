"""From settings to goals: which objectives and constraints count, and by which rule the winner is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..compiler.losses import default_loss
from ..ir.errors import UsageError
from .config import Settings
from .figures import METRICS, Metric
from .front import Rule
from .metrics import DIRECTIONS
from .metrics import metric_named as metric_of_labels
from .objectives import (
    SLACK,
    TOLERANCE,
    Constraint,
    Objective,
    is_scalar,
    parse_constraint,
    parse_objectives,
    parse_tolerance,
)
from .protocols import Judge, Problem


@dataclass(frozen=True)
class Goals:
    """What counts in a search.

    Args:
        objectives: what is optimised.
        constraints: what candidates must keep.
        notices: what was decided for the user, and why, as sentences.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "objectives": [str(o) for o in self.objectives],
            "constraints": [str(c) for c in self.constraints],
            "notices": list(self.notices),
        }

    @staticmethod
    def of(data: Mapping[str, Any], own: Sequence[Metric]) -> Goals:
        """The goals that `as_dict` gave."""
        return Goals(
            parse_objectives(data["objectives"], own),
            tuple(parse_constraint(text, own) for text in data["constraints"]),
            tuple(data["notices"]),
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics among them that must be measured on the target."""
        wanted = [o.metric for o in self.objectives] + [c.metric for c in self.constraints]
        return tuple(dict.fromkeys(m.name for m in wanted if m.rung == "measure"))


def asked_qualities(settings: Settings, own: Mapping[str, Any]) -> tuple[str, ...]:
    """The qualities of labels that objectives and constraints name, in their order.

    Args:
        settings: what is asked for.
        own: the model file's metrics.

    Raises:
        UsageError: a text is no objective or constraint, or names no metric; or what the file gives is none.
    """
    mine = [Metric(n, metric_of_labels(n, default_loss, own).direction, "number", "quality", n) for n in own]
    found = [o.metric for o in parse_objectives(settings.search.objectives, mine)]
    found += [parse_constraint(text, mine).metric for text in settings.search.constraints]
    return tuple(dict.fromkeys(m.name for m in found if m.name in own or m.name in DIRECTIONS))


def goals(problem: Problem, settings: Settings) -> Goals:
    """The goals that settings ask for (see `expect_readable`), or nasc's own."""
    judge, own = problem.judge, problem.judge.metrics
    objectives = parse_objectives(settings.search.objectives, own)
    constraints = tuple(parse_constraint(text, own) for text in settings.search.constraints)
    if objectives:
        return Goals(objectives, constraints)
    quality = Objective(problem.quality, problem.quality.direction)
    cost, notices = _cost(judge)
    slack = parse_tolerance(SLACK.get(quality.metric.dimension, "10%"), quality.metric)
    if not any(c.metric == quality.metric for c in constraints):
        constraints = (slack, *constraints)
        notices = (*notices, f"candidates are let go where {slack} does not hold")
    return Goals((quality, Objective(cost, "min")), constraints, notices)


def expect_readable(problem: Problem, settings: Settings) -> int:
    """Read all goals without finding out anything that costs time.

    Returns:
        How many values a sampler will be told.

    Raises:
        UsageError: an objective, a constraint or the tolerance cannot be read, or cannot be had here.
    """
    own = problem.judge.metrics
    objectives = parse_objectives(settings.search.objectives, own)
    metrics = [o.metric for o in objectives]
    metrics += [parse_constraint(text, own).metric for text in settings.search.constraints]
    for metric in metrics:
        _expect_available(metric, problem.judge)
    if settings.search.tolerance is not None:
        parse_tolerance(settings.search.tolerance, problem.quality)
    return 1 if is_scalar(objectives) else len(objectives) or 2


def _cost(judge: Judge[Any]) -> tuple[Metric, tuple[str, ...]]:
    """What to make small beside keeping quality."""
    bits = METRICS["bit_operations"]
    if reason := judge.unavailable.get("latency"):
        return bits, (f"latency cannot be measured ({reason}); bit operations take its place",)
    if reason := judge.overhead_bound():
        return bits, (f"{reason.rstrip('.')}; bit operations take latency's place as objective",)
    return METRICS["latency"], ()


def _expect_available(metric: Metric, judge: Judge[Any]) -> None:
    if reason := judge.unavailable.get(metric.name):
        raise UsageError(f"{metric.name} cannot be had here: {reason}")
    known = [m.name for m in judge.metrics]
    if metric.name not in known:
        raise UsageError(f"{metric.name} cannot be had for this network", mend=f"What can: {', '.join(sorted(known))}.")


def winner_rule(problem: Problem, settings: Settings, goals: Goals) -> Rule:
    """By which rule the winner is chosen.

    Raises:
        UsageError: the tolerance cannot be read.
    """
    qualities = [o.metric for o in goals.objectives if o.metric.is_quality]
    quality = qualities[0] if qualities else None
    tolerance = None
    if quality is not None and not is_scalar(goals.objectives):
        tolerance = parse_tolerance(settings.search.tolerance or TOLERANCE.get(quality.dimension, "2%"), quality)
    costs = [o.metric for o in goals.objectives if not o.metric.is_quality and o.metric.name != "latency"]
    decide = tuple(dict.fromkeys([*costs, METRICS["bit_operations"], METRICS["size"]]))
    watch = any(o.metric.name == "latency" for o in goals.objectives)
    return Rule(quality, tolerance, goals.objectives, decide, watch, settings.search.confidence)
