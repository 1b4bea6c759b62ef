"""What runs as what: each layer of a network on a target, as planned and as it was seen to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..ir import Graph, Op, operand
from ..ir.layers import layers
from ..targets import LayerPlan, Placement, Target
from .result import listed

Runs = Literal["integer", "container", "f8", "stored", "float"]
LABELS: Mapping[Runs, str] = {
    "integer": "on integer kernels",
    "container": "on integer kernels, fewer bits in 8-bit containers",
    "f8": "on kernels for 8-bit floats",
    "stored": "in float, with quantized weights or inputs",
    "float": "in float",
}
"""How a layer runs, for people."""


@dataclass(frozen=True)
class LayerRun:
    """One layer.

    Args:
        layer: its name.
        kind: its op.
        weights: format of its weights.
        inputs: format of its input.
        runs: what is planned.
        reason: why, as one sentence.
        kernels: what was seen to run it; empty: nothing by its name, or it was not looked.
        place: the user's line, or empty.
    """

    layer: str
    kind: str
    weights: str
    inputs: str
    runs: Runs
    reason: str
    kernels: tuple[str, ...] = ()
    place: str = ""


def layer_runs(graph: Graph, target: Target, placement: Placement | None = None) -> tuple[LayerRun, ...]:
    """One entry per layer, in order.

    Args:
        graph: in the form that the target runs.
        target: the target.
        placement: what really runs, by the layers it computes; None: it was not looked.
    """
    seen: dict[str, list[str]] = {}
    for node in () if placement is None else placement.nodes:
        seen.setdefault(node.layer, []).append(node.kind)
    plans = {entry.layer: entry for entry in target.plan(graph).layers}
    return tuple(_run(graph, layer, plans[layer.name], target, seen.get(layer.name, ())) for layer in layers(graph))


def _run(graph: Graph, layer: Op, plan: LayerPlan, target: Target, kernels: Sequence[str]) -> LayerRun:
    weights, inputs = graph.types[operand(layer, "weight") or ""], graph.types[layer.inputs[0]]
    supported = (target.supports(weights.encoding, "weight"), target.supports(inputs.encoding, "activation"))
    runs: Runs = "stored" if weights.quantized or inputs.quantized else "float"
    if plan.f8:
        runs = "f8"
    elif plan.integer:
        runs = "container" if any(s.runs == "container" for s in supported) else "integer"
    place = "" if layer.location is None else str(layer.location)
    formats = str(weights.format), str(inputs.format)
    return LayerRun(layer.name, layer.kind, *formats, runs, plan.reason, tuple(kernels), place)


def by_runs(rows: Sequence[LayerRun]) -> list[tuple[str, str]]:
    """How many layers run how, and which; why they are in float, where other layers are not."""
    found: list[tuple[str, str]] = []
    for runs, label in LABELS.items():
        these = [row for row in rows if row.runs == runs]
        if not these:
            continue
        why = f" ({these[0].layer}: {these[0].reason})" if runs in ("stored", "float") and _mixed(rows) else ""
        found.append((label, f"{len(these)} of {len(rows)} layers: {listed([row.layer for row in these])}{why}"))
    return found


def _mixed(rows: Sequence[LayerRun]) -> bool:
    """Whether any layer has codes, so that being in float needs a reason."""
    return any(row.runs != "float" for row in rows)
