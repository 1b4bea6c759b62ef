"""Write a graph as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import onnx

from ...ir import STORED, Axis, Const, Graph, Op, Type, Weights
from ...ir.axes import has_batch, size, substitute
from ...ir.formats import F32
from . import layers, norms, pointwise, pools, quantize, shapes
from .elements import element
from .external import External
from .registry import EMITTERS, EmissionError, Emitter
from .writer import Writer

FAMILIES = (layers, norms, pointwise, pools, quantize, shapes)
"""The modules whose import declares the emitters."""

OPSET = 21
"""The opset written unless another is asked for: the first with 16-bit and 4-bit QuantizeLinear, and the last that the
integer fusions of ONNX Runtime 1.22 to 1.31 know for every op (`docs/onnxruntime.md`)."""

OPSETS = (21, 22, 23)
"""Opsets whose ops mean what the emitters write."""

_IR_VERSIONS = {21: 10, 22: 10, 23: 11}


def emit(
    graph: Graph,
    weights: Weights,
    *,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
    external: External | None = None,
    custom: Mapping[str, Emitter] | None = None,
) -> onnx.ModelProto:
    """The graph as an ONNX model with its weights inside. Equal arguments give equal bytes.

    Emission never rounds: quantized tensors are written as the codes that the weights hold.

    Args:
        graph: a verified graph; all steps known.
        weights: the numbers of its stored values.
        opset: version of the operator set.
        metadata: what to write into `metadata_props`, beside nasc's version.
        external: collects large tensors for a file beside the model, in place of the model itself.
        custom: emitters of op kinds that have none here, `aten.*` among them; they come before the built-in ones.

    Raises:
        EmissionError: an op that cannot be written, or a step that is not known, at the user's line.
    """
    writer = Writer(graph, weights, external)
    for entry in graph.inputs:
        _declare(writer.proto.input.add(name=entry.name), entry.type, graph.sizes)
    for op in graph.ops:
        if op.kind in STORED or op.name in writer.folded:
            continue
        writer.op = op
        _emitter(op, custom or {})(writer, op)
    writer.op = None
    for name in graph.outputs:
        _output(writer, name)
    model = onnx.ModelProto(
        ir_version=_IR_VERSIONS[opset], producer_name="nasc", producer_version=version(), graph=writer.proto
    )
    model.opset_import.add(domain="", version=opset)
    for key, value in {"nasc.version": version(), **(metadata or {})}.items():
        model.metadata_props.add(key=key, value=value)
    return model


@lru_cache(maxsize=1)
def version() -> str:
    """The version of nasc that is installed."""
    from importlib.metadata import version as installed

    return installed("nasc")


def _emitter(op: Op, custom: Mapping[str, Emitter]) -> Emitter:
    found = custom.get(op.kind) or EMITTERS.get(op.kind)
    if found is None:
        raise EmissionError(
            op,
            "there is no way to write this op as ONNX",
            mend="Give `custom` an emitter for it, or replace the op in the model.",
        )
    return found


def _output(writer: Writer, name: str) -> None:
    """Declare an output. Quantized values leave as real numbers; an input or a stored tensor leaves through a copy."""
    type = writer.type(name)
    result = writer.real(name) if type.quantized else writer.value(name)
    taken = {output.name for output in writer.proto.output}
    if result in taken or result in {i.name for i in writer.proto.input} or writer.is_stored(name):
        number = len(taken)
        result = writer.node("Identity", [result], f"{name}/output" + (f".{number}" if number else ""))
    if type.quantized:
        type = Type(F32, type.axes)
    _declare(writer.proto.output.add(name=result), type, writer.graph.sizes)


def _declare(info: onnx.ValueInfoProto, type: Type, widths: Mapping[str, int]) -> None:
    """The element type and shape of an input or output; lengths that hold the batch by the text of their term."""
    tensor = info.type.tensor_type
    tensor.elem_type = element(type.format)[0]
    for axis in type.axes:
        if has_batch(axis):
            tensor.shape.dim.add(dim_param=_symbol(axis, widths))
        else:
            tensor.shape.dim.add(dim_value=size(axis, widths))
    if not type.axes:
        tensor.shape.SetInParent()


def _symbol(axis: Axis, widths: Mapping[str, int]) -> str:
    """A term that holds the batch, with its widths as numbers: `N`, `N*4`."""
    return str(substitute(axis, {name: Const(value) for name, value in widths.items()}))
