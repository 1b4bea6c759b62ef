"""How wide the accumulator of an integer layer must be so that no input whatever makes it overflow."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...ir import SPECS, Op, layers, operand
from ..network import Network
from ..weights import Rounded


@dataclass(frozen=True)
class Accumulator:
    """What a layer sums up in integers.

    Args:
        layer: its name.
        largest: the largest magnitude that any partial sum of products, with the bias, can have.
    """

    layer: str
    largest: int

    @property
    def bits(self) -> int:
        """The fewest bits of a signed integer that holds every partial sum."""
        return self.largest.bit_length() + 1


def accumulators(network: Network) -> tuple[Accumulator, ...]:
    """The accumulators of all layers whose weights and inputs are integers, in order.

    A partial sum over products `w (x - zero)`, with `w` a weight's code less its own zero, is at most
    `sum |w| * max |x - zero|` in magnitude, whatever the order of summation, and the codes of the weights are known. A
    bias counts in the accumulator's step, `step_x * step_w`.

    Source: Colbert et al., ICCV 2023 (A2Q), equation 5, with the codes themselves in place of their bound.
    """
    found: list[Accumulator] = []
    for layer in layers(network.graph):
        if (largest := largest_sum(network, layer)) is not None:
            found.append(Accumulator(layer.name, largest))
    return tuple(found)


def largest_sum(network: Network, layer: Op) -> int | None:
    """The largest magnitude of a layer's accumulator; None where it computes in real numbers."""
    given = network.graph.types[layer.inputs[0]]
    name = operand(layer, "weight")
    recipe = network.weights.recipe(name) if name is not None and name in network.weights else None
    if not isinstance(recipe, Rounded) or given.step is None or given.step.zero is None or given.step.value is None:
        return None
    if name is None or not given.integer or not network.graph.types[name].integer:
        return None
    farthest = max(given.format.high - given.step.zero, given.step.zero - given.format.low)
    codes = recipe.tensor.to(torch.int64)
    codes = (codes - recipe.spread_zeros(codes)).abs()
    axis = SPECS[layer.kind].weight_axis
    assert axis is not None
    sums = codes.transpose(0, axis).flatten(1).sum(1) * farthest
    bias = operand(layer, "bias")
    if bias is None or bias not in network.weights:
        return int(sums.max())
    own = network.weights.recipe(bias)
    real = (own.real if isinstance(own, Rounded) else own.tensor).double()
    each = recipe.steps if recipe.steps.shape == real.shape else recipe.steps.min()
    added = torch.ceil((real / (each.double() * given.step.value)).abs()).to(torch.int64)
    return int((sums + added).max() if sums.shape == added.shape else sums.max() + added.max())
