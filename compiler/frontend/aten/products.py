"""Products of two activations."""

from __future__ import annotations

import math

from .base import Call, Converted, Operand, convert, known


@convert("matmul.default", "mm.default", "bmm.default", "mv.default", "dot.default")
def matmul(call: Call) -> Operand:
    """Matrix products."""
    names = list(call.arguments)
    return Converted("matmul", call.nodes(*names[:2]))


@convert("baddbmm.default")
def baddbmm(call: Call) -> Operand:
    """`beta * self + alpha * batch1 batch2`."""
    first, left, right = call.nodes("self", "batch1", "batch2")
    product: Operand = Converted("matmul", (left, right))
    if call["alpha"] != 1:
        product = Converted("mul", (product,), {"other": float(call["alpha"])})
    if call["beta"] == 0:
        return product
    bias: Operand = first if call["beta"] == 1 else Converted("mul", (first,), {"other": float(call["beta"])})
    return Converted("add", (bias, product))


@convert("einsum.default")
def einsum(call: Call) -> Operand | None:
    """An equation of letters; dots are written out, and so is the result's side."""
    operands = tuple(call["tensors"])
    equation = written_out(call["equation"].replace(" ", ""), [call.tensor(n).dim() for n in operands])
    return None if equation is None else Converted("einsum", operands, {"equation": equation})


def written_out(equation: str, ranks: list[int]) -> str | None:
    """An equation with letters for dots and an explicit result; None where a letter stands twice in one operand."""
    left, arrow, right = equation.partition("->")
    given = left.split(",")
    spare = [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    dotted = max(
        (rank - len(g.replace("...", "")) for g, rank in zip(given, ranks, strict=True) if "..." in g), default=0
    )
    dots = "".join(spare[:dotted])
    named: list[str] = []
    for part, rank in zip(given, ranks, strict=True):
        own = rank - len(part.replace("...", ""))
        named.append(part.replace("...", dots[len(dots) - own :] if own else ""))
    if any(len(set(n)) != len(n) for n in named):
        return None
    if not arrow:
        letters = "".join(named)
        right = dots + "".join(sorted(c for c in set(letters) - set(dots) if letters.count(c) == 1))
    return f"{','.join(named)}->{right.replace('...', dots)}"


@convert("scaled_dot_product_attention.default")
def attention(call: Call) -> Operand | None:
    """Attention; the scale becomes a number, so that it stays when heads change their size."""
    size = call.tensor("query").shape[-1]
    if not known(size):
        return None
    scale = 1 / math.sqrt(size) if call.arguments.get("scale") is None else float(call["scale"])
    attributes = {
        "scale": scale,
        "is_causal": bool(call["is_causal"]),
        "enable_gqa": bool(call.arguments.get("enable_gqa", False)),
    }
    return Converted("scaled_dot_product_attention", call.nodes("query", "key", "value", "attn_mask"), attributes)
