"""Take a model with control flow apart: what runs once, and the bodies of its Loop, Scan and If as models of their own.

A body becomes a model by reading what it takes from outside as inputs; their values come from one run of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from .elements import Array

CONTROL = frozenset({"If", "Loop", "Scan"})
"""Op types with bodies."""


def is_control(node: onnx.NodeProto) -> bool:
    """Whether a node runs bodies."""
    return node.op_type in CONTROL and node.domain in ("", "ai.onnx")


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node holds."""
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """A node's attribute."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def captured(graph: onnx.GraphProto) -> list[str]:
    """The values of a graph that stand outside it, in the order in which they are read."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    found: dict[str, None] = {}
    for node in graph.node:
        read = [*node.input, *(name for body in bodies(node) for name in captured(body))]
        found |= {name: None for name in read if name and name not in own}
        own |= set(node.output)
    return [*found, *(o.name for o in graph.output if o.name not in own and o.name not in found)]


def read_by(node: onnx.NodeProto) -> list[str]:
    """The values that a node reads, those of its bodies included."""
    read = [*node.input, *(name for body in bodies(node) for name in captured(body))]
    return [name for name in dict.fromkeys(read) if name]


def constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """The small constants of a graph: stored numbers and truths that decide how often a body runs."""
    inputs = {i.name for i in graph.input}
    held = {t.name: t for t in graph.initializer if t.name not in inputs}
    held |= {
        n.output[0]: attribute(n, "value") for n in graph.node if n.op_type == "Constant" and attribute(n, "value")
    }
    return {name: numpy_helper.to_array(t) for name, t in held.items() if np.prod(t.dims, dtype=np.int64) <= 1}


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name the nodes that have no name, so that they are found again among those that run."""
    taken = {node.name for node in graph.node}
    for index, node in enumerate(graph.node):
        if not node.name:
            node.name = next(
                n for n in (f"{node.op_type}.{index}{'_' * k}" for k in range(len(taken) + 1)) if n not in taken
            )
            taken.add(node.name)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with other outputs; their types are the runtime's to find."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.output[:]
    found.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return found


def piece(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], stored: Sequence[onnx.TensorProto],
    given: Mapping[str, Array], wanted: Sequence[str],
) -> tuple[onnx.ModelProto, list[Array]] | None:  # fmt: skip
    """Some nodes as a model of their own.

    Args:
        model: where they come from.
        nodes: the nodes in order.
        stored: tensors that they may read.
        given: values of all else that they read.
        wanted: values that somebody reads; those that no node gives are left out.

    Returns:
        The model and its inputs; None where it would do nothing.
    """
    made = {name for node in nodes for name in node.output if name}
    outputs = [name for name in dict.fromkeys(wanted) if name in made]
    if not outputs:
        return None
    read = dict.fromkeys(name for node in nodes for name in read_by(node) if name not in made)
    held = {t.name: t for t in stored if t.name in read}
    inputs = {name: given[name] for name in read if name not in held}
    graph = onnx.GraphProto(name="piece", node=nodes, initializer=held.values())
    for name, array in inputs.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, element, array.shape))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    found = onnx.ModelProto(ir_version=model.ir_version, graph=graph, opset_import=model.opset_import)
    return found, list(inputs.values())


def rounds(
    node: onnx.NodeProto, known: Mapping[str, Array], given: Mapping[str, Array]
) -> tuple[int, dict[str, Array]] | str:
    """How often a Loop or Scan runs its body, and what the first time reads; or why that is not known.

    Args:
        node: the node.
        known: constants around it.
        given: the values that it reads, of one call.
    """
    (body,) = bodies(node)
    return _of_loop(node, body, known, given) if node.op_type == "Loop" else _of_scan(node, body, given)


def _of_loop(
    node: onnx.NodeProto, body: onnx.GraphProto, known: Mapping[str, Array], given: Mapping[str, Array]
) -> tuple[int, dict[str, Array]] | str:
    count, condition = (*node.input, "", "")[:2]
    if count not in known:
        return "its trip count is no constant of the file"
    here = {**known, **constants(body)}
    going = {name for name, value in here.items() if value.dtype == bool and value.all()} | {body.input[1].name}
    for inner in body.node:
        if inner.op_type == "Identity" and inner.input[0] in going:
            going.add(inner.output[0])
    if (condition and condition not in going) or body.output[0].name not in going:
        return "its condition may end it earlier"
    start = {body.input[0].name: np.array(0, np.int64), body.input[1].name: np.array(True)}
    state = zip((i.name for i in body.input[2:]), node.input[2:], strict=True)
    return max(0, int(known[count].reshape(()))), start | {name: given[outer] for name, outer in state}


def _of_scan(
    node: onnx.NodeProto, body: onnx.GraphProto, given: Mapping[str, Array]
) -> tuple[int, dict[str, Array]] | str:
    scanned = attribute(node, "num_scan_inputs", 0)
    states = len(node.input) - scanned
    axes = attribute(node, "scan_input_axes") or [0] * scanned
    arrays = [given[name] for name in node.input]
    lengths = {array.shape[axis] for array, axis in zip(arrays[states:], axes, strict=True)}
    if len(lengths) != 1 or (count := lengths.pop()) < 1:
        return "it scans nothing"
    slices = [np.take(array, 0, axis) for array, axis in zip(arrays[states:], axes, strict=True)]
    return count, dict(zip((i.name for i in body.input), [*arrays[:states], *slices], strict=True))


def control_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph that run bodies; not those within bodies."""
    return (node for node in graph.node if is_control(node))
