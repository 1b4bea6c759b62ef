"""Codes and steps: QuantizeLinear, clipped codes for formats below their container, DequantizeLinear, casts."""

from __future__ import annotations

from math import prod

import numpy as np

from ...ir import NascError, Op, Step, Type
from ...ir.formats import F8E4M3, F8E5M2, F32, I32, TERNARY, element_values
from .bits import NODE_BYTES, U8, codes_format, saved_bytes
from .clamps import CLAMPS, MOVES, code_bounds, source
from .elements import Array, element, stored
from .registry import EmissionError, emits
from .writer import Writer


@emits("quantize")
def quantize(writer: Writer, op: Op) -> None:
    """Codes of a value.

    Bounds on the codes follow as a Clip of integers, which leaves integer kernels in place where a Clip of numbers
    would not: those of a format narrower than its container, and those of clamps that stand before (see `clamps`).
    Codes that are read to be quantized anew pass through a maximum of one operand, which copies them: ONNX Runtime
    makes one quantize with a step of its own choice of two that follow each other. So do clamps before floats of 8
    bits: it leaves out a ReLU whose quantize has the zero 0, as if these had no negative values. And so do max pools of
    numbers: it moves a quantize before them, and pools codes slowly where no integer kernel gives them, and not at all
    where they are floats.
    """
    type = op.type
    expressible(op)
    step, zero = step_and_zero(writer, op.name, type)
    axis = {} if type.step is None or type.step.axis is None else {"axis": type.step.axis}
    given = writer.real(op.inputs[0])
    before = writer.graph.producers.get(op.inputs[0])
    clamped = type.format.is_float and before is not None and before.kind in CLAMPS
    if type.format.is_float:
        pool = any(op.kind.startswith("max_pool") for op in moving(writer, op.inputs[0]))
    else:
        pool = writer.style.round_behind_pools and pooled(writer, op.inputs[0])
    if clamped or pool or source(writer.graph, op.inputs[0], writer.folded).step not in (None, type.step):
        given = writer.node("Max", [given], f"{op.name}/input")
    if type.format.is_float:
        writer.node("QuantizeLinear", [given, step, zero], op.name)
        return
    low, high = code_bounds(writer.graph, op, writer.folded)
    held = np.iinfo(element(type.format)[1])
    if (low, high) == (held.min, held.max):
        writer.node("QuantizeLinear", [given, step, zero], op.name, **axis)
        return
    if type.format.bits > 8 or not writer.style.clip_codes:
        given = writer.node("Clip", [given, *real_bounds(writer, op)], f"{op.name}/clipped")
        writer.node("QuantizeLinear", [given, step, zero], op.name, **axis)
        return
    wide = writer.node("QuantizeLinear", [given, step, zero], f"{op.name}/wide", **axis)
    writer.node("Clip", [wide, code(writer, type, low), code(writer, type, high)], op.name)


def pooled(writer: Writer, name: str) -> bool:
    """Whether a value is a max pool of numbers, with nothing in codes before it that an integer kernel could merge."""
    ops = moving(writer, name)
    name = ops[-1].inputs[0] if ops else name
    op = writer.graph.producers.get(name)
    read = [name] if op is None else [n for n in op.inputs if not writer.is_stored(n)]
    pools = any(op.kind.startswith("max_pool") for op in ops)
    return pools and not any(writer.type(n).quantized for n in (name, *read))


def moving(writer: Writer, name: str) -> list[Op]:
    """The clamps and the ops that move elements behind which a value lies, from the last to the first."""
    found: list[Op] = []
    while (op := writer.graph.producers.get(name)) is not None and op.kind in (*CLAMPS, *MOVES):
        found.append(op)
        name = op.inputs[0]
    return found


def expressible(op: Op) -> None:
    """Refuse formats that values between ops cannot have in ONNX but as long chains that no runtime fuses.

    Raises:
        EmissionError: at the user's line, with the formats that can be written.
    """
    step, format = op.type.step, op.type.format
    if step is not None and step.block is None and (format.family == "int" or format in (TERNARY, F8E4M3, F8E5M2)):
        return
    raise EmissionError(
        op,
        f"ONNX has no values of format {op.type.encoding} between ops; it can be simulated and trained, not deployed",
        mend="Quantize activations to u2 to u16, i2 to i16, ternary, f8e4m3 or f8e5m2 without blocks;"
        " weights may have any format.",
    )


def real_bounds(writer: Writer, op: Op) -> list[str]:
    """The numbers that the extreme codes of a quantize stand for; ONNX Runtime has no Clip of 16-bit codes.

    Raises:
        EmissionError: one step per index of an axis, for which there is no Clip of numbers either.
    """
    type, step = op.type, op.type.step
    if step is None or step.value is None:
        raise EmissionError(op, f"a step per index and {type.format.bits} bits: ONNX cannot bound such codes")
    codes = (type.format.low, type.format.high)
    return [writer.number(step.value * (c - (step.zero or 0))) for c in codes]


@emits("cast")
def cast(writer: Writer, op: Op) -> None:
    """Numbers in another format, rounded to nearest even."""
    name, format = op.inputs[0], op.type.format
    source = writer.type(name)
    if source.step is not None and format == F32 and (source.format.is_int or source.format.is_float):
        step, zero = step_and_zero(writer, name, source)
        dequantize(writer, writer.value(name), op.name, step, zero, source.step)
        return
    given = writer.real(name) if source.quantized else writer.value(name)
    writer.node("Cast", [given], op.name, to=element(format)[0])


def dequantized(writer: Writer, name: str, type: Type) -> str:
    """The real numbers (`f32`) that a value's codes stand for.

    Stored ones that ONNX has no codes for are elements of a table, or numbers where that takes fewer bytes.
    """
    if not (type.format.is_int or type.format.is_float):
        if type.format in writer.compact and saved_bytes(type.format, prod(writer.lengths(name))) > 0:
            return folded_weight(writer, name, type)
        return writer.initializer(f"{name}/real", numbers(writer, name, type), F32)
    if writer.style.fold_weights and writer.is_stored(name) and not beside_codes(writer, name):
        return folded_weight(writer, name, type)
    step, zero = step_and_zero(writer, name, type)
    return dequantize(writer, writer.value(name), f"{name}/real", step, zero, type.step)


def beside_codes(writer: Writer, name: str) -> bool:
    """Whether an op that reads a stored value may run on an integer kernel: the value is symmetric, and the op's input
    is quantized as well."""
    if not writer.style.integer_kernels or not writer.type(name).multiplied:
        return False
    readers = (op for op in writer.graph.readers.get(name, ()) if op.inputs[0] != name)
    return any(source(writer.graph, op.inputs[0], writer.folded).quantized for op in readers)


def folded_weight(writer: Writer, name: str, type: Type) -> str:
    """Stored codes read back: made numbers, less their zero where it is not 0, times their step or that of their
    block."""
    step = type.step
    assert step is not None
    writer.known_step(name, type)
    real = element_numbers(writer, name, type)
    if step.zeros:
        codes = writer.codes(f"{name}/zero", laid_along(zeros_of(writer, name, type), type), type)
        zeros = writer.node("Cast", [codes], f"{name}/zero.cast", to=element(F32)[0])
        real = writer.node("Sub", [real, spread(writer, name, type, zeros, "zeros")], f"{name}/moved")
    elif step.zero:
        real = writer.node("Sub", [real, writer.number(step.zero)], f"{name}/moved")
    return writer.node(
        "Mul", [real, spread(writer, name, type, step_numbers(writer, name, type), "steps")], f"{name}/real"
    )


def element_numbers(writer: Writer, name: str, type: Type) -> str:
    """The numbers that stored codes are without their step: a Cast of integers and floats, a Gather of what else the
    elements are."""
    if type.format.is_int or type.format.is_float:
        return writer.node("Cast", [writer.value(name)], f"{name}/cast", to=element(F32)[0])
    table = writer.initializer(f"{type.format}/elements", np.array(element_values(type.format), np.float32), F32)
    held = np.asarray(writer.weights.array(name)).astype(element(codes_format(type.format))[1])
    index = writer.node("Cast", [writer.codes(name, held, type)], f"{name}/index", to=element(I32)[0])
    return writer.node("Gather", [table, index], f"{name}/elements")


def step_numbers(writer: Writer, name: str, type: Type) -> str:
    """The steps of a stored value as it is read back; exponents that blocks share take a byte each where that is less:
    their place in a table of the powers of two between the least and the largest."""
    step, result = type.step, f"{name}/step"
    assert step is not None
    held = np.array(step.value, np.float32) if step.axis is None else steps_of(writer, name, type)
    if not (step.shared and writer.style.packed):
        return writer.initializer(result, laid_along(held, type), F32)
    mantissas, exponents = np.frexp(held)
    least, most = int(exponents.min()), int(exponents.max())
    powers = np.ldexp(np.float32(0.5), np.arange(least, most + 1)).astype(np.float32)
    if (mantissas != 0.5).any() or held.size + powers.nbytes + 2 * NODE_BYTES >= held.nbytes:
        return writer.initializer(result, held, F32)
    places = writer.initializer(f"{name}/exponents", (exponents - least).astype(np.uint8), U8)
    index = writer.beforehand("Cast", [places], f"{name}/exponents.index", to=element(I32)[0])
    return writer.beforehand("Gather", [writer.initializer(f"{name}/powers", powers, F32), index], result)


def laid_along(values: Array, type: Type) -> Array:
    """Steps or zeros shaped to meet the codes: one per index of an axis stands along it, all others as they are."""
    step = type.step
    if step is None or step.axis is None or step.block is not None:
        return values
    return values.reshape([-1 if i == step.axis else 1 for i in range(len(type.axes))])


def spread(writer: Writer, name: str, type: Type, values: str, called: str) -> str:
    """Steps or zeros of blocks, given to each of their elements by a Gather; all others as they are."""
    step = type.step
    if step is None or step.block is None or step.axis is None:
        return values
    blocks = repeated(writer, writer.lengths(name)[step.axis], step.block)
    return writer.node("Gather", [values, blocks], f"{name}/{called}", axis=step.axis)


def repeated(writer: Writer, length: int, times: int) -> str:
    """The indices 0, 0, ..., 1, 1, ...: so many of them, each so many times; computed, since they would take 8 bytes
    each."""

    def count() -> None:
        writer.beforehand("Range", [writer.scalar(n) for n in (0, length, 1)], every)

    def divide() -> None:
        writer.beforehand("Div", [writer.once(every, count), writer.scalar(times)], name)

    every, name = f"/range/{length}", f"/range/{length}/{times}"
    return writer.once(name, divide)


def numbers(writer: Writer, name: str, type: Type) -> Array:
    """The real numbers that stored codes stand for: elements times steps, exact in binary32 up to that product.

    Raises:
        NascError: the value is not stored.
    """
    step = type.step
    if step is None or not writer.is_stored(name):
        raise NascError(f"ONNX has no values of format {type.encoding}, as %{name} has", mend="Give it another format.")
    writer.known_step(name, type)
    table = np.array(element_values(type.format), np.float32)
    real = table[np.asarray(writer.weights.array(name)).astype(np.int64)]
    if step.axis is None:
        return real * np.float32(step.value)
    steps = steps_of(writer, name, type)
    if step.block is not None:
        return real * np.repeat(steps, step.block, step.axis).take(range(real.shape[step.axis]), step.axis)
    return real * steps.reshape([-1 if i == step.axis else 1 for i in range(real.ndim)])


def dequantize(writer: Writer, codes: str, result: str, step: str, zero: str, kind: Step | None) -> str:
    """Write a DequantizeLinear; an empty `zero` stands for none."""
    inputs = [codes, step, zero] if zero else [codes, step]
    along = {} if kind is None or kind.axis is None else {"axis": kind.axis}
    blocks = {} if kind is None or kind.block is None else {"block_size": kind.block}
    return writer.node("DequantizeLinear", inputs, result, **along, **blocks)


def step_and_zero(writer: Writer, name: str, type: Type) -> tuple[str, str]:
    """The initializers of a value's step and zero, scalars, one per index of an axis, or one per block.

    32-bit codes have no zero: ONNX asks it to be left out or 0.

    Raises:
        EmissionError: the step is not known.
        NascError: the store has steps of another length than the axis.
    """
    writer.known_step(name, type)
    assert type.step is not None
    whole = type.step.axis is None
    step = np.array(type.step.value, np.float32) if whole else steps_of(writer, name, type)
    names = f"{name}/step", f"{name}/zero"
    writer.initializer(names[0], step, F32)
    if type.step.zeros:
        return names[0], writer.initializer(names[1], zeros_of(writer, name, type), type.format)
    if type.format.bits > 16 or type.step.block is not None:
        return names[0], ""
    zero = np.full(step.shape, type.step.zero or 0, element(type.format)[1])
    return names[0], writer.initializer(names[1], zero, type.format)


def steps_of(writer: Writer, name: str, type: Type) -> Array:
    """The steps of a value that has one per index of an axis, or one per block along it: binary32."""
    return _beside(writer, name, type, np.ascontiguousarray(writer.weights.steps(name), np.float32), "steps")


def zeros_of(writer: Writer, name: str, type: Type) -> Array:
    """The zeros of a value whose steps have zeros of their own, in the container of its codes."""
    found = stored(writer.weights.zeros(name), type.format, f"the zeros of {name}")
    return _beside(writer, name, type, found, "zeros")


def _beside(writer: Writer, name: str, type: Type, values: Array, called: str) -> Array:
    """Steps or zeros, which must be as many as the type says.

    Raises:
        NascError: they are not.
    """
    assert type.step is not None
    assert type.step.axis is not None
    lengths = list(writer.lengths(name))
    if type.step.block is None:
        lengths = [lengths[type.step.axis]]
    else:
        lengths[type.step.axis] = -(-lengths[type.step.axis] // type.step.block)
    if list(values.shape) != lengths:
        raise NascError(f"the {called} of %{name} have the shape {list(values.shape)}, its type {type} needs {lengths}")
    return values


def code(writer: Writer, type: Type, value: int) -> str:
    """A scalar in the container of a type; equal ones are shared."""
    dtype = element(type.format)[1]
    return writer.initializer(f"{dtype.name}/{value}", np.array(value, dtype), type.format)
