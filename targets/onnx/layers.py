"""Layers: linear and convolution."""

from __future__ import annotations

from ...ir import Op
from ...ir.formats import F32
from .bias import bias_of
from .quantize import transposed
from .registry import emits
from .writer import Writer


@emits("linear")
def linear(writer: Writer, op: Op) -> None:
    """Gemm for matrices; MatMul and Add for inputs of another rank, the weight then laid out as `[in, out]`."""
    format = op.type.format
    given, weight = op.inputs[:2]
    if writer.type(given).rank == 2:
        inputs = [writer.real(given, format), writer.real(weight, format), *bias_of(writer, op, format)]
        writer.node("Gemm", inputs, op.name, transB=1)
        return
    if writer.is_stored(weight) and (writer.type(weight).quantized or writer.type(weight).format == format):
        matrix = transposed(writer, weight)
        if writer.type(weight).quantized and format != F32:
            matrix = writer.cast(matrix, f"{weight}/transposed.{format}", format)
    else:
        matrix = writer.node("Transpose", [writer.real(weight, format)], f"{op.name}/weight", perm=(1, 0))
    bias = bias_of(writer, op, format)
    product = writer.node("MatMul", [writer.real(given, format), matrix], f"{op.name}/product" if bias else op.name)
    if bias:
        writer.node("Add", [product, *bias], op.name)


@emits("conv1d", "conv2d", "conv3d")
def convolution(writer: Writer, op: Op) -> None:
    """Conv over one, two or three axes."""
    format = op.type.format
    given, weight = op.inputs[:2]
    kernel = writer.lengths(weight)[2:]
    rank = len(kernel)
    padding = writer.window(op, "padding", rank)
    inputs = [writer.real(given, format), writer.real(weight, format), *bias_of(writer, op, format)]
    writer.node(
        "Conv",
        inputs,
        op.name,
        kernel_shape=kernel,
        strides=writer.window(op, "stride", rank),
        pads=padding + padding,
        dilations=writer.window(op, "dilation", rank),
        group=writer.integer(op, "groups"),
    )
