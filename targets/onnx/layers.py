"""Layers: linear and convolution."""

from __future__ import annotations

import numpy as np

from ...ir import Op, Type
from .bias import bias_of
from .clamps import source
from .elements import stored
from .float8 import float8, float8_linear
from .lengths import unflattened
from .packed import packable, packed_linear
from .registry import emits
from .writer import Writer


@emits("linear")
def linear(writer: Writer, op: Op) -> None:
    """Gemm for matrices; for inputs of another rank MatMul and Add, or Gemm between two reshapes.

    With a quantized weight it is Gemm: as MatMul, ONNX Runtime adds the bias in float, and merges a weight whose input
    is not quantized into MatMulNBits, which rounds that input to 8 bits without being asked. Where nasc wants that op,
    it writes it (`packed`). Products of 8-bit floats have an op of their own (`float8`).
    """
    format = op.type.format
    weight = op.inputs[1]
    if packable(writer, op):
        packed_linear(writer, op)
    elif float8(writer, op):
        float8_linear(writer, op)
    elif writer.type(op.inputs[0]).rank == 2:
        inputs = [input_of(writer, op), writer.real(weight, format), *bias_of(writer, op, format)]
        writer.node("Gemm", inputs, op.name, transB=1)
    elif writer.type(weight).quantized and (shape := unflattened(writer.graph, op)) is not None:
        rows = writer.integers((-1, writer.lengths(weight)[1]))
        given = writer.node("Reshape", [input_of(writer, op), rows], f"{op.name}/rows")
        inputs = [given, writer.real(weight, format), *bias_of(writer, op, format)]
        product = writer.node("Gemm", inputs, f"{op.name}/product", transB=1)
        writer.node("Reshape", [product, writer.integers(shape)], op.name)
    else:
        stacked(writer, op)


def stacked(writer: Writer, op: Op) -> None:
    """MatMul and Add, the weight laid out as `[in, out]`."""
    format, weight = op.type.format, op.inputs[1]
    if writer.is_stored(weight) and writer.type(weight).format == format:
        array = stored(writer.weights.array(weight), format, weight)
        matrix = writer.initializer(f"{weight}/transposed", np.ascontiguousarray(array.T), format)
    else:
        matrix = writer.node("Transpose", [writer.real(weight, format)], f"{op.name}/weight", perm=(1, 0))
    bias = bias_of(writer, op, format)
    inputs = [writer.real(op.inputs[0], format), matrix]
    product = writer.node("MatMul", inputs, f"{op.name}/product" if bias else op.name)
    if bias:
        writer.node("Add", [product, *bias], op.name)


def input_of(writer: Writer, op: Op) -> str:
    """What a layer reads as numbers.

    ONNX Runtime rounds float weights and biases of a layer by itself where its input and its result are quantized
    (microsoft/onnxruntime#22969), a bias beyond the range of its codes too if steps are small. A maximum of one
    operand, which copies it, keeps it from that where no integer kernel could run the layer anyway.
    """
    value = writer.real(op.inputs[0], op.type.format)
    given, weight = source(writer.graph, op.inputs[0]), writer.type(op.inputs[1])
    if writer.style.keep_floats and given.quantized and not (narrow(given) and narrow(weight) and weight.multiplied):
        return writer.node("Max", [value], f"{op.name}/input")
    return value


def narrow(type: Type) -> bool:
    """Whether integer kernels take values of a type."""
    return type.integer and type.format.bits <= 8


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


@emits("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed(writer: Writer, op: Op) -> None:
    """ConvTranspose over one, two or three axes."""
    format, weight = op.type.format, op.inputs[1]
    kernel = writer.lengths(weight)[2:]
    rank = len(kernel)
    padding = writer.window(op, "padding", rank)
    inputs = [input_of(writer, op), writer.real(weight, format), *bias_of(writer, op, format)]
    writer.node(
        "ConvTranspose",
        inputs,
        op.name,
        kernel_shape=kernel,
        strides=writer.window(op, "stride", rank),
        pads=padding + padding,
        output_padding=writer.window(op, "output_padding", rank),
        dilations=writer.window(op, "dilation", rank),
        group=writer.integer(op, "groups"),
    )
