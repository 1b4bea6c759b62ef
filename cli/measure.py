"""`nasc measure`: what an ONNX file really costs on this device."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ..ir.errors import UsageError
from .app import app
from .console import note, print_json, print_table


@app.command()
def measure(
    model: Annotated[Path, typer.Argument(help="An ONNX file, nasc's or any other.")],
    baseline: Annotated[
        Path | None, typer.Option(help="Another ONNX file to compare with, run in turns with it.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="latency, energy, or both with a comma.  \\[default: latency]")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Length of the batch axis.  \\[default: the file's own, or 1]")
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="Shapes of inputs that leave more open than the batch: 1x3x224x224, 2x24:i64:0..999; several with "
            "commas, by name as tokens=2x24.",
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="Runtime and device, as onnxruntime:cpu; auto takes the best here.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    budget: Annotated[float, typer.Option(help="Seconds to spend at most per metric.")] = 10.0,
    meter: Annotated[
        str, typer.Option(help="Meter of energy: nvml, nvml:UUID, rapl; auto takes that of the device.")
    ] = "auto",
    energy: Annotated[
        str | None,
        typer.Option(metavar="estimate", help="Also count energy at the literature's prices, marked estimated."),
    ] = None,
    isolate: Annotated[
        bool, typer.Option(help="Measure in a process of its own, which may crash or hang without harm.")
    ] = True,
    limit: Annotated[
        float | None, typer.Option(help="Seconds after which to give up.  \\[default: two minutes beyond the budgets]")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB of memory that measuring may take.  \\[default: four fifths of the free]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure latency, and energy where there is a meter, with intervals; compare with a baseline in the same run."""
    from .. import api

    metric = metric or ["latency"]
    if energy is not None:
        metric, meter = [*metric, "energy"], estimating(energy, meter)
    found = api.measure(
        model,
        baseline=baseline,
        metrics=metric,
        batch=batch,
        inputs=input,
        target=target,
        threads=threads,
        budget_s=budget,
        meter=meter,
        isolate=isolate,
        limit_s=limit,
        memory_limit_bytes=None if memory is None else bytes_of(memory),
    )
    if as_json:
        print_json(found.as_dict())
    else:
        print_table(
            f"{model} on {found.target}, batch {found.batch}, {threads} thread(s)",
            ["what", "value", "interval"],
            found.rows(),
        )
        for remark in found.remarks():
            note(remark)
    if found.empty:
        raise typer.Exit(1)


def bytes_of(memory_gib: float) -> int:
    """What `--memory` means.

    Raises:
        UsageError: it is no finite number.
    """
    if not math.isfinite(memory_gib):
        raise UsageError(f"the memory must be a finite number of GiB; found {memory_gib:g}")
    return math.floor(memory_gib * 2**30)


def estimating(energy: str, meter: str = "auto", *, mend: str = "To measure, write --metric energy.") -> str:
    """The meter that `--energy estimate` means.

    Args:
        energy: what the option says.
        meter: the meter named beside it.
        mend: how to measure instead.

    Raises:
        UsageError: the option says something else, or a meter is named beside it.
    """
    if energy != "estimate":
        raise UsageError(f"--energy takes `estimate`; found {energy!r}", mend=mend)
    if meter not in ("auto", "estimate"):
        raise UsageError(f"--energy estimate counts, and --meter {meter} measures", mend="Leave one of them out.")
    return "estimate"
