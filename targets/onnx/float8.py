"""Products of 8-bit floats: `GemmFloat8` of ONNX Runtime's CUDA provider, which multiplies on the units for them.

The op multiplies rows of codes and scales the sums: `y = scale_a * scale_b * (a b^T)`. Its kernel (cublasLtMatmul)
takes `b` as `[out, in]`, as layers keep it, and lengths that are multiples of 16.
"""

from __future__ import annotations

import numpy as np

from ...ir import STORED, Graph, Op, Type
from ...ir.axes import size
from ...ir.formats import F8E4M3, F8E5M2, F32
from .bias import bias_of
from .elements import FLOAT
from .lengths import unflattened
from .packed import MICROSOFT
from .quantize import steps_of
from .writer import Writer

FORMATS = (F8E4M3, F8E5M2)
MULTIPLE = 16
"""Inputs and outputs of a layer must be a multiple of it: rows of codes start at multiples of 16 bytes."""
GEMM = "GemmFloat8"


def touches(graph: Graph, layer: Op) -> bool:
    """Whether a layer reads its input or its weight as 8-bit floats with steps."""
    return any(_coded(graph.types[name]) for name in layer.inputs[:2])


def mixed(graph: Graph, layer: Op) -> bool:
    """Whether a layer reads one of the two formats beside the other."""
    return len({graph.types[name].format for name in layer.inputs[:2]}) > 1


def unfit(graph: Graph, layer: Op) -> str:
    """Why a layer cannot be a product of 8-bit floats; empty: it can."""
    if layer.kind != "linear":
        return f"the op takes linear layers, found {layer.kind}"
    given, weight = layer.inputs[:2]
    for name, what in ((given, "input"), (weight, "weight")):
        if not _coded(type := graph.types[name]):
            return f"its {what} %{name} is {type.encoding}, the op takes f8e4m3 and f8e5m2 with steps"
        if type.step is not None and type.step.block is not None:
            return f"its {what} %{name} is in blocks"
    if (step := graph.types[given].step) is not None and step.axis is not None:
        return f"its input %{given} has several steps, the op takes one for the whole tensor"
    if (step := graph.types[weight].step) is not None and step.axis not in (None, 0):
        return f"its weight %{weight} has steps along axis {step.axis}, the op takes one in all or one per output"
    if (made := graph.producers.get(weight)) is None or made.kind not in STORED:
        return f"its weight %{weight} is computed"
    if graph.types[given].format == graph.types[weight].format == F8E5M2:
        return "its input and its weight are f8e5m2, one of them must be f8e4m3"
    lengths = [size(axis, graph.sizes) for axis in graph.types[weight].axes]
    if any(n % MULTIPLE for n in lengths):
        return f"its outputs and inputs are {lengths[0]} and {lengths[1]}, the op takes multiples of {MULTIPLE}"
    if layer.type.format != F32:
        return f"its result is {layer.type.format}"
    if graph.types[given].rank != 2 and unflattened(graph, layer) is None:
        return f"two axes of its result {layer.type} depend on the batch"
    return ""


def _coded(type: Type) -> bool:
    return type.step is not None and type.format in FORMATS


def float8(writer: Writer, op: Op) -> bool:
    """Whether a linear layer is written as `GemmFloat8`."""
    style = writer.style
    if not style.gemm_float8 or unfit(writer.graph, op):
        return False
    return style.mixed_float8 or not mixed(writer.graph, op)


def float8_linear(writer: Writer, op: Op) -> None:
    """One `GemmFloat8`, with a Mul by the steps behind where there is one per output, an Add of the bias, and between
    two reshapes where the input is no matrix.

    The sum is linear in the steps of outputs, so that they may as well come behind it. The op's own bias has other
    shapes from version to version of the runtime. A scale of the result, even of 1, must not be given: cuBLAS takes one
    for results of 8 bits only and refuses every product with it.
    """
    given, weight = op.inputs[:2]
    step = writer.type(weight).step
    assert step is not None
    several = step.axis is not None
    behind = [("Mul", writer.initializer(f"{weight}/steps", _steps(writer, weight), F32), "scaled")] if several else []
    behind += [("Add", bias, "biased") for bias in bias_of(writer, op, F32)]
    codes = writer.value(given)
    if writer.type(given).rank != 2:
        shape = unflattened(writer.graph, op)
        assert shape is not None
        codes = writer.node("Reshape", [codes, writer.integers((-1, writer.lengths(weight)[1]))], f"{op.name}/rows")
        behind.append(("Reshape", writer.integers(shape), ""))
    scales = [_step(writer, given), writer.number(1.0) if several else _step(writer, weight)]
    inputs = [codes, writer.value(weight), "", *scales]
    result = writer.node(GEMM, inputs, f"{op.name}/product" if behind else op.name, transB=1, dtype=FLOAT)
    writer.proto.node[-1].domain = MICROSOFT
    for i, (kind, operand, part) in enumerate(behind):
        last = i == len(behind) - 1
        result = writer.node(kind, [result, operand], op.name if last else f"{op.name}/{part}")


def _step(writer: Writer, name: str) -> str:
    """The one step of a value."""
    type = writer.type(name)
    writer.known_step(name, type)
    assert type.step is not None
    return writer.initializer(f"{name}/step", np.array(type.step.value, np.float32), F32)


def _steps(writer: Writer, name: str) -> np.ndarray:
    """The steps of a weight, one per output."""
    type = writer.type(name)
    writer.known_step(name, type)
    return steps_of(writer, name, type)
