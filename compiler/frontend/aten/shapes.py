"""Ops that give the same elements another shape."""

from __future__ import annotations

from typing import Any

from .base import Call, Converted, Operand, convert


@convert(
    "view.default", "reshape.default", "flatten.using_ints", "unflatten.int", "unsqueeze.default", "squeeze.dim",
    "squeeze.dims", "squeeze.default", "_unsafe_view.default", "view_as.default", "reshape_as.default", "ravel.default",
)  # fmt: skip
def reshape(call: Call) -> Operand:
    """Another shape in row-major order."""
    return Converted("reshape", (call.first,), {"shape": call.shape})


@convert("permute.default")
def permute(call: Call) -> Converted:
    """Axes in another order."""
    return Converted("permute", (call.first,), {"dims": call.dims("dims")})


@convert("transpose.int", "swapaxes.default", "swapdims.default")
def transpose(call: Call) -> Converted:
    """Two axes in each other's place."""
    dims = list(range(call.rank))
    a, b = (call.dim(d) for d in list(call.arguments.values())[1:3])
    dims[a], dims[b] = dims[b], dims[a]
    return Converted("permute", (call.first,), {"dims": tuple(dims)})


@convert("t.default", "numpy_T.default")
def reverse_axes(call: Call) -> Converted:
    """All axes in the opposite order."""
    return Converted("permute", (call.first,), {"dims": tuple(reversed(range(call.rank)))})


@convert("mT.default", "adjoint.default")
def matrix_transpose(call: Call) -> Converted:
    """The last two axes in each other's place."""
    rank = call.rank
    return Converted("permute", (call.first,), {"dims": (*range(rank - 2), rank - 1, rank - 2)})


@convert("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist")
def movedim(call: Call) -> Converted:
    """Some axes moved to other places, the rest in their order."""
    source, target = call.dims("source"), call.dims("destination")
    dims = [-1] * call.rank
    for a, b in zip(source, target, strict=True):
        dims[b] = a
    rest = iter(d for d in range(call.rank) if d not in source)
    return Converted("permute", (call.first,), {"dims": tuple(next(rest) if d < 0 else d for d in dims)})


@convert("expand.default", "expand_as.default", "broadcast_to.default")
def expand(call: Call) -> Operand:
    """Axes of length 1 stretched."""
    return Converted("expand", (call.first,), {"shape": call.shape})


@convert("repeat.default", "tile.default")
def repeat(call: Call) -> Operand | None:
    """Whole axes laid end to end."""
    times: list[Any] = [call.axis(n) for n in list(call.arguments.values())[1]]
    times = [1] * (call.rank - len(times)) + times
    return Converted("repeat", (call.first,), {"repeats": tuple(times)})


@convert("repeat_interleave.self_int")
def repeat_interleave(call: Call) -> Operand | None:
    """Each index of an axis several times in a row."""
    if call["dim"] is None:
        return None
    attributes = {"repeats": call.axis(call["repeats"]), "dim": call.dim(call["dim"])}
    return Converted("repeat_interleave", (call.first,), attributes)


@convert("flip.default")
def flip(call: Call) -> Converted:
    """Axes in reverse."""
    return Converted("flip", (call.first,), {"dims": call.dims("dims")})


@convert("roll.default")
def roll(call: Call) -> Converted:
    """Axes shifted, what falls off coming back at the other end."""
    shifts = call["shifts"]
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    return Converted("roll", (call.first,), {"shifts": shifts, "dims": call.dims("dims")})


@convert("pixel_shuffle.default", "pixel_unshuffle.default")
def pixel_shuffle(call: Call) -> Converted:
    """Channels to pixels, or back."""
    name = "upscale_factor" if call.kind == "pixel_shuffle" else "downscale_factor"
    return Converted(call.kind, (call.first,), {name: call[name]})


@convert("channel_shuffle.default", "native_channel_shuffle.default")
def channel_shuffle(call: Call) -> Converted:
    """Channels of all groups in turn."""
    return Converted("channel_shuffle", (call.first,), {"groups": call["groups"]})
