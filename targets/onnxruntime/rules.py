"""Which layers ONNX Runtime's CPU provider runs on integer kernels, and what a graph lacks where it does not; and which
its CUDA provider runs as products of 8-bit floats.

Each rule was found by writing such graphs and reading the optimised model (`docs/onnxruntime.md`); tests hold each of
them against the runtime that is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from ...ir import STORED, Graph, Op
from ...ir.layers import layers, operand
from ..base import Role
from ..onnx.clamps import CLAMPS, MOVES, folded, narrow_codes
from ..onnx.float8 import mixed, touches, unfit
from ..onnx.lengths import unflattened
from ..plan import LayerPlan, Need, Plan
from .formats import NO_F8, NO_INTEGERS
from .refusals import Supports, refused

ISLANDS = ("add", "mul", "cat", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
           "adaptive_avg_pool3d", "leaky_relu", "sigmoid", "softmax")  # fmt: skip
"""Ops with integer kernels, which need integers on all sides."""

Fate = Literal["codes", "wide", "numbers", "both", "clamped"]
"""What becomes of a layer's result. `codes`: one quantize reads it, and nothing else. `wide`: the same, to more than 8
bits or with several steps. `numbers`: none does. `both`: a quantize and something else, or several quantizes.
`clamped`: one clamp reads it and one op reads that."""


def plan(graph: Graph, supports: Supports | None = None) -> Plan:
    """What the CPU provider will do with each layer of a graph, written by `nasc.targets.onnx`.

    Args:
        graph: the graph.
        supports: how another provider with integer kernels runs formats: layers with operands that it does not take are
            not expected on them.
    """
    skipped = folded(graph)
    expected: list[LayerPlan] = []
    needs: list[Need] = []
    for layer in layers(graph):
        entry, missing = layer_plan(graph, layer, skipped)
        if supports is not None and entry.integer and (why := operands_refused(graph, layer, supports)):
            entry, missing = LayerPlan(layer.name, False, why), []
        expected.append(entry)
        needs += missing
    needs += islands(graph, skipped)
    return Plan(tuple(expected), tuple(dict.fromkeys(needs)))


def plan_on_cuda(graph: Graph, unused: Callable[[bool], str]) -> Plan:
    """What the CUDA provider will do: products of 8-bit floats where layers are such and they hold, all else in float.

    Args:
        graph: the graph.
        unused: why products of 8-bit floats are not used, of both formats together or of one alone; empty: they are.
    """
    return Plan(tuple(layer_on_cuda(graph, layer, unused) for layer in layers(graph)))


def layer_on_cuda(graph: Graph, layer: Op, unused: Callable[[bool], str]) -> LayerPlan:
    """What is expected of one layer."""
    if not touches(graph, layer):
        return LayerPlan(layer.name, False, NO_INTEGERS)
    if why := unfit(graph, layer) or unused(mixed(graph, layer)):
        return LayerPlan(layer.name, False, f"{NO_F8}: {why}")
    return LayerPlan(layer.name, False, "f8 products: its input and its weight are 8-bit floats", f8=True)


def layer_plan(graph: Graph, layer: Op, skipped: frozenset[str]) -> tuple[LayerPlan, list[Need]]:
    """What is expected of one layer, and what it lacks."""
    if why := operands_in_float(graph, layer):
        return LayerPlan(layer.name, False, why), []
    if layer.kind == "linear" and unflattened(graph, layer) is None:
        return LayerPlan(layer.name, False, f"two axes of its result {layer.type} depend on the batch"), []
    needs = bias_needs(graph, layer)
    fate = fate_of(graph, layer.name, skipped)
    if why := result_in_float(graph, layer, fate):
        mend = Need("quantize-result", layer.name, where_to_quantize(graph, layer.name), why)
        return LayerPlan(layer.name, False, why), needs if fate == "wide" else [*needs, mend]
    if needs and not (fate == "codes" and is_stored_float(graph, needs[0].value)):
        return LayerPlan(layer.name, False, needs[0].reason), needs
    return LayerPlan(layer.name, True, "its input and its weight are integers of at most 8 bits"), needs


def operands_in_float(graph: Graph, layer: Op) -> str:
    """Why a layer's operands keep it from integer kernels; empty: nothing does."""
    weight = operand(layer, "weight") or ""
    given = graph.types[layer.inputs[0]]
    for name, type, what in (
        (layer.inputs[0], given, "input"),
        (weight, graph.types[weight], "weight"),
    ):
        if type.step is None:
            return f"its {what} %{name} is not quantized"
        if type.step.block is not None or not type.format.is_int:
            return f"its {what} %{name} is {type.encoding}, integer kernels take integers without blocks"
        if type.format.bits > 8:
            return f"its {what} %{name} has {type.format.bits} bits, integer kernels take at most 8"
    if given.format.family != "int":
        return f"its input %{layer.inputs[0]} is {given.encoding}, whose codes have no container with as many values"
    if given.step is not None and given.step.axis is not None:
        return f"its input %{layer.inputs[0]} has several steps, integer kernels take one for the whole tensor"
    of_weight = graph.types[weight].step
    if of_weight is not None and of_weight.axis not in (None, 0):
        return f"its weight %{weight} has steps along axis {of_weight.axis}, integer kernels take them per output"
    if not graph.types[weight].multiplied:
        return f"the zero of its weight %{weight} is not 0, integer kernels take symmetric ones"
    if not is_stored(graph, weight):
        return f"its weight %{weight} is computed, integer kernels take stored ones"
    return ""


def operands_refused(graph: Graph, layer: Op, supports: Supports) -> str:
    """Why a provider does not take a layer's operands; empty: it does."""
    roles: tuple[tuple[str, Role], ...] = ((layer.inputs[0], "activation"), (operand(layer, "weight") or "", "weight"))
    for name, role in roles:
        type = graph.types[name]
        if why := refused(type, role, supports):
            return f"its {'input' if role == 'activation' else role} %{name} is {type.encoding}: {why}"
    return ""


def is_stored(graph: Graph, name: str) -> bool:
    """Whether a value lies in the weights' store."""
    return (op := graph.producers.get(name)) is not None and op.kind in STORED


def is_stored_float(graph: Graph, name: str) -> bool:
    """Whether a value is a stored tensor of numbers, as the runtime can round by itself."""
    return is_stored(graph, name) and not graph.types[name].quantized


def bias_needs(graph: Graph, layer: Op) -> list[Need]:
    """Whether the bias must be written as 32-bit codes.

    ONNX Runtime rounds a float bias by itself where the result is quantized; that no pass has seen, and torch would
    compute with the unrounded one.
    """
    if len(layer.inputs) < 3:
        return []
    bias = layer.inputs[2]
    type = graph.types[bias]
    if type.step is not None and type.format.bits == 32:
        return []
    reason = f"its bias %{bias} is {type.encoding}, not i32 codes in the step of the products"
    return [Need("bias-in-step", layer.name, bias, reason)]


def result_in_float(graph: Graph, layer: Op, fate: Fate) -> str:
    """Why what reads a layer's result keeps it from integer kernels; empty: nothing does."""
    if fate == "codes":
        return ""
    if fate == "wide":
        return f"its result %{layer.name} is quantized to more than 8 bits, or with several steps"
    if layer.kind != "linear":
        return f"its result %{layer.name} is not quantized, or not for all who read it, as a convolution needs"
    if graph.types[layer.inputs[0]].rank != 2:
        return ""
    if fate == "both":
        return f"its result %{layer.name} is read both as integers and as numbers, or as two kinds of integers"
    if fate == "clamped":
        clamp = graph.readers[layer.name][0]
        return f"its {clamp.kind} %{clamp.name} is not quantized, and the runtime merges it with the layer in float"
    return ""


def uses(graph: Graph, name: str, skipped: frozenset[str]) -> Iterator[Op | None]:
    """The ops that read a value, through clamps that are done on codes; None for the graph's own output."""
    if name in graph.outputs:
        yield None
    for reader in graph.readers.get(name, ()):
        if reader.name in skipped:
            yield from uses(graph, reader.name, skipped)
        else:
            yield reader


def fate_of(graph: Graph, name: str, skipped: frozenset[str]) -> Fate:
    """What becomes of a layer's result."""
    found = list(uses(graph, name, skipped))
    if len(found) == 1 and (only := found[0]) is not None:
        if only.kind == "quantize":
            return "codes" if takes_codes(only) else "wide"
        if only.kind in MOVES:
            fate = fate_of(graph, only.name, skipped)
            return fate if fate in ("codes", "wide") else "numbers"
        if only.kind in CLAMPS and only.name not in graph.outputs and read_once(graph, only.name):
            return "clamped"
    return "both" if any(use is not None and use.kind == "quantize" for use in found) else "numbers"


def ends_in_codes(graph: Graph, name: str, skipped: frozenset[str]) -> bool:
    """Whether a value is quantized for somebody, directly or behind clamps, moves and ops that run on integers."""
    return any(
        use.kind == "quantize" or (use.kind in (*CLAMPS, *MOVES, *ISLANDS) and ends_in_codes(graph, use.name, skipped))
        for use in uses(graph, name, skipped)
        if use is not None
    )


def read_once(graph: Graph, name: str) -> bool:
    """Whether one operand of one op reads a value."""
    return sum(op.inputs.count(name) for op in graph.readers.get(name, ())) == 1


def takes_codes(op: Op) -> bool:
    """Whether an op quantizes to what integer kernels write: at most 8 bits, one step in all."""
    return op.kind == "quantize" and narrow_codes(op.type)


def where_to_quantize(graph: Graph, name: str) -> str:
    """The value that stands for a layer's result behind the clamps and moves that alone read it."""
    readers = graph.readers.get(name, ())
    if name in graph.outputs or len(readers) != 1 or readers[0].kind not in (*CLAMPS, *MOVES):
        return name
    return where_to_quantize(graph, readers[0].name)


def islands(graph: Graph, skipped: frozenset[str]) -> Iterator[Need]:
    """What ops between layers lack, where some of what they read are integers, and somebody reads integers behind."""
    for op in graph.ops:
        if op.kind not in ISLANDS or op.attribute("other") is not None or op.attribute("input") is not None:
            continue
        quantized = [graph.types[name].integer for name in op.inputs]
        if not any(quantized) or not ends_in_codes(graph, op.name, skipped):
            continue
        reason = f"{op.kind} %{op.name} runs on integers only if all it reads and gives are"
        for name, done in zip(op.inputs, quantized, strict=True):
            if not done:
                yield Need("quantize-operand", op.name, name, reason)
        if fate_of(graph, op.name, skipped) not in ("codes", "wide"):
            yield Need("quantize-result", op.name, where_to_quantize(graph, op.name), reason)
