"""Rules of products of two activations: matrix products, einsum, attention."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import ONE, Axes, Axis, product
from .base import REQUIRED, Fault, Site, op
from .pointwise import broadcast


@op("matmul", "input", "other")
def matmul(site: Site) -> Sequence[Axes]:
    """Matrix products over the last two axes, the axes before them broadcast (torch.matmul)."""
    left, right = site.axes("input"), site.axes("other")
    if not left or not right:
        raise Fault("a matrix product needs operands with axes")
    inner = right[-2:][0]
    site.unify(left[-1:][0], inner, "{input} has {left} columns, {other} has {right} rows")
    left, right = site.axes("input"), site.axes("other")
    lead = broadcast(site, [left[:-2], right[:-2]]) if len(left) > 2 or len(right) > 2 else ()
    return [(*lead, *map(site.solver.resolve, (*left[-2:-1], *right[-1:][: len(right) - 1])))]


@op("einsum", "tensors*", equation=REQUIRED)
def einsum(site: Site) -> Sequence[Axes]:
    """Sums of products by the letters of an equation (torch.einsum), one letter per axis."""
    given, result = letters(site)
    known: dict[str, Axis] = {}
    for axes, names in zip(site.all_axes(), given, strict=True):
        if len(axes) != len(names):
            raise Fault(f"an operand with {len(axes)} axes stands as {names!r} in the equation")
        for axis, name in zip(axes, names, strict=True):
            if name in known and known[name] != ONE and axis != ONE:
                site.unify(known[name], axis, f"{{left}} and {{right}} both stand as {name!r} in the equation")
            elif known.get(name, ONE) == ONE:
                known[name] = axis
    return [tuple(site.solver.resolve(known[name]) for name in result)]


def letters(site: Site) -> tuple[list[str], str]:
    """The letters of each operand and of the result.

    Raises:
        Fault: the equation is not one of letters with an arrow.
    """
    equation = site.attribute("equation")
    if (
        not isinstance(equation, str)
        or "->" not in equation
        or not equation.replace(",", "").replace("->", "").isalpha()
    ):
        raise Fault(f"equation {equation!r} must be letters with an arrow, such as `bhd,bhk->bdk`")
    left, result = equation.split("->")
    given = left.split(",")
    if len(given) != len(site.types) or not set(result) <= set(left):
        raise Fault(f"equation {equation!r} does not fit {len(site.types)} operands")
    return given, result


@op("scaled_dot_product_attention", "query", "key", "value", "mask?", scale=REQUIRED, is_causal=False, enable_gqa=False)
def attention(site: Site) -> Sequence[Axes]:
    """`softmax(scale * query key^T + mask) value` over the last two axes, [..., L, E], [..., S, E], [..., S, V].

    With `enable_gqa` several heads (axis -3) of the query share one of key and value. The scale is a number, and not
    derived from E: so the function stays when E changes.
    """
    axes = [site.axes(n) for n in ("query", "key", "value")]
    if min(map(len, axes)) < 2:
        raise Fault("attention needs operands of at least two axes")
    (*q_lead, rows, size), (*k_lead, keys, key_size), (*v_lead, value_rows, value_size) = axes
    for heads in q_lead[-1:]:
        site.call(heads, "heads")
    site.unify(size, key_size, "{query} has heads of {left}, {key} of {right}")
    site.unify(keys, value_rows, "{key} has {left} rows, {value} has {right}")
    site.call(size, "head_size")
    site.call(value_size, "head_size")
    if site.attribute("enable_gqa"):
        (*q_lead, heads), (*k_lead, key_heads), (*v_lead, value_heads) = q_lead, k_lead, v_lead
        shared = site.size(heads) // site.size(key_heads)
        site.unify(key_heads, value_heads, "{key} has {left} heads, {value} has {right}")
        each = product([key_heads, site.fresh(shared)])
        site.unify(heads, each, "{query} has {left} heads, {key} has {right}")
        lead = (*_lead(site, q_lead, k_lead, v_lead), heads)
    else:
        lead = _lead(site, q_lead, k_lead, v_lead)
    scores = (*lead, rows, keys)
    if site.has("mask"):
        mask = site.axes("mask")
        if len(mask) > len(scores):
            raise Fault(f"the mask has {len(mask)} axes, the scores have {len(scores)}")
        for axis, wanted in zip(mask, scores[len(scores) - len(mask) :], strict=True):
            if axis != ONE:
                site.unify(axis, wanted, "{mask} has {left} where the scores have {right}")
    return [tuple(map(site.solver.resolve, (*lead, rows, value_size)))]


def _lead(site: Site, *leads: Sequence[Axis]) -> Axes:
    """The axes before the last ones, broadcast."""
    return broadcast(site, [tuple(map(site.solver.resolve, a)) for a in leads]) if any(leads) else ()
