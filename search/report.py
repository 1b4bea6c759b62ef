"""The report: one page of HTML that stands alone, readable without scripts, with a plot for those who have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from .figures import Figure, Figures, Metric, shown, value_text
from .protocols import UNCHECKED
from .records import Record, label
from .report_plots import front_plot, history_plot, plotly_script
from .report_style import STYLE
from .result import LayerRow, Named, Result, figure_text, source_text, times_text

COSTS = ("bit_operations", "size", "latency", "energy", "macs", "parameters")
KINDS = {
    "exact": "counted from the graph",
    "measured": "measured here, with an interval where one is shown",
    "estimated": "estimated by a model",
}


def report_html(result: Result) -> str:
    """The page."""
    body = "\n".join(
        [
            _heading(result),
            _notices(result),
            _tiles(result),
            _section("Trade-offs", _plots(result), _front(result)),
            _section("The winner, layer by layer", _layers(result)),
            _section("Compared on all figures", _comparison(result)),
            _section("How it was found", _how(result)),
            _section("Do it again", _again(result)),
        ]
    )
    title = escape(f"{result.name} on {result.target}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>nasc: {title}</title>\n'
        f"<style>{STYLE}</style>\n{plotly_script()}\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _heading(result: Result) -> str:
    return (
        f"<header><p class=brand>nasc</p><h1>{escape(result.name)}</h1>"
        f"<p class=lead>from <code>{escape(result.source)}</code> for <code>{escape(result.target)}</code>, "
        f"{result.paid} candidates evaluated</p></header>"
    )


def _notices(result: Result) -> str:
    if not result.notices:
        return ""
    items = "".join(f"<li>{escape(text[:1].upper() + text[1:])}.</li>" for text in result.notices)
    return f"<aside><ul>{items}</ul></aside>"


def _tiles(result: Result) -> str:
    """The figures that matter, source against winner."""
    quality, best, base = result.quality, result.best, result.baseline
    tiles: list[str] = []
    ours, theirs = (best.test, base.test) if best.test else (best.figures, base.figures)
    if quality.name in ours and quality.name in theirs:
        where = "test" if best.test else "validation"
        tiles.append(
            _tile(
                f"{quality.label} on {where} samples",
                value_text(quality, ours[quality.name].value),
                f"source {value_text(quality, theirs[quality.name].value)}",
                _change(quality, ours, theirs),
            )
        )
    for name in COSTS[:4]:
        metric = result.metrics.get(name)
        if metric is None or name not in best.figures or name not in base.figures:
            continue
        figure, before = best.figures[name], base.figures[name]
        verdict = figure.verdict or (times_text(before.value / figure.value) if figure.value else "")
        tiles.append(
            _tile(metric.label, shown(metric, figure), f"source {source_text(metric, figure, before)}", verdict)
        )
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _tile(name: str, value: str, before: str, change: str) -> str:
    return (
        f"<div class=tile><p class=name>{escape(name)}</p><p class=value>{escape(value)}</p>"
        f"<p class=change>{escape(change)}</p><p class=before>{escape(before)}</p></div>"
    )


def _change(metric: Metric, ours: Figures, theirs: Figures) -> str:
    text = figure_text(metric, ours, theirs)
    return text.split("(", 1)[1].rstrip(")") if "(" in text else ""


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _plots(result: Result) -> str:
    return f'<div class="plot">{front_plot(result)}</div>'


def _front(result: Result) -> str:
    columns, rows = result.table()
    strong = [row[1] == "best" for row in rows]
    note = (
        "Each member is better than every other at something by more than chance explains; what only looks better "
        "is left out."
    )
    return _table(columns, rows, strong=strong) + f"<p class=note>{note}</p>"


def _layers(result: Result) -> str:
    total = sum(row.costs.get("bit_operations", 0.0) for row in result.layers) or 1.0
    rows = [_layer(row, total) for row in result.layers]
    columns = ["layer", "op", "weight", "weights", "input", "bias", "bit operations", "share"]
    return _table(columns, rows, raw_last=True)


def _layer(row: LayerRow, total: float) -> list[str]:
    shape = "×".join(map(str, row.shape))
    if row.source_shape is not None and row.source_shape != row.shape:
        shape += f" (was {'×'.join(map(str, row.source_shape))})"
    share = row.costs.get("bit_operations", 0.0) / total
    bar = f'<span class=bar><span style="width:{100 * share:.1f}%"></span></span> {100 * share:.0f} %'
    operations = f"{row.costs.get('bit_operations', 0.0):,.0f}"
    return [row.name, row.kind, shape, row.weights, row.activations, row.biases or "–", operations, bar]


def _comparison(result: Result) -> str:
    networks = [n for n in (result.baseline, result.reference, result.best) if n is not None]
    rows: list[list[str]] = []
    for metric in result.metrics.values():
        cells = [figure_text(metric, n.figures, result.baseline.figures) for n in networks]
        if any(metric.name in n.figures for n in networks):
            kind = next(n.figures[metric.name].kind for n in networks if metric.name in n.figures)
            where = " on validation samples" if metric.is_quality else ""
            rows.append([metric.label + where, *cells, kind])
        tested = [figure_text(metric, n.test, result.baseline.test) for n in networks]
        if any(metric.name in n.test for n in networks):
            rows.append([f"{metric.label} on test samples", *tested, "measured"])
    columns = ["", *[_named(n) for n in networks], "kind"]
    kinds = " ".join(f"<b>{kind}</b>: {text}." for kind, text in KINDS.items() if any(kind == r[-1] for r in rows))
    return _table(columns, rows) + f"<p class=note>{kinds}</p>" + _sources(networks, result)


def _sources(networks: Sequence[Named], result: Result) -> str:
    """Where the estimated figures come from."""
    found: dict[str, None] = {}
    for metric in result.metrics.values():
        figures = [n.figures[metric.name] for n in networks if metric.name in n.figures]
        notes = dict.fromkeys(note for f in figures if f.kind == "estimated" for note in f.notes)
        if notes:
            found[f"{metric.label}: {', '.join(notes)}."] = None
    return f"<p class=note>Estimates: {escape(' '.join(found))}</p>" if found else ""


def _named(network: Named) -> str:
    return network.name if network.number is None else f"{network.name} (trial {label(network.number)})"


def _how(result: Result) -> str:
    parts = [
        f"<p>The winner: {escape(result.rule)}. Objectives: {_codes(result.goals.objectives)}. "
        + (f"Constraints: {_codes(result.goals.constraints)}." if result.goals.constraints else "No constraints.")
        + "</p>"
    ]
    if confirmed := _confirmed(result):
        parts.append(confirmed)
    parts.append(f'<div class="plot small">{history_plot(result)}</div>')
    parts.append(_states(result))
    parts.append(_seconds(result))
    if (why := result.deployed.check.get(UNCHECKED)) is not None:
        parts.append(f"<p>The exported file was not compared with the network's own execution: {escape(why)}.</p>")
    elif result.deployed.check:
        facts = ", ".join(f"{key.replace('_', ' ')}: {_fact(value)}" for key, value in result.deployed.check.items())
        parts.append(f"<p>The exported file was compared with the network's own execution: {escape(facts)}.</p>")
    return "".join(parts)


def _confirmed(result: Result) -> str:
    """What the second look at the candidates that might win said."""
    metric = result.quality
    if metric.name not in result.confirmation:
        return ""
    looks: list[tuple[str, Figure, bool]] = [
        (label(n), figures[metric.name], False) for n, figures in result.refused.items() if metric.name in figures
    ]
    looks.append((label(result.best.number or 0), result.confirmation[metric.name], True))
    rows = [
        [number, figure_text(metric, {metric.name: figure}, result.baseline.figures), "wins" if won else "refused"]
        for number, figure, won in looks
    ]
    text = "Candidates that might win were looked at again on samples that had no part in choosing them."
    return f"<p>{text}</p>" + _table(["trial", metric.label, ""], rows)


def _states(result: Result) -> str:
    counts = {
        state: sum(r.state == state and r.paid for r in result.trials) for state in ("complete", "pruned", "failed")
    }
    repeated = sum(not r.paid for r in result.trials)
    told = {"complete": "evaluated in full", "pruned": "ended early by a constraint", "failed": "failed"}
    text = ", ".join(f"{n} {told[state]}" for state, n in counts.items() if n)
    again = f"; {repeated} proposals repeated a known candidate and cost nothing" if repeated else ""
    failures = _failures([r for r in result.trials if r.state == "failed" and r.paid])
    return f"<p>{text}{again}.</p>{failures}"


def _failures(failed: Sequence[Record]) -> str:
    if not failed:
        return ""
    reasons = list(dict.fromkeys((r.reason or "").splitlines()[0] for r in failed))[:5]
    return "<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in reasons) + "</ul>"


def _seconds(result: Result) -> str:
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    return f"<p>Time spent in each step of the evaluation: {escape(spent)}.</p>"


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{n} {key}" for key, n in value.items()) or "none"
    return "none" if value is None else str(value)


def _again(result: Result) -> str:
    return (
        f"<pre>{escape(result.command)}</pre>"
        f"<p>The winner's pipeline:</p><pre class=wrap>{escape(result.best.pipeline)}</pre>"
        "<p class=note>In the same folder the command continues the search; with another <code>--output</code> it does "
        "it all again. <code>best/manifest.json</code> holds the digests, versions and every figure shown here.</p>"
    )


def _codes(items: Iterable[object]) -> str:
    return ", ".join(f"<code>{escape(str(item))}</code>" for item in items)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, strong: Sequence[bool] = (), raw_last: bool = False
) -> str:
    """A table; with `raw_last` the last cell of each row is HTML."""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    lines: list[str] = []
    for i, row in enumerate(rows):
        cells = [escape(cell) for cell in row]
        if raw_last:
            cells[-1] = row[-1]
        mark = " class=best" if i < len(strong) and strong[i] else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
