"""`nasc sensitivity`: which layers suffer most from few bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import note, print_json, print_table
from .model import Arguments, ExampleInput, Model, WeightsFile


@app.command()
def sensitivity(
    model: Model,
    input: ExampleInput = None,
    weights_file: WeightsFile = None,
    arg: Arguments = None,
    weights: Annotated[
        str | None, typer.Option("--formats", metavar="FORMATS", help="Formats of weights: i2..i8, or i2,i4,i8.")
    ] = None,
    activations: Annotated[
        str | None, typer.Option("--activations", metavar="FORMATS", help="Formats of layers' inputs: u4..u8.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples to look at.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the source network's training, where it has to be trained.")] = 0,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.html", help="Write a page with a map.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank layers by the damage that each format does alone: one layer at a time, all others in real numbers."""
    from .. import api
    from ..search.sensitivity_plot import check_plot, parts, table, write_plot
    from ..search.space_rules import format_rules

    format_rules(weights, activations)
    if plot is not None:
        check_plot(plot)
    task = api.load_task(model, input=input, weights=weights_file, arguments=arg)
    found = api.sensitivity(task, weights=weights, activations=activations, samples=samples, seed=seed)
    if plot is not None:
        write_plot(found, plot, task.name)
        note(f"wrote {plot}")
    if as_json:
        print_json(found.as_dict())
        return
    grown = "" if found.loss is None else f" (growth of the loss, which is {found.loss:.4f})"
    for part in parts(found):
        formats, ranked = table(found, part)
        rows = [
            (at + 1, name, *(_cell(damages[f].sqnr_db, damages[f].loss) if f in damages else "" for f in formats))
            for at, (name, damages) in enumerate(ranked)
        ]
        print_table(
            f"{part} of @{task.name}, most sensitive first: dB of signal over noise{grown}, {found.samples} samples",
            ["rank", "choice", *formats],
            rows,
            numbers=["rank", *formats],
        )


def _cell(sqnr_db: float, loss: float | None) -> str:
    return f"{sqnr_db:.1f}" if loss is None else f"{sqnr_db:.1f} ({loss:+.4f})"
