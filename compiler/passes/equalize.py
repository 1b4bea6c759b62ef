"""Make the channels between two layers alike in range, without changing the function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...ir import STORED, Graph, Op, UsageError, layers, operand
from ...ir.axes import size
from ..network import Network
from ..weights import Computed, Recipe
from .base import Context, Pass, register

LAYERS = ("linear", "conv1d", "conv2d", "conv3d")
POOLS = tuple(f"{p}_pool{n}d" for p in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3))
HOMOGENEOUS = ("relu", "leaky_relu", "prelu", "dropout", *POOLS)
"""Ops whose result is scaled where their input is scaled by a positive factor, channel by channel."""
CLIPPING = ("relu6", "hardtanh", "clamp")
"""Ops that would scale along but for a bound that stays where it is."""
SWEEPS = 50
SETTLED = 1e-3
"""Change of the scales' logarithms below which nothing is gained any more."""
BOUND = 1e4
"""The largest factor of a channel; more would only move numbers of no weight out of reach."""


@register("equalize")
@dataclass(frozen=True)
class Equalize(Pass):
    """Scale the outputs of a layer down and the weights that read them up, channel by channel, or the other way round.

        %a = linear %x, %w1, %b1                %a = linear %x, %w1 / s, %b1 / s
        %r = relu %a                    ==>     %r = relu %a
        %b = linear %r, %w2                     %b = linear %r, %w2 * s

    with `s = sqrt(r1 / r2)` per channel, r1 and r2 the largest magnitudes of the channel in both weights: then both
    have the range `sqrt(r1 r2)`, and one step per tensor suits all channels. Between the layers may stand what scales
    along (ReLU, leaky and parametric ReLU, a clamp at 0, pools, flattening), not what saturates (ReLU6, sigmoid, hard
    swish). The paper puts ReLU in the place of ReLU6, which is another function, so pairs across ReLU6 are left as they
    are. Layers are linear or convolutions, grouped and depthwise ones too, with weights of their own, in real numbers.
    All pairs are scaled in turn until nothing changes. Batch norms must be folded first, or they stand between.

    Args:
        sweeps: how often to go over all pairs, at most.

    Raises:
        UsageError: an option makes no sense.

    Source: Nagel et al., ICCV 2019, section 4.1 (cross-layer range equalization).
    """

    sweeps: int = SWEEPS

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise UsageError(f"equalize: sweeps must be at least 1; found {self.sweeps}")

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        found = pairs(network.graph)
        if not found:
            context.say(f"equalize changes nothing: {nothing_to_equalize(network.graph)}")
            return network
        weights = tuple(dict.fromkeys(n for p in found for n in (p.first, p.second)))
        recipes = dict(network.weights.recipes)
        scales = Computed(
            f"scales {self.sweeps} {found}",
            tuple(recipes[n] for n in weights),
            lambda *tensors: scales_of(found, dict(zip(weights, tensors, strict=True)), self.sweeps),
        )
        at = 0
        changed: dict[str, Recipe] = {}
        for pair in found:
            span = (at, at + pair.channels)
            for name in (pair.first, pair.bias):
                if name is not None:
                    changed[name] = scaled(changed.get(name, recipes[name]), scales, span, None)
            changed[pair.second] = scaled(changed.get(pair.second, recipes[pair.second]), scales, span, pair)
            at = span[1]
        return replace(network, weights=network.weights.with_recipes(changed))


@dataclass(frozen=True)
class Pair:
    """Two layers with nothing between them but what scales along.

    Args:
        first: the weight whose outputs are read.
        bias: the first layer's bias, if it has one.
        second: the weight that reads them.
        channels: how many channels there are between them.
        columns: how many inputs of the second layer each channel is: more than one behind a flattening.
        groups: of the second layer.
    """

    first: str
    bias: str | None
    second: str
    channels: int
    columns: int
    groups: int


def pairs(graph: Graph, clipped: bool = False) -> tuple[Pair, ...]:
    """The pairs of a graph, in order; where `clipped`, those across bounds as well."""
    found: list[Pair] = []
    for first in layers(graph):
        second = partner(graph, first, clipped) if own(graph, first) else None
        if second is None or not own(graph, second):
            continue
        channels = length(graph, first.inputs[1], 0)
        inputs = length(graph, second.inputs[0], -1 if second.kind == "linear" else 1)
        each = length(graph, second.inputs[1], 1)
        columns, rest = divmod(inputs, channels)
        if not rest and (columns == 1 or each == inputs):
            bias = operand(first, "bias")
            found.append(Pair(first.inputs[1], bias, second.inputs[1], channels, columns, inputs // each))
    return tuple(found)


def nothing_to_equalize(graph: Graph) -> str:
    """Why a graph has no pairs, and the mend where another order of passes would give it some."""
    if any(op.type.quantized for op in graph.ops if op.kind in ("quantize", *STORED)):
        return "layers are rounded already; put `equalize` before `quantize`"
    if any(op.kind == "batch_norm" for op in graph.ops):
        return "batch norms stand between layers; put `fold-batch-norm` before `equalize`"
    if clipped := pairs(graph, clipped=True):
        all_of_them = f"all {len(clipped)} pairs" if len(clipped) > 1 else "the only pair"
        kinds = " or ".join(kind for kind in CLIPPING if any(op.kind == kind for op in graph.ops))
        return (
            f"between the layers of {all_of_them} stands {kinds}, whose bound does not scale along; train the "
            "network with ReLU, or keep one step per output channel, which leaves little to equalize"
        )
    return "no layer is read by one other alone, with nothing but ReLU, pools or flattening between"


def length(graph: Graph, value: str, axis: int) -> int:
    """The length of an axis of a value."""
    return size(graph.types[value].axes[axis], graph.sizes)


def own(graph: Graph, layer: Op) -> bool:
    """Whether a layer has stored real weights that nothing else reads."""
    if layer.kind not in LAYERS:
        return False
    for name in layer.inputs[1:]:
        stored = name in graph.producers and graph.producers[name].kind == "weight"
        if not stored or graph.types[name].quantized or graph.readers[name] != (layer,):
            return False
    return True


def scales_along(op: Op) -> bool:
    """Whether an op's result is scaled where its input is: a clamp too, if its only bounds are 0."""
    if op.kind == "clamp":
        return all(op.attribute(bound) in (None, 0) for bound in ("min", "max"))
    return op.kind in HOMOGENEOUS


def partner(graph: Graph, first: Op, clipped: bool) -> Op | None:
    """The one layer that reads a layer's outputs through what scales along, if there is one; see `pairs`."""
    value = first.name
    while True:
        readers = graph.readers.get(value, ())
        if len(readers) != 1 or value in graph.outputs or readers[0].inputs[0] != value:
            return None
        op = readers[0]
        if op.kind in LAYERS:
            same = (op.kind == "linear") == (first.kind == "linear") or graph.types[value].rank == 2
            return op if same and op.inputs.count(value) == 1 else None
        through = scales_along(op) or (clipped and op.kind in CLIPPING)
        if op.kind != "reshape" and (not through or (first.kind == "linear" and "pool" in op.kind)):
            return None
        if op.kind == "reshape" and not flattens(graph, first, op):
            return None
        value = op.name


def flattens(graph: Graph, first: Op, op: Op) -> bool:
    """Whether a reshape makes one axis of channels and positions: each channel is a run of columns."""
    before, after = graph.types[op.inputs[0]].axes, op.type.axes
    return first.kind != "linear" and len(before) > 2 and len(after) == 2 and before[0] == after[0]


def scales_of(found: tuple[Pair, ...], tensors: dict[str, Tensor], sweeps: int) -> Tensor:
    """The factors of all pairs one behind the other, in binary64."""
    held = {name: t.double() for name, t in tensors.items()}
    total = [torch.zeros(p.channels, dtype=torch.float64) for p in found]
    for _ in range(sweeps):
        moved = 0.0
        for at, pair in enumerate(found):
            r1 = held[pair.first].abs().flatten(1).amax(1)
            r2 = by_input(held[pair.second], pair).abs().flatten(1).amax(1)
            some = (r1 > 0) & (r2 > 0)
            change = torch.where(some, 0.5 * torch.log(torch.where(some, r1 / r2, 1.0)), 0.0)
            bound = torch.log(torch.tensor(BOUND, dtype=torch.float64))
            change = (total[at] + change).clamp(-bound, bound) - total[at]
            total[at] = total[at] + change
            held[pair.first] = times_outputs(held[pair.first], torch.exp(-change))
            held[pair.second] = times_inputs(held[pair.second], torch.exp(change), pair)
            moved = max(moved, float(change.abs().max()))
        if moved < SETTLED:
            break
    return torch.exp(torch.cat(total))


def by_input(weight: Tensor, pair: Pair) -> Tensor:
    """A weight with the channels it reads first: [channels, all that reads them]."""
    out, each = weight.shape[0] // pair.groups, weight.shape[1]
    grouped = weight.reshape(pair.groups, out, each, -1).transpose(1, 2)
    return grouped.reshape(pair.channels, -1)


def times_outputs(weight: Tensor, factors: Tensor) -> Tensor:
    """A weight or bias with its outputs scaled."""
    return weight * factors.reshape(-1, *[1] * (weight.dim() - 1))


def times_inputs(weight: Tensor, factors: Tensor, pair: Pair) -> Tensor:
    """A weight with the channels it reads scaled."""
    each = factors.repeat_interleave(pair.columns).reshape(pair.groups, 1, weight.shape[1], 1)
    return (weight.reshape(pair.groups, -1, weight.shape[1], weight[0, 0].numel()) * each).reshape(weight.shape)


def scaled(recipe: Recipe, scales: Recipe, span: tuple[int, int], pair: Pair | None) -> Recipe:
    """A tensor scaled along its outputs (divided), or along the inputs of a pair's second layer (multiplied)."""

    def outputs(tensor: Tensor, every: Tensor) -> Tensor:
        return times_outputs(tensor.double(), 1 / every[span[0] : span[1]]).to(tensor.dtype)

    def inputs(tensor: Tensor, every: Tensor) -> Tensor:
        assert pair is not None
        return times_inputs(tensor.double(), every[span[0] : span[1]], pair).to(tensor.dtype)

    function: Any = outputs if pair is None else inputs
    return Computed(f"equalized {span} {pair}", (recipe, scales), function)
