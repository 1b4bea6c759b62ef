"""Ops of two operands that broadcast: arithmetic, comparisons, logic."""

from __future__ import annotations

from math import pi

from ...ir import Format, Op
from ...ir.formats import BOOL, F32, FLOATS, I64
from .elements import computing
from .registry import emits
from .writer import Writer

BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "pow": "Pow", "maximum": "Max", "minimum": "Min"}
ON_TRUTHS = {"add": "Or", "maximum": "Or", "mul": "And", "minimum": "And"}
"""What arithmetic on truth values comes to."""
COMPARE = {
    "eq": "Equal", "ne": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip
LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}
BITWISE = {"bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor"}


def pair(writer: Writer, op: Op, format: Format) -> list[str]:
    """The two operands in one format: two values, or a value and a number on either side."""
    values = [writer.real(name, format) for name in op.inputs]
    right, left = writer.attribute(op, "other"), writer.attribute(op, "input")
    if right is not None:
        values.append(writer.number(_number(right), format))
    if left is not None:
        values.insert(0, writer.number(_number(left), format))
    return values


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value


@emits(*BINARY)
def binary(writer: Writer, op: Op) -> None:
    """Arithmetic with broadcasting."""
    if op.type.format == BOOL and op.kind in ON_TRUTHS:
        writer.node(ON_TRUTHS[op.kind], pair(writer, op, BOOL), op.name)
        return
    format = computing("Arithmetic", op.type.format)
    writer.node(BINARY[op.kind], pair(writer, op, format), writer.result_in(op, format))
    writer.settle(op, format)


@emits("div")
def div(writer: Writer, op: Op) -> None:
    """A quotient, rounded down or towards zero where asked for.

    Rounded down it is `(x - remainder(x, y)) / y`, as PyTorch has it: the quotient itself may round up to an integer.
    """
    format = computing("Arithmetic", op.type.format)
    mode, (x, y) = writer.attribute(op, "rounding_mode"), pair(writer, op, format)
    last = writer.result_in(op, format)
    if mode is None or (mode == "trunc" and not format.is_float):
        writer.node("Div", [x, y], last)
    else:
        rest = remainder_of(writer, op, x, y, format, f"{op.name}/rest", floor=mode == "floor")
        whole = writer.node("Sub", [x, rest], f"{op.name}/whole")
        quotient = writer.node("Div", [whole, y], f"{op.name}/quotient" if format.is_float else last)
        if format.is_float:
            writer.node("Round", [quotient], last)
    writer.settle(op, format)


@emits("remainder", "fmod")
def remainder(writer: Writer, op: Op) -> None:
    """What a division leaves: with the sign of the divisor (`remainder`) or of what is divided (`fmod`)."""
    format = computing("Arithmetic", op.type.format)
    x, y = pair(writer, op, format)
    remainder_of(writer, op, x, y, format, writer.result_in(op, format), floor=op.kind == "remainder")
    writer.settle(op, format)


def remainder_of(writer: Writer, op: Op, x: str, y: str, format: Format, result: str, *, floor: bool) -> str:
    """Write a remainder; ONNX knows the one with the divisor's sign for integers alone."""
    if not format.is_float or not floor:
        return writer.node("Mod", [x, y], result, fmod=int(not floor))
    rest = writer.node("Mod", [x, y], f"{op.name}/fmod", fmod=1)
    signs = writer.node("Mul", [rest, y], f"{op.name}/signs")
    apart = writer.node("Less", [signs, writer.number(0.0, format)], f"{op.name}/apart")
    moved = writer.node("Add", [rest, y], f"{op.name}/moved")
    return writer.node("Where", [apart, moved, rest], result)


@emits("atan2")
def atan2(writer: Writer, op: Op) -> None:
    """The angle of a point: `atan(y / x)`, half a turn further where x is negative, and 0 at the origin."""
    format = op.type.format
    y, x = pair(writer, op, format)
    zero = writer.number(0.0, format)
    slope = writer.node("Div", [y, x], f"{op.name}/slope")
    angle = writer.node("Atan", [slope], f"{op.name}/angle")
    below = writer.node("Less", [y, zero], f"{op.name}/below")
    turn = writer.node("Where", [below, writer.number(-pi, format), writer.number(pi, format)], f"{op.name}/turn")
    further = writer.node("Add", [angle, turn], f"{op.name}/further")
    left = writer.node("Less", [x, zero], f"{op.name}/left")
    found = writer.node("Where", [left, further, angle], f"{op.name}/found")
    lost = writer.node("IsNaN", [slope], f"{op.name}/origin")
    writer.node("Where", [lost, zero, found], op.name)


@emits(*COMPARE)
def compare(writer: Writer, op: Op) -> None:
    """A truth value per element, in the operands' common format."""
    node = "Equal" if op.kind in ("eq", "ne") else "Compare"
    operands = pair(writer, op, computing(node, common(writer, op)))
    if op.kind == "ne":
        equal = writer.node("Equal", operands, f"{op.name}/equal")
        writer.node("Not", [equal], op.name)
    else:
        writer.node(COMPARE[op.kind], operands, op.name)


def common(writer: Writer, op: Op) -> Format:
    """The format in which two operands are compared: floats before integers before truth values, then the widest."""
    types = [writer.type(n) for n in op.inputs]
    numbers = [n for n in (writer.attribute(op, "other"), writer.attribute(op, "input")) if n is not None]
    floats = [F32 if t.quantized else t.format for t in types if t.format.is_float or t.quantized]
    if floats:
        return min(floats, key=FLOATS.index)
    if any(isinstance(n, float) for n in numbers):
        return F32
    whole = [t.format for t in types if t.format.is_int]
    if not whole and any(not isinstance(n, bool) for n in numbers):
        return I64
    return max(whole, key=lambda f: f.bits, default=BOOL)


@emits(*LOGICAL)
def logical(writer: Writer, op: Op) -> None:
    """Logic on truth values; other numbers are true unless 0."""
    operands = [writer.real(name, BOOL) for name in op.inputs]
    writer.node(LOGICAL[op.kind], operands, op.name)


@emits(*BITWISE)
def bitwise(writer: Writer, op: Op) -> None:
    """Logic on the bits of integers."""
    kinds = dict(zip(BITWISE, LOGICAL.values(), strict=True)) if op.type.format == BOOL else BITWISE
    writer.node(kinds[op.kind], pair(writer, op, op.type.format), op.name)


@emits("logical_not", "bitwise_not")
def negation(writer: Writer, op: Op) -> None:
    """Truth values or bits turned over."""
    format = BOOL if op.kind == "logical_not" else op.type.format
    writer.node("Not" if format == BOOL else "BitwiseNot", [writer.real(op.inputs[0], format)], op.name)


@emits("isnan", "isinf")
def unusual(writer: Writer, op: Op) -> None:
    """Where a number is none, or infinite; integers never are."""
    name = op.inputs[0]
    type = writer.type(name)
    format = type.format if type.format.is_float and not type.quantized else F32
    writer.node("IsNaN" if op.kind == "isnan" else "IsInf", [writer.real(name, format)], op.name)
