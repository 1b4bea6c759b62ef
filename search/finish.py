"""After the trials: confirm who wins, take its quality on test samples, measure it again, write its files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..ir import Graph, NascError, layers, operand
from ..ir.axes import size
from ..targets.isolation import WorkerError, twice
from .containers import containers
from .evaluate import Ladder
from .figures import Figure, Figures, as_dict, of_dict
from .front import Point, Rule, pareto
from .goals import Goals
from .observer import Observer
from .output import deploy, deployed_files
from .polish import Polish
from .protocols import UNCHECKED, Deployed, Judge, Problem
from .records import Record
from .result import LayerRow, Named, Result
from .smooth import line, smoothed
from .study import OpenStudy
from .unmet import why

SURE = 3
"""Second looks after which it is known how far validation deceives."""
HOPE, GROWING = 0.3, 0.1
"""Share of the error that an expected figure must keep from the tolerance to be looked at, and what each refusal adds:
so that not every one of many like candidates gets its chance to be lucky, and the safer ones come in sight."""
CONFIRMED = 16
"""How many candidates are looked at a second time, at most, before the search is content with the best quality."""
REFERENCE_NAME = "uniform 8 bits"
BASELINE_NAME = "source"


@dataclass(frozen=True)
class Choice:
    """Who won, and what chose it.

    Args:
        record: the winner.
        kept: whether it surely keeps the tolerance, so that the rule chose it; else the best quality did.
        confirmation: its quality on samples that the search did not see; empty where there are none.
        refused: the same of the trials that were to win before it and were not good enough.
    """

    record: Record
    kept: bool
    confirmation: Figures
    refused: Mapping[int, Figures]


@dataclass
class Finish:
    """The end of a search. What it finds out is kept with the study, so that nothing is paid for twice."""

    problem: Problem
    study: OpenStudy
    ladder: Ladder
    goals: Goals
    rule: Rule
    observer: Observer
    notices: list[str]
    command: str
    polish: Polish

    def run(self, reference: Record | None) -> Result:
        """Choose the winner, gather its evidence and write `best/`.

        Args:
            reference: the network in uniform 8 bits, for comparison.

        Raises:
            NascError: no candidate can win, or the winner's file does not compute what the network does.
        """
        records = tuple(self.study.records)
        feasible = [r for r in records if r.paid and r.feasible]
        finalists = self.polish.run(feasible)
        records, feasible = (*records, *self.polish.bred, *finalists), [*feasible, *finalists]
        if not feasible:
            raise NascError(
                f"none of {len(records)} candidates is complete and keeps the constraints",
                mend=why(records, self.goals.constraints),
            )
        choice = self.winner(feasible)
        winner = choice.record
        front = pareto(feasible, self.goals.objectives, self.ladder.confidence)
        best = self.named("best", winner)
        network = _Once(lambda: self.rebuilt(winner))
        measured = self.measured(winner, network)
        best = Named(best.name, best.pipeline, {**best.figures, **measured}, self.tested(winner, network), best.number)
        deployed = self.deployed(best, winner, network)
        rows = self.layer_rows(winner, network)
        self.say_containers(rows, deployed, best.figures)
        ours = None
        if reference is not None:
            ours = Named(
                REFERENCE_NAME,
                reference.pipeline,
                reference.figures,
                self.tested(reference, _Once(lambda: self.rebuilt(reference))),
                reference.number if reference.number >= 0 else None,
            )
        judge = self.problem.judge
        return Result(
            name=self.problem.name,
            source=self.problem.source,
            target=self.problem.target,
            folder=self.study.output,
            goals=self.goals,
            rule=self.rule.sentence(best.figures) if choice.kept else self.rule.otherwise,
            metrics={m.name: m for m in judge.metrics},
            quality=self.problem.quality,
            baseline=Named(BASELINE_NAME, "", {**self.ladder.baseline, **self.source_measured()}, self.source_tested()),
            reference=ours,
            best=best,
            confirmation=choice.confirmation,
            refused=choice.refused,
            deployed=deployed,
            layers=rows,
            front=front,
            trials=records,
            notices=tuple(dict.fromkeys(self.notices)),
            command=self.command,
            seconds=spent(records),
        )

    def winner(self, feasible: Sequence[Record]) -> Choice:
        """The winner, its quality on confirmation samples where there are any, and that of those refused before it.

        Many candidates lie near the tolerance, and the luckiest of them on validation samples would win too often.
        So where there are other samples, the candidates are taken in the rule's order as validation estimates them
        (`smooth`), and the first wins that is good enough at the lower bound of its quality on those. Where there are
        none, validation's own lower bound must do.
        """
        confirming = "confirmation" in self.problem.judge.splits and self.rule.tolerance is not None
        records = {r.number: r for r in feasible}
        points: Sequence[Point] = feasible
        if confirming:
            name = self.problem.quality.name
            fitted = line(self.study.records, name)
            points = [
                Estimated(r.number, r.figures if r.epochs else smoothed(r.figures, name, fitted)) for r in feasible
            ]
        chosen = self.rule.ranked(points, self.ladder.baseline, strict=not confirming)
        if not confirming and chosen:
            return Choice(records[chosen[0].number], True, {}, {})
        refused: dict[int, Figures] = {}
        for point in chosen:
            if len(refused) >= CONFIRMED:
                break
            alike = [p for p in chosen if records[p.number].epochs == records[point.number].epochs]
            if self.hopeless(point, alike, refused):
                continue
            record = records[point.number]
            again = self.confirmed(record)
            if self.rule.keeps_quality(self.as_new_samples(again), self.ladder.baseline):
                return Choice(record, True, again, refused)
            refused[point.number] = again
        best = [r for r in self.rule.best_quality(feasible, self.ladder.baseline) if isinstance(r, Record)]
        self.say(f"no candidate surely keeps {self.rule.tolerance}; the best quality wins instead")
        return Choice(best[0], False, self.confirmed(best[0]) if confirming else {}, refused)

    def confirmed(self, record: Record) -> Figures:
        """A candidate's quality on samples that had no part in choosing it.

        What training made of a finalist was not chosen by validation samples, so these count as well, unless it is one
        of many that were trained and chosen by them.
        """
        again = self.quality(record, "confirmation")
        if not record.epochs or record.bred:
            return again
        name = self.problem.quality.name
        return {**again, name: pooled(again[name], record.figures[name])}

    def hopeless(self, point: Point, all: Sequence[Point], refused: Mapping[int, Figures]) -> bool:
        """Whether a candidate would be refused too, judging by how those refused fell short of what was expected.

        The source network's own luck on validation samples moves all candidates alike; after a few second looks it is
        known, and candidates that would only just have been good enough need not be looked at.
        """
        name = self.problem.quality.name
        seen = [(p.figures[name].difference, refused[p.number][name]) for p in all if p.number in refused]
        mine = point.figures[name].difference
        pairs = [(d, f.difference) for d, f in seen if d is not None and f.difference is not None]
        if len(pairs) < SURE or mine is None:
            return False
        expected = sum(d for d, _ in pairs)
        if expected == 0:
            return False
        again = mine * sum(d for _, d in pairs) / expected
        figure = replace(seen[-1][1], difference=again, value=self.ladder.baseline[name].value + again)
        demand = min(HOPE + GROWING * len(pairs), 1.0)
        hopeful = replace(figure, error=None if figure.error is None else demand * figure.error)
        return not self.rule.keeps_quality(self.as_new_samples({name: hopeful}), self.ladder.baseline)

    def as_new_samples(self, figures: Figures) -> Figures:
        """Figures with the error at which as many new samples as the test has will show them.

        The winner shall keep the tolerance on samples that come, so their luck counts beside that of the samples it
        was looked at: the error of a prediction, sqrt(1 + n / m) times that of the estimate for n seen and m to come.
        """
        name = self.problem.quality.name
        seen, to_come = figures[name], self.source_tested().get(name)
        if seen.error is None or seen.samples is None or to_come is None or to_come.samples is None:
            return figures
        wider = seen.error * math.sqrt(1 + seen.samples / to_come.samples)
        return {**figures, name: replace(seen, error=wider)}

    def quality(self, record: Record, split: Any) -> Figures:
        """A candidate's quality on some samples."""
        self.observer.stage(f"quality of trial {record.label} on {split} samples")
        return self.once(f"{split}:{_name(record)}", lambda: self.problem.judge.quality(self.rebuilt(record), split))

    def tested(self, record: Record, network: _Once) -> Figures:
        """A candidate's quality on test samples; empty where there are none."""
        if "test" not in self.problem.judge.splits:
            return {}
        self.observer.stage("quality on test samples")
        return self.once(f"test:{_name(record)}", lambda: self.problem.judge.quality(network(), "test"))

    def source_tested(self) -> Figures:
        """The source network's quality on test samples."""
        if "test" not in self.problem.judge.splits:
            return {}
        builder, judge = self.problem.builder, self.problem.judge
        return self.once("test:", lambda: judge.quality(builder.source(), "test"))

    def measured(self, record: Record, network: _Once) -> Figures:
        """The winner's time and energy, measured once more against the source network."""
        judge = self.problem.judge
        wanted = dict.fromkeys([*self.goals.measured, "latency"])
        names = [n for n in wanted if n not in judge.unavailable and n in {m.name for m in judge.metrics}]
        if not names:
            return {}
        self.observer.stage(f"{' and '.join(names)} of the winner, once more")
        try:
            return self.once(f"measured:{_name(record)}", lambda: twice(lambda: judge.measure(network(), names)))
        except WorkerError as error:  # it was measured before: a search does not end in vain for want of a second look
            self.say(f"the winner could not be measured once more: {error.message}")
            return {}

    def source_measured(self) -> Figures:
        """The source network's time, where the search itself had no use for it."""
        judge = self.problem.judge
        if "latency" in self.ladder.baseline or "latency" in judge.unavailable:
            return {}
        if "latency" not in {m.name for m in judge.metrics}:
            return {}
        source = self.problem.builder.source
        try:
            return self.once("measured:", lambda: twice(lambda: judge.measure(source(), ["latency"])))
        except WorkerError as error:
            self.say(f"the source network could not be measured: {error.message}")
            return {}

    def deployed(self, best: Named, winner: Record, network: _Once) -> Deployed:
        """The winner's files, written unless they are there and were checked."""
        kept = self.study.recall(f"deployed:{_name(winner)}")
        if kept is not None and deployed_files(self.study.output, kept["artifact"]):
            return Deployed(kept["artifact"], kept["check"], of_dict(kept["quality"]), kept.get("tensor_bytes"))
        self.observer.stage("writing the winner's files")
        deployed = deploy(self.problem, network(), winner, self.study.output)
        if not deployed.check.get("agrees", True):
            raise NascError(f"the exported file does not compute what the network does: {dict(deployed.check)}")
        if UNCHECKED in deployed.check:
            self.say(
                f"the exported file was not compared with the network's own execution: {deployed.check[UNCHECKED]}; "
                "the same command tries again, and so does `nasc verify`"
            )
            return deployed
        self.study.remember(
            f"deployed:{_name(winner)}",
            {
                "artifact": deployed.artifact,
                "check": dict(deployed.check),
                "quality": as_dict(deployed.quality),
                "tensor_bytes": deployed.tensor_bytes,
            },
        )
        return deployed

    def rebuilt(self, record: Record) -> Any:
        """A candidate's network, made again from its text; training starts from the same weights and seed."""
        return self.polish.network(record)

    def named(self, name: str, record: Record) -> Named:
        """A trial as a network to compare with."""
        return Named(name, record.pipeline, record.figures, {}, record.number)

    def layer_rows(self, winner: Record, network: _Once) -> tuple[LayerRow, ...]:
        """The winner's layers as they are deployed, beside those of the source network."""
        name = f"layers:{_name(winner)}"
        kept = self.study.recall(name)
        if kept is None:
            made = network()
            rows = layer_rows(
                made.graph, self.problem.builder.graph, self.problem.judge.layers(made), self.problem.judge
            )
            kept = [asdict(row) for row in rows]
            self.study.remember(name, kept)
        return tuple(LayerRow.of(row) for row in kept)

    def say_containers(self, rows: Sequence[LayerRow], deployed: Deployed, figures: Figures) -> None:
        """Say which layers take more bits on the target than they have, if any do."""
        counted = figures["size"].value if "size" in figures else None
        if said := containers(rows, deployed.check.get("float_layers", {}), deployed.tensor_bytes, counted):
            self.say(said)

    def once(self, name: str, compute: Callable[[], Figures]) -> Figures:
        """Figures kept with the study, computed where they are not."""
        kept = self.study.recall(name)
        if kept is not None:
            return of_dict(kept)
        found = compute()
        self.study.remember(name, as_dict(found))
        return found

    def say(self, text: str) -> None:
        """A sentence for the watcher and the report."""
        self.notices.append(text)
        self.observer.notice(text)


@dataclass(frozen=True)
class Estimated:
    """A candidate with its quality as all that was told estimates it."""

    number: int
    figures: Figures


def pooled(a: Figure, b: Figure) -> Figure:
    """One figure of two on different samples: means over both, each by its number of samples."""
    if None in (a.samples, b.samples, a.difference, b.difference, a.error, b.error):
        return a
    assert a.samples and b.samples
    count = a.samples + b.samples
    share, rest = a.samples / count, b.samples / count
    value = share * a.value + rest * b.value
    difference = share * (a.difference or 0.0) + rest * (b.difference or 0.0)
    error = math.hypot(share * (a.error or 0.0), rest * (b.error or 0.0))
    low = (
        None
        if a.low is None or b.low is None
        else value - math.hypot(share * (a.value - a.low), rest * (b.value - b.low))
    )
    high = None if low is None else 2 * value - low
    return Figure(value, a.kind, low, high, difference, error, samples=count)


def _name(record: Record) -> str:
    """What a candidate's figures are kept under: its text, and who it is where it was trained with others."""
    return f"{record.label}: {record.pipeline}" if record.bred else record.pipeline


class _Once:
    """A network that is made when it is first needed."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made


def layer_rows(
    graph: Graph, source: Graph, costs: Mapping[str, Mapping[str, float]], judge: Judge[Any]
) -> tuple[LayerRow, ...]:
    """One row per layer of a graph."""
    before = {op.name: op for op in layers(source)}
    rows: list[LayerRow] = []
    for op in layers(graph):
        weight, bias = operand(op, "weight"), operand(op, "bias")
        assert weight is not None
        old = before.get(op.name)
        rows.append(
            LayerRow(
                name=op.name,
                kind=op.kind,
                shape=tuple(size(axis, graph.sizes) for axis in graph.types[weight].axes),
                source_shape=None if old is None else _weight_shape(source, operand(old, "weight")),
                weights=str(graph.types[weight].format),
                activations=str(graph.types[op.inputs[0]].format),
                biases=None if bias is None else str(graph.types[bias].format),
                costs=costs.get(op.name, {}),
                weights_run=judge.supports(graph.types[weight].encoding, "weight").runs,
                inputs_run=judge.supports(graph.types[op.inputs[0]].encoding, "activation").runs,
            )
        )
    return tuple(rows)


def _weight_shape(graph: Graph, weight: str | None) -> tuple[int, ...] | None:
    return None if weight is None else tuple(size(axis, graph.sizes) for axis in graph.types[weight].axes)


def spent(records: Sequence[Record]) -> dict[str, float]:
    """Seconds that all trials took, by rung."""
    found: dict[str, float] = {}
    for record in records:
        for name, seconds in record.rungs.items():
            found[name] = found.get(name, 0.0) + seconds
    return found
