"""Ops that treat each element alone, and those that change how numbers are stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .base import Call, Converted, Operand, convert, is_float, real

UNARY: dict[str, tuple[str, ...]] = {
    "relu": (), "relu6": (), "selu": (), "silu": (), "mish": (), "sigmoid": (), "tanh": (), "hardswish": (), "erf": (),
    "hardsigmoid": (), "exp": (), "log": (), "sqrt": (), "rsqrt": (), "neg": (), "abs": (), "reciprocal": (),
    "square": (), "sin": (), "cos": (), "atan": (), "sign": (), "floor": (), "ceil": (), "expm1": (), "log1p": (),
    "log2": (), "softsign": (), "logical_not": (), "bitwise_not": (), "isnan": (), "isinf": (), "round": (),
    "leaky_relu": ("negative_slope",), "gelu": ("approximate",), "hardtanh": ("min_val", "max_val"), "celu": ("alpha",),
    "softplus": ("beta", "threshold"), "clamp": ("min", "max"),
}  # fmt: skip


@convert(*(f"{name}.default" for name in UNARY))
def unary(call: Call) -> Converted:
    """A function of each element."""
    values = {n: real(call[n]) for n in UNARY[call.kind]}
    return Converted(call.kind, (call.first,), values)


@convert("log_sigmoid.default")
def log_sigmoid(call: Call) -> Converted:
    """The logarithm of the sigmoid."""
    return Converted("logsigmoid", (call.first,))


@convert("elu.default")
def elu(call: Call) -> Converted | None:
    """`elu` without the scales that only `selu` uses."""
    if call["scale"] != 1 or call["input_scale"] != 1:
        return None
    return Converted("elu", (call.first,), {"alpha": float(call["alpha"])})


@convert("clamp_min.default", "clamp_max.default")
def clamp_one_side(call: Call) -> Converted:
    """`clamp` with one bound."""
    name = call.kind[-3:]
    return Converted("clamp", (call.first,), {name: real(call[name])})


@convert("clamp.Tensor", "clamp_min.Tensor", "clamp_max.Tensor")
def clamp_by_tensors(call: Call) -> Operand | None:
    """`clamp` by bounds that are tensors: by number where a bound is constant, else the larger and the smaller."""
    found: Operand = call.first
    for name, kind in (("min", "maximum"), ("max", "minimum")):
        if call.arguments.get(name) is None:
            continue
        number = call.number(name)
        if number is not None:
            found = Converted("clamp", (found,), {name: real(number)})
        else:
            found = Converted(kind, (found, call[name]))
    return found


@convert("prelu.default")
def prelu(call: Call) -> Converted:
    """`prelu`."""
    return Converted("prelu", call.nodes("self", "weight"))


BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "pow": "pow", "maximum": "maximum", "minimum": "minimum",
    "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "remainder": "remainder", "fmod": "fmod",
    "atan2": "atan2", "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or", "bitwise_xor": "bitwise_xor", "__and__": "bitwise_and",
    "__or__": "bitwise_or", "multiply": "mul", "subtract": "sub", "divide": "div", "true_divide": "div",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne",
}  # fmt: skip
OVERLOADS = ("Tensor", "Scalar", "default", "Tensor_Tensor", "Tensor_Scalar", "Tensor_mode", "Scalar_mode")


@convert(*(f"{name}.{overload}" for name in BINARY for overload in OVERLOADS))
def binary(call: Call) -> Operand | None:
    """Two tensors, or a tensor and a number; constant tensors without axes are numbers."""
    kind = BINARY[call.kind]
    left = next(iter(call.arguments))
    right = "exponent" if "exponent" in call.arguments else "other"
    mode = {"rounding_mode": call["rounding_mode"]} if call.arguments.get("rounding_mode") else {}
    alpha = call.arguments.get("alpha", 1)
    if kind.startswith(("logical", "bitwise")):
        nodes = call.nodes(left, right)
        return Converted(kind, nodes) if len(nodes) == 2 else None
    number, first = call.number(right), call.number(left)
    if number is not None and isinstance(call[left], fx.Node):
        scaled = number if alpha == 1 else number * alpha
        return Converted(kind, (call[left],), {"other": fitting(call, scaled, left), **mode})
    if first is not None and alpha == 1:
        return Converted(kind, (call[right],), {"input": fitting(call, first, right), **mode})
    if alpha != 1:
        return Converted(kind, (call[left], Converted("mul", (call[right],), {"other": alpha})))
    return Converted(kind, call.nodes(left, right), mode)


def fitting(call: Call, number: Any, tensor: str) -> Any:
    """A number in the kind of the tensor it meets, as far as it keeps its value: `2` beside floats is `2.0`."""
    if isinstance(number, bool):
        return number
    return real(number) if is_float(call.tensor(tensor)) else number


@convert("rsub.Scalar", "rsub.Tensor")
def rsub(call: Call) -> Operand | None:
    """`other - alpha * self`."""
    if call["alpha"] != 1:
        return None
    if (number := call.number("other")) is not None:
        return Converted("sub", call.nodes("self"), {"input": fitting(call, number, "self")})
    return Converted("sub", call.nodes("other", "self"))


@convert("pow.Scalar")
def pow_of_number(call: Call) -> Converted:
    """A number to the power of a tensor."""
    return Converted("pow", call.nodes("exponent"), {"input": fitting(call, call["self"], "exponent")})


@convert("floor_divide.default", "floor_divide.Scalar")
def floor_divide(call: Call) -> Operand | None:
    """The quotient rounded down."""
    if (number := call.number("other")) is not None:
        return Converted("div", (call.first,), {"other": fitting(call, number, "self"), "rounding_mode": "floor"})
    return Converted("div", call.nodes("self", "other"), {"rounding_mode": "floor"})


@convert("addcmul.default", "addcdiv.default")
def add_product(call: Call) -> Converted:
    """`self + value * tensor1 * tensor2`, or the quotient."""
    first, left, right = call.nodes("self", "tensor1", "tensor2")
    product = Converted("mul" if call.kind == "addcmul" else "div", (left, right))
    scaled = product if call["value"] == 1 else Converted("mul", (product,), {"other": float(call["value"])})
    return Converted("add", (first, scaled))


@convert("lerp.Scalar", "lerp.Tensor")
def lerp(call: Call) -> Converted:
    """`self + weight * (end - self)`."""
    start, end = call.nodes("self", "end")
    gap = Converted("sub", (end, start))
    number = call.number("weight")
    step = Converted("mul", (gap, call["weight"])) if number is None else Converted("mul", (gap,), {"other": number})
    return Converted("add", (start, step))


@convert("softmax.int", "log_softmax.int", "_softmax.default", "_log_softmax.default")
def softmax(call: Call) -> Operand:
    """Softmax, in another format first where one is asked for."""
    given: Operand = call.first
    if call.arguments.get("dtype") is not None and call["dtype"] != call.tensor(call.first).dtype:
        given = Converted("cast", (given,), format=call.format)
    return Converted(call.kind.lstrip("_"), (given,), {"dim": call.dim(call["dim"])})


@convert("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(call: Call) -> Operand | None:
    """A choice by a condition; constant tensors without axes are numbers."""
    operands: list[Operand] = [call["condition"]]
    numbers: dict[str, Any] = {}
    for name, key in (("self", "input"), ("other", "other")):
        number = call.number(name)
        if number is None:
            operands.append(call[name])
        else:
            numbers[key] = real(number) if call.value.dtype.is_floating_point else number
    return Converted("where", tuple(operands), numbers)


@convert("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(call: Call) -> Operand | None:
    """A number where a mask holds."""
    if (number := call.number("value")) is None:
        return Converted("where", (*call.nodes("mask"), *call.nodes("value"), call.first))
    return Converted("masked_fill", call.nodes("self", "mask"), {"value": fitting(call, number, "self")})


@convert("to.dtype", "to.dtype_layout", "_to_copy.default", "type_as.default", "to.device", "to.other", "float.default")
def cast(call: Call) -> Operand:
    """Another format; nothing where it is the same."""
    if call.value.dtype == call.tensor(call.first).dtype:
        return call.first
    return Converted("cast", (call.first,), format=call.format)


@convert("tril.default", "triu.default")
def triangle(call: Call) -> Converted:
    """Zero on one side of a diagonal."""
    return Converted(call.kind, (call.first,), {"diagonal": call["diagonal"]})


@convert("nan_to_num.default")
def nan_to_num(call: Call) -> Converted | None:
    """Numbers in place of what is none; infinities stay where the greatest numbers stand for them."""
    if call["posinf"] is not None or call["neginf"] is not None:
        return None
    largest = torch.finfo(call.value.dtype).max
    held = Converted("clamp", (call.first,), {"min": -largest, "max": largest})
    blank = Converted("isnan", (call.first,))
    return Converted("where", (blank, held), {"input": float(call["nan"] or 0.0)})
