"""What is refused before it is written: graphs that the runtime would not load, or not run in the formats they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ...ir import STORED, Encoding, Graph, NascError, Op, Type
from ...ir.formats import BF16
from ...ir.layers import layers
from ..base import Role, Support
from ..onnx import EmissionError

Supports: TypeAlias = "Callable[[Encoding, Role], Support]"
"""How a provider runs values of an encoding in a role."""

BF16_ON_CPU = frozenset({
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "any", "avg_pool1d", "avg_pool2d", "avg_pool3d", "cast", "cat",
    "channel_shuffle", "embedding", "expand", "flip", "fold", "gather", "index", "index_select", "interpolate", "isinf",
    "isnan", "layer_norm", "logical_and", "logical_not", "logical_or", "logical_xor", "max_pool1d", "max_pool2d",
    "max_pool3d", "narrow", "permute", "pixel_shuffle", "pixel_unshuffle", "quantize", "reshape", "roll", "select",
    "select_scatter", "sign", "slice", "slice_scatter", "split", "stack", "tensor_unfold", "unbind", "unfold",
})  # fmt: skip
"""Ops that the CPU provider loads on `bf16`, for some operands at least: they move values, or are written in `f32`."""


def refuse_bf16(graph: Graph, supports: Supports) -> None:
    """Refuse ops on `bf16` values where the runtime has no kernels for them; stored ones are read into `f32`.

    Raises:
        EmissionError: at the user's line.
    """
    if (support := supports(Encoding(BF16), "activation")).runs != "no":
        return
    for op in graph.ops:
        if op.kind in STORED or op.kind in BF16_ON_CPU or op.kind.startswith("aten."):
            continue
        if computes_bf16(graph, op):
            raise EmissionError(
                op,
                f"it computes in bf16, and {support.reason}",
                mend="Convert to f32 or f16, or store weights alone in it (`quantize{weights=bf16}`).",
                graph=graph,
            )


def computes_bf16(graph: Graph, op: Op) -> bool:
    """Whether a node of an op meets values of `bf16`: ops with results in another float format read them into that."""
    if any(type.format.is_float for type in op.types):
        return any(type.format == BF16 for type in op.types)
    return any(graph.types[name].format == BF16 for name in op.inputs)


def refuse_codes(graph: Graph, supports: Supports) -> None:
    """Refuse quantized values that the runtime does not take.

    Raises:
        EmissionError: at the user's line.
        NascError: an input of the graph is such a value.
    """
    biases = {name for layer in layers(graph) for name in layer.inputs[2:3]}
    for entry in graph.inputs:
        if why := refused(entry.type, "activation", supports):
            raise NascError(f"the input %{entry.name} is {entry.type.encoding}: {why}", mend=SIGNED_INPUT)
    for op in graph.ops:
        role: Role = "activation"
        if op.kind in STORED:
            role = "bias" if op.name in biases else "weight"
        for type in op.types:
            if why := refused(type, role, supports):
                mend = SIGNED_ACTIVATION if role == "activation" else SIGNED_WEIGHT
                raise EmissionError(op, f"it is {type.encoding}: {why}", mend=mend, graph=graph)


SIGNED_INPUT = "Let it be i8 with the zero 0, or real numbers."
SIGNED_ACTIVATION = (
    "Quantize activations to signed integers whose zero is 0: `quantize{activations=i8}`, or"
    " `place{target=onnxruntime:tensorrt}` before `calibrate`."
)
SIGNED_WEIGHT = "Quantize weights to signed integers without zeros and blocks: `quantize{weights=i8}`."


def refused(type: Type, role: Role, supports: Supports) -> str:
    """Why a runtime does not take a quantized value in a role; empty: it does, or the value is not quantized."""
    if not type.quantized:
        return ""
    support = supports(type.encoding, role)
    return support.reason if support.runs == "no" else ""
