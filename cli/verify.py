"""`nasc verify`: run the evidence of a result again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import print_json, print_table


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="The output folder of `nasc compile`, or its best/.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a result: digests, emission, agreement with torch, integer kernels, quality on test data."""
    from .. import api

    checks = api.verify(folder)
    if as_json:
        print_json([{"check": c.name, "holds": c.holds, "found": c.found} for c in checks])
    else:
        words = {True: "holds", False: "FAILS", None: "not checked"}
        print_table(str(folder), ["check", "", "found"], [(c.name, words[c.holds], c.found) for c in checks])
    if any(c.holds is False for c in checks):
        raise typer.Exit(1)
