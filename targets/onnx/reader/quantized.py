"""QuantizeLinear, DequantizeLinear and what nasc writes in its place: back to quantized values and stored codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from ....ir import Format, Step, Type, format_named
from ..elements import Array, format_of
from .base import Reader, reads


def step_of(reader: Reader, format: Format) -> tuple[Step, Array | None]:
    """The step that a node's second and third operand say, and several steps where there is one per index of an axis.

    Raises:
        ReadError: they are computed, in blocks, or have several zeros that are not 0.
    """
    node = reader.node
    steps = reader.constants.get(node.input[1])
    zeros = reader.constants.get(node.input[2]) if reader.there(2) else np.zeros(1, np.int64)
    if steps is None or zeros is None:
        raise reader.error("its step and zero must be constants")
    if reader.attribute("block_size", 0):
        raise reader.error("it has one step per block")
    zero = zeros.reshape(-1).astype(np.int64)
    if steps.size == 1:
        return Step.of(float(steps.reshape(-1)[0]), int(zero[0])), None
    if zero.any():
        raise reader.error("it has several zeros, and the IR knows them for a step of the whole tensor alone")
    return Step.per(reader.axis(1), known=True), np.ascontiguousarray(steps, np.float32)


@reads("QuantizeLinear")
def quantize(reader: Reader, node: NodeProto) -> None:
    """Codes of a value; of a constant they are stored."""
    held = reader.constants.get(node.input[2]) if reader.there(2) else np.zeros(1, np.uint8)
    if held is None:
        raise reader.error("its zero must be a constant")
    format = format_of(held.dtype)
    step, several = step_of(reader, format)
    if several is not None:
        raise reader.error("an activation has one step per index, which nasc does not read")
    if node.input[0] in reader.constants:
        real = reader.constants[node.input[0]].astype(np.float32)
        codes = np.rint(real / np.float32(step.value or 1)) + (step.zero or 0)
        reader.constants[node.output[0]] = np.clip(codes, format.low, format.high).astype(held.dtype)
        return
    reader.give("quantize", [reader.value(0)], Type(format, (), step))


@reads("DequantizeLinear")
def dequantize(reader: Reader, node: NodeProto) -> None:
    """The numbers that codes stand for: ops of the IR read codes themselves."""
    name = node.input[0]
    if name not in reader.constants:
        value = reader.value(0)
        if reader.types[value].step is None:
            raise reader.error(f"its operand {name!r} holds no codes that a QuantizeLinear gave")
        reader.alias(value)
        return
    key = f"{name} as codes"
    if key not in reader.values:
        reader.values[key] = stored_codes(reader, name, *step_of(reader, format_of(reader.constants[name].dtype)))
    reader.alias(reader.values[key])


def remember(reader: Reader) -> None:
    """Note what a node of constants does to codes, beside its numbers: they are stored as codes if an op reads them.

    A Cast makes numbers of codes (or bytes of packed ones), a Gather gives every element the step of its block, and a
    Mul brings the two together.
    """
    node, constants = reader.node, reader.constants
    first, result = node.input[0], node.output[0]
    if node.op_type == "Cast":
        reader.formats[result] = reader.formats.get(first, "")
        if constants[result].dtype == np.float32 and constants[first].dtype.itemsize <= 2:
            reader.casts[result] = first
    elif node.op_type == "Gather":
        reader.gathers[result] = first, constants[node.input[1]], reader.axis(0, rank=constants[first].ndim)
    elif node.op_type == "Mul" and first in reader.casts:
        step = _multiplier(reader, node.input[1], constants[first].ndim)
        if step is not None:
            reader.codes[result] = reader.casts[first], *step


def _multiplier(reader: Reader, name: str, rank: int) -> tuple[Step, Array | None] | None:
    """What codes are multiplied by, if it can be a step: one number, one per index of an axis, or one per block."""
    steps = reader.constants[name]
    if steps.dtype != np.float32 or not (steps > 0).all():
        return None
    if steps.size == 1:
        return Step.of(float(steps.reshape(-1)[0])), None
    if name in reader.gathers:
        held, indices, axis = reader.gathers[name]
        block = int((indices == 0).sum())
        if block < 2 or (indices != np.arange(indices.size) // block).any() or reader.constants[held].ndim != rank:
            return None
        return Step.blocks(block, axis), reader.constants[held]
    long = [i for i, n in enumerate(steps.shape) if n > 1]
    if steps.ndim != rank or len(long) != 1:
        return None
    return Step.per(long[0], known=True), np.ascontiguousarray(steps.reshape(-1))


@reads("com.microsoft.MatMulNBits")
def matmul_nbits(reader: Reader, node: NodeProto) -> None:
    """A linear layer with packed codes of 4 or 8 bits, whose zero is the middle of their range, and steps per block."""
    words, steps = (reader.constants.get(node.input[i]) for i in (1, 2))
    if words is None or steps is None or reader.there(3) or reader.there(4):
        raise reader.error("nasc reads it with constant codes and steps, without zeros and indices")
    bits, block = int(reader.attribute("bits", 4)), int(reader.attribute("block_size"))
    inputs, outputs = int(reader.attribute("K")), int(reader.attribute("N"))
    if bits not in (4, 8):
        raise reader.error(f"its codes have {bits} bits, nasc reads 4 and 8")
    words = words.reshape(outputs, -1)
    lifted = words if bits == 8 else np.stack([words & 15, words >> 4], -1).reshape(outputs, -1)
    codes = (lifted[:, :inputs].astype(np.int16) - (1 << (bits - 1))).astype(np.int8)
    several = steps.reshape(outputs, -1)
    if (several == several[:, :1]).all():
        step, several = Step.per(0, known=True), several[:, 0]
    else:
        step = Step.blocks(block, 1)
    name = node.input[1].removesuffix("/packed")
    reader.constants[name], reader.formats[name] = codes, reader.formats.get(node.input[1]) or f"i{bits}"
    weight = stored_codes(reader, name, step, np.ascontiguousarray(several, np.float32))
    bias = [reader.value(5)] if reader.there(5) else []
    reader.give("linear", [reader.value(0), weight, *bias])


def stored_codes(reader: Reader, name: str, step: Step, several: Array | None) -> str:
    """Store constant codes with their step; in fewer bits where the file says that they have fewer."""
    codes = reader.constants[name]
    format = format_of(codes.dtype)
    said = reader.formats.get(name, "")
    if said and (known := format_named(said)).signed == format.signed and known.is_int:
        format = known if not codes.size or (codes.min() >= known.low and codes.max() <= known.high) else format
    if not format.signed and step.zero == 1 << (format.bits - 1):
        codes = (codes.astype(np.int64) - (1 << (format.bits - 1))).astype(np.int8 if format.bits <= 8 else np.int16)
        format, step = format_named(f"i{format.bits}"), replace(step, zero=0)
    if step.zero:
        raise reader.error(f"the stored codes {name!r} have the zero {step.zero}; nasc keeps those of weights at 0")
    found = reader.stored(name, np.ascontiguousarray(codes), "weight", format, step)
    if several is not None:
        reader.steps[found] = several
    return found


def clipped_codes(reader: Reader, low: float | None, high: float | None) -> bool:
    """Read a Clip of codes: a quantize to fewer bits, or with a clamp before it. Whether it was one.

    Raises:
        ReadError: others read the codes as well.
    """
    name = reader.node.input[0]
    value = reader.values.get(name)
    type = reader.types.get(value or "")
    if type is None or type.step is None:
        return False
    least, most = (int(type.format.low if low is None else low), int(type.format.high if high is None else high))
    op = reader.replace_last(name)
    if op is None or op.kind != "quantize" or type.step.value is None:
        raise reader.error("it bounds codes that others read, or that are not quantized right before")
    narrow = next((f for f in formats_within(type.format) if (f.low, f.high) == (least, most)), None)
    if narrow is not None:
        reader.give("quantize", op.inputs, replace(type, format=narrow))
        return True
    bits = next(f for f in formats_within(type.format) if f.low <= least and most <= f.high)
    zero, step = type.step.zero or 0, type.step.value
    floor = None if least == bits.low else (least - zero) * step
    ceiling = None if most == bits.high else (most - zero) * step
    if floor == 0 and ceiling is None:
        (given,) = reader.op("relu", op.inputs)
    else:
        (given,) = reader.op("clamp", op.inputs, min=floor, max=ceiling)
    reader.give("quantize", [given], replace(type, format=bits))
    return True


def formats_within(format: Format) -> list[Format]:
    """The integer formats that a container holds, the narrowest first."""
    return [format_named(f"{'i' if format.signed else 'u'}{bits}") for bits in range(2, format.bits + 1)]
