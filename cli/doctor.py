"""`nasc doctor`: what this machine has for measuring, and what would mend what is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from .app import app
from .console import note, print_json, print_table


@app.command()
def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure what this device can do at best, and keep it.")
    ] = False,
    threads: Annotated[int, typer.Option(help="Threads of the runtime, for what the device can do.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is here for measuring (runtimes, meters, clocks, permissions, versions), and how to mend what is not."""
    from ..targets.doctor import SECTIONS, as_dict, examine, peaks
    from ..targets.host import check_threads

    check_threads(threads)
    found = examine({n: (lambda: peaks(calibrate, threads)) if look is peaks else look for n, look in SECTIONS.items()})
    if as_json:
        print_json(as_dict(found))
        return
    for section in found:
        rows = [(f.state, f.what, f.found) for f in section.findings]
        print_table(section.name, ["", "what", "found"], rows)
    mends = [f for section in found for f in section.findings if f.mend]
    if mends:
        rows = [(f.what, f.mend) for f in mends]
        print_table("what would mend it", ["what", "how"], rows)
    else:
        note("nothing is missing")
