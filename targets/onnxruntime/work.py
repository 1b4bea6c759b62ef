"""What one kernel of ONNX Runtime has to do, from the shapes that it was given: multiply-additions, bytes, format."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..plan import F8_KERNELS, INTEGER_KERNELS
from ..trace import Tensor

ELEMENT_BYTES = {
    "float": 4, "double": 8, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2,
    "int32": 4, "uint32": 4, "int64": 8, "uint64": 8, "bool": 1, "float8e4m3fn": 1, "float8e5m2": 1,
}  # fmt: skip
"""Bytes of an element, by ONNX Runtime's names; 4-bit elements are given as bytes that hold two."""

CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvInteger", "QLinearConv"})
TRANSPOSED = frozenset({"ConvTranspose"})
PRODUCTS = frozenset({
    "Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "TransposeMatMul", "GemmFloat8",
})  # fmt: skip
VECTORS = frozenset({"MatMul", "FusedMatMul"})
"""Products of which an operand may have a single axis."""
BLOCKED = frozenset({"MatMulNBits"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
UNCOUNTED = frozenset({
    "Attention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DeformConv", "DFT",
    "DynamicQuantizeLSTM", "Einsum", "GroupQueryAttention", "MatMulBnb4", "MoE", "MultiHeadAttention",
    "PackedAttention", "PackedMultiHeadAttention", "PagedAttention", "QAttention", "QMoE", "SparseAttention", "STFT",
})  # fmt: skip
"""Kinds that multiply tensors, and for which there is no formula here."""


def tensor(element: str, shape: Sequence[int]) -> Tensor:
    """A tensor by ONNX Runtime's name of its element type."""
    return Tensor(element, tuple(shape), ELEMENT_BYTES.get(element, 4))


def macs(kind: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """The multiply-additions of a kernel; 0 for those that multiply no tensors.

    Steps and zeros of quantized kernels stand between the operands; they have at most one axis and are passed over.
    """
    wide = [t for t in inputs if len(t.shape) >= 2]
    if outputs and kind in VECTORS and len(inputs) >= 2 and len(wide) < 2 and inputs[0].shape:
        return outputs[0].elements * inputs[0].shape[-1]
    if not outputs or not wide:
        return 0
    if kind in CONVOLUTIONS and len(wide) >= 2:
        return outputs[0].elements * prod(wide[1].shape[1:])
    if kind in TRANSPOSED and len(wide) >= 2:
        return wide[0].elements * prod(wide[1].shape[1:])
    if kind in PRODUCTS and len(wide) >= 2 and outputs[0].elements:
        inner = wide[0].elements // outputs[0].shape[0] if kind.endswith("Gemm") else wide[0].shape[-1]
        return outputs[0].elements * inner
    if kind in BLOCKED:
        return outputs[0].elements * wide[0].shape[-1]
    if kind in RECURRENT and len(wide) >= 3:
        return prod(wide[0].shape[:-1]) * (wide[1].elements + wide[2].elements)
    return 0


def is_counted(kind: str, counted: int, outputs: Sequence[Tensor]) -> bool:
    """Whether `macs` holds what a kernel multiplies: it has no formula for some, and needs the shapes of the others."""
    if kind in UNCOUNTED:
        return False
    multiplies = kind in CONVOLUTIONS | TRANSPOSED | PRODUCTS | BLOCKED | RECURRENT
    return counted > 0 or not multiplies or not any(t.elements for t in outputs)


def computes_in(kind: str, inputs: Sequence[Tensor]) -> str:
    """The format that a kernel computes in: `i8` for integer kernels, `f8` for products of 8-bit floats, else that of
    its first operand."""
    element = inputs[0].element if inputs else "float"
    if kind in F8_KERNELS:
        return "f8"
    if kind in INTEGER_KERNELS or kind.startswith("QLinear") or element in ("int8", "uint8"):
        return "i8"
    return {"float16": "f16", "bfloat16": "bf16", "double": "f64"}.get(element, "f32")
