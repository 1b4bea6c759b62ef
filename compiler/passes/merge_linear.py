"""Make adjacent linear layers one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ...ir import Graph, Op, Type, fresh_name, operand, rebuilt, rewired
from ...ir.axes import size
from ..network import Network
from ..weights import Computed, Recipe
from .base import Context, Pass, register


@register("merge-linear")
@dataclass(frozen=True)
class MergeLinear(Pass):
    """Two linear layers with nothing between them become one, where that does not cost more multiplications.

        %y = linear %x, %v, %a
        %z = linear %y, %w, %b    ==>    %z = linear %x, %w·%v, %w·%a + %b

    A factorised layer (wide, narrow, wide) keeps its two halves: their product would multiply more.
    """

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        while (
            found := next(filter(None, (mergeable(network.graph, op) for op in network.graph.ops)), None)
        ) is not None:
            network = merged(network, *found)
        return network


def mergeable(graph: Graph, second: Op) -> tuple[Op, Op] | None:
    """The pair of layers that ends in this op, if it is one and may be merged."""
    if second.kind != "linear":
        return None
    first = graph.producers.get(second.inputs[0])
    if first is None or first.kind != "linear" or graph.readers[first.name] != (second,) or first.name in graph.outputs:
        return None
    for layer in (first, second):
        for name in layer.inputs[1:]:
            maker = graph.producers.get(name)
            if maker is None or maker.kind != "weight":
                return None
            if graph.readers[name] != (layer,) or graph.types[name].quantized:
                return None
    (middle, into), (out, _) = graph.types[first.inputs[1]].axes, graph.types[second.inputs[1]].axes
    i, m, o = (size(a, graph.sizes) for a in (into, middle, out))
    return (first, second) if i * o <= i * m + m * o else None


def merged(network: Network, first: Op, second: Op) -> Network:
    """The network with the two layers as one, which keeps the second one's name."""
    graph, recipes = network.graph, dict(network.weights.recipes)
    v, w = (recipes[layer.inputs[1]] for layer in (first, second))
    a, b = operand(first, "bias"), operand(second, "bias")
    weight = second.inputs[1]
    into, out = graph.types[first.inputs[1]].axes[1], graph.types[weight].axes[0]
    format = graph.types[weight].format
    recipes[weight] = Computed("merge linear weights", (w, v), _matrix_product)
    before = [Op("weight", (weight,), (Type(format, (out, into)),))]
    inputs = [first.inputs[0], weight]
    if a or b:
        name = b or fresh_name(f"{second.name}.bias", set(graph.types))
        recipes[name] = _bias(w, recipes[a] if a else None, recipes[b] if b else None)
        before.append(Op("weight", (name,), (Type(format, (out,)),)))
        inputs.append(name)
    gone = {first.name, weight, *([b] if b else [])}
    layer = replace(second, inputs=tuple(inputs))
    ops = [new for op in graph.ops if op.name not in gone for new in ([*before, layer] if op is second else [op])]
    result = rebuilt(graph, rewired(ops, {}))
    return Network(result, replace(network.weights, recipes=recipes).keep({op.name for op in result.stored}))


def _matrix_product(w: Tensor, v: Tensor) -> Tensor:
    return (w.double() @ v.double()).to(w.dtype)


def _bias(w: Recipe, a: Recipe | None, b: Recipe | None) -> Recipe:
    if a is None:
        assert b is not None
        return b

    def function(w: Tensor, a: Tensor, *b: Tensor) -> Tensor:
        total = w.double() @ a.double()
        return (total + b[0].double() if b else total).to(w.dtype)

    return Computed(f"merge linear biases {b is not None}", (w, a, *((b,) if b else ())), function)
