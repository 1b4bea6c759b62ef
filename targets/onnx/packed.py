"""Weights alone in few bits: `MatMulNBits` of ONNX Runtime, whose weights lie packed in the file.

With `accuracy_level` 4 its kernels multiply integers: they round the layer's input to 8 bits in blocks by themselves,
which moves results by up to about half a percent of the largest one, and take less time than products of floats.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ...ir import Op, Type
from ...ir.formats import F32, format_named
from .bias import bias_of
from .clamps import source
from .elements import Array
from .quantize import steps_of, zeros_of
from .writer import Writer

BLOCK = 32
"""Inputs that share one rounding of their own; also what a stored step is repeated for."""
BLOCKS = (16, 32, 64, 128, 256)
"""Blocks with a step of their own that the op has."""
LEAST, MOST_ROWS = 512, 4
"""Inputs and outputs of a layer from which on, and rows of a sample up to which the op is faster than products of
floats (`docs/onnxruntime.md`)."""
BYTES = format_named("u8")


def packable(writer: Writer, op: Op) -> bool:
    """Whether a linear layer is written as `MatMulNBits`: a stored weight of at most 8 bits, a real input in `f32`, as
    many inputs and outputs and as few rows as make it pay."""
    weight = writer.type(op.inputs[1])
    if not writer.style.matmul_nbits or op.type.format != F32 or not writer.is_stored(op.inputs[1]):
        return False
    if source(writer.graph, op.inputs[0]).quantized or not _few_bits(weight):
        return False
    rows = prod(writer.lengths(op.name)[:-1])
    return min(writer.lengths(op.inputs[1])) >= LEAST and rows <= MOST_ROWS


def _few_bits(weight: Type) -> bool:
    """Whether the op has such codes and steps."""
    step = weight.step
    if step is None or not weight.format.is_int or weight.format.bits > 8:
        return False
    return step.axis in (None, 0) if step.block is None else step.axis == 1 and step.block in BLOCKS


def packed_linear(writer: Writer, op: Op) -> None:
    """One `MatMulNBits`: 4-bit codes two to a byte, wider ones one to a byte, one step per output and block.

    Signed codes are moved into the unsigned range, whose middle the op takes for the zero; other zeros are given, one
    per output and block.
    """
    name = op.inputs[1]
    type, (outputs, inputs) = writer.type(name), writer.lengths(name)
    assert type.step is not None
    bits, block = 4 if type.format.bits <= 4 else 8, type.step.block or BLOCK
    codes = np.asarray(writer.weights.array(name)).astype(np.int16)
    blocks, middle = -(-inputs // block), 1 << (bits - 1)
    moved = middle if type.format.signed else 0
    lifted = np.full((outputs, blocks * block), middle, np.uint8)
    lifted[:, :inputs] = codes + moved
    weight = writer.initializer(f"{name}/packed", _words(lifted, bits).reshape(outputs, blocks, -1), BYTES)
    writer.proto.initializer[-1].doc_string = str(type.format)
    writer.known_step(name, type)
    steps = writer.initializer(f"{name}/steps", _steps(writer, name, type, outputs, blocks), F32)
    bias = bias_of(writer, op, F32)
    zero = ""
    if type.step.zero is None or type.step.zero + moved != middle:
        zeros = _zeros(writer, name, type, outputs, blocks) + moved
        zero = writer.initializer(f"{name}/zeros", _words(zeros.astype(np.uint8), bits), BYTES)
    given = [writer.real(op.inputs[0]), weight, steps, *([zero, "", *bias] if bias else [zero] if zero else [])]
    writer.node(
        "MatMulNBits", given, op.name, K=inputs, N=outputs, bits=bits, block_size=block, accuracy_level=4
    )  # fmt: skip
    writer.proto.node[-1].domain = MICROSOFT


MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own ops."""


def _steps(writer: Writer, name: str, type: Type, outputs: int, blocks: int) -> Array:
    """One step per output and block: binary32."""
    assert type.step is not None
    if type.step.block is not None:
        return steps_of(writer, name, type).reshape(-1)
    if type.step.axis is not None:
        return np.repeat(steps_of(writer, name, type), blocks)
    assert type.step.value is not None
    return np.full(outputs * blocks, type.step.value, np.float32)


def _zeros(writer: Writer, name: str, type: Type, outputs: int, blocks: int) -> Array:
    """One zero per output and block."""
    assert type.step is not None
    if type.step.zero is not None:
        return np.full((outputs, blocks), type.step.zero, np.int16)
    zeros = zeros_of(writer, name, type).astype(np.int16)
    return zeros if type.step.block is not None else np.repeat(zeros[:, None], blocks, 1)


def _words(codes: Array, bits: int) -> Array:
    """Rows of codes as bytes: those of 4 bits two to a byte, the first in the lower half."""
    if bits == 8:
        return codes
    padded = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return padded[:, 0::2] | (padded[:, 1::2] << 4)
