"""Layers: linear and convolution."""

from __future__ import annotations

from ...ir import Op
from ...ir.formats import F32
from .bias import bias_of
from .clamps import source
from .quantize import transposed
from .registry import emits
from .writer import Writer


@emits("linear")
def linear(writer: Writer, op: Op) -> None:
    """Gemm for matrices; MatMul and Add for inputs of another rank, the weight then laid out as `[in, out]`."""
    format = op.type.format
    given, weight = op.inputs[:2]
    if writer.type(given).rank == 2:
        inputs = [input_of(writer, op), writer.real(weight, format), *bias_of(writer, op, format)]
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


def input_of(writer: Writer, op: Op) -> str:
    """What a layer reads as numbers.

    ONNX Runtime rounds the float weights of a layer by itself where its input and its result are quantized
    (microsoft/onnxruntime#22969); a maximum of one operand, which copies it, keeps it from that.
    """
    given, weight = op.inputs[:2]
    value = writer.real(given, op.type.format)
    floats = writer.is_stored(weight) and not writer.type(weight).quantized
    if writer.style.keep_floats and floats and source(writer.graph, given).quantized:
        return writer.node("Max", [value], f"{op.name}/input")
    return value


@emits("conv1d", "conv2d", "conv3d")
def convolution(writer: Writer, op: Op) -> None:
    """Conv over one, two or three axes."""
    format = op.type.format
    weight = op.inputs[1]
    kernel = writer.lengths(weight)[2:]
    rank = len(kernel)
    padding = writer.window(op, "padding", rank)
    inputs = [input_of(writer, op), writer.real(weight, format), *bias_of(writer, op, format)]
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
