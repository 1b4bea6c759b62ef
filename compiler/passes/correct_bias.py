"""Take out of layers' biases what rounding adds to their outputs on average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...ir import SPECS, Graph, Op, Type, UsageError, chosen_layers, fresh_name, operand, output_axis, rebuilt
from ..lockstep import Lockstep, unrounded
from ..network import Network
from ..weights import Computed, Mended, Recipe, Rounded, container
from .base import Context, Pass, PassError, expect_calibrated, expect_real_numbers, register


@register("correct-bias")
@dataclass(frozen=True)
class CorrectBias(Pass):
    """Shift the bias of each rounded layer so that its mean output is that of the real-numbered network.

        %y = linear %x.q, %w, %b    ==>    %y = linear %x.q, %w, %b'      b' = b + mean(y of real numbers - y)

    per output channel, layer after layer, so that each sees what the corrected ones before it give. A layer without a
    bias gets one, in `f32`. Layers whose weight and input are both real stay as they are, and so does a bias that
    several layers share. Put it behind `calibrate` (and `round-weights`), before `legalize`.

    Args:
        layers: names of layers, patterns or kinds.
        samples: how many samples of calibration data to look at.

    Raises:
        UsageError: no layer matches, or an option makes no sense.
        PassError: there is no data, a step is not calibrated, or a layer is legalized.

    Source: Nagel et al., ICCV 2019, section 4.2 (empirical bias correction).
    """

    layers: tuple[str, ...] = ("*",)
    samples: int = 256

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"correct-bias: samples must be at least 1; found {self.samples}")

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
        network = with_biases(network, [op.name for op in chosen_layers(network.graph, self.layers)])
        graph = network.graph
        chosen = {op.name for op in chosen_layers(graph, self.layers) if correctable(graph, op)}
        if not chosen:
            context.say(f"correct-bias changes nothing: {self.nothing_to_correct(graph)}")
            return network
        batches = context.samples(self.samples, "correct-bias")
        reals = {op.name: network.weights.original(op.name).tensor for op in graph.stored}
        real, rounded = Lockstep(graph, reals, batches, unrounded), Lockstep(graph, network.values, batches)
        found: dict[str, Recipe] = {}
        for op in graph.ops:
            if op.name in chosen:
                bias = operand(op, "bias")
                assert bias is not None
                shift = mean_difference(op, real.results(op), rounded.results(op))
                found[bias] = shifted(network.weights.recipe(bias), shift)
                rounded.set(bias, real_numbers(found[bias]))
            real.go(op)
            rounded.go(op)
        return Network(graph, network.weights.with_recipes(found))

    def nothing_to_correct(self, graph: Graph) -> str:
        """Why no bias of the layers is corrected, and the mend where another order of passes would help."""
        if any(rounds(graph, op) for op in chosen_layers(graph, self.layers)):
            return "the rounded layers among those it is asked for have no bias of their own"
        return "none of its layers reads anything in few bits; put it behind `quantize` and `calibrate`"


def rounds(graph: Graph, layer: Op) -> bool:
    """Whether a layer reads anything that is rounded."""
    return any(graph.types[name].quantized for name in layer.inputs[:2])


def correctable(graph: Graph, layer: Op) -> bool:
    """Whether a layer is rounded and has a stored bias of its own.

    Raises:
        PassError: it is legalized.
    """
    bias = operand(layer, "bias") if "bias" in SPECS[layer.kind].positions else None
    if bias is None or not rounds(graph, layer) or graph.readers[bias] != (layer,):
        return False
    if graph.types[bias].quantized and graph.types[bias].format.bits > 16:
        raise PassError("it is legalized already", op=layer, mend="Put `correct-bias` before `legalize`.")
    return bias in graph.producers and graph.producers[bias].kind == "weight"


def with_biases(network: Network, names: list[str]) -> Network:
    """The network with a bias of zeros for each of the layers that is rounded and has none."""
    graph, recipes = network.graph, dict(network.weights.recipes)
    ops: list[Op] = []
    for op in graph.ops:
        missing = op.name in names and "bias" in SPECS[op.kind].positions and operand(op, "bias") is None
        if missing and rounds(graph, op) and len(op.inputs) == SPECS[op.kind].index("bias"):
            weight = operand(op, "weight")
            assert weight is not None
            name = fresh_name(f"{op.name}.bias", {*graph.types, *recipes})
            made = Op("weight", (name,), (Type(op.type.format, (output_axis(graph, op),)),))
            axis = SPECS[op.kind].weight_axis
            assert axis is not None
            zeros = _zeros(axis, container(op.type.format))
            recipes[name] = Computed(f"zeros along {axis}", (network.weights.unrounded(weight),), zeros)
            ops += [made, replace(op, inputs=(*op.inputs, name))]
        else:
            ops.append(op)
    if len(ops) == len(graph.ops):
        return network
    return Network(rebuilt(graph, ops), replace(network.weights, recipes=recipes))


def _zeros(axis: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda weight: torch.zeros(weight.shape[axis], dtype=dtype)


def mean_difference(layer: Op, wanted: list[Tensor], found: list[Tensor]) -> Tensor:
    """By how much outputs are too small on average, per output channel, in binary64; shape [channels]."""
    axis = wanted[0].dim() - 1 if layer.kind == "linear" else 1
    others = [d for d in range(wanted[0].dim()) if d != axis]
    total, count = torch.zeros(wanted[0].shape[axis], dtype=torch.float64), 0
    for left, right in zip(wanted, found, strict=True):
        apart = left.double() - right.double()
        total += apart.sum(others) if others else apart
        count += apart.numel() // apart.shape[axis]
    return total / count


def shifted(bias: Recipe, shift: Tensor) -> Recipe:
    """A bias with something added, rounded with the step it has."""
    real = bias.source if isinstance(bias, Rounded) else bias
    moved = Mended(real, (real.tensor.double() + shift).to(real.tensor.dtype))
    return bias.replaced(moved, bias.steps) if isinstance(bias, Rounded) else moved


def real_numbers(recipe: Recipe) -> Tensor:
    """The real numbers that a network computes with."""
    return recipe.real if isinstance(recipe, Rounded) else recipe.tensor
