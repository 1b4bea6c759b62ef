"""`nasc profile`: where a network spends its time on this device, and how far that is from the least it could take."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import note, print_json, print_table, print_text, unsaid
from .measure import bytes_of
from .model import Arguments, ExampleInput, WeightsFile


@app.command()
def profile(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="An ONNX file, nasc's or any other; a network (m.nasc); a model file."),
    ],
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    by_kernel: Annotated[
        bool, typer.Option("--kernels", help="A line per kernel instead of a line per layer.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Length of the batch axis.")] = 1,
    target: Annotated[
        str, typer.Option(help="Runtime and device, as onnxruntime:cpu; auto takes the best here.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    budget: Annotated[float, typer.Option(help="Seconds to spend on calls.")] = 4.0,
    bounds: Annotated[
        bool, typer.Option(help="Say how far each layer is from what the device can do; calibrates it the first time.")
    ] = True,
    isolate: Annotated[
        bool, typer.Option(help="Profile in a process of its own, which may crash or hang without harm.")
    ] = True,
    limit: Annotated[
        float | None, typer.Option(help="Seconds after which to give up.  \\[default: two minutes beyond the budget]")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB of memory that profiling may take.  \\[default: four fifths of the free]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time every layer on this device: its kernels, where they run, their share, and the least they could take."""
    from .. import api
    from ..targets.profile import COLUMNS

    a_file = model.endswith(".onnx")
    network = partial(api.load_network, model, input=input, weights=weights, arguments=arg, tell=unsaid)
    found = api.profile(
        Path(model) if a_file else network,
        target=target,
        batch=batch,
        threads=threads,
        budget_s=budget,
        bounds=bounds,
        isolate=isolate,
        limit_s=limit,
        memory_limit_bytes=None if memory is None else bytes_of(memory),
        inputs=input if a_file else None,
        tell=note,
    )
    if as_json:
        print_json(found.as_dict())
        return
    print_table(
        f"{model} on {found.target}, batch {found.batch}, {threads} thread(s)",
        COLUMNS,
        found.rows(by_kernel=by_kernel),
        numbers=["time", "share", "GMAC/s", "bound", "achieved"],
    )
    for line in found.summary():
        print_text(line)
    for remark in found.remarks():
        note(remark)
