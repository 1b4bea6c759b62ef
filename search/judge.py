"""Say what networks cost and how well they do: the target's and the data's side of a search over one task."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..compiler.data import Rows
from ..compiler.execution import positional
from ..compiler.frontend.task import Task
from ..compiler.network import Network
from ..ir import Encoding, Graph, NascError, Op, format_named, structure_digest
from ..targets import Artifact, Session, Target, agree, check_placement
from ..targets.base import Role, Support
from ..targets.bench import Bench
from ..targets.energy import Energy, Grade
from ..targets.isolation import WorkerError, twice
from ..targets.isolation.bench import IsolatedBench, IsolatedSession
from ..targets.latency_model import OpWork, spent, work_of
from ..targets.latency_record import Latency
from ..targets.measure import Conditions, Measurement, energy_meter
from ..targets.onnx.sizes import initializer_bytes
from .artifacts import artifact_of
from .builder import Candidate
from .figures import METRICS, Figure, Figures, Metric
from .files import append_line
from .protocols import UNCHECKED, Deployed, Split
from .quality import (
    Difference,
    Quality,
    evaluate_batches,
    fidelity,
    fidelity_batches,
    outputs_of,
    paired_difference,
    quality_of,
)  # fmt: skip
from .study import MEASUREMENTS

CHECKED = 256
"""Samples on which the deployed file is compared with torch's execution of the same graph."""
TOLERANCE_DB = 30.0
"""Least signal-to-noise ratio between the deployed file and torch's execution: a code may round the other way."""
BY_HEART = 0.05
"""Relative difference in quality between training and validation samples from which on the former confirm nothing."""
INTERVAL = 1.959964
"""Half-width of a 95 % interval in standard errors (normal distribution)."""


@dataclass(eq=False)
class TaskJudge:
    """Costs on a target and quality on a task; implements `Judge`.

    Args:
        task: trained; names the data and metrics.
        network: the lowered source network, to which all is compared.
        target: where networks run.
        conditions: of measurements.
        isolate: measure in a process of its own, which may crash or hang without harming the search.
        measured: is given each measurement with its name, to be kept.
        confirmation: gives samples to confirm a finalist on, by whether it was trained.
        asked: qualities to take beside accuracy and loss, loss and mae, or fidelity, the first of which counts.
    """

    task: Task
    network: Network
    target: Target
    conditions: Conditions = Conditions(budget_s=2.0)  # noqa: RUF009  (frozen)
    isolate: bool = True
    measured: Callable[[str, Measurement], None] = lambda name, measurement: None
    confirmation: Callable[[bool], Rows | None] = lambda trained: None
    asked: tuple[str, ...] = ()
    _baseline: dict[str, Quality] = field(default_factory=dict[str, Quality])

    @cached_property
    def labelled(self) -> bool:
        """Whether quality is taken against labels; otherwise it is fidelity to the source network."""
        data = self.task.data("validation")
        return data is not None and next(data.batches(1))[1] is not None

    @property
    def metrics(self) -> Sequence[Metric]:
        """See `Judge.metrics`."""
        quality = self.baseline("validation")
        own = [_metric(name, quality) for name in quality.values]
        costs = [m for m in METRICS.values() if not m.is_quality]
        return [*own, *costs]

    @property
    def splits(self) -> frozenset[Split]:
        """See `Judge.splits`."""
        found: set[Split] = {"validation"}
        if self.labelled and self.confirmation(True) is not None and self._representative:
            found.add("confirmation")
        if self.labelled and "test" in self.task.splits:
            found.add("test")
        return frozenset(found)

    @property
    def unavailable(self) -> Mapping[str, str]:
        """See `Judge.unavailable`."""
        try:
            energy_meter(self.target, self.conditions.meter)
        except NascError as error:
            return {"energy": str(error)}
        return {}

    @property
    def _representative(self) -> bool:
        """Whether training samples can confirm anything: not where the source network knows them by heart."""
        name = self.metrics[0].name
        seen, unseen = (self.baseline(split).values[name] for split in ("confirmation", "validation"))
        return abs(seen - unseen) <= BY_HEART * abs(unseen)

    def baseline(self, split: Split, trained: bool = True) -> Quality:
        """The source network's quality, taken once, on the samples that a trained or untrained candidate is seen on."""
        key = f"{split}{'' if trained or split != 'confirmation' else ' of untrained'}"
        if key not in self._baseline:
            self._baseline[key] = self._quality(self.network, split, trained)
        return self._baseline[key]

    def static(self, network: Candidate) -> Figures:
        """See `Judge.static`."""
        cost = self.target.cost(network.graph)
        values = {
            "bit_operations": cost.bit_operations,
            "macs": cost.macs,
            "parameters": cost.parameters,
            "size": cost.weight_bytes,
            "average_bits": float(cost.average_bits),
            "peak_activation": cost.peak_activation_bytes,
        }
        return {name: Figure(value) for name, value in values.items()}

    def layers(self, network: Candidate) -> Mapping[str, Mapping[str, float]]:
        """See `Judge.layers`."""
        found = {}
        for layer in self.target.cost(network.graph).layers:
            found[layer.layer] = {
                "macs": layer.macs,
                "bit_operations": layer.bit_operations,
                "size": math.prod(layer.weight) * layer.weight_bits / 8,
            }
        return found

    def supports(self, encoding: Encoding, role: Role) -> Support:
        """See `Judge.supports`."""
        return self.target.supports(encoding, role)

    def quality(self, network: Candidate, split: Split) -> Figures:
        """See `Judge.quality`."""
        return self.assess(network.deployable, split, trained=network.trained)

    def assess(self, run: Callable[..., Any], split: Split = "validation", *, trained: bool = True) -> Figures:
        """The quality of a run, with paired differences to the source network's."""
        return compared(self._quality(run, split, trained), self.baseline(split, trained))

    def _quality(self, run: Callable[..., Any], split: Split, trained: bool) -> Quality:
        with self.task.importing():
            if not self.labelled and not self.asked:
                return fidelity(run, self._reference, fidelity_batches(self.task))
            if split == "confirmation":
                rows = self.confirmation(trained)
                assert rows is not None
                return evaluate_batches(
                    run, rows.batches(4096), more=self.asked, loss=self.task.loss, own=self.task.metrics
                )
            return quality_of(self.task, run, split, more=self.asked)

    @cached_property
    def _reference(self) -> tuple[Tensor, ...]:
        return outputs_of(self.network, fidelity_batches(self.task))

    def measure(self, network: Candidate, metrics: Sequence[str]) -> Figures:
        """See `Judge.measure`."""
        conditions = replace(self.conditions, metrics=tuple(metrics), floor=False, baseline_energy=False)
        baseline = self._source if "latency" in metrics else None
        found = self.bench.measure(self._emit(network.deployable, {}), conditions, baseline)
        name = self._kept(found)
        figures: dict[str, Figure] = {}
        if found.latency is not None:
            figures["latency"] = replace(latency_figure(found.latency), measurement=name)
        if found.energy is not None:
            figures["energy"] = replace(energy_figure(found.energy), measurement=name)
        return figures

    def _kept(self, measurement: Measurement) -> str:
        """Hand a measurement over to be kept; gives the name by which figures refer to it."""
        text = json.dumps(measurement.as_dict(), sort_keys=True, default=str)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.measured(name, measurement)
        return name

    def work(self, network: Candidate) -> Sequence[OpWork]:
        """See `Judge.work`."""
        graph = network.deployable.graph
        return work_of(graph, self.target.plan(graph), self.conditions.batch)

    def spent(self, network: Candidate) -> Mapping[str, float]:
        """See `Judge.spent`."""
        kernels = self.bench.profile(self._emit(network.deployable, {}), self.conditions)
        return spent(network.deployable.graph, kernels)

    @cached_property
    def bench(self) -> Bench | IsolatedBench:
        """Where networks are measured; started when it is first needed."""
        if self.isolate:
            return IsolatedBench(self.target, self.conditions.memory_limit_bytes)
        return Bench(self.target)

    def close(self) -> None:
        """End the process that measures, if there is one."""
        if "bench" in self.__dict__:
            self.bench.close()

    @cached_property
    def _source(self) -> Artifact:
        return self._emit(self.network, {})

    def _emit(self, network: Network, metadata: Mapping[str, str]) -> Artifact:
        return artifact_of(self.target, network, metadata)

    def overhead_bound(self) -> str | None:
        """See `Judge.overhead_bound`."""
        measurement = self.bench.measure(self._source, replace(self.conditions, metrics=("latency",)))
        latency = measurement.latency
        assert latency is not None
        self._kept(measurement)
        if not latency.overhead_bound or latency.floor_s is None:
            return None
        return (
            f"at batch {measurement.batch} the source network takes {latency.wall_median_s * 1e6:.1f} µs, and as "
            f"many nodes that do nothing {latency.floor_s * 1e6:.1f} µs: it is overhead-bound on {self.target.name}"
        )

    def timing_key(self, network: Candidate) -> str:
        """See `Judge.timing_key`."""
        return structure_digest(as_kernels(network.graph))

    def deploy(self, network: Candidate, path: Path, metadata: Mapping[str, str]) -> Deployed:
        """See `Judge.deploy`."""
        made = network.deployable
        artifact = self._emit(made, {"nasc.digest": made.key, **metadata})
        try:
            check, figures = twice(lambda: self._checked(made, artifact))
        except WorkerError as error:  # the file is what the search was for: it is written all the same
            check, figures = {UNCHECKED: error.message}, {}
        artifact.save(path)
        return Deployed(artifact.digest, check, figures, initializer_bytes(artifact.model))

    def _checked(self, network: Network, artifact: Artifact) -> tuple[dict[str, Any], Figures]:
        """What a file computes beside its network, and its quality on test samples where there are any.

        Raises:
            NascError: it computes something else.
            WorkerError: the process that ran it failed.
        """
        session = self.bench.load(artifact, threads=self.conditions.threads, placed=True)
        samples = self._samples(CHECKED)
        found = agree(network, session_run(session, network), samples)
        placement = check_placement(self.target.plan(network.graph), session.placement())
        if found.sqnr_db < TOLERANCE_DB:
            raise NascError(
                f"the deployed file's outputs differ from the network's: {found.sqnr_db:.1f} dB, "
                f"expected at least {TOLERANCE_DB} dB"
            )
        check = {
            "agrees": True,
            "samples": len(samples[0]),
            "max_difference": found.max_difference,
            "sqnr_db": found.sqnr_db if math.isfinite(found.sqnr_db) else None,
            "top1": found.top1,
            "kernels": dict(placement.kernels),
            "float_layers": dict(placement.float_layers),
        }
        return check, self.assess(session_run(session, network), "test") if "test" in self.splits else {}

    def _samples(self, count: int) -> Sequence[Tensor]:
        data = self.task.data("validation")
        if data is not None:
            inputs = data.take(slice(0, min(count, len(data))))[0]
        else:
            inputs = next(iter(self.task.calibration_batches(samples=count, size=count)))
        return positional(inputs, self.network.graph)


def keep_measurements(output: Path) -> Callable[[str, Measurement], None]:
    """Keeps each measurement as a line of `measurements.jsonl` in an output folder: raw samples, flags, provenance."""

    def keep(name: str, measurement: Measurement) -> None:
        append_line(output / MEASUREMENTS, {"name": name, **measurement.as_dict()})

    return keep


def session_run(session: Session | IsolatedSession, network: Network) -> Callable[..., Any]:
    """A session as a run that takes what the network takes."""

    def run(*args: Tensor, **kwargs: Tensor) -> Any:
        inputs = positional(kwargs, network.graph) if kwargs else args
        return session.run([t.numpy() for t in inputs])

    return run


def _metric(name: str, quality: Quality) -> Metric:
    """A quality's metric: nasc's own, or the model file's."""
    if (known := METRICS.get(name)) is not None:
        return replace(known, direction=quality.directions[name])
    return Metric(name, quality.directions[name], "number", "quality", name)


def compared(quality: Quality, baseline: Quality) -> dict[str, Figure]:
    """Figures of a quality with differences to a baseline's, paired sample by sample where that can be."""
    found: dict[str, Figure] = {}
    for name, value in quality.values.items():
        error = quality.standard_errors.get(name)
        difference = difference_of(name, quality, baseline)
        found[name] = Figure(
            value,
            "measured",
            low=None if error is None else value - INTERVAL * error,
            high=None if error is None else value + INTERVAL * error,
            difference=None if difference is None else difference.mean,
            error=None if difference is None else difference.standard_error,
            samples=quality.samples,
        )
    return found


def difference_of(name: str, quality: Quality, baseline: Quality) -> Difference | None:
    """The difference of one metric to the baseline's, with its error.

    Accuracy and agreement are paired sample by sample; other metrics take the root of the sum of both squared errors,
    which is on the safe side, since the same samples err alike.
    """
    if name in ("accuracy", "agreement") and quality.correct is not None and baseline.correct is not None:
        return paired_difference(quality.correct, baseline.correct)
    ours, theirs = quality.standard_errors.get(name), baseline.standard_errors.get(name)
    if ours is None or theirs is None or name == "fidelity":
        return None
    return Difference(quality.values[name] - baseline.values[name], math.hypot(ours, theirs), quality.samples)


def latency_figure(latency: Latency) -> Figure:
    """A measured latency as a figure."""
    ratio = latency.ratio
    return Figure(
        latency.median_s,
        "measured",
        low=latency.ci.low,
        high=latency.ci.high,
        ratio=None if ratio is None else ratio.value,
        ratio_low=None if ratio is None else ratio.interval.low,
        ratio_high=None if ratio is None else ratio.interval.high,
        verdict=None if latency.verdict is None else latency.verdict.value,
        notes=tuple(flag.value for flag in latency.flags),
    )


def energy_figure(energy: Energy) -> Figure:
    """An energy as a figure: measured, or estimated where that was asked for.

    Raises:
        NascError: the meter gave none.
    """
    if energy.energy_j is None:
        raise NascError(f"energy cannot be measured: {energy.reason}")
    estimated = energy.grade == Grade.ESTIMATED
    return Figure(
        energy.energy_j,
        "estimated" if estimated else "measured",
        low=None if energy.interval is None else energy.interval.low,
        high=None if energy.interval is None else energy.interval.high,
        notes=(*(flag.value for flag in energy.flags), *((energy.device,) if estimated else ())),
    )


def as_kernels(graph: Graph) -> Graph:
    """The graph with formats as the kernels see them: 8-bit containers, and clipped codes as one kind."""
    i8, u7 = format_named("i8"), format_named("u7")

    def seen(op: Op) -> Op:
        type = op.type
        if not type.integer or type.format.bits >= 8 or (op.kind != "weight" and type.format.family != "int"):
            return op
        if op.kind == "weight" and not type.multiplied:
            return op  # read back into numbers
        return op.with_type(replace(type, format=i8 if op.kind == "weight" else u7 if not type.format.signed else i8))

    return replace(graph, ops=tuple(map(seen, graph.ops)))
