"""Ops that look along an axis."""

from __future__ import annotations

from typing import Any

from .base import Call, Converted, Operand, convert


@convert(
    "mean.dim", "sum.dim_IntList", "amax.default", "amin.default", "mean.default", "sum.default", "any.dim", "any.dims",
    "any.default", "all.dim", "all.dims", "all.default", "logsumexp.default", "prod.dim_int", "prod.default",
)  # fmt: skip
def reduce(call: Call) -> Operand:
    """One value for all along some axes, in another format first where one is asked for."""
    given: Operand = call.first
    wanted = call.arguments.get("dtype")
    if wanted is not None and wanted != call.tensor(call.first).dtype:
        given = Converted("cast", (given,), format=call.format)
    attributes = {"dim": call.dims("dim"), "keepdim": bool(call.arguments.get("keepdim", False))}
    return Converted(call.kind, (given,), attributes)


@convert("max.default", "min.default")
def extreme(call: Call) -> Converted:
    """The largest or smallest of all elements."""
    return Converted("amax" if call.kind == "max" else "amin", (call.first,))


@convert("max.dim", "min.dim")
def extreme_along(call: Call) -> Converted:
    """The largest or smallest values along an axis, and where they stand."""
    return Converted(call.kind, (call.first,), {"dim": call.dim(call["dim"]), "keepdim": call["keepdim"]})


@convert("argmax.default", "argmin.default")
def position(call: Call) -> Converted:
    """Where the largest or smallest value stands."""
    dim = None if call["dim"] is None else call.dim(call["dim"])
    return Converted(call.kind, (call.first,), {"dim": dim, "keepdim": call["keepdim"]})


@convert("var.correction", "std.correction", "var.dim", "std.dim")
def spread_of(call: Call) -> Converted:
    """Variance and standard deviation."""
    correction: Any = call.arguments.get("correction")
    if "unbiased" in call.arguments:
        correction = int(call["unbiased"])
    attributes = {
        "dim": call.dims("dim"),
        "correction": 1 if correction is None else int(correction),
        "keepdim": bool(call["keepdim"]),
    }
    return Converted(call.kind, (call.first,), attributes)


@convert("linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.Scalar")
def norm(call: Call) -> Converted | None:
    """The norm of vectors along some axes."""
    order = call.arguments.get("ord", call.arguments.get("p"))
    order = 2.0 if order is None else order
    if call.arguments.get("dtype") is not None:
        return None
    attributes = {"ord": float(order), "dim": call.dims("dim"), "keepdim": bool(call.arguments.get("keepdim"))}
    return Converted("norm", (call.first,), attributes)


@convert("cumsum.default")
def cumsum(call: Call) -> Operand:
    """Running sums."""
    given: Operand = call.first
    wanted = call["dtype"]
    if wanted is not None and wanted != call.tensor(call.first).dtype:
        given = Converted("cast", (given,), format=call.format)
    return Converted("cumsum", (given,), {"dim": call.dim(call["dim"])})


@convert("topk.default")
def topk(call: Call) -> Operand | None:
    """The largest values and where they stand."""
    dim = call.dim(call["dim"])
    if not isinstance(call["k"], int) or not call.same_length("self", dim):
        return None
    attributes = {"k": call["k"], "dim": dim, "largest": call["largest"], "sorted": call["sorted"]}
    return Converted("topk", (call.first,), attributes)


@convert("sort.default", "sort.stable")
def sort(call: Call) -> Operand | None:
    """Values in order and where they stood."""
    dim = call.dim(call["dim"])
    if not call.same_length("self", dim):
        return None
    attributes = {"dim": dim, "descending": call["descending"], "stable": bool(call.arguments.get("stable"))}
    return Converted("sort", (call.first,), attributes)
