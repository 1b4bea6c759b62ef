"""`nasc opt`: apply a pipeline of passes to a lowered network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import note, print_table, print_text
from .model import Arguments, ExampleInput, Model, WeightsFile


@app.command()
def opt(
    model: Model,
    passes: Annotated[
        str, typer.Option("--passes", metavar="PIPELINE", help="Passes, as in 'resize{fc1=24} | cleanup'.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write text and weights instead of printing.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="MODEL", help="Model file whose data passes may use.")
    ] = None,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    seed: Annotated[int, typer.Option(help="Seed for passes that draw at random.")] = 0,
    dump_ir_after_all: Annotated[
        Path | None,
        typer.Option("--dump-ir-after-all", metavar="DIR", help="Write the network's text after every pass."),
    ] = None,
    timing: Annotated[bool, typer.Option("--timing", help="Print how long each pass took.")] = False,
) -> None:
    """Rewrite a network by a pipeline of passes, verify it after each, and print it."""
    from .. import api

    network = api.load_network(model, input=input, weights=weights, arguments=arg)
    trace = api.rewrite(
        network, passes, data=data or (model if model.endswith(".py") else None), seed=seed, dump=dump_ir_after_all
    )
    if output is None:
        print_text(str(trace.network.graph))
    else:
        trace.network.save(output)
        note(f"wrote {output} and {output.with_suffix('.safetensors')}")
    if timing:
        rows = [(s.text, f"{s.seconds * 1e3:.2f}", "yes" if s.changed else "no") for s in trace.steps]
        print_table("time per pass", ["pass", "ms", "changed"], rows, numbers=["ms"])
