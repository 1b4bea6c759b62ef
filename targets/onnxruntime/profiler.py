"""Time every node of a model with ONNX Runtime's own profiler, and find the nodes of the file that each computes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..base import Array, TargetError
from ..cover import Cover, FileNode, cover
from ..inputs import filled, own_lengths
from ..trace import Tensor, Trace, TracedNode
from .session import OnnxRuntimeSession, Provider
from .work import computes_in, macs, tensor

WARM = 3
"""Calls whose times are not used."""
KERNEL = "_kernel_time"
"""What the profiler puts behind a node's name for the time of its kernel."""
ELEMENTS = {"float32": "float", "float64": "double"}
"""ONNX Runtime's names of element types where they differ from numpy's."""
ONNX_ELEMENTS = {1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
                 10: "float16", 11: "double", 16: "bfloat16", 17: "float8e4m3fn", 19: "float8e5m2"}  # fmt: skip
"""ONNX Runtime's names by `onnx.TensorProto`'s numbers."""
MOST_EVENTS = 200_000
"""Timed nodes up to which calls are repeated; the profiler itself stops at a million."""


def trace(
    model: Artifact | Path | bytes, provider: Provider, inputs: Sequence[Array] | None, *, batch: int, threads: int,
    budget_s: float,
) -> Trace:  # fmt: skip
    """Run a model with the profiler on.

    Args:
        model: the model.
        provider: the execution provider that is to run it, with its options.
        inputs: one array per input; None: made-up ones.
        batch: length of the batch axis of made-up inputs.
        threads: threads of the runtime.
        budget_s: time for the calls; there are at least ten.

    Raises:
        TargetError: the runtime refuses the model.
        UsageError: there are no inputs, and the model leaves other lengths open than the batch.
    """
    with tempfile.TemporaryDirectory(prefix="nasc-") as folder:
        session = OnnxRuntimeSession(model, provider, threads=threads, placed=True, traced=Path(folder))
        known = own_lengths(model, batch)
        arrays = list(inputs) if inputs is not None else filled(session.inputs, batch, known=known).arrays()
        run = session.bind(arrays)
        optimized = file_of(session.optimized)
        most = max(10, MOST_EVENTS // max(1, len(optimized.nodes)))
        began_s, calls = time.perf_counter(), 0
        while calls < 10 + WARM or (calls < most and time.perf_counter() - began_s < budget_s):
            run()
            calls += 1
        events = json.loads(session.trace())
    written = file_of(model)
    covers = cover(written.nodes, optimized.nodes, written.given)
    known = {
        s.name: tensor(ELEMENTS.get(s.dtype, s.dtype), a.shape) for s, a in zip(session.inputs, arrays, strict=True)
    }
    nodes = tuple(traced(events, optimized, covers, known, calls - WARM))
    calls_s = [e["dur"] * 1e-6 for e in events if e["cat"] == "Session" and e["name"] == "model_run"]
    return Trace(nodes, tuple(calls_s[-(calls - WARM) :]), written.nodes, session.metadata)


@dataclass(frozen=True)
class File:
    """What a model file says.

    Args:
        nodes: its nodes in order.
        given: the values that no node computes: inputs and stored tensors.
        stored: the stored tensors.
    """

    nodes: tuple[FileNode, ...]
    given: tuple[str, ...]
    stored: Mapping[str, Tensor]


def file_of(model: Artifact | Path | bytes) -> File:
    """Read a model's nodes; tensors beside it are left where they lie.

    Raises:
        TargetError: it is no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if isinstance(model, Path):
            proto = onnx.load(str(model), load_external_data=False)
        else:
            proto = onnx.load_from_string(model.model if isinstance(model, Artifact) else model)
    except DecodeError as error:
        raise TargetError(f"this is no ONNX model: {error}") from error
    graph = proto.graph
    nodes = [_node(node, index) for index, node in enumerate(graph.node)]
    stored = {t.name: tensor(ONNX_ELEMENTS.get(t.data_type, "float"), t.dims) for t in graph.initializer}
    return File(tuple(nodes), (*(i.name for i in graph.input), *stored), stored)


def _node(node: Any, index: int) -> FileNode:
    """A node; those without a name are called by their kind and place."""
    activation = next((a.s.decode() for a in node.attribute if a.name == "activation"), "")
    return FileNode(
        node.name or f"{node.op_type}_{index}",
        node.op_type,
        tuple(node.input),
        tuple(node.output),
        activation,
        node.doc_string.partition("\n")[0],
    )


def traced(
    events: Sequence[Mapping[str, Any]],
    ran: File,
    covers: Sequence[Cover],
    known: Mapping[str, Tensor],
    calls: int,
) -> Iterator[TracedNode]:
    """The nodes that ran from the profiler's events, in the order in which they ran.

    Events name a node by its name and by its number in the runtime; nodes of equal names come in the same order in the
    optimised file and in a call. Events leave out tensors that a kernel has packed for itself, so shapes are taken from
    the file where they stand there, and from what gave the value.

    Args:
        events: of the profiler.
        ran: the optimised file.
        covers: what each of its nodes computes.
        known: the inputs.
        calls: how many calls to keep, the last ones.
    """
    times: dict[str, list[float]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for event in sorted((e for e in events if e["cat"] == "Node"), key=lambda e: e["ts"]):
        if event["name"].endswith(KERNEL):
            number = event["args"]["node_index"]
            first.setdefault(number, event)
            times.setdefault(number, []).append(event["dur"] * 1e-6)
    waiting: dict[str, list[tuple[FileNode, Cover]]] = {}
    for node, found in zip(ran.nodes, covers, strict=True):
        waiting.setdefault(node.name, []).append((node, found))
    values = {**ran.stored, **known}
    for number, event in first.items():
        name, args = event["name"].removesuffix(KERNEL), event["args"]
        outputs = tuple(_tensors(args["output_type_shape"]))
        inputs = tuple(_tensors(args["input_type_shape"]))
        found, stored = Cover(), dict[str, Tensor]()
        if held := waiting.get(name):
            node, found = held.pop(0)
            values.update(zip(filter(None, node.outputs), outputs, strict=False))
            inputs = tuple(values[v] for v in node.inputs if v in values) or inputs
            stored = {v: ran.stored[v] for v in node.inputs if v in ran.stored}
        kind, times_s = args["op_name"], tuple(times[number][-calls:])
        work, format = macs(kind, inputs, outputs), computes_in(kind, inputs)
        yield TracedNode(name, kind, args["provider"], times_s, inputs, outputs, stored, work, format, found)


def _tensors(shown: Sequence[Mapping[str, Sequence[int]]]) -> Iterator[Tensor]:
    for entry in shown:
        for element, shape in entry.items():
            yield tensor(element, shape)
