"""`nasc lower`, `nasc diff`: look at a network without changing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import note, print_text
from .model import Arguments, ExampleInput, Model, WeightsFile


@app.command()
def lower(
    model: Model,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write FILE.nasc and FILE.safetensors instead of printing.")
    ] = None,
) -> None:
    """Lower a PyTorch model to the IR and print it."""
    from .. import api
    from ..ir.files import check_writable

    if output is not None:
        check_writable(output, makes_folders=True)
    outputs = [] if output is None else [output]
    network = api.load_network(model, input=input, weights=weights, arguments=arg, outputs=outputs, tell=note)
    if output is None:
        print_text(str(network.graph))
    else:
        network.save(output)
        note(f"wrote {output} and {output.with_suffix('.safetensors')}")


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A network's text.")],
    after: Annotated[Path, typer.Argument(help="Another.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where they differ.")] = False,
) -> None:
    """Show what differs between two networks, as a unified diff of their text without source lines."""
    from difflib import unified_diff

    from ..compiler.files import load_graph

    texts = [str(load_graph(path).without_locations()).splitlines(keepends=True) for path in (before, after)]
    lines = list(unified_diff(texts[0], texts[1], str(before), str(after), n=2))
    print_text("".join(lines)) if lines else note("no difference")
    if lines and exit_code:
        raise typer.Exit(1)
