"""QuantizeLinear and DequantizeLinear: back to quantized values and stored codes."""

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
        reader.values[key] = stored_codes(reader, name)
    reader.alias(reader.values[key])


def stored_codes(reader: Reader, name: str) -> str:
    """Store constant codes with their step; in fewer bits where the file says that they have fewer."""
    codes = reader.constants[name]
    format = format_of(codes.dtype)
    step, several = step_of(reader, format)
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
