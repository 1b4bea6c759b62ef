"""Sensitivity as a page: one map per part, layers from the most sensitive down, formats from few bits to many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..ir.errors import UsageError
from ..ir.files import check_writable, write_text
from .sensitivity import Damage, Sensitivity

ROW_PX, FRAME_PX = 26, 160
PAGE = (".html", ".htm")
"""Suffixes of the one kind of file that is written: pictures would need a browser beside plotly."""


def table(found: Sensitivity, part: str) -> tuple[list[str], list[tuple[str, dict[str, Damage]]]]:
    """The formats of a part, from few bits to many, and its choices ranked, each with its damages by format."""
    rows = [(name, {d.format: d for d in damages}) for name, damages in found.ranked() if damages[0].part == part]
    bits = {d.format: d.bits for _, damages in rows for d in damages.values()}
    return sorted(bits, key=lambda f: (bits[f], f)), rows


def parts(found: Sensitivity) -> list[str]:
    """The parts that were looked at, in order."""
    return list(dict.fromkeys(d.part for d in found.damages))


def check_plot(path: Path) -> None:
    """Refuse a place for the page, before anything is computed for it.

    Raises:
        UsageError: its name promises another kind of file, or no file can be written there.
    """
    check_writable(path)
    if path.suffix.lower() not in PAGE:
        found = f"found {path.suffix}" if path.suffix else "found none"
        raise UsageError(
            f"{path}: error: a map is written as a page, whose suffix is .html; {found}",
            mend=f"Write --plot {path.with_suffix(PAGE[0])}; the camera at its upper right saves a picture.",
        )


def write_plot(found: Sensitivity, path: Path, title: str) -> None:
    """Write the maps as one HTML page that needs no network.

    Raises:
        UsageError: see `check_plot`.
    """
    check_plot(path)
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    shown = [(part, *table(found, part)) for part in parts(found)]
    figure: Any = make_subplots(
        rows=len(shown),
        cols=1,
        subplot_titles=[part for part, _, _ in shown],
        row_heights=[len(rows) + 1 for _, _, rows in shown],
    )
    for at, (_, formats, rows) in enumerate(shown):
        cells = [[damages.get(f) for f in formats] for _, damages in rows]
        text = [["" if d is None else f"{d.sqnr_db:.1f}" for d in line] for line in cells]
        hover = [["" if d is None else explained(d) for d in line] for line in cells]
        figure.add_trace(
            go.Heatmap(
                z=[[None if d is None else d.sqnr_db for d in line] for line in cells],
                x=formats,
                y=[name for name, _ in rows],
                text=text,
                texttemplate="%{text}",
                hovertext=hover,
                hoverinfo="text",
                coloraxis="coloraxis",
            ),
            row=at + 1,
            col=1,
        )
        figure.update_yaxes(autorange="reversed", row=at + 1, col=1)
    figure.update_layout(
        title=f"{title}: signal over noise of the output when one choice alone is rounded, {found.samples} samples",
        coloraxis={"colorscale": "RdYlGn", "colorbar": {"title": "dB"}},
        height=FRAME_PX * len(shown) + ROW_PX * sum(len(rows) for _, _, rows in shown),
    )
    write_text(path, figure.to_html(include_plotlyjs=True))


def explained(damage: Damage) -> str:
    """One damage in words."""
    loss = "" if damage.loss is None else f", loss {damage.loss:+.3g}"
    return f"{damage.name} in {damage.format}: {damage.sqnr_db:.1f} dB{loss}"
