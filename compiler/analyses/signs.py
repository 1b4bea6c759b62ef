"""Which values are never negative, whatever the inputs and the weights are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ...ir import Graph, Op
from ...ir.rules.pointwise import COMPARE, LOGICAL

Rule: TypeAlias = Callable[[Op], tuple[str, ...] | None]

NEVER = frozenset({
    "relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "exp", "sqrt", "rsqrt", "square", "abs", "softmax", "arange",
    "var", "std", "norm", "any", "all", "argmax", "argmin", "logical_not", "isnan", "isinf", *COMPARE, *LOGICAL,
})  # fmt: skip
"""Ops whose results are never negative."""

KEEPING = frozenset({
    "reshape", "permute", "expand", "repeat", "repeat_interleave", "flip", "roll", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "hardswish", "softsign",
    "expm1", "glu", "log1p", "sign", "floor", "ceil", "round", "erf", "atan", "reciprocal", "cast", "tril", "triu",
    "cat", "stack", "split", "narrow", "slice", "select", "unbind", "unfold", "fold", "tensor_unfold",
    "slice_scatter", "select_scatter", "matmul", "einsum", "mean", "sum", "prod", "amax", "amin", "max", "min", "topk",
    "sort", "cumsum", *(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg") for n in (1, 2, 3)),
})  # fmt: skip
"""Ops whose results are never negative where no operand is."""

FIRST = frozenset({"index", "index_select", "gather", "prelu", "quantize"})
"""The same, where only the first operand counts; rounding keeps 0, so it takes no number below it."""


def never_negative(graph: Graph, value: str) -> bool:
    """Whether all elements of a value are 0 or more; False where that cannot be told from the graph alone.

    Stored tensors and inputs of the graph may hold anything.
    """
    waiting, seen = [value], {value}
    while waiting:
        op = graph.producers.get(waiting.pop())
        needed = None if op is None else needs(op)
        if needed is None:
            return False
        waiting += [name for name in needed if name not in seen]
        seen.update(needed)
    return True


def needs(op: Op) -> tuple[str, ...] | None:
    """The operands that must not be negative so that no result is; None: results may be negative all the same."""
    if op.kind in NEVER:
        return ()
    if op.kind in KEEPING:
        return op.inputs
    if op.kind in FIRST:
        return op.inputs[:1]
    return RULES[op.kind](op) if op.kind in RULES else None


def _within(least: str, most: str) -> Rule:
    """A result between two numbers in attributes: never negative where the lower one is not, or as the operand."""

    def rule(op: Op) -> tuple[str, ...] | None:
        low, high = op.attribute(least), op.attribute(most)
        if high is not None and not _positive(high):
            return None
        return () if low is not None and _positive(low) else op.inputs[:1]

    return rule


def _beside(*names: str, start: int = 0, end: int | None = None) -> Rule:
    """Some of the operands, and the numbers that stand in attributes."""

    def rule(op: Op) -> tuple[str, ...] | None:
        given = (op.attribute(name) for name in names)
        return op.inputs[start:end] if all(number is None or _positive(number) for number in given) else None

    return rule


def _product(op: Op) -> tuple[str, ...] | None:
    """A value times itself is a square."""
    return () if len(op.inputs) == 2 and op.inputs[0] == op.inputs[1] else NUMBERS(op)


def _power(op: Op) -> tuple[str, ...] | None:
    """Even powers, and powers of what is not negative."""
    exponent = op.attribute("other")
    even = isinstance(exponent, int | float) and exponent % 2 == 0
    return () if even else _beside("input", end=1 if op.attribute("input") is None else 0)(op)


def _maximum(op: Op) -> tuple[str, ...] | None:
    """One number is enough."""
    given = (op.attribute(name) for name in ("input", "other"))
    return () if any(number is not None and _positive(number) for number in given) else op.inputs


def _interpolate(op: Op) -> tuple[str, ...] | None:
    """Cubic curves leave the range of what they pass through."""
    return None if op.attribute("mode") == "bicubic" else op.inputs


def _positive(number: object) -> bool:
    return isinstance(number, int | float) and number >= 0


NUMBERS = _beside("input", "other")
RULES: Mapping[str, Rule] = {
    "clamp": _within("min", "max"),
    "hardtanh": _within("min_val", "max_val"),
    "add": NUMBERS,
    "div": NUMBERS,
    "minimum": NUMBERS,
    "mul": _product,
    "pow": _power,
    "maximum": _maximum,
    "where": _beside("input", "other", start=1),
    "masked_fill": _beside("value", end=1),
    "pad": _beside("value"),
    "full": _beside("value"),
    "interpolate": _interpolate,
    "scaled_dot_product_attention": lambda op: op.inputs[2:3],
}
"""The rest: ops where numbers in attributes count."""
