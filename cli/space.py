"""`nasc space`: what a search may change of a network, what is frozen and why, and how large the space is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app
from .console import note, print_json, print_table, unsaid
from .model import Arguments, ExampleInput, Model, Rules, WeightsFile, WidthBounds, WidthMultiple, bounds_of

if TYPE_CHECKING:
    from ..search.survey import Survey


@app.command()
def space(
    model: Model,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    rules: Rules = None,
    widths: Annotated[bool, typer.Option("--widths/--no-widths", help="Offer widths and blocks.")] = True,
    width_bounds: WidthBounds = None,
    width_multiple: WidthMultiple = None,
    target: Annotated[str | None, typer.Option(help="Runtime and device.  \\[default: auto]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; flags override it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the free widths and blocks of a network, what is frozen and why, and the size of the search space."""
    from .. import api
    from ..search.config import configuration

    flags = {
        "search.space": rules,
        "search.widths": widths,
        "search.width_bounds": bounds_of(width_bounds),
        "search.width_multiple": width_multiple,
        "target": target,
    }
    settings = configuration(flags, path=config).settings
    network = partial(api.load_network, model, input=input, weights=weights, arguments=arg, tell=unsaid)
    found = api.space(network, settings)
    if as_json:
        print_json(found.as_dict())
        return
    show(found)
    if not rules and widths:
        note("`nasc compile` offers widths and blocks where candidates are trained, or with --widths")


def show(found: Survey) -> None:
    """The tables."""
    rows = [
        (
            row.name if len(row.widths) == 1 else f"{row.name} ({len(row.widths)})",
            ", ".join(map(str, row.sizes)),
            ", ".join(row.layers),
            f"{row.share:.1%}",
            "stays" if row.low is None else f"{row.low}..{row.high}",
            row.multiple,
        )
        for row in found.widths
    ]
    many = sum(len(row.widths) for row in found.widths)
    print_table(
        f"{many} free widths of @{found.name} in {len(rows)} groups",
        ["width", "size", "layers it touches", "parameters", "from..to", "multiples of"],
        rows,
        numbers=["size", "parameters", "from..to", "multiples of"],
    )
    if found.blocks:
        print_table(
            f"{len(found.blocks)} blocks that can be dropped",
            ["block", "layers", "parameters", "choices"],
            [(b.name, ", ".join(b.layers), f"{b.share:.1%}", ", ".join(b.choices) or "stays") for b in found.blocks],
            numbers=["parameters"],
        )
    print_table(
        f"{sum(row.count for row in found.frozen)} frozen axes",
        ["because of", "ops", "tensor[axis]=length", "line"],
        [(row.reason, ", ".join(row.ops), ", ".join(row.axes), row.location or "") for row in found.frozen],
        whole=["line"],
    )
    parts = {part: [k for k in found.knobs if k.part == part] for part in dict.fromkeys(k.part for k in found.knobs)}
    print_table(
        f"{found.size:,} configurations for {found.target}"
        if found.size < 10**12
        else f"{found.size:.2e} configurations for {found.target}",
        ["what is chosen", "knobs", "choices of each"],
        [
            (part, len(knobs), "; ".join(dict.fromkeys(", ".join(k.choices) for k in knobs)))
            for part, knobs in parts.items()
        ],
        numbers=["knobs"],
    )
    print_table(
        "its corners, batch 1",
        ["network", "parameters", "MACs", "bytes of weights", "bit operations"],
        [
            (c.name, f"{c.parameters:,}", f"{c.macs:,}", f"{c.size_bytes:,}", f"{c.bit_operations:,}")
            for c in found.corners
        ],
        numbers=["parameters", "MACs", "bytes of weights", "bit operations"],
    )
    for line in found.left_out:
        note(line)
    note(f"{found.share:.1%} of the parameters are under free widths")
