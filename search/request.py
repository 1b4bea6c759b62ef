"""What shows to be wrong in the settings alone, before a network is loaded, lowered or trained."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..compiler.frontend.task import Task
from ..targets import target_named
from ..targets.measure import Conditions
from .config import MeasureSettings, Settings
from .figures import UnknownMetric
from .objectives import expect_tolerance, parse_constraint, parse_objectives
from .strategies import expect_strategy
from .study import check_output, check_storage


def check_request(settings: Settings, output: Path) -> None:
    """Refuse what no network could be searched with. Metrics that are not known may be the model file's own.

    Raises:
        UsageError: the strategy, the target, how to measure, an objective, a constraint, the tolerance, the storage or
            the output folder cannot be used.
    """
    expect_strategy(settings.search.strategy)
    target_named(settings.target)
    conditions(settings.measure)
    wanted = settings.search.objectives
    for texts in (*((text,) for text in wanted), wanted):
        with suppress(UnknownMetric):
            parse_objectives(texts)
    for text in settings.search.constraints:
        with suppress(UnknownMetric):
            parse_constraint(text)
    if settings.search.tolerance is not None:
        expect_tolerance(settings.search.tolerance)
    check_storage(settings.search.storage)
    check_output(output)


def trains(task: Task, settings: Settings) -> bool:
    """Whether a search of a task may train candidates: all of them, or its finalists."""
    chosen = settings.training
    finalists = task.training is not None and (chosen.finalist_epochs or chosen.generations)
    return "train" in task.splits and bool(chosen.epochs or finalists)


def conditions(chosen: MeasureSettings) -> Conditions:
    """How candidates are measured.

    Raises:
        UsageError: see `Conditions`.
    """
    return Conditions(
        batch=chosen.batch,
        threads=chosen.threads,
        budget_s=chosen.budget_s,
        meter=chosen.meter,
        limit_s=chosen.limit_s,
        memory_limit_bytes=chosen.memory_limit_bytes,
    )
