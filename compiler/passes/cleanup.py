"""Remove what no output needs, compute what no input changes, and join what is the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...ir import STORED, Graph, Op, rebuilt, rewired, text
from ...ir.axes import has_batch
from ..execution import ExecutionError, Frame, aten, compute
from ..network import Network
from ..weights import Computed, Recipe
from .base import Context, Pass, register


@register("cleanup")
@dataclass(frozen=True)
class Cleanup(Pass):
    """Dead code goes, ops that read only buffers become buffers, equal ops become one.

    Ops that draw at random stay as they are: two of them are not the same, and none is a constant.
    """

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        graph, recipes = network.graph, dict(network.weights.recipes)
        names: dict[str, str] = {}
        seen: dict[tuple[object, ...], tuple[str, ...]] = {}
        ops: list[Op] = []
        constant = {op.name for op in graph.ops if op.kind == "buffer"}
        for original in graph.ops:
            op = rewired([original], names)[0]
            identity = op.kind == "reshape" and op.type.axes == graph.types[original.inputs[0]].axes
            same = (op.kind, op.inputs, op.types, op.attributes)
            if identity:
                names[op.name] = op.inputs[0]
                continue
            if op.kind not in STORED and not draws(op):
                if same in seen:
                    names.update(zip(op.results, seen[same], strict=True))
                    continue
                seen[same] = op.results
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
        if op.kind in STORED or op.kind == "quantize" or len(op.results) != 1 or not op.inputs or draws(op):
            return False
        fixed = not op.type.quantized and not any(map(has_batch, op.type.axes))
        return fixed and all(n in constant for n in op.inputs)

    @staticmethod
    def _computed(op: Op, graph: Graph, inputs: list[Recipe]) -> Recipe:
        def function(*tensors: Tensor) -> Tensor:
            result = compute(Frame(graph, 1), op, list(tensors))
            assert isinstance(result, Tensor)
            return result.contiguous()

        sizes = ", ".join(f"{k}={v}" for k, v in graph.widths)
        line = text(Graph("_", (), (), (replace(op, location=None),), ()))
        return Computed(f"constant {line} {sizes}", tuple(inputs), function)


def draws(op: Op) -> bool:
    """Whether an op without a rule gives other values each time it runs."""
    if not op.kind.startswith("aten."):
        return False
    try:
        return torch.Tag.nondeterministic_seeded in aten(op).tags
    except ExecutionError:
        return True
