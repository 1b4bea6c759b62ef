"""How a runtime wants quantized graphs written, and the exact rewriting of codes that brings them there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir import STORED, Graph, Op, Type, Weights, format_named
from .elements import Array


@dataclass(frozen=True)
class Style:
    """What a runtime fuses.

    Args:
        unsigned: activations lie in unsigned containers and symmetric weights in signed ones, whatever their formats:
            codes and zeros are shifted by half the range, which changes no number that they stand for.
        clip_codes: bounds on quantized values are put on their codes, by a Clip of integers; else on the numbers.
        packed: stored codes take the bits of their format in the file, from opset 21 on, and become whole bytes, or the
            numbers of elements that ONNX has no type for, when the runtime loads the model; see `bits`.
        keep_floats: a layer whose weights are numbers stays in float although its input is quantized: a node that does
            nothing keeps the runtime from rounding the weights by itself.
        matmul_nbits: linear layers with real inputs and weights of at most 8 bits become `MatMulNBits`, see `packed`;
            else their weights are read back into numbers, which is exact and as fast as `f32`.
        fold_weights: stored codes that no integer kernel takes are read back by a Cast and a Mul, which the runtime
            computes once, when it loads the model; a DequantizeLinear it would compute at every call.
        integer_kernels: the runtime multiplies codes where a layer's input and weight are integers.
        round_behind_pools: a quantize behind a max pool of numbers stays there, by a node that does nothing: the
            runtime would move it before the pool, and pool codes slowly.
        gemm_float8: linear layers whose inputs and weights are 8-bit floats become `GemmFloat8`, see `float8`; else
            both are read back into numbers.
        mixed_float8: where they do, so do layers that read `f8e4m3` beside `f8e5m2`.
    """

    unsigned: bool = True
    clip_codes: bool = True
    keep_floats: bool = True
    packed: bool = True
    matmul_nbits: bool = True
    fold_weights: bool = True
    integer_kernels: bool = True
    round_behind_pools: bool = True
    gemm_float8: bool = False
    mixed_float8: bool = True


ONNXRUNTIME = Style()
"""ONNX Runtime's CPU provider: u8 x i8 kernels are the fastest and the only ones that fuse throughout."""

CUDA = Style(integer_kernels=False, round_behind_pools=False)
"""ONNX Runtime's CUDA provider: codes are only how weights lie in the file and activations are rounded, but for
`gemm_float8`, which the target takes where it holds on the device."""

TENSORRT = Style(
    unsigned=False, clip_codes=False, keep_floats=False, packed=False, matmul_nbits=False, fold_weights=False,
    round_behind_pools=False,
)  # fmt: skip
"""TensorRT takes signed codes whose zero is 0, and no arithmetic on codes."""


def recoded(graph: Graph) -> Graph:
    """The graph with unsigned activations and signed symmetric weights of up to 8 bits; itself where all are so.

    Asymmetric weights, which no integer kernel takes, stay.
    """
    moved: dict[str, Type] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if (type := _recoded(op, moved)) is not None:
            moved[op.name] = type
            op = op.with_type(type)
        ops.append(op)
    return replace(graph, ops=tuple(ops)) if moved else graph


def _recoded(op: Op, moved: Mapping[str, Type]) -> Type | None:
    """The new type of an op's result, or None where it stays; what rearranges codes follows what it reads."""
    if not _narrow(op.type):
        return None
    if op.kind == "quantize":
        return _shifted(op.type, 1) if op.type.format.signed else None
    if op.kind in STORED:
        return _shifted(op.type, -1) if _one_sided(op.type) else None
    source = moved.get(op.inputs[0]) if op.inputs else None
    return None if source is None else replace(op.type, format=source.format, step=source.step)


def _narrow(type: Type) -> bool:
    return type.integer and type.format.family == "int" and type.format.bits <= 8


def _one_sided(type: Type) -> bool:
    """Whether stored codes are unsigned with the zero 0."""
    return _narrow(type) and not type.format.signed and type.step is not None and type.step.zero == 0


def _shifted(type: Type, sign: int) -> Type:
    """A quantized type with the other signedness; codes and zero move by half the range."""
    assert type.step is not None
    format = format_named(f"{'u' if sign > 0 else 'i'}{type.format.bits}")
    zero = type.step.zero
    moved = None if zero is None else zero + sign * half(type)
    return replace(type, format=format, step=replace(type.step, zero=moved))


def half(type: Type) -> int:
    """Half the range of an integer format."""
    return 1 << (type.format.bits - 1)


class Recoded:
    """The weights of a recoded graph: unsigned codes of up to 8 bits moved into the signed range.

    Args:
        weights: the weights of the graph as it was.
        graph: the graph as it was.
    """

    def __init__(self, weights: Weights, graph: Graph) -> None:
        self._weights = weights
        self._types = graph.types

    def array(self, name: str) -> Array:
        """The codes of a stored value, moved where its type has moved."""
        array: Any = self._weights.array(name)
        type = self._types[name]
        if not _one_sided(type):
            return array
        return (np.asarray(array).astype(np.int16) - half(type)).astype(np.int8)

    def steps(self, name: str) -> Any:
        """The steps of a stored value, which recoding does not change."""
        return self._weights.steps(name)

    def zeros(self, name: str) -> Any:
        """The zeros of an asymmetric value, which stays as it is."""
        return self._weights.zeros(name)
