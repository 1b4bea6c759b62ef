"""What a search found: the winner with its evidence, the front, and all trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..compiler.pipeline import parse_pipeline
from .figures import Figure, Figures, Metric, difference_text, shown, value_text
from .front import Member
from .goals import Goals
from .protocols import Deployed
from .records import Record, label
from .space_rules import choices

LAYERS_SHOWN = 6


@dataclass(frozen=True)
class LayerRow:
    """How one layer of the winner looks.

    Args:
        name: the layer's.
        kind: its op.
        shape: of its weight, as lengths.
        source_shape: of the same weight in the source network; None where it has none of this name.
        weights: format of its weights.
        activations: format of its input.
        biases: format of its bias; None where it has none.
        costs: counted: `macs`, `bit_operations`, `size`.
        weights_run: how the target runs values of the weights' format, see `targets.base.Runs`; empty: not known.
        inputs_run: the same of its input.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None
    weights: str
    activations: str
    biases: str | None
    costs: Mapping[str, float] = field(default_factory=dict[str, float])
    weights_run: str = ""
    inputs_run: str = ""

    @staticmethod
    def of(data: Mapping[str, Any]) -> LayerRow:
        """The row that plain data stand for."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return LayerRow(**known)


@dataclass(frozen=True)
class Named:
    """A network with its figures, for comparison.

    Args:
        name: how it is called in tables.
        pipeline: how it came about; empty for the source network.
        figures: costs, and quality on validation samples.
        test: quality on test samples; empty where there are none.
        number: the trial's; None where it was none.
    """

    name: str
    pipeline: str
    figures: Figures
    test: Figures = field(default_factory=dict[str, Any])
    number: int | None = None


@dataclass(frozen=True)
class Result:
    """What a search found.

    Args:
        name: of the network.
        source: what the user named.
        target: the runtime it is for.
        folder: the output folder.
        goals: objectives and constraints.
        rule: by which the winner was chosen, as a sentence.
        metrics: all metrics that occur.
        quality: the one that counts.
        baseline: the source network.
        reference: uniform 8 bits; None where the space has no such network.
        best: the winner.
        confirmation: the winner's quality on samples that the search did not see; empty where there are none.
        refused: trials that were to win, and were not good enough on those samples.
        deployed: its file, checked.
        layers: the winner's layers.
        front: the Pareto front among the candidates that keep the constraints.
        trials: all that was told.
        notices: what a reader must know, as sentences.
        command: does it all again.
        seconds: that evaluating took, by rung.
    """

    name: str
    source: str
    target: str
    folder: Path
    goals: Goals
    rule: str
    metrics: Mapping[str, Metric]
    quality: Metric
    baseline: Named
    reference: Named | None
    best: Named
    confirmation: Figures
    refused: Mapping[int, Figures]
    deployed: Deployed
    layers: tuple[LayerRow, ...]
    front: tuple[Member, ...]
    trials: tuple[Record, ...]
    notices: tuple[str, ...]
    command: str
    seconds: Mapping[str, float]

    @property
    def paid(self) -> int:
        """How many candidates were paid for."""
        return sum(record.paid for record in self.trials)

    def trial(self, number: int) -> Record:
        """The trial of that number."""
        return next(record for record in self.trials if record.number == number)

    def report(self) -> Path:
        """The report, one page of HTML."""
        return self.folder / "report.html"

    @property
    def columns(self) -> tuple[Metric, ...]:
        """The metrics of the table: objectives first, then quality, bit operations and bytes."""
        wanted = [o.metric.name for o in self.goals.objectives]
        wanted += [self.quality.name, "bit_operations", "size", *self.goals.measured]
        return tuple(self.metrics[name] for name in dict.fromkeys(wanted) if name in self.metrics)

    def rows(self) -> list[dict[str, str]]:
        """The front as a table of texts: the baseline, the reference, then the members by quality."""
        named = [self.baseline, *([self.reference] if self.reference else [])]
        rows = [self._row(n.name, n.figures, n.pipeline, n.number) for n in named]
        for member in self.front:
            record = self.trial(member.number)
            name = "best" if member.number == self.best.number else ""
            rows.append(self._row(name, record.figures, record.pipeline, member.number))
        if self.best.number not in [m.number for m in self.front]:
            rows.append(self._row("best", self.best.figures, self.best.pipeline, self.best.number))
        return rows

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The front as columns and rows of texts."""
        rows = self.rows()
        return list(rows[0]), [list(row.values()) for row in rows]

    def summary(self) -> list[str]:
        """What was found, in a few sentences: for people, after the table."""
        best, quality = self.best, self.quality
        name = "" if best.number is None else label(best.number)
        lines = [f"the winner is trial {name}: {self.rule}"]
        base, ours = self.baseline.test or self.baseline.figures, best.test or best.figures
        where = "test" if best.test else "validation"
        if quality.name in ours and quality.name in base:
            text = figure_text(quality, ours, base)
            lines.append(
                f"{quality.label} on {where} samples: {text}, source {value_text(quality, base[quality.name].value)}"
            )
        costs = [m for m in self.metrics.values() if m.name in ("bit_operations", "size", "latency", "energy")]
        known = [m for m in costs if m.name in best.figures and m.name in self.baseline.figures]
        lines += [
            f"{m.label}: {figure_text(m, best.figures, self.baseline.figures)}, "
            f"source {source_text(m, best.figures[m.name], self.baseline.figures[m.name])}"
            for m in known
        ]
        if self.reference is not None and "bit_operations" in best.figures:
            bits = self.reference.figures["bit_operations"].value / best.figures["bit_operations"].value
            lines.append(f"against uniform 8 bits: {times_text(bits)} bit operations")
        lines += list(self.notices)
        return [*lines, f"again: {self.command}"]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: what `front.json` holds, and the winner."""
        from .output import entry, front

        return {
            **front(self),
            "folder": str(self.folder),
            "winner": entry(self.best).model_dump(),
            "source": entry(self.baseline).model_dump(),
            "uniform_8_bits": None if self.reference is None else entry(self.reference).model_dump(),
            "confirmation": {name: figure.as_dict() for name, figure in self.confirmation.items()},
            "deployed_test": {name: figure.as_dict() for name, figure in self.deployed.quality.items()},
            "check": dict(self.deployed.check),
            "notices": list(self.notices),
            "trials": len(self.trials),
            "paid": self.paid,
            "command": self.command,
        }

    def _row(self, name: str, figures: Figures, pipeline: str, number: int | None) -> dict[str, str]:
        row = {"trial": "" if number is None else label(number), "network": name}
        for metric in self.columns:
            row[metric.label] = figure_text(metric, figures, self.baseline.figures)
        row["weights/inputs"] = brief(pipeline)
        return row


def figure_text(metric: Metric, figures: Figures, baseline: Figures) -> str:
    """A figure with what it means against the baseline: `71.2 % (-0.6 ± 0.4 points)`, `12.3 k (26.1x fewer)`,
    `180 µs (0.64x, FASTER)`."""
    figure = figures.get(metric.name)
    if figure is None:
        return "–"
    text = shown(metric, figure)
    base = baseline.get(metric.name)
    if base is None or figure is base:
        return text
    if figure.difference is not None:
        change = difference_text(metric, figure.difference)
        if not figure.error:
            return f"{text} ({change})"
        margin = difference_text(metric, 1.96 * figure.error).lstrip("+")
        return f"{text} ({change.removesuffix(' points')} ± {margin})"
    if figure.verdict is not None:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}x, "
        return f"{text} ({ratio}{figure.verdict})"
    if metric.direction == "min" and figure.value > 0 and base.value > 0:
        return f"{text} ({times_text(base.value / figure.value)})"
    return text


def source_text(metric: Metric, figure: Figure, base: Figure) -> str:
    """The source network's value beside a network's: of a latency what it took in turns with that network."""
    if figure.ratio:
        return value_text(metric, figure.value / figure.ratio)
    return shown(metric, base)


def brief(pipeline: str) -> str:
    """What a pipeline chooses, in few words: `without layer1.1, fc2=24, fc1 i6/u8`; what all share is left out."""
    found: list[str] = []
    for step in parse_pipeline(pipeline).passes:
        options = step.options()
        if step.name == "drop":
            found.append(f"without {' '.join(choices(options['block']))}")
        elif step.name == "resize":
            found += [f"{name}={size}" for name, size in options.items() if size.isdecimal()]
        elif step.name == "quantize":
            names = choices(options.get("layers", "*"))
            formats = "/".join(options.get(part, "f32") for part in ("weights", "activations"))
            biases = f" bias {options['biases']}" if "biases" in options else ""
            shown = " ".join(names[:LAYERS_SHOWN]) + (
                f" and {more} more" if (more := len(names) - LAYERS_SHOWN) > 0 else ""
            )
            found.append(f"{shown} {formats}{biases}")
    return ", ".join(found)


def listed(names: Sequence[str]) -> str:
    """Names with commas; of many the first, and how many more there are."""
    more = len(names) - LAYERS_SHOWN
    return ", ".join(names[:LAYERS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def times_text(times: float) -> str:
    """`26.1x fewer`, `1.2x more`."""
    if abs(times - 1) < 0.005:
        return "the same"
    return f"{times:.3g}x fewer" if times > 1 else f"{1 / times:.3g}x more"
