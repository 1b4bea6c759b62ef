"""`nasc export`: write a network as ONNX, and say what runs as what and how far the file agrees with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import note, print_json, print_table
from .model import Arguments, DataFrom, ExampleInput, Legalize, Model, Passes, Seed, WeightsFile

WORDS = {True: "holds", False: "FAILS", None: "not checked"}
"""What a check says, by whether it holds."""


@app.command()
def export(
    model: Model,
    passes: Passes = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file.  \\[default: the model's name with .onnx, in this folder]"),
    ] = None,
    target: Annotated[
        str, typer.Option(help="What to write for, as onnxruntime:cpu; auto takes the best here.")
    ] = "auto",
    data: DataFrom = None,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    seed: Seed = 0,
    legalize: Legalize = True,
    reproducer: Annotated[
        Path, typer.Option(metavar="FILE.nasc", help="Where to write what a failing pass was given.")
    ] = Path("nasc-reproducer.nasc"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a network, rewritten by a pipeline of passes, as ONNX for a target, and compare the file with it."""
    from ..deploying import export_model
    from ..making import Source
    from ..search.figures import METRICS, value_text

    source = Source(model, passes, data, input, weights, arg, seed, legalize)
    done = export_model(source, output, target=target, reproducer=reproducer, tell=note)
    if as_json:
        print_json(done.as_dict())
    else:
        rows = [(label, "", found) for label, found in done.rows()]
        rows += [(check.name, WORDS[check.holds], check.found) for check in done.checks]
        size = value_text(METRICS["size"], done.size_bytes)
        print_table(f"{done.file}, {size}, for {done.target}", ["what", "", "found"], rows)
        note(f"wrote {done.file}" + (f" and {done.beside}: keep them together" if done.beside else ""))
    if done.unchecked:
        note(f"not compared with the network: {done.target} cannot run here: {done.unchecked}")
    if not done.holds:
        raise typer.Exit(1)
