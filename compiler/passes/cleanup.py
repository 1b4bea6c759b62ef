"""Remove what no output needs, compute what no input changes, and join what is the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...ir import STORED, Graph, Op, rebuilt, rewired, text
from ..execution import Frame, compute
from ..network import Network
from ..weights import Computed, Recipe
from .base import Context, Pass, register


@register("cleanup")
@dataclass(frozen=True)
class Cleanup(Pass):
    """Dead code goes, ops that read only buffers become buffers, equal ops become one."""

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        graph, recipes = network.graph, dict(network.weights.recipes)
        names: dict[str, str] = {}
        seen: dict[tuple[object, ...], str] = {}
        ops: list[Op] = []
        constant = {op.name for op in graph.ops if op.kind == "buffer"}
        for original in graph.ops:
            op = rewired([original], names)[0]
            identity = op.kind == "reshape" and op.type.axes == graph.types[original.inputs[0]].axes
            twin = None if op.kind in STORED else seen.get((op.kind, op.inputs, op.types, op.attributes))
            if identity or twin:
                names[op.name] = twin or op.inputs[0]
                continue
            seen[op.kind, op.inputs, op.types, op.attributes] = op.name
            if self._is_constant(op, constant):
                recipes[op.name] = self._computed(op, graph, [recipes[n] for n in op.inputs])
                constant.add(op.name)
                op = replace(op, kind="buffer", inputs=(), attributes=())
            ops.append(op)
        outputs = tuple(names.get(n, n) for n in graph.outputs)
        if not names and len(constant) == sum(op.kind == "buffer" for op in graph.ops):
            ops = list(graph.ops)
        cleaned = rebuilt(graph, ops, outputs)
        if cleaned == graph:
            return network
        stored = {op.name for op in cleaned.stored}
        return Network(cleaned, replace(network.weights, recipes=recipes).keep(stored))

    @staticmethod
    def _is_constant(op: Op, constant: set[str]) -> bool:
        """Whether an op's one result is a real tensor that no input changes."""
        if op.kind in STORED or op.kind == "quantize" or len(op.results) != 1 or not op.inputs:
            return False
        return all(n in constant for n in op.inputs) and not op.type.quantized

    @staticmethod
    def _computed(op: Op, graph: Graph, inputs: list[Recipe]) -> Recipe:
        def function(*tensors: Tensor) -> Tensor:
            result = compute(Frame(graph, 1), op, list(tensors))
            assert isinstance(result, Tensor)
            return (
                result.to(torch.get_default_dtype())
                if result.dtype == torch.float64 and op.type.format.bits == 32
                else result
            )

        sizes = ", ".join(f"{k}={v}" for k, v in graph.widths)
        line = text(Graph("_", (), (), (replace(op, location=None),), ()))
        return Computed(f"constant {line} {sizes}", tuple(inputs), function)
