"""What a target will do with each layer, said beforehand, and what it did, read from the network it runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

INTEGER_KERNELS = frozenset({
    "QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger",
    "DynamicQuantizeMatMul",
})  # fmt: skip
"""Kernels of ONNX Runtime that multiply integers."""

F8_KERNELS = frozenset({"GemmFloat8"})
"""Kernels of ONNX Runtime that multiply 8-bit floats."""

RENAMED = re.compile(r"^fused |_token_[0-9]+$")
"""What ONNX Runtime puts before the name of a node that it merges, and behind that of one that it lays out anew."""


@dataclass(frozen=True)
class LayerPlan:
    """What is expected of one layer.

    Args:
        layer: its name.
        integer: whether an integer kernel will run it.
        reason: why, or why not.
        f8: whether a kernel for 8-bit floats will run it.
    """

    layer: str
    integer: bool
    reason: str
    f8: bool = False


Mend = Literal["quantize-result", "quantize-operand", "bias-in-step"]
"""What a legalisation must do about a `Need`.

`quantize-result`: let all who read `value`, the result of `op` behind its clamps and moves, read it through one
quantize. `quantize-operand`: let `op` read its operand `value` through a quantize. `bias-in-step`: store the bias
`value` of `op` as `i32` codes in the step of its products.
"""


@dataclass(frozen=True)
class Need:
    """What is missing for integer kernels.

    Args:
        mend: what to do, see `Mend`.
        op: the op concerned.
        value: the value concerned.
        reason: why, as one sentence.
    """

    mend: Mend
    op: str
    value: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a target will do with a graph.

    Args:
        layers: one entry per layer, in order.
        needs: what would give further layers integer kernels; empty for a legalised graph.
    """

    layers: tuple[LayerPlan, ...]
    needs: tuple[Need, ...] = ()

    @property
    def integer(self) -> tuple[str, ...]:
        """The layers expected on integer kernels."""
        return tuple(p.layer for p in self.layers if p.integer)

    @property
    def f8(self) -> tuple[str, ...]:
        """The layers expected on kernels for 8-bit floats."""
        return tuple(p.layer for p in self.layers if p.f8)


@dataclass(frozen=True)
class Node:
    """A node that really runs.

    Args:
        name: its name after the runtime's optimisation.
        kind: its kernel.
        provider: which execution provider runs it.
        layer: the layer of the graph it computes, where that can be told.
    """

    name: str
    kind: str
    provider: str
    layer: str = ""


@dataclass(frozen=True)
class Placement:
    """What really runs.

    Args:
        nodes: all nodes in the order in which they run.
        float_layers: layers that were planned on integer kernels, or on those for 8-bit floats, and run in float, with
            what runs them.
    """

    nodes: tuple[Node, ...]
    float_layers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def kernels(self) -> Mapping[str, int]:
        """How often each kernel runs."""
        return Counter(node.kind for node in self.nodes)

    @property
    def as_planned(self) -> bool:
        """Whether every layer planned on an integer kernel, or on one for 8-bit floats, runs on one."""
        return not self.float_layers


def check_placement(plan: Plan, placement: Placement) -> Placement:
    """What really runs, held against what was planned: nodes by the layer they compute, float layers named.

    A layer planned on an integer kernel counts as one if a node of its name has a kernel of `INTEGER_KERNELS`; one
    planned on 8-bit floats, of `F8_KERNELS`.
    """
    kernels: dict[str, list[str]] = {}
    nodes: list[Node] = []
    known = {entry.layer for entry in plan.layers}
    for node in placement.nodes:
        layer = node.name if node.name in known else RENAMED.sub("", node.name).split("/")[0]
        nodes.append(replace(node, layer=layer if layer in known else ""))
        kernels.setdefault(layer, []).append(node.kind)
    planned = [(layer, INTEGER_KERNELS) for layer in plan.integer] + [(layer, F8_KERNELS) for layer in plan.f8]
    in_float = {
        layer: ", ".join(kernels.get(layer, ())) or "no node of its name"
        for layer, expected in planned
        if not expected.intersection(kernels.get(layer, ()))
    }
    return Placement(tuple(nodes), in_float)
