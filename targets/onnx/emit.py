"""Write a graph as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import onnx

from ...ir import STORED, Axis, Const, Graph, Op, Type, UsageError, Weights
from ...ir.axes import has_batch, size, substitute
from ...ir.formats import BF16, F32
from ..base import Foreign
from . import (
    arithmetic,
    choices,
    indexing,
    layers,
    norms,
    pieces,
    pointwise,
    pools,
    products,
    quantize,
    reduce,
    resample,
    shapes,
    windows,
)  # fmt: skip
from .bits import paying
from .elements import element, is_packed
from .external import External
from .packed import MICROSOFT
from .registry import EMITTERS, EmissionError, Emitter
from .splice import spliced
from .style import ONNXRUNTIME, Recoded, Style, recoded
from .writer import Writer

FAMILIES = (
    arithmetic, choices, indexing, layers, norms, pieces, pointwise, pools, products, quantize, reduce, resample,
    shapes, windows,
)  # fmt: skip
"""The modules whose import declares the emitters."""

OPSETS = {20: 9, 21: 10, 22: 10, 23: 11}
"""Opsets whose ops mean what the emitters write, with the version of the file format that came with each."""


def opset_for(graph: Graph, *, packed: bool = True) -> int:
    """The opset that serves a graph best: 20, or 21 for more than 8 bits, for stored codes without gaps (`packed`), and
    for blocks; 22 for `bf16`.

    From opset 21 on ONNX Runtime 1.31 refuses some models with signed 8-bit values (`docs/onnxruntime.md`); below it,
    QuantizeLinear knows no 16-bit integers, and there are neither 4-bit tensors nor blocks. Convolutions and pools of
    `bf16` come with 22.
    """
    if any(t.format == BF16 for op in graph.ops if op.kind not in STORED for t in op.types):
        return 22
    wide = any(t.step is not None and t.format.is_int and 8 < t.format.bits <= 16 for t in graph.types.values())
    small = any(is_packed(op.type) or (op.type.step and op.type.step.block) for op in graph.stored)
    return 21 if wide or small or (packed and paying(graph)) else 20


def emit(
    graph: Graph,
    weights: Weights,
    *,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    style: Style = ONNXRUNTIME,
    external: External | None = None,
    custom: Mapping[str, Emitter] | None = None,
    foreign: Foreign | None = None,
) -> onnx.ModelProto:
    """The graph as an ONNX model with its weights inside. Equal arguments give equal bytes.

    Emission never rounds: quantized tensors are written as the codes that the weights hold.

    Args:
        graph: a verified graph; all steps known.
        weights: the numbers of its stored values.
        opset: version of the operator set; None: what `opset_for` says.
        metadata: what to write into `metadata_props`, beside nasc's version.
        style: how the runtime wants quantized values written.
        external: collects large tensors for a file beside the model, in place of the model itself.
        custom: emitters of op kinds that have none here, `aten.*` among them; they come before the built-in ones.
        foreign: gives the remaining `aten.*` ops as ONNX models of their own, see `splice`.

    Raises:
        EmissionError: an op that cannot be written, or a step that is not known, at the user's line.
        UsageError: an opset that emission does not know.
    """
    opset = opset_for(graph, packed=style.packed) if opset is None else opset
    if opset not in OPSETS:
        raise UsageError(f"emission knows the opsets {', '.join(map(str, OPSETS))}, found {opset}")
    style = replace(style, packed=style.packed and opset >= 21)
    if opset < 21 and (cut := next((op for op in graph.stored if op.type.step and op.type.step.block), None)):
        raise UsageError(f"%{cut.name} is {cut.type.encoding}, and opset {opset} has no blocks", mend="Take opset 21.")
    if style.unsigned and (moved := recoded(graph)) is not graph:
        graph, weights = moved, Recoded(weights, graph)
    writer = Writer(graph, weights, style, external, opset)
    for entry in graph.inputs:
        _declare(writer.proto.input.add(name=entry.name), entry.type, graph.sizes)
    for op in graph.ops:
        if op.kind in STORED or op.name in writer.folded:
            continue
        writer.op = op
        try:
            _emitter(op, custom or {}, foreign)(writer, op)
        except EmissionError as error:
            raise error.within(graph) from None
    writer.op = None
    for name in graph.outputs:
        _output(writer, name)
    model = onnx.ModelProto(
        ir_version=OPSETS[opset], producer_name="nasc", producer_version=version(), graph=writer.proto
    )
    model.opset_import.add(domain="", version=opset)
    if any(node.domain == MICROSOFT for node in writer.proto.node):
        model.opset_import.add(domain=MICROSOFT, version=1)
    for key, value in sorted({"nasc.version": version(), **(metadata or {})}.items()):
        model.metadata_props.add(key=key, value=value)
    return model


@lru_cache(maxsize=1)
def version() -> str:
    """The version of nasc that is installed."""
    from importlib.metadata import version as installed

    return installed("nasc")


def _emitter(op: Op, custom: Mapping[str, Emitter], foreign: Foreign | None) -> Emitter:
    found = custom.get(op.kind) or EMITTERS.get(op.kind)
    if found is None and foreign is not None and op.kind.startswith("aten."):
        return lambda writer, op: spliced(writer, op, foreign)
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
