"""Rules of ops that treat each element alone, with broadcasting, and of those that change how numbers are stored."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import Axes, Axis, has_batch
from ..formats import BOOL
from ..types import Encoding
from .base import REQUIRED, Fault, Site, op

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
    "tanh": {},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "hardswish": {},
    "hardsigmoid": {},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "clamp": {"min": None, "max": None},
    "exp": {},
    "log": {},
    "sqrt": {},
    "rsqrt": {},
    "neg": {},
    "abs": {},
    "erf": {},
    "reciprocal": {},
}
BINARY = ("add", "sub", "mul", "div", "pow", "maximum", "minimum")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


def same(site: Site) -> Sequence[Axes]:
    """The result has the input's shape."""
    return [site.axes("input")]


for _kind, _attributes in UNARY.items():
    op(_kind, "input", **_attributes)(same)  # pyright: ignore[reportArgumentType]


def broadcast(site: Site, shapes: Sequence[Axes]) -> Axes:
    """The common shape of operands aligned at their last axis, where an axis of length 1 stretches.

    Raises:
        Fault: two lengths differ and neither is 1.
    """
    rank = max(map(len, shapes))
    result: list[Axis] = []
    for position in range(rank):
        axes = [s[position - rank + len(s)] for s in shapes if position - rank + len(s) >= 0]
        wide = [a for a in axes if site.size(a) != 1 or has_batch(a)]
        for axis in axes:
            if site.size(axis) == 1 and wide and axis not in wide:
                site.fixed(axis, "it is stretched along another operand")
        for axis in wide[1:]:
            site.unify(axis, wide[0], "operands of {left} and {right} elements do not broadcast")
        if not wide:
            for axis in axes[1:]:
                site.unify(axis, axes[0], "operands of {left} and {right} elements do not broadcast")
        result.append(site.solver.resolve(wide[0] if wide else axes[0]))
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


for _kind in BINARY:
    op(_kind, "tensors*", other=None, input=None)(binary)
for _kind in COMPARE:
    op(_kind, "tensors*", encoding=truth, other=None, input=None)(binary)


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


def declared(site: Site) -> Encoding:
    """How the result is stored stands in the op's own type."""
    return site.op.type.encoding


op("quantize", "input", encoding=declared)(same)
op("cast", "input", encoding=declared)(same)


def along(site: Site) -> Sequence[Axes]:
    """A normalisation along one axis keeps the shape; the axis may be any width."""
    rank = len(site.axes("input"))
    dim = site.integer("dim")
    if not -rank <= dim < rank:
        raise Fault(f"dim {dim} is outside of the {rank} axes of the input")
    return [site.axes("input")]


op("softmax", "input", dim=REQUIRED)(along)
op("log_softmax", "input", dim=REQUIRED)(along)
