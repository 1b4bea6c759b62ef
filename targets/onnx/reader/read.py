"""Read an ONNX model into a graph and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import inliner

from ....ir import Axis, Const, Graph, Input, N, NascError, Type, UsageError, product, without_dead_code
from ..elements import Array, format_of
from . import float8, layers, pieces, pointwise, pools, quantized, reduce, shapes
from .base import READERS, Reader, ReadError
from .sizes import read_sizes

FAMILIES = (float8, layers, pieces, pointwise, pools, quantized, reduce, shapes)
"""The modules whose import declares the readers of nodes."""

OLDEST = 13
"""The oldest opset that is read: before it, axes and steps are written in other ways."""

FOLDED_BYTES = 2**26
"""The largest constant that is computed while reading, but for codes that the file says are some."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a file holds.

    Args:
        graph: the graph; all lengths but the batch are numbers, widths are for inference to find.
        arrays: the tensors of its stored values: numbers, or codes where they are quantized.
        steps: the steps of quantized values that have several.
        zeros: their zeros where each step has one of its own, as codes.
    """

    graph: Graph
    arrays: Mapping[str, Array]
    steps: Mapping[str, Array]
    zeros: Mapping[str, Array]


def read(source: str | Path | bytes, *, name: str | None = None) -> Reading:
    """Read an ONNX model.

    Args:
        source: a file, with the tensors that may lie beside it, or a model's bytes.
        name: the graph's name; by default what the model calls it.

    Raises:
        UsageError: there is no such file, or it is no ONNX model.
        ReadError: it holds something that nasc cannot read, with the node concerned.
    """
    place = "model" if isinstance(source, bytes) else str(source)
    model = _loaded(source, place)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        raise ReadError(
            f"{place}: error: it is written in opset {opset}; nasc reads {OLDEST} and later",
            mend="`onnx.version_converter.convert_version(model, 20)` brings it there.",
        )
    if model.functions:
        model = inliner.inline_local_functions(model)
    reader = Reader(model.graph, place, opset)
    symbols = _symbols(model.graph, reader.constants, place)
    for entry in model.graph.input:
        if entry.name not in reader.constants:
            _input(reader, entry, symbols)
    for node in model.graph.node:
        _node(reader, node)
    reader.node = onnx.NodeProto(op_type="output", name="output")
    outputs = tuple(reader.named(entry.name) for entry in model.graph.output)
    called = name or "".join(c if c.isalnum() or c == "_" else "_" for c in model.graph.name) or "graph"
    called = called if not called[0].isdigit() else f"graph_{called}"
    graph = without_dead_code(Graph(called, tuple(reader.inputs), (), tuple(reader.ops), outputs))
    kept = {op.name for op in graph.stored}
    return Reading(
        graph,
        {n: a for n, a in reader.arrays.items() if n in kept},
        {n: a for n, a in reader.steps.items() if n in kept},
        {n: a for n, a in reader.zeros.items() if n in kept},
    )


def _loaded(source: str | Path | bytes, place: str) -> onnx.ModelProto:
    if isinstance(source, bytes):
        return onnx.load_from_string(source)
    if not Path(source).is_file():
        raise UsageError(f"{place}: error: there is no such file")
    try:
        return onnx.load(source)
    except Exception as error:  # protobuf's and onnx's own errors, which have no base in common
        raise UsageError(f"{place}: error: it is no ONNX model that can be read: {error}") from error


def _symbols(graph: onnx.GraphProto, constants: Mapping[str, Array], place: str) -> str:
    """The one name of an open length: the batch.

    Raises:
        ReadError: several lengths are open.
    """
    found: dict[str, str] = {}
    for entry in graph.input:
        if entry.name in constants:
            continue
        for i, dim in enumerate(entry.type.tensor_type.shape.dim):
            if dim.HasField("dim_param") or not dim.HasField("dim_value"):
                text = dim.dim_param or ("N" if i == 0 else f"axis {i} of {entry.name}")
                found.setdefault(_factors(text)[0], f"axis {i} of input {entry.name!r}")
    if len(found) > 1:
        shown = ", ".join(f"{name} ({where})" for name, where in found.items())
        raise ReadError(
            f"{place}: error: several lengths are open: {shown}; the IR knows one, the batch",
            mend="Export the model with fixed lengths for all axes but the batch.",
        )
    return next(iter(found), "N")


def _factors(text: str) -> tuple[str, list[str]]:
    """The symbol of a length such as `N`, `N*4`, `4*N`, and all its factors in order."""
    parts = [part.strip() for part in text.split("*")]
    names = [part for part in parts if not part.isdigit()]
    return (names[0], parts) if len(names) == 1 else (text, [text])


def _input(reader: Reader, entry: onnx.ValueInfoProto, symbol: str) -> None:
    tensor = entry.type.tensor_type
    try:
        format = format_of(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    except (NascError, KeyError) as error:
        raise ReadError(
            f"{reader.place}: error: input {entry.name!r} holds values that the IR has no format for"
        ) from error
    axes: list[Axis] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            axes.append(Const(dim.dim_value))
            continue
        parts = _factors(dim.dim_param)[1] if dim.dim_param else [symbol]
        axes.append(product(Const(int(p)) if p.isdigit() else N for p in parts))
    name = reader.fresh(entry.name)
    reader.inputs.append(Input(name, Type(format, tuple(axes))))
    reader.types[name] = reader.inputs[-1].type
    reader.values[entry.name] = name


def _node(reader: Reader, node: onnx.NodeProto) -> None:
    reader.node, reader.mark = node, len(reader.ops)
    if node.op_type == "Constant":
        reader.constants[node.output[0]] = _constant(reader)
        return
    if read_sizes(reader) or _folded(reader):
        return
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    if (reader_of := READERS.get(kind)) is None:
        raise reader.error(
            f"nasc knows no op {kind}", mend="Replace it in the model, or lower the PyTorch model itself."
        )
    reader_of(reader, node)


def _constant(reader: Reader) -> Array:
    for name, value in ((a.name, onnx.helper.get_attribute_value(a)) for a in reader.node.attribute):
        if name == "value":
            return onnx.numpy_helper.to_array(value)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
    raise reader.error("it holds no numbers")


def _folded(reader: Reader) -> bool:
    """Compute a node whose operands are all constants; codes stay codes."""
    node = reader.node
    own = node.op_type in ("DequantizeLinear", "QuantizeLinear")
    if own or not node.input or not all(n in reader.constants for n in node.input if n):
        return False
    if node.op_type in ("Identity", "Dropout"):
        reader.constants[node.output[0]] = reader.constants[node.input[0]]
        return True
    operands = {n: reader.constants[n] for n in node.input if n}
    large = sum(a.nbytes for a in operands.values()) > FOLDED_BYTES and not any(map(reader.formats.get, operands))
    if large or node.op_type in ("Expand", "Tile"):
        return False
    from onnx.reference import ReferenceEvaluator

    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "folded",
            [
                onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for n, a in operands.items()
            ],
            [onnx.helper.make_empty_tensor_value_info(n) for n in node.output if n],
        ),
        opset_imports=[onnx.helper.make_opsetid("", reader.opset)],
    )
    found = ReferenceEvaluator(model).run(None, operands)
    for name, value in zip((n for n in node.output if n), found, strict=True):
        reader.constants[name] = np.asarray(value)
    quantized.remember(reader)
    return True
