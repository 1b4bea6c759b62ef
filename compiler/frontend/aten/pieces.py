"""Ops that join values or take parts of them."""

from __future__ import annotations

from torch import fx

from .base import Call, Converted, Operand, convert, known, real


@convert("cat.default", "concat.default", "concatenate.default")
def cat(call: Call) -> Operand:
    """Values laid end to end, empty ones left out."""
    nodes = tuple(n for n in call["tensors"] if call.tensor(n).dim() > 1 or call.tensor(n).numel() or call.rank == 1)
    if len(nodes) == 1:
        return nodes[0]
    return Converted("cat", nodes, {"dim": call.dim(call["dim"], call.rank)})


@convert("stack.default")
def stack(call: Call) -> Operand:
    """Values along a new axis."""
    return Converted("stack", tuple(call["tensors"]), {"dim": call.dim(call["dim"], call.rank)})


@convert("hstack.default", "vstack.default", "column_stack.default")
def other_stacks(call: Call) -> Operand | None:
    """`hstack` and `vstack` of values with two axes or more."""
    nodes = tuple(call["tensors"])
    if any(call.tensor(n).dim() < 2 for n in nodes):
        return None
    return Converted("cat", nodes, {"dim": 0 if call.kind == "vstack" else 1})


@convert("split.Tensor", "chunk.default", "split_with_sizes.default", "split.sizes", "tensor_split.sections")
def split(call: Call) -> Operand | None:
    """Consecutive parts of an axis."""
    dim = call.dim(call["dim"])
    sizes = tuple(call.axis(part.shape[dim]) for part in call.values)
    if not all(isinstance(s, int) for s in sizes):
        return None
    return Converted("split", (call.first,), {"sizes": sizes, "dim": dim})


@convert("unbind.int")
def unbind(call: Call) -> Operand | None:
    """Each index of an axis as a value."""
    if not call.same_length("self", call["dim"]):
        return None
    return Converted("unbind", (call.first,), {"dim": call.dim(call["dim"])})


@convert("select.int")
def select(call: Call) -> Operand | None:
    """One index of an axis."""
    dim, index = call.dim(call["dim"]), call["index"]
    length = call.tensor("self").shape[dim]
    if isinstance(index, fx.Node) or not known(length):
        return None
    return Converted("select", (call.first,), {"dim": dim, "index": index + length if index < 0 else index})


@convert("slice.Tensor")
def slice_(call: Call) -> Operand | None:
    """A part of an axis, or every few of its indices; nothing where it is the whole axis."""
    dim = call.dim(call["dim"])
    length, found = call.tensor("self").shape[dim], call.value.shape[dim]
    whole = call["start"] in (None, 0) and call["step"] == 1
    if length is found or (known(length) and length == found) or (whole and str(length) == str(found)):
        return call.first
    ends = (call["start"], call["end"])
    if not known(length) or any(isinstance(e, fx.Node) for e in ends):
        return None
    start, end, step = slice(*ends, call["step"]).indices(length)
    if step == 1:
        return Converted("narrow", (call.first,), {"dim": dim, "start": start, "length": max(0, end - start)})
    return Converted("slice", (call.first,), {"dim": dim, "start": start, "end": end, "step": step})


@convert("narrow.default")
def narrow(call: Call) -> Operand | None:
    """A part of an axis."""
    dim = call.dim(call["dim"])
    if not isinstance(call["start"], int) or not isinstance(call["length"], int):
        return None
    return Converted("narrow", (call.first,), {"dim": dim, "start": call["start"], "length": call["length"]})


@convert("glu.default")
def glu(call: Call) -> Converted:
    """A gated linear unit."""
    return Converted("glu", (call.first,), {"dim": call.dim(call["dim"])})


@convert("pad.default", "constant_pad_nd.default")
def pad(call: Call) -> Operand | None:
    """More indices before and after axes."""
    amounts = tuple(call["pad"])
    if not all(isinstance(n, int) for n in amounts):
        return None
    if not any(amounts):
        return call.first
    mode, value = call.arguments.get("mode", "constant"), call.arguments.get("value")
    return Converted("pad", (call.first,), {"pad": amounts, "mode": mode, "value": real(value or 0)})


@convert(
    "reflection_pad1d.default", "reflection_pad2d.default", "replication_pad1d.default", "replication_pad2d.default"
)
def other_pads(call: Call) -> Operand:
    """Padding by the values at hand."""
    mode = "reflect" if call.kind.startswith("reflection") else "replicate"
    return Converted("pad", (call.first,), {"pad": tuple(call["padding"]), "mode": mode})


@convert("slice_scatter.default")
def slice_scatter(call: Call) -> Operand | None:
    """A part of an axis replaced; the source itself where it is all of it."""
    dim = call.dim(call["dim"])
    length = call.tensor("self").shape[dim]
    if isinstance(call["start"], fx.Node) or isinstance(call["end"], fx.Node):
        return None
    if not known(length):
        return call["src"] if call["start"] in (None, 0) and call["end"] in (None, 9223372036854775807) else None
    start, end, step = slice(call["start"], call["end"], call["step"]).indices(length)
    if (start, end, step) == (0, length, 1):
        return call["src"]
    attributes = {"dim": dim, "start": start, "end": end, "step": step}
    return Converted("slice_scatter", call.nodes("self", "src"), attributes)


@convert("select_scatter.default")
def select_scatter(call: Call) -> Operand | None:
    """One index of an axis replaced."""
    dim = call.dim(call["dim"])
    length = call.tensor("self").shape[dim]
    if not isinstance(call["index"], int) or not known(length):
        return None
    return Converted("select_scatter", call.nodes("self", "src"), {"dim": dim, "index": call["index"] % length})


@convert("im2col.default")
def im2col(call: Call) -> Converted:
    """Windows of an image as columns."""
    names = ("kernel_size", "stride", "padding", "dilation")
    return Converted("unfold", (call.first,), {n: tuple(call[n]) for n in names})


@convert("col2im.default")
def col2im(call: Call) -> Converted:
    """Columns summed back into an image."""
    names = ("output_size", "kernel_size", "stride", "padding", "dilation")
    return Converted("fold", (call.first,), {n: tuple(call[n]) for n in names})


@convert("unfold.default")
def tensor_unfold(call: Call) -> Operand | None:
    """Overlapping parts of an axis."""
    dim = call.dim(call["dimension"])
    if not call.same_length("self", dim):
        return None
    return Converted("tensor_unfold", (call.first,), {"dim": dim, "size": call["size"], "step": call["step"]})
