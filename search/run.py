"""A whole search: the baseline, the reference, the trials, the winner, and everything written down."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..compiler.analyses.branches import branches
from ..ir.errors import NascError, UsageError
from ..targets.statistics import Verdict
from .allocation import Proposals
from .budgets import allocator, largest_budget, saved
from .config import Settings
from .evaluate import Ladder
from .figures import Figures, as_dict, of_dict
from .files import append_line
from .finish import Finish
from .forecast import Forecast
from .front import Rule
from .generations import Generations
from .goals import Goals, expect_readable, goals, winner_rule
from .objectives import TOLERANCE, directions, is_scalar, parse_objectives, parse_tolerance
from .observer import Observer, Opening
from .output import CONFIG, TRIALS, write_result, write_settings, write_trials
from .polish import Polish
from .protocols import Problem
from .records import Record
from .result import Result
from .seeds import REFERENCE, Plan
from .sensitivity import Sensitivity
from .space import FORMAT_PARTS, Space, build_space
from .space_rules import parse_rule
from .strategies import check_strategy, parameters
from .study import OpenStudy
from .survey import BEFORE, described_space
from .trials import Trials

SAFETY = {"isolate", "limit_s", "memory_limit_bytes"}
"""Settings of measuring that change no figure: a study goes on when they are changed."""

ONLY_FASTER = (
    "uniform 8 bits take longer than float here; `--only-faster` leaves those layers real whose integers do not pay"
)


class Interrupted(NascError):
    """The search was stopped from outside; what it found out is kept."""

    exit_code = 130


def search(problem: Problem, settings: Settings, output: Path, observer: Observer | None = None) -> Result:
    """Search for the best network, or continue the search in this folder, and write what it found.

    Args:
        problem: the network, who makes candidates of it and who judges them.
        settings: what is asked for.
        output: the output folder: new, empty, or of the same search.
        observer: is told what happens.

    Raises:
        UsageError: settings that cannot be met, or a folder that holds something else.
        Interrupted: Ctrl-C; the same call continues.
        NascError: candidates fail one after the other, or none keeps the constraints.
    """
    observer = observer or Observer()
    space = check_settings(problem, settings)
    with OpenStudy(output, settings.search.storage, identity(problem, settings, space), problem.name) as study:
        try:
            result = _search(problem, settings, space, study, observer)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped after {sum(r.paid for r in study.records)} candidates, all of which are kept",
                mend=f"The same command continues: {command(problem, output)}",
            ) from None
    observer.closed()
    return result


def check_settings(problem: Problem, settings: Settings) -> Space:
    """Refuse settings that cannot be met, as far as that shows before candidates are made.

    Args:
        problem: the network; its weights may be untrained.
        settings: what is asked for.

    Returns:
        The space that they describe.

    Raises:
        UsageError: a rule of the space, the strategy, an objective, a constraint or the tolerance cannot be used.
    """
    space = space_of(problem, settings)
    check_strategy(settings.search.strategy, space, objectives=expect_readable(problem, settings))
    expect_trainable(problem, settings)
    return space


def _search(problem: Problem, settings: Settings, space: Space, study: OpenStudy, observer: Observer) -> Result:
    baseline, wanted = _opened(problem, settings, study, observer)
    write_settings(study.output, settings)
    write_trials(study.output, tuple(study.records))
    ladder = Ladder(
        problem.builder,
        problem.judge,
        wanted.objectives,
        wanted.constraints,
        baseline,
        settings.search.confidence,
        settings.training.epochs,
    )
    if settings.search.forecast and "latency" in wanted.measured:
        ladder = replace(ladder, forecast=Forecast.opened(study.output, baseline["latency"], study.records))
    plan = _plan(problem, settings, space, wanted, baseline, _sensitivity(problem, settings, space, study, observer))
    notices = [*wanted.notices, *space.left_out]
    trials = Trials(
        study=study,
        space=space,
        ladder=ladder,
        strategy=settings.search.strategy,
        seed=settings.seed,
        trials=settings.search.trials,
        plan=plan if settings.search.seeds else None,
        observer=_Writing(observer, study.output, notices),
        deadline=None if settings.search.time_limit_s is None else time.monotonic() + settings.search.time_limit_s,
        proposals=_proposals(problem, settings, plan, wanted, baseline),
    )
    observer.opened(
        Opening(
            space,
            settings.search.strategy,
            settings.search.trials,
            trials.paid,
            wanted.objectives,
            wanted.constraints,
            baseline,
            tuple(notices),
        )
    )
    if plan.reference() is None:  # measured before the trials, as the trial would be that is it
        _reference_beside(problem, space, ladder, study, observer)
    trials.run()
    reference = _reference_told(space, plan, study) or _reference_beside(problem, space, ladder, study, observer)
    if not settings.search.only_faster and slower_in_8_bits(reference):
        trials.observer.notice(ONLY_FASTER)
    if ladder.forecast is not None and (told := ladder.forecast.summary()) is not None:
        trials.observer.notice(told)
    rule = winner_rule(problem, settings, wanted)
    polish = Polish(problem, study, ladder, rule, observer, settings.training.finalist_epochs)
    if settings.training.generations:
        polish.generations = _generations(problem, settings, study, ladder, rule, observer, trials.deadline)
    finish = Finish(problem, study, ladder, wanted, rule, observer, notices, command(problem, study.output), polish)
    result = finish.run(reference)
    observer.stage("writing the report")
    write_result(result, problem, settings)
    return result


def space_of(problem: Problem, settings: Settings, *, generations: bool = False) -> Space:
    """The search space that settings describe on this network.

    Args:
        problem: the network.
        settings: its rules; none for the default.
        generations: whether it is for candidates that are trained after the trials.

    Raises:
        UsageError: a rule names no layer, an unknown format or size.
    """
    blocks = branches(problem.builder.structure(BEFORE).graph)
    return described_space(problem.builder.graph, blocks, settings, problem.target, generations=generations)


def _generations(
    problem: Problem,
    settings: Settings,
    study: OpenStudy,
    ladder: Ladder,
    rule: Rule,
    observer: Observer,
    deadline: float | None,
) -> Generations:
    """The breeding of trained candidates after the trials."""
    space = space_of(problem, settings, generations=True)
    return Generations(problem, study, ladder, rule, observer, space, settings.training, settings.seed, deadline)


def expect_trainable(problem: Problem, settings: Settings) -> None:
    """Refuse training where there is nothing to train on, and generations where nothing says how much quality may be
    lost.

    Raises:
        UsageError: they cannot, or nothing does.
    """
    if settings.training.epochs and not problem.builder.teachable:
        raise UsageError(
            f"{problem.source} names no train_data, so candidates cannot be trained",
            mend="Write `train_data = (x, y)` in it, or leave out --train-epochs.",
        )
    if not settings.training.generations:
        return
    if settings.training.epochs:
        raise UsageError(
            "generations train candidates after a search without training",
            mend="Leave out --train-epochs, or --generations.",
        )
    if not problem.builder.trainable:
        raise UsageError(
            f"generations train candidates, and {problem.source} does not say how",
            mend='Write `train_data = (x, y)` and `training = {"epochs": 20}` in it, or leave out --generations.',
        )
    objectives = parse_objectives(settings.search.objectives, problem.judge.metrics)
    if objectives and (is_scalar(objectives) or not any(o.metric.is_quality for o in objectives)):
        raise UsageError(
            "generations are bred between quality and costs, and these objectives have weights or no quality",
            mend="Name objectives without weights, such as accuracy:max and bit_operations:min.",
        )


def identity(problem: Problem, settings: Settings, space: Space) -> dict[str, str]:
    """What makes two searches the same: all that decides which candidates are proposed, and what they are told."""
    chosen = settings.search
    return {
        "network": problem.builder.digest,
        "target": problem.target,
        "objectives": ", ".join(chosen.objectives) or "default",
        "constraints": ", ".join(chosen.constraints) or "default",
        "space": f"{space.size:,} configurations, {space.digest[:16]}",
        "strategy": chosen.strategy,
        "seeds": str(chosen.seeds).lower(),
        "sensitivity": f"{chosen.sensitivity_samples} samples" if chosen.seeds or chosen.strategy == "ilp" else "none",
        "seed": str(settings.seed),
        "forecast": str(chosen.forecast).lower(),
        "confidence": f"{chosen.confidence:g}",
        "training": ", ".join(f"{k}={v}" for k, v in settings.training.model_dump().items()),
        "measure": ", ".join(f"{k}={v}" for k, v in settings.measure.model_dump(exclude=SAFETY).items()),
    }


def command(problem: Problem, output: Path) -> str:
    """One command that does it all again; in the same folder it continues."""
    words = problem.command or ("nasc", "compile", problem.source, *problem.words, "--config", str(output / CONFIG))
    return shlex.join([*words, "--output", str(output)])


def _opened(problem: Problem, settings: Settings, study: OpenStudy, observer: Observer) -> tuple[Figures, Goals]:
    """The baseline's figures and the goals: from the study where it was begun before, else found out now."""
    kept: Mapping[str, Any] | None = study.recall("setup") if study.exists else None
    if kept is None:
        observer.stage("the source network: costs, quality, time")
        wanted = goals(problem, settings)
        judge, source = problem.judge, problem.builder.source()
        figures = {**judge.static(source), **judge.quality(source, "validation")}
        if wanted.measured:
            figures.update(judge.measure(source, wanted.measured))
        study.create(directions(wanted.objectives))
        study.remember("setup", {"baseline": as_dict(figures), "goals": wanted.as_dict()})
        return figures, wanted
    study.create(())
    return of_dict(kept["baseline"]), Goals.of(kept["goals"], problem.judge.metrics)


def _sensitivity(
    problem: Problem, settings: Settings, space: Space, study: OpenStudy, observer: Observer
) -> Sensitivity | None:
    """What each choice hurts alone: from the study, or measured now; None where nobody asks for it or can say."""
    samples = settings.search.sensitivity_samples
    asked = settings.search.seeds or settings.search.strategy == "ilp"
    if problem.sensitivity is None or not samples or not asked or not any(k.part in FORMAT_PARTS for k in space.free):
        return None
    if (kept := study.recall("sensitivity")) is not None:
        return Sensitivity.of_dict(kept)
    observer.stage("what each choice of bits hurts alone")
    found = problem.sensitivity(space, samples)
    study.remember("sensitivity", found.as_dict())
    return found


def _plan(
    problem: Problem,
    settings: Settings,
    space: Space,
    wanted: Goals,
    baseline: Figures,
    sensitive: Sensitivity | None,
) -> Plan:
    builder, quality = problem.builder, problem.quality
    costs = problem.judge.layers(builder.structure(space.pipeline(space.largest)))
    tolerance = parse_tolerance(settings.search.tolerance or TOLERANCE.get(quality.dimension, "2%"), quality)
    macs = {layer: cost.get("macs", 0.0) for layer, cost in costs.items()}
    plan = Plan(space, quality, tolerance, macs, settings.search.trials)
    if sensitive is None:
        return plan
    start = plan.reference() or plan.uniform(8, 8)
    solver, _ = allocator(problem, space, start, saved(wanted, space), baseline)
    by_loss = sensitive.slope is not None and any(m.name == "loss" for m in problem.judge.metrics)
    comparable = by_loss or quality.dimension == "decibel"
    return replace(plan, table=sensitive.hurts() if comparable else None, allocator=solver)


def _proposals(problem: Problem, settings: Settings, plan: Plan, wanted: Goals, baseline: Figures) -> Proposals | None:
    """Who proposes candidates in place of Optuna."""
    if settings.search.strategy != "ilp" or not plan.formats:
        return None
    name, start = saved(wanted, plan.space), plan.reference() or plan.uniform(8, 8)
    solver, apart = allocator(problem, plan.space, start, name, baseline)
    value = baseline[plan.quality.name].value
    most = largest_budget(wanted, name, baseline, apart)
    return Proposals(solver, lambda records: plan.thought(records, value), most)


def _reference_beside(
    problem: Problem, space: Space, ladder: Ladder, study: OpenStudy, observer: Observer
) -> Record | None:
    """The network in uniform 8 bits, evaluated beside the trials: no constraint ends it, and nobody trains it."""
    kept = study.recall("reference")
    if kept is not None:
        return Record.of(kept)
    observer.stage("the network in uniform 8 bits, for comparison")
    everything = build_space(
        problem.builder.graph,
        [parse_rule("*: weights=i8, activations=u8")],
        before=space.before,
        between=space.between,
        after=space.after,
    )
    pipeline = everything.pipeline(everything.largest)
    record = Record(-1, "failed", REFERENCE, pipeline, {})
    free = Ladder(ladder.builder, ladder.judge, ladder.objectives, (), ladder.baseline, ladder.confidence)
    record = free.climb(record, problem.builder.structure(pipeline), (), lambda name: None)
    if record.state == "failed":
        observer.notice(f"the network in uniform 8 bits cannot be evaluated: {record.reason}")
        return None
    study.remember("reference", record.as_dict())
    return record


def _reference_told(space: Space, plan: Plan, study: OpenStudy) -> Record | None:
    """The trial that was the network in uniform 8 bits; None where none was, or a constraint ended it early."""
    wanted = plan.reference()
    if wanted is None:
        return None
    told = (r for r in study.records if parameters(space, r.assignment) == parameters(space, wanted))
    return next((r for r in told if r.state != "pruned"), None)


def slower_in_8_bits(reference: Record | None) -> bool:
    """Whether the network in uniform 8 bits was measured and is slower than in float."""
    figure = None if reference is None else reference.figures.get("latency")
    return figure is not None and figure.verdict == Verdict.SLOWER


class _Writing(Observer):
    """Writes a line per trial, keeps what is noticed, and passes everything on."""

    def __init__(self, observer: Observer, output: Path, notices: list[str]) -> None:
        self._observer = observer
        self._output = output
        self._notices = notices

    def notice(self, text: str) -> None:
        self._notices.append(text)
        self._observer.notice(text)

    def trial_started(self, number: int, origin: str, pipeline: str) -> None:
        self._observer.trial_started(number, origin, pipeline)

    def rung(self, number: int, name: str) -> None:
        self._observer.rung(number, name)

    def trial_finished(self, record: Record, paid: int) -> None:
        append_line(self._output / TRIALS, record.as_dict())
        self._observer.trial_finished(record, paid)
