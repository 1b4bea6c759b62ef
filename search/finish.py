"""After the trials: confirm who wins, take its quality on test samples, measure it again, write its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..ir import Graph, NascError, layers, operand
from ..ir.axes import size
from ..targets.isolation import WorkerError, twice
from .choosing import Choosing
from .containers import containers
from .evaluate import Ladder
from .figures import Figures, as_dict, of_dict
from .front import Rule, pareto
from .goals import Goals
from .observer import Observer
from .output import deploy, deployed_files
from .polish import Polish
from .protocols import UNCHECKED, Deployed, Judge, Problem
from .records import Record
from .result import LayerRow, Named, Result
from .study import OpenStudy
from .unmet import why

REFERENCE_NAME = "uniform 8 bits"
BASELINE_NAME = "source"


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
        choice = self.choosing().winner(feasible)
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

    def choosing(self) -> Choosing:
        """Who chooses the winner."""
        problem = self.problem
        return Choosing(
            problem.quality.name,
            self.rule,
            self.ladder.baseline,
            self.study.records,
            (lambda record: self.quality(record, "confirmation")) if "confirmation" in problem.judge.splits else None,
            self.source_tested,
            self.say,
        )

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
