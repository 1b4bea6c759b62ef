"""`nasc verify`: run the evidence of a result again, or hold an ONNX file against the network it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import note, print_json, print_table
from .export import WORDS
from .model import Arguments, DataFrom, ExampleInput, Legalize, Passes, Seed, WeightsFile


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|NET.onnx", help="The output folder of `nasc compile`, or its best/; an ONNX file."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="What the ONNX file was made from; the options below speak of it."),
    ] = None,
    passes: Passes = "",
    data: DataFrom = None,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    seed: Seed = 0,
    legalize: Legalize = True,
    target: Annotated[
        str | None, typer.Option(help="What runs the file.  \\[default: what it was written for, else the best here]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a result: digests, emission, agreement with torch, integer kernels, quality on test data.

    Or check an ONNX file against a network: agreement with torch, the first layer that differs, integer kernels.
    """
    from .. import api

    checks = api.verify(
        path,
        against=against,
        passes=passes,
        data=data,
        input=input,
        weights=weights,
        arguments=arg,
        seed=seed,
        legalize=legalize,
        target=target,
        tell=note,
    )
    if as_json:
        print_json([{"check": c.name, "holds": c.holds, "found": c.found} for c in checks])
    else:
        print_table(str(path), ["check", "", "found"], [(c.name, WORDS[c.holds], c.found) for c in checks])
    if any(c.holds is False for c in checks):
        raise typer.Exit(1)
