"""Lengths that a model computes from the shapes of values, kept as terms: so the batch stays what it is."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any, cast

import numpy as np

from ....ir import Attribute, Axis, Const, N, Type, product
from ....ir.axes import Axes, Batch, factors, polynomial, total
from ....ir.formats import I64
from ....ir.graph import is_axis
from .base import Reader, Sizes

KEEPING = ("Cast", "Identity")
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
MOVING = ("Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Where", "Equal", "ReduceProd")


def as_axis(value: object) -> Axis:
    """A number or a term as a term."""
    return cast(Axis, value) if is_axis(value) else Const(int(cast(int, value)))


def terms(values: Sequence[object]) -> Sizes:
    """A vector of terms."""
    found = np.empty(len(values), object)
    for i, value in enumerate(values):
        found[i] = as_axis(value)
    return found


def as_numbers(reader: Reader, name: str) -> str:
    """Lengths that depend on the batch as a value of the graph: as many ones as an axis is long, added up."""
    lengths = reader.sizes[name]
    whole, parts = Type(I64, ()), list[str]()
    for length in lengths.reshape(-1):
        shape = (length.value if isinstance(length, Const) else length,)
        (ones,) = reader.op("full", [], whole, shape=shape, value=1)
        parts += reader.op("sum", [ones], dim=(), keepdim=bool(lengths.ndim))
    found = parts[0] if len(parts) == 1 else reader.op("cat", parts, dim=0)[0]
    if lengths.ndim > 1:
        (found,) = reader.op("reshape", [found], shape=lengths.shape)
    return found


def put(reader: Reader, name: str, found: Any) -> None:
    """Keep computed lengths: as a constant where none depends on the batch."""
    array = np.asarray(found, object)
    flat = [as_axis(v) for v in array.reshape(-1)]
    if all(isinstance(a, Const) for a in flat):
        plain = np.array([a.value for a in flat if isinstance(a, Const)], np.int64).reshape(array.shape)
        reader.constants[name] = plain
        return
    whole = np.empty(array.shape, object)
    whole.reshape(-1)[:] = terms(flat) if flat else []
    reader.sizes[name] = whole


def read_sizes(reader: Reader) -> bool:
    """Compute a node on lengths, where all that it reads are lengths and constants; whether that was so."""
    node = reader.node
    if node.op_type == "Shape":
        name = node.input[0]
        axes: Axes = (
            tuple(Const(n) for n in reader.constants[name].shape)
            if name in reader.constants
            else reader.types[reader.named(name)].axes
        )
        put(reader, node.output[0], terms(axes[slice(reader.attribute("start", 0), reader.attribute("end", None))]))
        return True
    if node.op_type == "Size" and node.input[0] in reader.values:
        put(reader, node.output[0], np.array(product(reader.type(0).axes), object).reshape(()))
        return True
    if not any(name in reader.sizes for name in node.input):
        return False
    if not all(name in reader.sizes or name in reader.constants for name in node.input if name):
        return False
    operands: list[Any] = [_operand(reader, name) if name else None for name in node.input]
    if node.op_type in KEEPING:
        put(reader, node.output[0], operands[0])
    elif node.op_type in ARITHMETIC:
        left, right = np.broadcast_arrays(operands[0], operands[1])
        found = np.empty(left.shape, object)
        for at in np.ndindex(left.shape):
            found[at] = computed(node.op_type, left[at], right[at])
        if any(a is None for a in found.reshape(-1)):
            return False
        put(reader, node.output[0], found)
    elif node.op_type in MOVING:
        put(reader, node.output[0], rearranged(reader, operands))
    else:
        return False
    return True


def _operand(reader: Reader, name: str) -> Any:
    return reader.sizes[name] if name in reader.sizes else reader.constants[name].astype(object)


def computed(kind: str, left: object, right: object) -> Axis | None:
    """Arithmetic on two lengths; None where the result is no length that the IR knows."""
    a, b = as_axis(left), as_axis(right)
    if isinstance(a, Const) and isinstance(b, Const):
        whole = {"Mul": a.value * b.value, "Add": a.value + b.value, "Sub": a.value - b.value}
        return Const(whole[kind] if kind in whole else a.value // b.value)
    if kind == "Mul":
        return product([a, b])
    if kind == "Add":
        return total([a, b])
    return divided(a, b) if kind == "Div" else None


def divided(whole: Axis, part: Axis) -> Axis | None:
    """The quotient of two lengths that are multiples of powers of the batch; None where it is no length."""
    over, under = (list(polynomial(axis).items()) for axis in (whole, part))
    if len(over) != 1 or len(under) != 1:
        return None
    (powers, count), (fewer, divisor) = over[0], under[0]
    if count % divisor or len(fewer) > len(powers):
        return None
    return product([*[N] * (len(powers) - len(fewer)), Const(count // divisor)])


def rearranged(reader: Reader, operands: list[Any]) -> Any:
    """Lengths moved about, as numpy moves them."""
    node, given = reader.node, operands[0]
    axis = reader.attribute("axis", 0)
    match node.op_type:
        case "Gather":
            return np.take(given, operands[1].astype(np.int64), axis=axis)
        case "Concat":
            return np.concatenate(operands, axis=axis)
        case "Unsqueeze":
            axes = operands[1] if len(operands) > 1 else reader.attribute("axes")
            return np.expand_dims(given, tuple(int(a) for a in axes))
        case "Squeeze":
            axes = operands[1] if len(operands) > 1 else reader.attribute("axes")
            return np.squeeze(given, None if axes is None else tuple(int(a) for a in axes))
        case "Reshape":
            return given.reshape([int(n) for n in operands[1]])
        case "Slice":
            starts, ends = ([int(n) for n in o] for o in operands[1:3])
            steps = (
                [int(n) for n in operands[4]] if len(operands) > 4 and operands[4] is not None else [1] * len(starts)
            )
            (index,) = (slice(*bounds) for bounds in zip(starts, ends, steps, strict=True))
            return given[index]
        case "Where":
            return np.where(operands[0].astype(bool), operands[1], operands[2])
        case "Equal":
            left, right = np.broadcast_arrays(given, operands[1])
            same = [as_axis(a) == as_axis(b) for a, b in zip(left.reshape(-1), right.reshape(-1), strict=True)]
            return np.array(same, np.int64).astype(object).reshape(left.shape)
        case _:
            return np.array(product(as_axis(v) for v in given.reshape(-1)), object).reshape(())


def resolved(
    reader: Reader, source: Axes, wanted: Sequence[Attribute], *, zero_copies: bool = True
) -> tuple[Attribute, ...]:
    """The shape of a Reshape as terms: 0 copies an axis, -1 takes what is left, and factors stand where the batch is.

    Raises:
        ReadError: the shape does not fit, or cannot be told from the batch's.
    """
    shape: list[Axis | None] = []
    for i, value in enumerate(wanted):
        if value == 0 and zero_copies and not is_axis(value):
            shape.append(source[i])
        else:
            shape.append(None if value == -1 and not is_axis(value) else as_axis(value))
    whole = product(source)
    if None in shape:
        rest = divided(whole, product(a for a in shape if a is not None))
        if rest is None:
            raise reader.error(f"[{', '.join(map(str, source))}] does not divide into {list(map(str, wanted))}")
        shape = [rest if a is None else a for a in shape]
    return tuple(ordered(source, [a for a in shape if a is not None]))


def ordered(source: Axes, shape: list[Axis]) -> list[Attribute]:
    """A shape whose factors stand in the order of the source's: `4*N` where the batch was behind 4."""
    plain: list[Attribute] = [a.value if isinstance(a, Const) else a for a in shape]
    left = [f for axis in source for f in factors(axis)]
    if not any(isinstance(f, Batch) for f in left):
        return plain
    found: list[Attribute] = []
    for axis in shape:
        terms = list(polynomial(axis).items())
        if len(terms) != 1 or (taken := _taken(left, len(terms[0][0]), terms[0][1])) is None:
            return plain
        term = product(taken)
        found.append(term.value if isinstance(term, Const) else term)
    return found


def _taken(left: list[Axis], batches: int, count: int) -> list[Axis] | None:
    """The next factors that hold the batch so often and multiply to a count, taken off the list, or None."""
    found: list[Axis] = []
    while batches or count > 1:
        if not left:
            return None
        head = left[0]
        if isinstance(head, Const):
            common = gcd(head.value, count)
            if common == 1:
                return None
            found.append(Const(common))
            count //= common
            left[:1] = [Const(head.value // common)] if head.value > common else []
        elif batches:
            found.append(left.pop(0))
            batches -= 1
        else:
            return None
    return found
