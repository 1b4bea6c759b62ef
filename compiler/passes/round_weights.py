"""Choose the codes of weights so that layers' outputs stay, not so that each weight stays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...ir import SPECS, Graph, Op, UsageError, chosen_layers, operand
from ..lockstep import Lockstep, unrounded
from ..network import Network
from ..reconstruction import Moments, moments_of, output_error, rounded_codes, towards
from ..weights import Mended, Recipe, Rounded, Store
from .base import Context, Pass, PassError, expect_calibrated, expect_real_numbers, register
from .correct_bias import correctable, real_numbers, shifted, with_biases

KINDS = ("linear", "conv1d", "conv2d")
"""Layers whose weights are rounded input by input."""
REAL = "real numbers"
"""Why a layer is left that nobody asked to have in few bits."""
NAMED = 8
"""Layers that a sentence names; it counts the others."""
INSIDE = 0.49
"""How far from a code, in steps, a real number may be that stands for it."""


@register("round-weights")
@dataclass(frozen=True)
class RoundWeights(Pass):
    """Round the weights of layers in few bits one input after the other, each time mending the rest.

    Steps stay; codes change. From the calibration data comes `H = sum x x^T` over what a layer reads in the rounded
    network. Columns of the weight are rounded in the order of `H`'s diagonal, and the error of each is spread over the
    columns not yet rounded so that the outputs change least. The outputs aimed at are those of the real-numbered
    network. What is no better on the data than rounding to nearest stays so. The bias takes up what is left of the
    mean, so `H` is taken about the mean; a layer without a bias gets one, as in `correct-bias`.

    Linear layers and convolutions over one or two axes are rounded so, where their weights are their own, integers, and
    have one step or one per output channel. Others with weights in few bits stay rounded to nearest, which is told. The
    real numbers beside the codes move just as far as their codes ask, so that training goes on from there. Put it
    behind `calibrate`, before `legalize`.

    Args:
        layers: names of layers, patterns or kinds.
        bits: the layers whose weights have at most so many bits.
        samples: how many samples of calibration data to look at.
        damping: what is added to `H`'s diagonal, relative to its mean.

    Raises:
        UsageError: no layer matches, or an option makes no sense.
        PassError: there is no data, or a step is not calibrated; layers were named, and none can be rounded so.

    Source: Frantar et al., ICLR 2023 (GPTQ), algorithm 1, with the order of Frantar and Alistarh, NeurIPS 2022, taken
    once for all rows; outputs of the real network as goal as in Nagel et al., ICML 2020 (AdaRound), equation 25.
    """

    layers: tuple[str, ...] = ("*",)
    bits: int = 4
    samples: int = 256
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"round-weights: samples must be at least 1; found {self.samples}")
        if self.bits < 2:
            raise UsageError(f"round-weights: bits must be at least 2; found {self.bits}")
        if self.damping <= 0:
            raise UsageError(f"round-weights: damping must be above 0; found {self.damping:g}")

    @property
    def needs_data(self) -> bool:
        """See `Pass.needs_data`."""
        return True

    @property
    def needs_real_numbers(self) -> bool:
        """See `Pass.needs_real_numbers`."""
        return True

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        expect_calibrated(network.graph, self.name)
        expect_real_numbers(network, self.name)
        layers = self.chosen(network, context)
        if not layers:
            return network
        network = with_biases(network, layers)
        graph = network.graph
        batches = context.samples(self.samples, self.name)
        reals = {op.name: network.weights.original(op.name).tensor for op in graph.stored}
        real, rounded = Lockstep(graph, reals, batches, unrounded), Lockstep(graph, network.values, batches)
        found: dict[str, Recipe] = {}
        for op in graph.ops:
            if op.name in layers:
                recipe = network.weights.recipe(op.inputs[1])
                assert isinstance(recipe, Rounded)
                seen = moments_of(op, recipe.source.tensor, rounded.given(op.inputs[0]), real.given(op.inputs[0]))
                found.update(self.mended(network, op, recipe, seen))
                for name in op.inputs[1:]:
                    if name in found:
                        rounded.set(name, real_numbers(found[name]))
            real.go(op)
            rounded.go(op)
        return replace(network, weights=network.weights.with_recipes(found))

    def mended(self, network: Network, layer: Op, recipe: Rounded, seen: Moments) -> dict[str, Recipe]:
        """The layer's weight with other codes, and the bias that goes with them."""
        bias, original = operand(layer, "bias"), network.weights.original(layer.inputs[1])
        if bias is None or not correctable(network.graph, layer):
            return {layer.inputs[1]: chosen_codes(recipe, original, seen, self.damping)}
        better = chosen_codes(recipe, original, seen.centred(), self.damping)
        groups, width = seen.rounded_sum.shape
        real, found = (t.double().reshape(groups, -1, width) for t in (original.tensor, better.real))
        shift = seen.mean_difference(real, found).flatten() + missing(network.weights, bias)
        return {layer.inputs[1]: better, bias: shifted(network.weights.recipe(bias), shift)}

    def chosen(self, network: Network, context: Context) -> list[str]:
        """The layers whose weights are rounded here; those that are left are told.

        Raises:
            UsageError: no layer matches.
            PassError: layers were named, and none can be rounded.
        """
        every, named = chosen_layers(network.graph, self.layers), self.layers != ("*",)
        kept = {op.name: why for op in every if (why := obstacle(network, op, self.bits)) is not None}
        told = {name: why for name, why in kept.items() if named or why != REAL}
        if named and len(kept) == len(every):
            raise PassError(
                f"round-weights cannot round what it is asked for: {listed(told)}",
                op=every[0],
                mend=f"It takes integers of 2 to {self.bits} bits (bits={self.bits}) with one step or one per output"
                " channel, as of quantize{weights=i4}, in linear layers and convolutions over one or two axes.",
            )
        if told:
            context.say(f"round-weights leaves weights as they are: {listed(told)}")
        elif len(kept) == len(every):
            context.say("round-weights changes nothing: no weights are in few bits")
        return [op.name for op in every if op.name not in kept]


def obstacle(network: Network, layer: Op, bits: int) -> str | None:
    """Why a layer's weight cannot be rounded input by input; None where it can."""
    graph: Graph = network.graph
    name = operand(layer, "weight")
    assert name is not None
    recipe = network.weights.recipe(name) if name in network.weights else None
    if recipe is None:
        return "computed"
    if not isinstance(recipe, Rounded):
        return REAL
    if layer.kind not in KINDS:
        return layer.kind
    type = graph.types[name]
    if not type.integer or recipe.format.bits < 2 or recipe.axis not in (None, SPECS[layer.kind].weight_axis):
        return str(type.encoding)
    if recipe.format.bits > bits:
        return f"{recipe.format}, more than bits={bits}"
    return None if graph.readers[name] == (layer,) else "shared"


def listed(reasons: dict[str, str]) -> str:
    """Layers by the reason why they are left: `fc1, fc2 (i4<block 32 on 1>), head (i8, more than bits=4)`."""
    groups: dict[str, list[str]] = {}
    for name, why in reasons.items():
        groups.setdefault(why, []).append(name)
    return ", ".join(f"{first(names)} ({why})" for why, names in groups.items())


def first(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def missing(store: Store, bias: str) -> Tensor:
    """What a bias has less than in the real-numbered network."""
    return store.original(bias).tensor.double() - real_numbers(store.recipe(bias)).double()


def chosen_codes(recipe: Rounded, original: Recipe, seen: Moments, damping: float) -> Rounded:
    """A weight with the codes that keep the outputs best, or as it is where none are better."""
    real = original.tensor
    groups = seen.gram.shape[0]
    rows = real.double().reshape(groups, real.shape[0] // groups, -1)
    steps = recipe.steps.double().expand(real.shape[0]).reshape(groups, -1, 1)
    zeros = torch.zeros((), dtype=torch.int32) if recipe.zeros is None else recipe.zeros
    zeros = zeros.double().expand(real.shape[0]).reshape(groups, -1, 1)
    goal = towards(rows, seen, damping)
    low, high = recipe.format.low - zeros, recipe.format.high - zeros
    codes = rounded_codes(goal, seen.gram, steps, low, high, damping)
    old = recipe.tensor.double().reshape(rows.shape) - zeros
    better = output_error(codes * steps, rows, seen) < output_error(old * steps, rows, seen)
    codes = torch.where(better[..., None], codes, old)
    moved = moved_into(rows, codes, steps, low, high)
    return recipe.replaced(Mended(original, moved.reshape(real.shape).to(real.dtype)), recipe.steps)


def moved_into(rows: Tensor, codes: Tensor, steps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Real numbers that round to the codes, as near as may be to those given; codes and bounds count from the zero."""
    least = torch.where(codes > low, codes - INSIDE, -torch.inf)
    most = torch.where(codes < high, codes + INSIDE, torch.inf)
    held = torch.round(rows / steps).clamp(low, high) == codes
    return torch.where(held, rows, torch.minimum(torch.maximum(rows / steps, least), most) * steps)
