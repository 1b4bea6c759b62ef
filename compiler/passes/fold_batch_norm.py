"""Fold batch norms into the layers before them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ...ir import SPECS, Graph, Op, Type, fresh_name, operand, rebuilt, rewired
from ..network import Network
from ..weights import Computed, Recipe, along
from .base import Context, Pass, register


@register("fold-batch-norm")
@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """A layer followed only by a batch norm becomes one layer.

        %y = linear %x, %w, %b
        %z = batch_norm %y, %mean, %var, %g, %h    ==>    %y = linear %x, %w', %b'

    with `w' = w * s`, `b' = (b - mean) * s + h`, `s = g / sqrt(var + eps)` per output channel. A batch norm behind
    anything else (a ReLU, a sum) stays, and so does one behind a layer that has other readers, whose weight another
    layer shares, or that is quantized already. Of several behind each other all are folded.

    Source: Jacob et al., CVPR 2018, section 3.2.
    """

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        while (folded := self.once(network)) is not network:
            network = folded
        return network

    def once(self, network: Network) -> Network:
        """The network with the batch norms right behind a layer folded; the same object where there are none."""
        graph, recipes = network.graph, dict(network.weights.recipes)
        names: dict[str, str] = {}
        folded: dict[str, list[Op]] = {}
        gone: set[str] = set()
        for norm in graph.ops:
            if norm.kind == "batch_norm" and (layer := self.foldable(graph, norm)):
                folded[layer.name] = self.fold(graph, layer, norm, recipes)
                names[norm.name] = layer.name
                gone.add(norm.name)
        if not folded:
            return network
        ops = [new for op in graph.ops if op.name not in gone for new in folded.get(op.name, [op])]
        outputs = tuple(names.get(n, n) for n in graph.outputs)
        result = rebuilt(graph, rewired(ops, names), outputs)
        return Network(result, replace(network.weights, recipes=recipes).keep({op.name for op in result.stored}))

    @staticmethod
    def foldable(graph: Graph, norm: Op) -> Op | None:
        """The layer that this batch norm can be folded into."""
        layer = graph.producers.get(norm.inputs[0])
        if layer is None or layer.kind not in SPECS or not SPECS[layer.kind].is_layer:
            return None
        stored = [n for n in (operand(layer, "weight"), operand(layer, "bias")) if n]
        own = all(graph.readers[n] == (layer,) and not graph.types[n].quantized for n in stored)
        held = all(
            n in graph.producers and graph.producers[n].kind in ("weight", "buffer")
            for n in (*stored, *norm.inputs[1:])
        )
        features_last = layer.kind == "linear" and layer.type.rank != 2
        if graph.readers[layer.name] != (norm,) or layer.name in graph.outputs or not (own and held) or features_last:
            return None
        return layer

    @staticmethod
    def fold(graph: Graph, layer: Op, norm: Op, recipes: dict[str, Recipe]) -> list[Op]:
        """The new layer, preceded by its bias where it had none; `recipes` gets the folded tensors."""
        weight, bias = operand(layer, "weight"), operand(layer, "bias")
        assert weight is not None
        axis = cast(int, SPECS[layer.kind].weight_axis)
        eps = cast(float, norm.attribute("eps", 1e-5))
        _, mean, var, *affine = norm.inputs
        statistics = tuple(recipes[n] for n in (var, *affine[:1]))

        def scale(tensors: tuple[Tensor, ...]) -> Tensor:
            variance, *gain = tensors
            factor = torch.rsqrt(variance.double() + eps)
            return factor * gain[0].double() if gain else factor

        def scaled(w: Tensor, *rest: Tensor) -> Tensor:
            return (w.double() * along(scale(rest), axis, w.dim())).to(w.dtype)

        def shifted(m: Tensor, *rest: Tensor) -> Tensor:
            b, shift, *rest_ = rest if bias else (torch.zeros_like(m), *rest)
            return ((b.double() - m.double()) * scale(tuple(rest_)) + shift.double()).to(m.dtype)

        def unshifted(m: Tensor, *rest: Tensor) -> Tensor:
            return shifted(m, *(rest[:1] if bias else ()), torch.zeros_like(m), *(rest[1:] if bias else rest))

        own = (recipes[bias],) if bias else ()
        shift = (recipes[affine[1]],) if len(affine) > 1 else ()
        what = f"fold batch_norm eps={eps} axis={axis} bias={bool(bias)} shift={bool(shift)}"
        recipes[weight] = Computed(what + " weight", (recipes[weight], *statistics), scaled)
        name = bias or fresh_name(f"{layer.name}.bias", set(graph.types))
        inputs = (recipes[mean], *own, *shift, *statistics)
        recipes[name] = Computed(what + " bias", inputs, shifted if shift else unshifted)
        if bias:
            return [layer]
        type = Type(graph.types[weight].format, (graph.types[weight].axes[axis],))
        return [Op("weight", (name,), (type,)), replace(layer, inputs=(*layer.inputs, name))]
