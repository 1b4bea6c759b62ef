"""`nasc targets`: what networks can be compiled for, and which formats are really faster on this device."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .app import app
from .console import note, print_json, print_table


@app.command()
def targets(
    probe: Annotated[bool, typer.Option("--probe", help="Time each format on this device now (seconds).")] = False,
    target: Annotated[str, typer.Option(help="Whose formats to show; auto takes the best here.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the targets, and a table of which formats are faster than f32 here; it is timed once and kept."""
    from ..targets import target_named
    from ..targets import targets as known
    from ..targets.truth import table

    state = {name: each.unavailable() for name, each in known().items()}
    truth = table(target_named(target), again=probe)
    if as_json:
        print_json({"targets": state, "truth": asdict(truth)})
        return
    rows = [(name, "yes" if why is None else "no", why or "") for name, why in state.items()]
    print_table("targets", ["name", "runs here", "why not"], rows)
    lines = [
        (
            row.op,
            row.shape,
            row.weights,
            row.activations,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}",
            row.verdict if not row.reason else f"{row.verdict}: {row.reason}",
        )
        for row in truth.rows
    ]
    columns = ["op", "shape", "weights", "inputs", "time over f32", "95 %", "against f32"]
    print_table(f"{truth.target} on {truth.device}, {truth.runtime}", columns, lines, numbers=["time over f32"])
    note("three equal layers with ReLU, one thread, batch as the shape says; `--probe` times them again")
