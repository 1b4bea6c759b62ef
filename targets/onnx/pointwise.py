"""Ops that treat each element alone: activations, arithmetic, comparisons, softmax."""

from __future__ import annotations

from math import log

from ...ir import Op
from .elements import stored
from .registry import emits
from .writer import Writer

PLAIN = {
    "relu": "Relu", "selu": "Selu", "mish": "Mish", "sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "erf": "Erf", "reciprocal": "Reciprocal",
    "sin": "Sin", "cos": "Cos", "atan": "Atan", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round",
    "softsign": "Softsign",
}  # fmt: skip
"""Ops that ONNX has under another name and with the same meaning, without attributes."""
WHOLE = frozenset({"floor", "ceil", "round"})
"""Those that leave integers as they are."""


def operand(writer: Writer, op: Op) -> str:
    """The first operand in the result's format."""
    return writer.real(op.inputs[0], op.type.format)


@emits(*PLAIN)
def plain(writer: Writer, op: Op) -> None:
    """One node of the same meaning; rounding leaves integers as they are, and their ReLU is a maximum."""
    if not op.type.format.is_float and op.kind in WHOLE:
        writer.node("Identity", [operand(writer, op)], op.name)
    elif not op.type.format.is_float and op.kind == "relu":
        clip(writer, op, 0.0, None)
    else:
        writer.node(PLAIN[op.kind], [operand(writer, op)], op.name)


def clip(writer: Writer, op: Op, low: float | None, high: float | None) -> None:
    """Values held between two bounds, of which either may be missing."""
    format = op.type.format
    bounds = ["" if b is None else writer.number(b, format) for b in (low, high)]
    while bounds and not bounds[-1]:
        bounds.pop()
    writer.node("Clip", [operand(writer, op), *bounds], op.name)


@emits("relu6")
def relu6(writer: Writer, op: Op) -> None:
    """`min(max(x, 0), 6)`."""
    clip(writer, op, 0.0, 6.0)


@emits("hardtanh")
def hardtanh(writer: Writer, op: Op) -> None:
    """`min(max(x, min_val), max_val)`."""
    clip(writer, op, writer.floating(op, "min_val"), writer.floating(op, "max_val"))


@emits("clamp")
def clamp(writer: Writer, op: Op) -> None:
    """`min(max(x, min), max)`, either bound optional."""
    low, high = (None if writer.attribute(op, n) is None else writer.floating(op, n) for n in ("min", "max"))
    clip(writer, op, low, high)


@emits("leaky_relu")
def leaky_relu(writer: Writer, op: Op) -> None:
    """`x` where positive, else `negative_slope * x`."""
    writer.node("LeakyRelu", [operand(writer, op)], op.name, alpha=writer.floating(op, "negative_slope"))


@emits("elu")
def elu(writer: Writer, op: Op) -> None:
    """`x` where positive, else `alpha * (exp(x) - 1)`."""
    writer.node("Elu", [operand(writer, op)], op.name, alpha=writer.floating(op, "alpha"))


@emits("celu")
def celu(writer: Writer, op: Op) -> None:
    """`max(0, x) + min(0, alpha * (exp(x / alpha) - 1))` as a scaled Elu, since ONNX's Celu is for `f32` alone."""
    alpha = writer.number(writer.floating(op, "alpha"), op.type.format)
    inner = writer.node("Div", [operand(writer, op), alpha], f"{op.name}/scaled")
    inner = writer.node("Elu", [inner], f"{op.name}/elu", alpha=1.0)
    writer.node("Mul", [inner, alpha], op.name)


@emits("gelu")
def gelu(writer: Writer, op: Op) -> None:
    """`x * Phi(x)`, exact or by tanh."""
    writer.node("Gelu", [operand(writer, op)], op.name, approximate=str(writer.attribute(op, "approximate")))


@emits("silu")
def silu(writer: Writer, op: Op) -> None:
    """`x * sigmoid(x)`."""
    given = operand(writer, op)
    gate = writer.node("Sigmoid", [given], f"{op.name}/gate")
    writer.node("Mul", [given, gate], op.name)


@emits("hardsigmoid")
def hardsigmoid(writer: Writer, op: Op) -> None:
    """`min(max(x / 6 + 1/2, 0), 1)`."""
    writer.node("HardSigmoid", [operand(writer, op)], op.name, alpha=1 / 6, beta=0.5)


@emits("softplus")
def softplus(writer: Writer, op: Op) -> None:
    """`log(1 + exp(beta * x)) / beta`, and `x` itself where `beta * x` exceeds the threshold.

    Above 20 the two differ by less than one unit in the last place of `f32`, so the usual threshold needs no choice.
    """
    given, format = operand(writer, op), op.type.format
    beta, threshold = writer.floating(op, "beta"), writer.floating(op, "threshold")
    scaled = given
    if beta != 1:
        scaled = writer.node("Mul", [given, writer.number(beta, format)], f"{op.name}/scaled")
    chosen = threshold < 20
    last = f"{op.name}/smooth" if chosen else op.name
    smooth = writer.node("Softplus", [scaled], f"{op.name}/softplus" if beta != 1 else last)
    if beta != 1:
        smooth = writer.node("Div", [smooth, writer.number(beta, format)], last)
    if chosen:
        large = writer.node("Greater", [scaled, writer.number(threshold, format)], f"{op.name}/large")
        writer.node("Where", [large, given, smooth], op.name)


@emits("rsqrt")
def rsqrt(writer: Writer, op: Op) -> None:
    """`1 / sqrt(x)`."""
    root = writer.node("Sqrt", [operand(writer, op)], f"{op.name}/root")
    writer.node("Reciprocal", [root], op.name)


@emits("prelu")
def prelu(writer: Writer, op: Op) -> None:
    """`x` where positive, else `slope * x`; slopes lie along axis 1, as ONNX's broadcasting needs them."""
    name, format = op.inputs[1], op.type.format
    lengths = (writer.lengths(name)[0], *(1,) * max(writer.type(op.inputs[0]).rank - 2, 0))
    slope = writer.type(name)
    if len(lengths) == 1:
        slopes = writer.real(name, format)
    elif writer.is_stored(name) and slope.format == format:
        array = stored(writer.weights.array(name), format, name).reshape(lengths)
        slopes = writer.initializer(f"{name}/{op.type.rank}", array, format)
    else:
        shape = writer.integers(lengths)
        slopes = writer.node("Reshape", [writer.real(name, format), shape], f"{op.name}/slopes")
    writer.node("PRelu", [operand(writer, op), slopes], op.name)


@emits("softmax")
def softmax(writer: Writer, op: Op) -> None:
    """`exp(x) / sum(exp(x))` along one axis."""
    writer.node("Softmax", [operand(writer, op)], op.name, axis=writer.integer(op, "dim"))


@emits("log_softmax")
def log_softmax(writer: Writer, op: Op) -> None:
    """The logarithm of softmax along one axis."""
    writer.node("LogSoftmax", [operand(writer, op)], op.name, axis=writer.integer(op, "dim"))


@emits("square")
def square(writer: Writer, op: Op) -> None:
    """`x * x`."""
    given = operand(writer, op)
    writer.node("Mul", [given, given], op.name)


@emits("logsigmoid")
def logsigmoid(writer: Writer, op: Op) -> None:
    """`log(sigmoid(x))` as `-softplus(-x)`, which does not overflow."""
    turned = writer.node("Neg", [operand(writer, op)], f"{op.name}/turned")
    smooth = writer.node("Softplus", [turned], f"{op.name}/softplus")
    writer.node("Neg", [smooth], op.name)


@emits("expm1")
def expm1(writer: Writer, op: Op) -> None:
    """`exp(x) - 1`, to within one unit in the last place of 1: ONNX has no function that is exact near 0."""
    power = writer.node("Exp", [operand(writer, op)], f"{op.name}/exp")
    writer.node("Sub", [power, writer.number(1.0, op.type.format)], op.name)


@emits("log1p")
def log1p(writer: Writer, op: Op) -> None:
    """`log(1 + x)`, to within one unit in the last place of 1: ONNX has no function that is exact near 0."""
    more = writer.node("Add", [operand(writer, op), writer.number(1.0, op.type.format)], f"{op.name}/more")
    writer.node("Log", [more], op.name)


@emits("log2")
def log2(writer: Writer, op: Op) -> None:
    """The logarithm to base 2."""
    natural = writer.node("Log", [operand(writer, op)], f"{op.name}/log")
    writer.node("Mul", [natural, writer.number(1 / log(2), op.type.format)], op.name)
