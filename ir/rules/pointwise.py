"""Rules of ops that treat each element alone, with broadcasting, and of those that change how numbers are stored."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import ONE, Axes, Axis, has_batch
from ..formats import BOOL, F32, FLOATS, I64
from ..types import Encoding
from .base import REQUIRED, Fault, Site, op
from .shapes import moved

UNARY: dict[str, dict[str, object]] = {
    "relu": {},
    "relu6": {},
    "leaky_relu": {"negative_slope": 0.01},
    "elu": {"alpha": 1.0},
    "selu": {},
    "celu": {"alpha": 1.0},
    "gelu": {"approximate": "none"},
    "silu": {},
    "mish": {},
    "sigmoid": {},
    "logsigmoid": {},
    "tanh": {},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "hardswish": {},
    "hardsigmoid": {},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "softsign": {},
    "clamp": {"min": None, "max": None},
    "exp": {},
    "expm1": {},
    "log": {},
    "log1p": {},
    "log2": {},
    "sqrt": {},
    "rsqrt": {},
    "square": {},
    "sin": {},
    "cos": {},
    "atan": {},
    "neg": {},
    "abs": {},
    "sign": {},
    "floor": {},
    "ceil": {},
    "round": {},
    "erf": {},
    "reciprocal": {},
}
"""Functions of one element, with their attributes."""
KEEPING = frozenset({"relu", "relu6", "neg", "abs", "sign", "floor", "ceil", "round", "square", "clamp", "hardtanh"})
"""Those that give integers for integers; the others give floats."""
BINARY = ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "remainder", "fmod", "atan2")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
LOGICAL = ("logical_and", "logical_or", "logical_xor")
BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor")


def same(site: Site) -> Sequence[Axes]:
    """The result has the input's shape."""
    return [site.axes("input")]


def declared(site: Site) -> Encoding:
    """How the result is stored stands in the op's own type."""
    return site.op.type.encoding


def real(site: Site) -> Encoding:
    """Floats, whatever the operands are."""
    found = site.promoted()
    return Encoding(found if found.is_float else F32)


for _kind, _attributes in UNARY.items():
    op(_kind, "input", encoding=None if _kind in KEEPING else real, **_attributes)(same)  # pyright: ignore[reportArgumentType]


def broadcast(site: Site, shapes: Sequence[Axes]) -> Axes:
    """The common shape of operands aligned at their last axis, where an axis of length 1 stretches.

    Raises:
        Fault: two lengths differ and neither is 1.
    """
    rank = max(map(len, shapes))
    result: list[Axis] = []
    for position in range(rank):
        axes = [s[position - rank + len(s)] for s in shapes if position - rank + len(s) >= 0]
        wide = [a for a in axes if a != ONE]
        for axis in wide[1:]:
            site.unify(axis, wide[0], "operands of {left} and {right} elements do not broadcast")
        result.append(site.solver.resolve(wide[0] if wide else ONE))
    return tuple(result)


def binary(site: Site) -> Sequence[Axes]:
    """Two tensors that broadcast, or one tensor and a number in the attribute `other` (or `input`, on the left)."""
    numbers = [n for n in ("other", "input") if n in site.spec.attributes and site.attribute(n) is not None]
    shapes = site.all_axes()
    if len(shapes) + len(numbers) != 2:
        raise Fault(f"it takes two operands, or one and a number; found {len(shapes)} and {len(numbers)}")
    return [broadcast(site, shapes)]


def truth(site: Site) -> Encoding:
    """Comparisons give `bool`."""
    return Encoding(BOOL)


def arithmetic(site: Site) -> Encoding:
    """Arithmetic on integers gives integers, but for true division."""
    found = site.promoted(site.attribute("other"), site.attribute("input"))
    divides = site.op.kind == "div" and site.attribute("rounding_mode") is None
    return Encoding(
        F32 if site.op.kind == "atan2" and not found.is_float else F32 if divides and not found.is_float else found
    )


for _kind in (k for k in (*BINARY, *BITWISE) if k != "div"):
    op(_kind, "tensors*", encoding=arithmetic, other=None, input=None)(binary)
op("div", "tensors*", encoding=arithmetic, other=None, input=None, rounding_mode=None)(binary)
for _kind in COMPARE:
    op(_kind, "tensors*", encoding=truth, other=None, input=None)(binary)
for _kind in LOGICAL:
    op(_kind, "tensors*", encoding=truth)(binary)
op("logical_not", "input", encoding=truth)(same)
op("bitwise_not", "input")(same)
op("isnan", "input", encoding=truth)(same)
op("isinf", "input", encoding=truth)(same)


def chosen(site: Site) -> Encoding:
    """What is chosen from, without the condition."""
    numbers = [site.attribute("input"), site.attribute("other")]
    formats = [F32 if t.quantized else t.format for t in site.types[1:]]
    if not formats:
        return Encoding(F32 if any(isinstance(n, float) for n in numbers) else I64)
    floats = [f for f in formats if f.is_float]
    if not floats and any(isinstance(n, float) for n in numbers):
        return Encoding(F32)
    return Encoding(min(floats, key=FLOATS.index) if floats else max(formats, key=lambda f: f.bits))


@op("where", "condition", "tensors*", encoding=chosen, input=None, other=None)
def where(site: Site) -> Sequence[Axes]:
    """Elements of the first tensor where the condition holds, else of the second; either may be a number (`input`,
    `other`)."""
    numbers = [n for n in ("other", "input") if site.attribute(n) is not None]
    shapes = site.all_axes()
    if len(shapes) - 1 + len(numbers) != 2:
        raise Fault(f"it takes a condition and two operands or numbers; found {len(shapes) - 1} and {len(numbers)}")
    return [broadcast(site, shapes)]


@op("masked_fill", "input", "mask", encoding=moved, value=REQUIRED)
def masked_fill(site: Site) -> Sequence[Axes]:
    """A number in place of the elements where the mask holds; the mask may stretch."""
    return [broadcast(site, site.all_axes())]


@op("full", encoding=declared, shape=REQUIRED, value=0.0)
def full(site: Site) -> Sequence[Axes]:
    """One number everywhere."""
    shape = site.terms("shape")
    site.put("shape", shape)
    return [shape]


@op("prelu", "input", "weight")
def prelu(site: Site) -> Sequence[Axes]:
    """`x` where positive, else `slope * x`, with one slope or one per channel (axis 1)."""
    axes = site.axes("input")
    if len(axes) < 2:
        raise Fault(f"the input has {len(axes)} axes, expected at least 2")
    (slopes,) = site.axes("weight", 1)
    if site.size(slopes) != 1:
        site.unify(axes[1], slopes, "{input} has {left} channels, {weight} has {right} slopes")
    else:
        site.fixed(slopes, "one slope serves all channels")
    return [site.axes("input")]


op("quantize", "input", encoding=declared)(same)
op("cast", "input", encoding=declared)(same)


@op("arange", encoding=declared, end=REQUIRED)
def arange(site: Site) -> Sequence[Axes]:
    """The numbers from 0 on and before `end`."""
    end = site.term("end")
    if not has_batch(end):
        site.fixed(end, "its numbers are told apart")
    return [(site.term("end"),)]


def along(site: Site) -> Sequence[Axes]:
    """A normalisation along one axis keeps the shape; the axis may be any width."""
    rank = len(site.axes("input"))
    dim = site.integer("dim")
    if not -rank <= dim < rank:
        raise Fault(f"dim {dim} is outside of the {rank} axes of the input")
    return [site.axes("input")]


op("softmax", "input", encoding=real, dim=REQUIRED)(along)
op("log_softmax", "input", encoding=real, dim=REQUIRED)(along)


@op("tril", "input", encoding=moved, diagonal=0)
def tril(site: Site) -> Sequence[Axes]:
    """Zero above a diagonal of the last two axes."""
    for axis in site.axes("input")[-2:]:
        site.fixed(axis, "its indices are compared with another axis's")
    return [site.axes("input")]


op("triu", "input", encoding=moved, diagonal=0)(tril)
