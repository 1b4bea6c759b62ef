"""Layers: linear, convolution, transposed convolution."""

from __future__ import annotations

from typing import Any

from ....ir.graph import Attribute
from .base import Call, Converted, Operand, convert, spread


@convert("linear.default")
def linear(call: Call) -> Converted:
    """`linear`, whatever its weight comes from."""
    return Converted("linear", call.nodes("input", "weight", "bias"))


@convert("addmm.default")
def addmm(call: Call) -> Operand | None:
    """`beta * self + alpha * mat1 mat2`."""
    if call["alpha"] != 1 or call["beta"] != 1:
        return None
    bias, left, right = call.nodes("self", "mat1", "mat2")
    if call.tensor(bias).dim() == 1:
        return Converted("linear", (left, Converted("permute", (right,), {"dims": (1, 0)}), bias))
    return Converted("add", (Converted("matmul", (left, right)), bias))


@convert("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def conv(call: Call) -> Converted | None:
    """Convolution; padding given by name becomes a number, with a `pad` of its own where it is not even."""
    rank = int(call.name.split("conv")[1][0])
    padding: Any = call["padding"]
    given: Operand = call["input"]
    if padding == "valid":
        padding = (0,) * rank
    elif padding == "same":
        kernel = call.tensor("weight").shape[2:]
        spans = [int(d) * (int(k) - 1) for k, d in zip(kernel, spread(call["dilation"], rank), strict=True)]
        if any(span % 2 for span in spans):
            amounts = tuple(n for span in reversed(spans) for n in (span // 2, span - span // 2))
            given = Converted("pad", (given,), {"pad": amounts})
            spans = [0] * rank
        padding = tuple(span // 2 for span in spans)
    attributes: dict[str, Attribute] = {
        "stride": spread(call["stride"], rank),
        "padding": spread(padding, rank),
        "dilation": spread(call["dilation"], rank),
        "groups": call["groups"],
    }
    return unbatched(call, Converted(f"conv{rank}d", (given, *call.nodes("weight", "bias")), attributes), rank)


def unbatched(call: Call, converted: Converted, rank: int) -> Converted | None:
    """None for an input without a batch axis, which the IR's convolutions need."""
    return converted if call.tensor("input").dim() == rank + 2 else None


@convert("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def conv_transpose(call: Call) -> Converted | None:
    """Transposed convolution."""
    rank = int(call.kind[-2])
    names = ("stride", "padding", "output_padding", "dilation")
    attributes: dict[str, Attribute] = {n: spread(call[n], rank) for n in names}
    operands = call.nodes("input", "weight", "bias")
    return unbatched(call, Converted(call.kind, operands, {**attributes, "groups": call["groups"]}), rank)


@convert("convolution.default")
def convolution(call: Call) -> Converted | None:
    """The general form that some exports leave."""
    rank = call.tensor("input").dim() - 2
    names = ("stride", "padding", "dilation")
    attributes: dict[str, Attribute] = {n: spread(call[n], rank) for n in names}
    operands = call.nodes("input", "weight", "bias")
    if call["transposed"]:
        attributes["output_padding"] = spread(call["output_padding"], rank)
    kind = f"conv_transpose{rank}d" if call["transposed"] else f"conv{rank}d"
    return Converted(kind, operands, {**attributes, "groups": call["groups"]})
