"""Nodes that treat each element alone, and those of two operands that broadcast."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from onnx import NodeProto

from ....ir import Type
from ..arithmetic import BITWISE, COMPARE, LOGICAL
from ..elements import format_of
from ..pointwise import PLAIN
from .base import Reader, reads

UNARY = {node: kind for kind, node in PLAIN.items()} | {"IsNaN": "isnan", "IsInf": "isinf", "BitwiseNot": "bitwise_not"}


@reads(*UNARY)
def unary(reader: Reader, node: NodeProto) -> None:
    """A function of one element; `exp(x) - 1` and their like stay what they are."""
    reader.give(UNARY[node.op_type], [reader.value(0)])


@reads("Not")
def negation(reader: Reader, node: NodeProto) -> None:
    """A truth value turned over; of an `eq` that nothing else reads it is an `ne`."""
    op = reader.replace_last(node.input[0]) if (p := reader.producer(node.input[0])) and p.kind == "eq" else None
    if op is None:
        reader.give("logical_not", [reader.value(0)])
    else:
        reader.give("ne", op.inputs, **dict(op.attributes))


@reads("Identity", "Dropout")
def identity(reader: Reader, node: NodeProto) -> None:
    """The value itself."""
    reader.alias(reader.value(0))


@reads("Clip")
def clip(reader: Reader, node: NodeProto) -> None:
    """Values held between bounds; of codes see `quantized`."""
    from .quantized import clipped_codes

    low, high = (reader.scalar(i) if reader.there(i) else None for i in (1, 2))
    for i, bound in ((1, low), (2, high)):
        if reader.there(i) and bound is None:
            raise reader.error(f"its operand {node.input[i]!r} must be a constant")
    if clipped_codes(reader, low, high):
        return
    low, high = None if low == -inf else low, None if high == inf else high
    if (low, high) == (0, 6):
        reader.give("relu6", [reader.value(0)])
    else:
        floats = reader.type(0).format.is_float
        reader.give("clamp", [reader.value(0)], min=_as(low, floats), max=_as(high, floats))


def _as(bound: float | None, floats: bool) -> float | int | None:
    return None if bound is None else float(bound) if floats else int(bound)


@reads("LeakyRelu")
def leaky_relu(reader: Reader, node: NodeProto) -> None:
    """A ReLU with a slope on the left."""
    reader.give("leaky_relu", [reader.value(0)], negative_slope=float(reader.attribute("alpha", 0.01)))


@reads("Elu", "Celu")
def elu(reader: Reader, node: NodeProto) -> None:
    """Exponential linear units."""
    reader.give(node.op_type.lower(), [reader.value(0)], alpha=float(reader.attribute("alpha", 1.0)))


@reads("Gelu")
def gelu(reader: Reader, node: NodeProto) -> None:
    """`x * Phi(x)`, exact or by tanh."""
    reader.give("gelu", [reader.value(0)], approximate=str(reader.attribute("approximate", "none")))


@reads("Softplus")
def softplus(reader: Reader, node: NodeProto) -> None:
    """`log(1 + exp(x))`."""
    reader.give("softplus", [reader.value(0)])


@reads("HardSigmoid")
def hardsigmoid(reader: Reader, node: NodeProto) -> None:
    """`min(max(alpha * x + beta, 0), 1)`, with PyTorch's constants where they are those."""
    alpha, beta = (float(reader.attribute(n, d)) for n, d in (("alpha", 0.2), ("beta", 0.5)))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        reader.give("hardsigmoid", [reader.value(0)])
        return
    (scaled,) = reader.op("mul", [reader.value(0)], other=alpha)
    (moved,) = reader.op("add", [scaled], other=beta)
    reader.give("clamp", [moved], min=0.0, max=1.0)


@reads("Softmax", "LogSoftmax")
def softmax(reader: Reader, node: NodeProto) -> None:
    """Softmax along one axis, or its logarithm."""
    reader.give("softmax" if node.op_type == "Softmax" else "log_softmax", [reader.value(0)], dim=reader.axis(-1))


@reads("PRelu")
def prelu(reader: Reader, node: NodeProto) -> None:
    """A ReLU with slopes; a constant one per channel becomes a vector."""
    slopes = reader.constants.get(node.input[1])
    rank = reader.rank(0)
    if slopes is not None and (slopes.size == 1 or (slopes.ndim == rank - 1 and slopes.shape[0] == slopes.size)):
        wanted = node.input[1].partition("/")[0]
        reader.give("prelu", [reader.value(0), reader.stored(wanted, slopes.reshape(-1))])
        return
    x, slope = reader.value(0), reader.value(1)
    (above,) = reader.op("relu", [x])
    (below,) = reader.op("clamp", [x], max=0.0)
    (scaled,) = reader.op("mul", [below, slope])
    reader.give("add", [above, scaled])


BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow"}
SAME = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}


@reads(*BINARY)
def binary(reader: Reader, node: NodeProto) -> None:
    """Arithmetic; a bias added to a product with a stored matrix joins it, and so do steps that it is multiplied with;
    `Sigmoid` times its operand is a SiLU."""
    from .float8 import scaled_layer
    from .layers import joined_bias

    if node.op_type == "Add" and joined_bias(reader):
        return
    if node.op_type == "Mul" and scaled_layer(reader):
        return
    if node.op_type == "Mul" and silu(reader):
        return
    whole = not any(t.format.is_float or t.quantized for t in _types(reader))
    more = {"rounding_mode": "trunc"} if node.op_type == "Div" and whole else {}
    pair(reader, BINARY[node.op_type], **more)


def _types(reader: Reader) -> list[Type]:
    """The types of the operands; constants as the tensors they would be stored as."""
    return [
        Type(format_of(reader.constants[n].dtype), ()) if n in reader.constants else reader.types[reader.named(n)]
        for n in reader.node.input
        if n
    ]


def silu(reader: Reader) -> bool:
    """`x * sigmoid(x)`."""
    node = reader.node
    for gate, other in ((1, 0), (0, 1)):
        made = reader.producer(node.input[gate])
        same = reader.values.get(node.input[other])
        if made is not None and made.kind == "sigmoid" and same is not None and made.inputs == (same,):
            if reader.replace_last(node.input[gate]) is None:
                return False
            reader.give("silu", [same])
            return True
    return False


def pair(reader: Reader, kind: str, **more: str) -> None:
    """An op of two operands, of which a constant number is an attribute."""
    left, right = (reader.scalar(i) for i in (0, 1))
    ranks = [reader.rank(i) for i in (0, 1)]
    if right is not None and ranks[1] <= ranks[0] and reader.node.input[0] not in reader.constants:
        reader.give(kind, [reader.value(0)], other=_number(reader, 0, right), **more)
    elif left is not None and ranks[0] <= ranks[1] and kind not in ("eq", "ne", "lt", "le", "gt", "ge"):
        commutes = kind in ("add", "mul", "maximum", "minimum")
        where = "other" if commutes else "input"
        reader.give(kind, [reader.value(1)], None, **{where: _number(reader, 1, left), **more})
    else:
        reader.give(kind, [reader.value(0), reader.value(1)], **more)


def _number(reader: Reader, index: int, value: float) -> float | int | bool:
    type = reader.type(index)
    if type.format.is_float or type.quantized:
        return float(value)
    return value


@reads("Max", "Min")
def extremes(reader: Reader, node: NodeProto) -> None:
    """The larger or smaller of two or more; of one it is that one."""
    kind = "maximum" if node.op_type == "Max" else "minimum"
    if len(node.input) == 1:
        reader.alias(reader.value(0))
    elif len(node.input) == 2:
        pair(reader, kind)
    else:
        found = reader.value(0)
        for i in range(1, len(node.input) - 1):
            (found,) = reader.op(kind, [found, reader.value(i)])
        reader.give(kind, [found, reader.value(len(node.input) - 1)])


@reads("Mod")
def remainder(reader: Reader, node: NodeProto) -> None:
    """What a division leaves."""
    pair(reader, "fmod" if reader.attribute("fmod", 0) else "remainder")


@reads(*(set(COMPARE.values())))
def compare(reader: Reader, node: NodeProto) -> None:
    """A truth value per element."""
    kinds = {n: k for k, n in COMPARE.items() if k != "ne"}
    pair(reader, kinds[node.op_type])


@reads(*LOGICAL.values(), *BITWISE.values())
def logical(reader: Reader, node: NodeProto) -> None:
    """Logic on truth values or bits."""
    kinds = {n: k for k, n in (*LOGICAL.items(), *BITWISE.items())}
    reader.give(kinds[node.op_type], [reader.value(0), reader.value(1)])


@reads("Sum")
def several(reader: Reader, node: NodeProto) -> None:
    """A sum of any number of operands."""
    found = reader.value(0)
    for i in range(1, len(node.input)):
        if i == len(node.input) - 1:
            reader.give("add", [found, reader.value(i)])
            return
        (found,) = reader.op("add", [found, reader.value(i)])
    reader.alias(found)


@reads("Where")
def where(reader: Reader, node: NodeProto) -> None:
    """Elements of one of two operands; constant numbers become attributes."""
    numbers = {name: reader.scalar(i) for i, name in ((1, "input"), (2, "other"))}
    kept = [i for i, name in ((1, "input"), (2, "other")) if numbers[name] is None or reader.rank(i) > 0]
    given = {n: v for n, v in numbers.items() if v is not None and {"input": 1, "other": 2}[n] not in kept}
    reader.give("where", [reader.value(0), *map(reader.value, kept)], None, **given)


@reads("Cast")
def cast(reader: Reader, node: NodeProto) -> None:
    """Numbers in another format."""
    wanted = int(reader.attribute("to"))
    format = format_of(np.dtype(_dtype(wanted)))
    type = reader.type(0)
    if type.format == format and not type.quantized:
        reader.alias(reader.value(0))
    else:
        reader.give("cast", [reader.value(0)], Type(format, ()))


def _dtype(code: int) -> Any:
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(code)
