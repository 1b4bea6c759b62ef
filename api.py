"""The functions behind `nasc.*` and the command line; what makes networks and tasks stands in `loading`, what writes
and checks files in `deploying`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .deploying import export as export
from .deploying import verify as verify
from .ir import UsageError
from .loading import load_network as load_network
from .loading import load_task as load_task
from .loading import lower as lower
from .loading import read_onnx as read_onnx
from .loading import resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import nn

    from .compiler.frontend.task import Task
    from .compiler.network import Network
    from .compiler.training import Epoch
    from .search.config import Settings
    from .search.observer import Observer
    from .search.protocols import Problem
    from .search.run import Result
    from .search.sensitivity import Sensitivity
    from .search.survey import Survey
    from .targets.artifact import Artifact
    from .targets.base import Target
    from .targets.inputs import InputShape
    from .targets.measure import Measurement
    from .targets.profile import NetworkProfile

TO_NETWORK = "Write bytes to a file; make a network of a module: nasc.lower(module, example_inputs)."


def space(network: Network | partial[Network], settings: Settings | None = None) -> Survey:
    """What a search would choose on a network: free widths, blocks, what is frozen and why, and the space's corners.

    Args:
        network: the source network, or what loads it once the settings are checked.
        settings: rules, bounds and target as `compile` takes them; by default all that can be offered is.

    Raises:
        UsageError: a rule names no layer, an unknown format or size.
    """
    from .search.config import configuration
    from .search.survey import survey
    from .targets import target_named

    chosen = settings or configuration({"search.widths": True}).settings
    target_named(chosen.target)
    return survey(resolved(network), chosen)


def measure(
    model: str | Path | Network,
    *,
    baseline: str | Path | Network | None = None,
    metrics: str | Sequence[str] = ("latency",),
    target: str = "auto",
    batch: int | None = None,
    inputs: str | Sequence[str] | None = None,
    threads: int = 1,
    budget_s: float = 10.0,
    meter: str = "auto",
    isolate: bool = True,
    limit_s: float | None = None,
    memory_limit_bytes: int | None = None,
) -> Measurement:
    """Measure what a model really costs on this device.

    Args:
        model: an ONNX file (nasc's or any other), or a network, which is emitted first.
        baseline: another one, run in turns with it, so that the machine's drift cancels.
        metrics: `latency`, `energy`.
        target: runtime and device; `auto` takes the best here.
        batch: length of the batch axis; None: the file's own, 1 where that is open.
        inputs: shapes of the inputs as text, where a file leaves more open than the batch: `1x3x224x224`, several with
            commas, by name as `tokens=1x128`; whole numbers are zeros, or random in a range: `1x128:i64:0..999`.
        threads: threads of the runtime.
        budget_s: seconds to spend on each metric at most.
        meter: of energy: `auto` (that of the device), `nvml`, `nvml:UUID`, `rapl`.
        isolate: measure in a process of its own, which may crash or hang without harming this one.
        limit_s: when to give that process up; None: two minutes beyond the budgets.
        memory_limit_bytes: what it may have; None: four fifths of the free memory.

    Raises:
        UsageError: a missing file or none of ONNX; an unknown metric, meter or target; a meter where energy is no
            metric; a batch or inputs that the file does not take; a baseline with other inputs.
        MeterUnavailableError: energy where there is no meter; said before anything runs.
        TargetError: the runtime refuses a model, or it takes or gives something else than tensors of numbers.
        WorkerError: the process of its own crashed, hung, or ran out of memory.
    """
    from .targets import target_named
    from .targets.measure import Conditions, energy_meter, measure_model, names

    chosen = target_named(target)
    conditions = Conditions(
        names(metrics),
        batch=1 if batch is None else batch,
        threads=threads,
        budget_s=budget_s,
        meter=meter,
        limit_s=limit_s,
        memory_limit_bytes=memory_limit_bytes,
        inputs=() if not inputs else _shapes(inputs),
        exact_batch=batch is not None,
    )
    if "energy" in conditions.metrics:
        energy_meter(chosen, meter)
    elif meter != "auto":
        raise UsageError(
            f"the meter {meter} is for energy, and energy is not among the metrics ({', '.join(conditions.metrics)})",
            mend="Add --metric energy (metrics=['energy'] in Python), or leave the meter out.",
        )

    return measure_model(
        chosen,
        _ready(model, chosen, "measure"),
        baseline=None if baseline is None else _ready(baseline, chosen, "measure"),
        conditions=conditions,
        isolate=isolate,
    )


def _ready(source: object, target: Target, asker: str) -> Artifact | Path:
    """What a target can load: an ONNX file, or a network written for it.

    Raises:
        UsageError: a missing file, or something else than either.
        NascError: the network cannot be written.
    """
    from .targets.model_file import model_file

    if isinstance(source, str | Path):
        return model_file(source, asker)
    from .compiler.network import Network
    from .search.artifacts import artifact_of

    if not isinstance(source, Network):
        found = type(source).__name__
        raise UsageError(f"{asker} takes an ONNX file or a network; found {found}", mend=TO_NETWORK)
    return artifact_of(target, source)


def _shapes(inputs: str | Sequence[str]) -> tuple[InputShape, ...]:
    """Inputs as text, for files that know their types.

    Raises:
        UsageError: a text is no shape.
    """
    from .compiler.frontend.example_text import TYPES, parse_inputs
    from .targets.inputs import InputShape

    return tuple(
        InputShape(
            entry.shape,
            entry.name,
            str(TYPES[entry.type]).removeprefix("torch.") if entry.says_type else None,
            (entry.low, entry.high) if entry.says_range else None,
        )
        for entry in parse_inputs(inputs)
    )


def profile(
    model: str | Path | Network | partial[Network],
    *,
    target: str = "auto",
    batch: int = 1,
    threads: int = 1,
    budget_s: float = 4.0,
    bounds: bool = True,
    isolate: bool = True,
    limit_s: float | None = None,
    memory_limit_bytes: int | None = None,
    inputs: str | Sequence[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> NetworkProfile:
    """Time every kernel of a model on this device, with the ops it computes and the least time it could take.

    Args:
        model: an ONNX file (nasc's or any other), or a network, which is emitted first,
            or what loads one once the conditions are checked.
        target: runtime and device; `auto` takes the best here.
        batch: length of the batch axis.
        threads: threads of the runtime.
        budget_s: seconds to spend on calls.
        bounds: say how far each kernel is from what the device can do; calibrates the device the first time.
        isolate: profile in a process of its own, which may crash or hang without harming this one.
        limit_s: when to give that process up; None: two minutes beyond the budget.
        memory_limit_bytes: what it may have; None: four fifths of the free memory.
        inputs: shapes of the inputs as text, as `measure` takes them.
        tell: called with a sentence before the device is calibrated.

    Raises:
        UsageError: a missing file or none of ONNX, an unknown target, a batch or number of threads below 1, no budget.
        TargetError: the runtime refuses the model.
        WorkerError: the process of its own crashed, hung, or ran out of memory.
    """
    from .targets import target_named
    from .targets.bench import Bench
    from .targets.device_profile import device_profile, kept_profile
    from .targets.isolation.bench import IsolatedBench
    from .targets.measure import Conditions

    chosen = target_named(target)
    conditions = Conditions(
        batch=batch,
        threads=threads,
        budget_s=budget_s,
        floor=False,
        limit_s=limit_s,
        memory_limit_bytes=memory_limit_bytes,
        inputs=() if not inputs else _shapes(inputs),
    )
    ready = _ready(resolved(model), chosen, "profile")
    if bounds and tell is not None and kept_profile(chosen, threads) is None:
        tell(f"calibrating {chosen.name} with {threads} thread(s), once: about 20 seconds")
    device = device_profile(chosen, threads) if bounds else None
    with IsolatedBench(chosen, memory_limit_bytes, work="profiling") if isolate else Bench(chosen) as bench:
        return bench.network_profile(ready, conditions, device)


def compile(
    model: str | Path | nn.Module | Task,
    example_inputs: Any = None,
    *,
    output: str | Path = "nasc-out",
    search: str | None = None,
    trials: int | None = None,
    objectives: Sequence[str] | None = None,
    constraints: Sequence[str] | None = None,
    space: Sequence[str] | None = None,
    train_epochs: int | None = None,
    seed: int | None = None,
    target: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    **data: Any,
) -> Result:
    """Search for a faster, smaller network of the same quality, and write it with the evidence.

    Calling it again with the same arguments continues a search that was stopped.

    Args:
        model: what `load_task` takes, a task, or a module (then with `example_inputs`).
        example_inputs: inputs of the module: a tensor, a tuple, or a dict of keyword inputs.
        output: folder for the result and the study.
        search: strategy, by default `tpe`; see `docs/search.md`.
        trials: candidates to pay for.
        objectives: such as `accuracy:max`, `latency:min`.
        constraints: such as `latency<=2ms`.
        space: rules such as `linear: weights=[i4, i8]`.
        train_epochs: epochs of training per candidate.
        seed: of all that is random.
        target: runtime and device.
        config: TOML file with settings.
        settings: further settings by their dotted names, `{"measure.batch": 8}`.
        observer: is told what happens.
        data: for a module: `train_data=`, `validation_data=`, `loss=` and so on, as a model file names them.

    Raises:
        UsageError: what was asked for makes no sense; nothing was computed.
        NascError: the model cannot be lowered, or the search cannot go on.
    """
    from .search.config import configuration

    flags = {
        "search.strategy": search,
        "search.trials": trials,
        "search.objectives": None if objectives is None else list(objectives),
        "search.constraints": None if constraints is None else list(constraints),
        "search.space": None if space is None else list(space),
        "training.epochs": train_epochs,
        "seed": seed,
        "target": target,
        **(settings or {}),
    }
    chosen = configuration(flags, path=None if config is None else Path(config)).settings
    if not isinstance(model, str | Path):
        from .compiler.frontend.model_values import make_task
        from .compiler.frontend.task import Task

        if not isinstance(model, Task):
            model = make_task(model, example_inputs, **data)
    return search_task(model, chosen, Path(output), observer=observer)


def search_task(
    model: str | Path | Task | partial[Task],
    settings: Settings,
    output: Path,
    *,
    observer: Observer | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Result:
    """What `compile` does, from settings.

    Args:
        model: what `load_task` takes, a task, or what loads one once the settings are checked.
        settings: what to search, and how.
        output: folder for the result and the study.
        observer: is told what happens.
        progress: is told the epochs of the source network's training, where it has to be trained.

    Raises:
        UsageError: what was asked for makes no sense; nothing was computed.
        NascError: the model cannot be lowered, or the search cannot go on.
    """
    from .compiler.files import check_places
    from .compiler.losses import check_loss
    from .compiler.training import trained_checkpoint, with_kept_weights
    from .search.output import network_path
    from .search.request import check_request, trains
    from .search.run import check_settings, search

    check_request(settings, output)
    task = load_task(model) if isinstance(model, str | Path) else resolved(model)
    check_places([network_path(output)], task.checkpoint, task.source)
    check_loss(task, trained=task.untrained or trains(task, settings))
    if task.untrained:
        task = with_kept_weights(task if settings.seed == 0 else task.with_seed(settings.seed))
    if task.untrained:
        with _problem(task, settings, output) as problem:
            check_settings(problem, settings)
        task = trained_checkpoint(task, progress=progress).task
    with _problem(task, settings, output) as problem:
        return search(problem, settings, output, observer)


@contextmanager
def _problem(task: Task, settings: Settings, output: Path) -> Generator[Problem]:
    """What a search needs of a task; the process that measures, if one was started, ends with the context."""
    from .compiler.frontend.lower import lower_task
    from .search.builder import TaskBuilder
    from .search.goals import asked_qualities
    from .search.judge import TaskJudge, keep_measurements
    from .search.probing import task_sensitivity
    from .search.protocols import Problem
    from .search.request import conditions
    from .targets import target_named

    target, asked = target_named(settings.target), asked_qualities(settings, task.metrics)
    network = lower_task(task)
    measured, kept = conditions(settings.measure), keep_measurements(output)
    judge = TaskJudge(task, network, target, measured, settings.measure.isolate, kept, asked=asked)
    builder = TaskBuilder(task, network, settings.seed, judge.assess, settings.training)
    judge.confirmation = builder.confirmation
    with closing(judge):
        yield Problem(
            task.name,
            task.source,
            builder,
            judge,
            target.name,
            task.words,
            versions=versions(),
            sensitivity=partial(task_sensitivity, builder),
        )


def sensitivity(
    model: str | Path | Task,
    *,
    weights: str | None = None,
    activations: str | None = None,
    samples: int = 256,
    seed: int = 0,
) -> Sensitivity:
    """How much each format does to each layer alone, all others in real numbers.

    Args:
        model: what `load_task` takes, or a task; one that is untrained is trained first.
        weights: formats of weights, as in a rule of the search space: `i2..i8`, `i4, i8`.
        activations: formats of layers' inputs; where neither is given, both are what a search chooses from.
        samples: how many to look at.
        seed: of the training.

    Raises:
        UsageError: a format does not exist, or there are no samples.
        NascError: the model cannot be lowered.
    """
    from .compiler.frontend.lower import lower_task
    from .compiler.losses import check_loss
    from .compiler.training import trained_checkpoint
    from .search.builder import TaskBuilder
    from .search.probing import task_sensitivity
    from .search.space import build_space
    from .search.space_rules import format_rules

    rules = format_rules(weights, activations)
    task = load_task(model) if isinstance(model, str | Path) else model
    check_loss(task, trained=task.untrained)
    if task.untrained:
        task = trained_checkpoint(task if seed == 0 else task.with_seed(seed)).task
    builder = TaskBuilder(task, lower_task(task), seed, lambda run: {})
    return task_sensitivity(builder, build_space(builder.graph, rules), samples)


def versions() -> dict[str, str]:
    """The versions of what takes part."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for name in ("nasc", "torch", "onnx", "onnxruntime-gpu", "onnxruntime", "optuna", "torchmetrics"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
