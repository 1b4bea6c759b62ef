"""QuantizeLinear, DequantizeLinear and what nasc writes in its place: back to quantized values and stored codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from ....ir import Format, Step, Type, format_named
from ..elements import Array, element, format_of
from .base import Reader, Scale, reads


def scale_of(reader: Reader) -> Scale:
    """What a node's second and third operand say of its codes: one step, one per index of an axis, or one per block.

    Raises:
        ReadError: they are computed.
    """
    node = reader.node
    steps = reader.constants.get(node.input[1])
    zeros = reader.constants.get(node.input[2]) if reader.there(2) else np.zeros(1, np.int64)
    if steps is None or zeros is None:
        raise reader.error("its step and zero must be constants")
    if steps.size == 1:
        return Scale(Step.of(float(steps.reshape(-1)[0]), int(zeros.reshape(-1)[0])))
    zeros = np.broadcast_to(zeros.astype(np.int64), steps.shape) if zeros.any() else None
    own, block = zeros is not None, int(reader.attribute("block_size", 0))
    axis = reader.axis(1)
    step = Step.blocks(block, axis, zeros=own) if block else Step.per(axis, known=True, zeros=own)
    return Scale(step, np.ascontiguousarray(steps, np.float32), zeros)


@reads("QuantizeLinear")
def quantize(reader: Reader, node: NodeProto) -> None:
    """Codes of a value; of a constant they are stored."""
    held = reader.constants.get(node.input[2]) if reader.there(2) else np.zeros(1, np.uint8)
    if held is None:
        raise reader.error("its zero must be a constant")
    said = reader.formats.get(node.input[2], "") if reader.there(2) else ""
    format = format_named(said) if said else format_of(held.dtype)
    scale = scale_of(reader)
    if node.input[0] in reader.constants:
        reader.constants[node.output[0]] = _rounded(reader.constants[node.input[0]], scale, format).astype(held.dtype)
        reader.formats[node.output[0]] = said
        return
    if scale.steps is not None:
        raise reader.error("an activation has several steps, which nasc does not read")
    reader.give("quantize", [reader.value(0)], Type(format, (), scale.step))


def _rounded(real: Array, scale: Scale, format: Format) -> Array:
    """The codes of constant numbers."""
    step = scale.step
    steps = np.float32(step.value or 1) if scale.steps is None else _spread(scale.steps, step, real.shape)
    zeros = (step.zero or 0) if scale.zeros is None else _spread(scale.zeros, step, real.shape)
    return np.clip(np.rint(real.astype(np.float32) / steps) + zeros, format.low, format.high)


def _spread(values: Array, step: Step, shape: tuple[int, ...]) -> Array:
    """Steps or zeros shaped to meet the codes."""
    assert step.axis is not None
    if step.block is not None:
        return np.repeat(values, step.block, step.axis).take(range(shape[step.axis]), step.axis)
    return values.reshape([-1 if i == step.axis else 1 for i in range(len(shape))])


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
        reader.values[key] = stored_codes(reader, name, scale_of(reader))
    reader.alias(reader.values[key])


UNPACKING = ("Add", "Cast", "Gather", "Mul", "Reshape", "Slice")
"""Nodes that codes in pieces pass through."""


def remember(reader: Reader) -> None:
    """Note what a node of constants does to codes, beside its numbers: they are stored as codes if an op reads them.

    A Cast makes numbers of codes, a Sub takes their zeros off, a Gather gives every element the step or zero of its
    block, and a Mul brings them together. What puts codes together from pieces (`bits`) says what they are.
    """
    node, constants = reader.node, reader.constants
    first, result = node.input[0], node.output[0]
    if node.op_type in UNPACKING and constants[result].dtype.kind in "iu":
        reader.formats[result] = next((f for n in node.input if (f := reader.formats.get(n))), "")
    if node.op_type == "Cast":
        reader.formats[result] = reader.formats.get(first, "")
        if constants[result].dtype == np.float32 and constants[first].dtype.itemsize <= 2:
            reader.casts[result] = first
    elif node.op_type == "Gather":
        reader.gathers[result] = first, constants[node.input[1]], reader.axis(0, rank=constants[first].ndim)
    elif node.op_type == "Sub" and first in reader.casts:
        zeros = constants[node.input[1]]
        if zeros.dtype == np.float32 and (zeros == np.rint(zeros)).all():
            reader.moves[result] = reader.casts[first], node.input[1]
    elif node.op_type == "Mul" and (first in reader.casts or first in reader.moves):
        codes, zero = (reader.casts[first], "") if first in reader.casts else reader.moves[first]
        scale = _scale(reader, node.input[1], zero, constants[first].ndim)
        if scale is not None:
            reader.codes[result] = codes, scale


def _scale(reader: Reader, steps: str, zeros: str, rank: int) -> Scale | None:
    """What codes are multiplied by, if it can be a step, with what was taken off them before (empty: nothing)."""
    found = _laid(reader, steps, rank)
    if found is None or reader.constants[steps].dtype != np.float32 or not (found[2] > 0).all():
        return None
    axis, block, values = found
    own = _laid(reader, zeros, rank) if zeros else (None, 0, np.zeros(1))
    if own is None or own[:2] not in ((None, 0), (axis, block)):
        return None
    zero = own[2].astype(np.int64)
    if axis is None:
        return Scale(Step.of(float(values[0]), int(zero[0])))
    several = np.broadcast_to(zero, values.shape) if zero.any() else None
    made = Step.blocks(block, axis) if block else Step.per(axis, known=True)
    return Scale(made if several is None else replace(made, zero=None), np.ascontiguousarray(values), several)


def _laid(reader: Reader, name: str, rank: int) -> tuple[int | None, int, Array] | None:
    """Numbers that meet codes: the axis they run along (None: one number for all), the length of their blocks (0: one
    number per index), and the numbers; None where they do neither."""
    held = reader.constants[name]
    if held.size == 1:
        return None, 0, held.reshape(-1)
    if name in reader.gathers:
        source, indices, axis = reader.gathers[name]
        block = int((indices == 0).sum())
        if block < 2 or (indices != np.arange(indices.size) // block).any() or reader.constants[source].ndim != rank:
            return None
        return axis, block, reader.constants[source]
    long = [i for i, n in enumerate(held.shape) if n > 1]
    if held.ndim != rank or len(long) != 1:
        return None
    return long[0], 0, held.reshape(-1)


@reads("com.microsoft.MatMulNBits")
def matmul_nbits(reader: Reader, node: NodeProto) -> None:
    """A linear layer with packed codes of 4 or 8 bits, and steps and zeros per block; zeros left out are the middle of
    the codes' range."""
    words, steps = (reader.constants.get(node.input[i]) for i in (1, 2))
    lows = reader.constants.get(node.input[3]) if reader.there(3) else np.zeros(0, np.uint8)
    if words is None or steps is None or lows is None or lows.dtype != np.uint8 or reader.there(4):
        raise reader.error("nasc reads it with constant codes, steps and zeros of whole numbers, without indices")
    bits, block = int(reader.attribute("bits", 4)), int(reader.attribute("block_size"))
    inputs, outputs = int(reader.attribute("K")), int(reader.attribute("N"))
    if bits not in (4, 8):
        raise reader.error(f"its codes have {bits} bits, nasc reads 4 and 8")
    several = np.ascontiguousarray(steps.reshape(outputs, -1), np.float32)
    codes = _codes(words, bits, outputs)[:, :inputs].astype(np.int64)
    middle, width = 1 << (bits - 1), several.shape[1]
    zeros = _codes(lows, bits, outputs)[:, :width].astype(np.int64) if lows.size else np.full(several.shape, middle)
    said = reader.formats.get(node.input[1]) or f"{'u' if lows.size else 'i'}{bits}"
    signed = format_named(said).signed
    if signed:
        codes, zeros = codes - middle, zeros - middle
    name = node.input[1].removesuffix("/packed")
    reader.constants[name] = np.ascontiguousarray(codes.astype(np.int8 if signed else np.uint8))
    reader.formats[name] = said
    one = (several == several[:, :1]).all() and (zeros == zeros[:, :1]).all()
    own = bool(zeros.any())
    if one:
        scale = Scale(Step.per(0, known=True, zeros=own), several[:, 0].copy(), zeros[:, 0] if own else None)
    else:
        scale = Scale(Step.blocks(block, 1, zeros=own), several, zeros if own else None)
    weight = stored_codes(reader, name, scale)
    bias = [reader.value(5)] if reader.there(5) else []
    reader.give("linear", [reader.value(0), weight, *bias])


def _codes(words: Array, bits: int, rows: int) -> Array:
    """Rows of codes from their bytes, those of 4 bits two to a byte."""
    words = words.reshape(rows, -1)
    return words if bits == 8 else np.stack([words & 15, words >> 4], -1).reshape(rows, -1)


def stored_codes(reader: Reader, name: str, scale: Scale) -> str:
    """Store constant codes with their steps and zeros; in fewer bits where the file says that they have fewer.

    Where the zero of all is the middle of unsigned codes, or the least of signed ones, the codes are moved so that it
    is 0.
    """
    codes, step = reader.constants[name], scale.step
    format = format_of(codes.dtype)
    zeros = np.array([step.zero]) if scale.zeros is None else scale.zeros
    said = reader.formats.get(name, "")
    if said and (known := format_named(said)).signed == format.signed and known.is_int and within(known, codes, zeros):
        format = known
    half = 1 << (format.bits - 1)
    moved = -half if format.signed else half
    if codes.size and (zeros == moved).all():
        format = format_named(f"{'u' if format.signed else 'i'}{format.bits}")
        codes = (codes.astype(np.int64) - moved).astype(element(format)[1])
        step, zeros = replace(step, zero=0), None
    found = reader.stored(name, np.ascontiguousarray(codes), "weight", format, step)
    if scale.steps is not None:
        reader.steps[found] = scale.steps
    if step.zeros and zeros is not None:
        reader.zeros[found] = np.ascontiguousarray(zeros.astype(element(format)[1]))
    return found


def within(format: Format, codes: Array, zeros: Array) -> bool:
    """Whether a format holds all codes and zeros."""
    return all(not a.size or (a.min() >= format.low and a.max() <= format.high) for a in (codes, zeros))


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
