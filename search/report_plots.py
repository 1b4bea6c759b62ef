"""The report's plots, drawn by plotly from data in the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Any

from .figures import Figure, Metric, shown
from .files import json_text
from .objectives import is_scalar
from .records import Record, label
from .result import Result

INK, SOFT, LINE = "#1d2733", "#5b6876", "#dfe5eb"
ACCENT, WARM, GREY, SAND = "#0b7a75", "#c8553d", "#9aa7b3", "#d9912b"
_UNITS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "time": (("µs", 1e6),),
    "energy": (("J", 1.0), ("mJ", 1e3), ("µJ", 1e6), ("nJ", 1e9)),
    "fraction": (("%", 100.0),),
    "bytes": (("B", 1.0),),
}
"""Units of axes with their number in an SI unit, the largest first."""


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Args:
        metric: what it shows.
        estimated: whether its figures are estimates.
        unit: of its numbers; empty for plain numbers.
        scale: what figures are multiplied by.
    """

    metric: Metric
    estimated: bool = False
    unit: str = ""
    scale: float = 1.0

    @staticmethod
    def of(metric: Metric, result: Result) -> Axis:
        """The axis of a metric, in the unit that suits the source network's figure."""
        figure = result.baseline.figures.get(metric.name) or result.best.figures.get(metric.name)
        units = _UNITS.get(metric.dimension, (("", 1.0),))
        value = 0.0 if figure is None else abs(figure.value)
        unit, scale = next(((u, s) for u, s in units if value * s >= 1), units[-1])
        return Axis(metric, figure is not None and figure.kind == "estimated", unit, scale)

    @property
    def name(self) -> str:
        return self.metric.name

    @property
    def title(self) -> str:
        told = f"{'estimated ' if self.estimated else ''}{self.metric.label}"
        return f"{told} ({self.unit})" if self.unit else told

    def scaled(self, value: float) -> float:
        """A figure as a number of this axis."""
        return value * self.scale


def plotly_script() -> str:
    """Plotly itself, once, so that the page needs no network.

    The basic bundle would be a third of the size; the package ships the whole one only.
    """
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def front_plot(result: Result) -> str:
    """Quality over cost: every candidate, the front as a line, the source, the reference and the winner marked."""
    axes = _axes(result)
    if axes is None:
        return "<p class=note>One objective: the history below shows it.</p>"
    x, y = axes
    members = [m.number for m in result.front]
    known = [r for r in result.trials if r.paid and x.name in r.figures and y.name in r.figures]
    on = sorted((r for r in known if r.number in members), key=lambda r: r.figures[x.name].value)
    off = [r for r in known if r.number not in members and r.feasible]
    out = [r for r in known if not r.feasible]
    traces = [
        _points("let go by a constraint", out, x, y, {"color": "#d5dce3", "size": 6}),
        _points("candidates", off, x, y, {"color": GREY, "size": 7}),
        {**_points("the front", on, x, y, {"color": ACCENT, "size": 9}, bars=True), "mode": "lines+markers"},
    ]
    for network, color, symbol in (
        (result.baseline, INK, "square"),
        (result.reference, SAND, "diamond"),
        (result.best, WARM, "star"),
    ):
        if network is None or x.name not in network.figures or y.name not in network.figures:
            continue
        marker = {"color": color, "symbol": symbol, "size": 15 if symbol == "star" else 11}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": network.name,
                "x": [x.scaled(network.figures[x.name].value)],
                "y": [y.scaled(network.figures[y.name].value)],
                "text": [_hover(network.name, network.pipeline, network.figures, (x.metric, y.metric))],
                "hoverinfo": "text",
                "marker": marker,
            }
        )
    layout = {
        "xaxis": {"title": {"text": x.title}, "type": "log", "gridcolor": LINE, "zeroline": False},
        "yaxis": {"title": {"text": y.title}, "gridcolor": LINE, "zeroline": False, **_range(y, known, result)},
    }
    return _plot("front", traces, layout)


def _range(axis: Axis, known: Sequence[Record], result: Result) -> dict[str, Any]:
    """The part of the axis where candidates that were not let go lie, with some air."""
    shown = [r.figures[axis.name].value for r in known if r.feasible]
    shown += [n.figures[axis.name].value for n in (result.baseline, result.best) if axis.name in n.figures]
    low, high = axis.scaled(min(shown)), axis.scaled(max(shown))
    air = 0.08 * (high - low) or abs(high) or 1.0
    return {"range": [low - air, high + air]}


def _axes(result: Result) -> tuple[Axis, Axis] | None:
    """What to draw over what: the first cost and the first quality, or the first two objectives."""
    wanted = [o.metric for o in result.goals.objectives]
    if len(wanted) < 2:
        return None
    quality = next((m for m in wanted if m.is_quality), wanted[0])
    return Axis.of(next(m for m in wanted if m != quality), result), Axis.of(quality, result)


def _points(
    name: str, records: Sequence[Record], x: Axis, y: Axis, marker: dict[str, Any], *, bars: bool = False
) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x.scaled(r.figures[x.name].value) for r in records],
        "y": [y.scaled(r.figures[y.name].value) for r in records],
        "text": [
            _hover(f"trial {label(r.number)} ({r.origin})", r.pipeline, r.figures, (x.metric, y.metric))
            for r in records
        ],
        "hoverinfo": "text",
        "marker": marker,
        "line": {"color": ACCENT, "width": 1.5, "dash": "dot"},
    }
    errors = [r.figures[y.name].error for r in records]
    if bars and records and all(error is not None for error in errors):
        margins = [y.scaled(1.96 * (error or 0.0)) for error in errors]
        trace["error_y"] = {"type": "data", "array": margins, "color": ACCENT, "thickness": 1, "width": 3}
    return trace


def _hover(name: str, pipeline: str, figures: Mapping[str, Figure], metrics: Sequence[Metric]) -> str:
    lines = [f"<b>{escape(name)}</b>"]
    lines += [f"{m.label}: {escape(shown(m, figures[m.name]))}" for m in metrics]
    lines += [escape(part) for part in pipeline.split(" | ") if part.startswith(("drop", "quantize", "resize"))]
    return "<br>".join(lines)


def history_plot(result: Result) -> str:
    """What each trial found, in order, with the best so far of those that keep quality."""
    axes = _axes(result)
    objective = result.goals.objectives[0]
    axis = axes[0] if axes and not is_scalar(result.goals.objectives) else Axis.of(objective.metric, result)
    metric = axis.metric
    known = [r for r in result.trials if r.paid and metric.name in r.figures]
    places = {r.number: place for place, r in enumerate(known, 1)}
    good = [r for r in known if r.feasible]
    largest = metric.direction == "max"
    best = list(accumulate([r.figures[axis.name].value for r in good], max if largest else min))
    traces = [
        _history("let go", [r for r in known if not r.feasible], places, axis, "#d5dce3"),
        _history("candidates", good, places, axis, GREY),
        {
            "type": "scatter",
            "mode": "lines",
            "line": {"shape": "hv", "color": ACCENT, "width": 2},
            "name": "best so far",
            "x": [places[r.number] for r in good],
            "y": [axis.scaled(v) for v in best],
            "hoverinfo": "skip",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "candidates paid for"}, "gridcolor": LINE, "zeroline": False},
        "yaxis": {
            "title": {"text": axis.title},
            "type": "log" if metric.direction == "min" else "linear",
            "gridcolor": LINE,
            "zeroline": False,
        },
    }
    return _plot("history", traces, layout)


def _history(name: str, records: Sequence[Record], places: Mapping[int, int], axis: Axis, color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [places[r.number] for r in records],
        "y": [axis.scaled(r.figures[axis.name].value) for r in records],
        "text": [
            _hover(f"trial {label(r.number)} ({r.origin})", r.pipeline, r.figures, (axis.metric,)) for r in records
        ],
        "hoverinfo": "text",
        "marker": {"color": color, "size": 6},
    }


def _plot(name: str, traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> str:
    """A plot's place and the script that fills it."""
    common = {
        "margin": {"l": 62, "r": 16, "t": 8, "b": 46},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": SOFT, "size": 12, "family": "system-ui, sans-serif"},
        "legend": {"orientation": "h", "y": 1.08, "x": 0},
        "hoverlabel": {"align": "left", "font": {"size": 11}},
        "hovermode": "closest",
    }
    data = _in_script([t for t in traces if t["x"]])
    whole = _in_script({**common, **layout})
    return (
        f"<noscript>The plot needs a browser with scripts; the tables hold its figures.</noscript>"
        f'<div id="{name}" style="height:100%"></div>'
        f'<script>Plotly.newPlot("{name}", {data}, {whole}, {{displayModeBar: false, responsive: true}});</script>'
    )


def _in_script(data: Any) -> str:
    """Data as JSON that cannot end the script it stands in."""
    return json.dumps(json.loads(json_text(data, indent=None))).replace("</", "<\\/")
