"""Ops without a rule: the nodes of a small ONNX model that somebody else made for the op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from ...ir import Axis, Const, Op, Type
from ...ir.axes import substitute
from ...ir.formats import F32
from ...ir.graph import Attribute, canonical, is_axis
from ..base import Foreign
from .registry import EmissionError
from .writer import Writer


def spliced(writer: Writer, op: Op, foreign: Foreign) -> None:
    """Write an op by the nodes of the model that `foreign` gives for it; what lies inside is named `op/…`.

    Raises:
        EmissionError: the model has other inputs or outputs than the op, or nodes of other domains than ONNX's.
    """
    sizes: dict[str, Axis] = {name: Const(size) for name, size in writer.graph.sizes.items()}
    types = [_plain(writer.type(name), sizes) for name in op.inputs]
    fixed = replace(op, attributes=tuple((k, _fixed(v, sizes)) for k, v in op.attributes), types=tuple(
        replace(t, axes=tuple(substitute(a, sizes) for a in t.axes)) for t in op.types))  # fmt: skip
    graph = onnx.load_from_string(foreign(fixed, types, writer.opset)).graph
    if len(graph.input) > len(op.inputs) or len(graph.output) != len(op.results):
        raise EmissionError(
            op, f"its model reads {len(graph.input)} values and gives {len(graph.output)},"
            f" expected {len(op.inputs)} and {len(op.results)}",
        )  # fmt: skip
    names = {
        entry.name: writer.real(name, type.format)
        for entry, name, type in zip(graph.input, op.inputs, types, strict=False)
    }
    for entry, name in zip(graph.output, op.results, strict=True):
        names.setdefault(entry.name, name)
    for tensor in graph.initializer:
        names[tensor.name] = f"{op.name}/{tensor.name}"
        kept = writer.proto.initializer.add()
        kept.CopyFrom(tensor)
        kept.name = names[tensor.name]
    for number, node in enumerate(graph.node):
        if node.domain not in ("", "ai.onnx"):
            raise EmissionError(op, f"its model has a node of domain {node.domain!r}, which is not ONNX's own")
        _take(writer, op, node, number, names)
    made = {output for node in graph.node for output in node.output}
    for entry, name in zip(graph.output, op.results, strict=True):
        if names[entry.name] != name or entry.name not in made:
            writer.node("Identity", [names[entry.name]], name)


def _take(writer: Writer, op: Op, node: onnx.NodeProto, number: int, names: dict[str, str]) -> None:
    kept = writer.proto.node.add()
    kept.CopyFrom(node)
    kept.name = f"{op.name}/{number}.{node.op_type}"
    kept.ClearField("metadata_props")
    kept.doc_string = str(op.location) if op.location is not None else ""
    _rename(kept, names, op.name)


def _rename(node: onnx.NodeProto, names: dict[str, str], prefix: str) -> None:
    """Give a node's values, and those of its subgraphs, their names in the whole model."""
    for i, name in enumerate(node.input):
        node.input[i] = names.get(name, f"{prefix}/{name}") if name else ""
    for i, name in enumerate(node.output):
        node.output[i] = names.setdefault(name, f"{prefix}/{name}") if name else ""
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            _rename_graph(graph, dict(names), prefix)


def _rename_graph(graph: onnx.GraphProto, names: dict[str, str], prefix: str) -> None:
    for entry in (*graph.input, *graph.initializer):
        names[entry.name] = f"{prefix}/{entry.name}"
        entry.name = names[entry.name]
    for node in graph.node:
        _rename(node, names, prefix)
    for entry in graph.output:
        entry.name = names.get(entry.name, f"{prefix}/{entry.name}")


def _plain(type: Type, sizes: Mapping[str, Axis]) -> Type:
    """A type as an op without a rule reads it: real numbers, and no widths."""
    axes = tuple(substitute(a, sizes) for a in type.axes)
    return Type(F32, axes) if type.quantized else replace(type, axes=axes)


def _fixed(value: Attribute, sizes: Mapping[str, Axis]) -> Attribute:
    if isinstance(value, tuple):
        return tuple(_fixed(v, sizes) for v in value)
    return canonical(substitute(value, sizes)) if is_axis(value) else value  # pyright: ignore[reportArgumentType]
