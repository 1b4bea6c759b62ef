"""What mixtures of bits are to save: the cost that goals ask for, layer by layer, and how much of it there may be."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..ir import format_named
from .allocation import INTEGER_BITS, Allocator, LayerCost, bit_operations, latency_s, size_bytes
from .figures import Figures
from .goals import Goals
from .protocols import Problem
from .space import FORMAT_PARTS, Assignment, Space, amount

COSTS = ("bit_operations", "size", "latency")
"""Costs that are sums over layers; the first is what is saved where goals name none of them."""
FASTER = 1 / 3
"""Latency in 8 bits over that in real numbers where it was not measured: the usual gain on CPUs with VNNI."""


def saved(goals: Goals, space: Space) -> str:
    """The cost that a constraint bounds, else one that is an objective, else bit operations.

    Latency is passed over where no choice changes it: all formats of at most 8 bits run alike.
    """
    named = [c.metric.name for c in goals.constraints] + [o.metric.name for o in goals.objectives]
    wide = any(amount(k, c) > INTEGER_BITS for k in space.free if k.part in FORMAT_PARTS for c in k.choices)
    return next((name for name in named if name in COSTS and (wide or name != "latency")), COSTS[0])


def largest_budget(goals: Goals, name: str, baseline: Figures, apart: float) -> float:
    """What constraints leave for the layers; infinity where they do not bound this cost.

    Args:
        goals: what is asked for.
        name: the cost.
        baseline: the source network's figures.
        apart: what of the cost is not in the layers.
    """
    bounds = [c.bound.at(baseline[name].value) for c in goals.constraints if c.metric.name == name]
    return min(bounds, default=math.inf) - apart


def allocator(
    problem: Problem, space: Space, start: Assignment, name: str, baseline: Figures
) -> tuple[Allocator, float]:
    """Who allocates bits under this cost, and how much of it no layer has (biases, steps).

    Args:
        problem: what is searched.
        space: where mixtures come from.
        start: the choice of all that is not allocated.
        name: the cost.
        baseline: the source network's figures.
    """
    widest = {**start, **{k.name: space.largest[k.name] for k in space.knobs if k.part == "weights"}}
    network = problem.builder.structure(space.pipeline(widest))
    layers = problem.judge.layers(network)
    macs = {layer: cost.get("macs", 0.0) for layer, cost in layers.items()}
    if name == "bit_operations":
        return Allocator(space, bit_operations(macs), start), 0.0
    if name == "latency":
        float_s = baseline["latency"].value
        return Allocator(space, latency_s(macs, float_s, FASTER * float_s), start), 0.0
    sizes = {layer: cost.get("size", 0.0) for layer, cost in layers.items()}
    bits = weight_bits(space, widest)
    elements = {layer: size * 8 / bits.get(layer, format_named("f32").bits) for layer, size in sizes.items()}
    apart = problem.judge.static(network)["size"].value - sum(sizes.values())
    cost: LayerCost = size_bytes(elements)
    return Allocator(space, cost, start), apart


def weight_bits(space: Space, assignment: Assignment) -> Mapping[str, int]:
    """Bits of each layer's weights that the space speaks of."""
    return {t: amount(k, assignment[k.name]) for k in space.knobs if k.part == "weights" for t in k.targets}
