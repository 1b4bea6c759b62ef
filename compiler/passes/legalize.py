"""Put a quantized graph into the form a target runs as integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...ir import SPECS, Graph, Op, Step, Type, format_named, operand, rebuilt
from ..network import Network
from ..weights import Computed, Recipe, Rounded, along
from .base import Context, Pass, PassError, calibrate_before, register
from .calibrate import Calibrate
from .integers import multiplies
from .place import Place, known_target

ACCUMULATOR = format_named("i32")
LARGEST_BIAS = 1 << 30
"""What a bias may count at most, so that sums of products still have room in 32 bits."""


@register("legalize")
@dataclass(frozen=True)
class Legalize(Pass):
    """Bring a calibrated network into the form that the target's integer kernels take.

    What `place` finds missing is rounded and calibrated here, from the same data. Biases of integer layers get the
    accumulator's step, as integer kernels add them:

        %b: f32[$y] = weight    ==>    %b: i32<per 0>[$y] = weight      step = step of input * step of weight channel

    A bias of fewer bits is rounded to its own step first, then to the accumulator's. Layers whose input or weight is
    real, or whose weight is asymmetric, stay as they are. A layer that reads a shared bias keeps it real. Where a
    channel's weights are so small that its bias would not fit into the accumulator, their step is made larger: beside
    such a bias they weigh nothing.

    Args:
        target: the target to suit.

    Raises:
        UsageError: there is no such target.
        PassError: a step is not calibrated, or one must be found here and there is no data.
    """

    target: str = "onnxruntime:cpu"

    def __post_init__(self) -> None:
        known_target("legalize", self.target)

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        network = self.completed(network, context)
        graph, recipes = network.graph, dict(network.weights.recipes)
        types: dict[str, Type] = {}
        for layer in graph.ops:
            if layer.kind in SPECS and SPECS[layer.kind].is_layer and (bias := integer_bias(graph, layer)):
                weight = fitted(graph, layer, bias, recipes)
                if weight is None:
                    continue
                recipes[layer.inputs[1]] = weight
                recipes[bias] = accumulated(graph, layer, bias, recipes)
                types[bias] = replace(graph.types[bias], format=ACCUMULATOR, step=Step.per(0, known=True))
        if not types:
            return network
        ops = [op.with_type(types[op.name]) if op.name in types else op for op in graph.ops]
        return Network(rebuilt(graph, ops), replace(network.weights, recipes=recipes))

    def completed(self, network: Network, context: Context) -> Network:
        """The network with all roundings that the target needs, and their steps."""
        if uncalibrated(network.graph) is not None:
            return network  # a layer that misses the step says so, see `integer_bias`
        placed = Place(self.target).run(network, context)
        if (new := uncalibrated(placed.graph)) is None:
            return placed
        if context.data is None:
            raise PassError(
                f"the integer kernels of {self.target} need %{new.inputs[0]} rounded, and there is no data to find its"
                " step",
                op=new,
                mend="Put `place` before `calibrate`, or give data.",
            )
        return Calibrate().run(placed, context)


def uncalibrated(graph: Graph) -> Op | None:
    """The first `quantize` whose step is not known."""
    steps = ((op, op.type.step) for op in graph.ops if op.kind == "quantize")
    return next((op for op, step in steps if step is not None and not step.known), None)


def integer_bias(graph: Graph, layer: Op) -> str | None:
    """The bias of a layer that computes in integers, if it is its own and not yet the accumulator's.

    Raises:
        PassError: a step is not calibrated.
    """
    bias = operand(layer, "bias")
    if bias is None or graph.readers[bias] != (layer,) or graph.types[bias].format == ACCUMULATOR:
        return None
    if not multiplies(graph, layer):
        return None
    for name in layer.inputs[:3]:
        step = graph.types[name].step
        if step is not None and not step.known:
            raise PassError(f"%{name} has no step yet", op=layer, mend=calibrate_before("legalize"))
    return bias


def fitted(graph: Graph, layer: Op, bias: str, recipes: dict[str, Recipe]) -> Rounded | None:
    """The layer's weight with steps for which its bias fits into the accumulator; None where they cannot be had."""
    step, weight = graph.types[layer.inputs[0]].step, recipes[layer.inputs[1]]
    assert step is not None and step.value is not None and isinstance(weight, Rounded)
    own = recipes[bias]
    real = own.real if isinstance(own, Rounded) else own.tensor
    least = (real.abs().double() / (step.value * LARGEST_BIAS)).to(torch.float32)
    if bool((least <= weight.steps).all()):
        return weight
    if weight.axis is None or graph.readers[layer.inputs[1]] != (layer,):
        return None
    return weight.replaced(weight.source, torch.maximum(weight.steps, least))


def _times(steps: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda codes: codes * steps


def accumulated(graph: Graph, layer: Op, bias: str, recipes: dict[str, Recipe]) -> Recipe:
    """The bias as codes of the accumulator, whose step is the product of the input's and the weight's."""
    step = graph.types[layer.inputs[0]].step
    weight, own = recipes[layer.inputs[1]], recipes[bias]
    assert step is not None and step.value is not None and isinstance(weight, Rounded)
    count = own.tensor.shape[0]
    steps = (torch.tensor(step.value, dtype=torch.float32) * weight.steps).expand(count).contiguous()
    if isinstance(own, Rounded):
        steps_of_own = along(own.steps, own.axis, 1)
        own = Computed(f"times {steps_of_own.tolist()}", (own,), _times(steps_of_own))
    return Rounded(own, ACCUMULATOR, steps, 0)
