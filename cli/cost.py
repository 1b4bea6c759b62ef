"""`nasc cost`: what a network costs by counting, op by op and in total."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .app import app
from .console import print_json, print_table, unsaid
from .model import Arguments, ExampleInput, Model, WeightsFile


@app.command()
def cost(
    model: Model,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count parameters, bytes, multiply-adds, bit operations and live activations of every op, for a batch of 1."""
    from .. import api
    from ..targets import static_cost

    network = api.load_network(model, input=input, weights=weights, arguments=arg, tell=unsaid)
    found = static_cost(network.graph)
    if as_json:
        nodes = [{**asdict(node), "intensity": node.intensity} for node in found.nodes]
        print_json({"totals": {r.name: r.value for r in found.records()}, "nodes": nodes})
        return
    print_table(
        f"costs of @{network.graph.name}, batch 1",
        ["op", "kind", "parameters", "weight bytes", "MACs", "bit ops", "ops", "live bytes", "ops/byte", "line"],
        [
            (
                node.name,
                node.kind,
                *(f"{n:,}" if n else "" for n in (node.parameters, -(-node.weight_bits // 8), node.macs)),
                *(f"{n:,}" if n else "" for n in (node.bit_operations, node.operations, node.live_bytes)),
                f"{node.intensity:.3g}",
                "/".join(node.location.split("/")[-2:]),
            )
            for node in found.nodes
        ],
        numbers=["parameters", "weight bytes", "MACs", "bit ops", "ops", "live bytes", "ops/byte"],
    )
    print_table(
        "totals",
        ["what", "value"],
        [(r.name, f"{r.value:,.4g} {r.unit}" if r.value % 1 else f"{r.value:,.0f} {r.unit}") for r in found.records()],
        numbers=["value"],
    )
