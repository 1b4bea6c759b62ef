"""Time every node of a model with ONNX Runtime's own profiler, and find the nodes of the file that each computes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..base import Array, TargetError
from ..cover import Cover, FileNode, cover
from ..inputs import filled, own_lengths
from ..trace import Tensor, Trace, TracedNode
from .events import Kernel, Key, calls_of, kernels_of_calls
from .session import OnnxRuntimeSession, Provider
from .work import computes_in, is_counted, macs, tensor

WARM = 3
"""Calls whose times are not used; one where calls are few."""
FEW, LEAST = 10, 3
"""Calls that are timed at least, and of networks with so many nodes that ten would fill the profiler."""
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
        budget_s: time for the calls; there are at least ten, or three of networks of tens of thousands of nodes.

    Raises:
        TargetError: the runtime refuses the model, or notes no whole call.
        UsageError: there are no inputs, and the model leaves other lengths open than the batch.
    """
    with tempfile.TemporaryDirectory(prefix="nasc-") as folder:
        session = OnnxRuntimeSession(model, provider, threads=threads, placed=True, traced=Path(folder))
        known = own_lengths(model, batch)
        arrays = list(inputs) if inputs is not None else filled(session.inputs, batch, known=known).arrays()
        run = session.bind(arrays)
        optimized = file_of(session.optimized)
        most = max(LEAST, MOST_EVENTS // max(1, len(optimized.nodes)))
        least, warm = min(most, FEW), WARM if most > FEW else 1
        began_s, calls = time.perf_counter(), 0
        while calls < least + warm or (calls < most and time.perf_counter() - began_s < budget_s):
            run()
            calls += 1
        noted = calls_of(json.loads(session.trace()), optimized.holders)
    if not noted:
        raise TargetError(
            "the runtime's profiler was full before a call ended: it notes a million kernels",
            mend="Profile a part of the model, or inputs for which its loops take fewer turns.",
        )
    written = file_of(model)
    covers = cover(written.nodes, optimized.nodes, written.given)
    kept = noted[warm:] or noted[-1:]
    nodes = tuple(traced(kernels_of_calls(kept), len(kept), optimized, covers))
    return Trace(nodes, tuple(call.seconds for call in kept), written.nodes, session.metadata)


@dataclass(frozen=True)
class File:
    """What a model file says.

    Args:
        nodes: its nodes in order.
        given: the values that no node computes: inputs and stored tensors.
        stored: the stored tensors.
        bodies: the graphs of loops and branches, several as one, by the outputs of the node that holds them.
    """

    nodes: tuple[FileNode, ...]
    given: tuple[str, ...]
    stored: Mapping[str, Tensor]
    bodies: Mapping[tuple[str, ...], File] = field(default_factory=dict[tuple[str, ...], "File"])

    @property
    def holders(self) -> frozenset[str]:
        """The kinds of nodes with bodies, those in bodies included."""
        own = {node.kind for node in self.nodes if node.outputs in self.bodies}
        return frozenset(own).union(*(body.holders for body in self.bodies.values()))


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
    return _file([proto.graph])


def _file(graphs: Sequence[Any]) -> File:
    """Some graphs as one."""
    found = [(node, _node(node, index)) for graph in graphs for index, node in enumerate(graph.node)]
    stored = {t.name: tensor(ONNX_ELEMENTS.get(t.data_type, "float"), t.dims) for g in graphs for t in g.initializer}
    given = (*(entry.name for graph in graphs for entry in graph.input), *stored)
    bodies = {entry.outputs: _file(inner) for node, entry in found if (inner := _graphs(node))}
    return File(tuple(entry for _, entry in found), given, stored, bodies)


def _graphs(node: Any) -> list[Any]:
    """The graphs that a node holds."""
    return [graph for a in node.attribute for graph in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def _unnamed(kind: str, index: int) -> str:
    """What a node without a name is called, as the runtime calls it if it removes none before it."""
    return f"{kind}_{index}"


def _node(node: Any, index: int) -> FileNode:
    """A node; those without a name are called by their kind and place."""
    activation = next((a.s.decode() for a in node.attribute if a.name == "activation"), "")
    return FileNode(
        node.name or _unnamed(node.op_type, index),
        node.op_type,
        tuple(node.input),
        tuple(node.output),
        activation,
        node.doc_string.partition("\n")[0],
    )


@dataclass
class _Scope:
    """The nodes of a graph that are to be found among the kernels that ran, in order; see `traced`.

    Args:
        file: the graph.
        covers: what each of its nodes computes.
        stored: the stored tensors in sight.
        holder: what the node computes that holds the graph.
    """

    file: File
    covers: Sequence[Cover]
    stored: Mapping[str, Tensor]
    holder: Cover = field(default_factory=Cover)
    _waiting: dict[str, list[tuple[FileNode, Cover]]] = field(default_factory=dict[str, list[tuple[FileNode, Cover]]])

    def __post_init__(self) -> None:
        for index, (node, found) in enumerate(zip(self.file.nodes, self.covers, strict=True)):
            name = "" if node.name == _unnamed(node.kind, index) else node.name
            self._waiting.setdefault(name or f"any {node.kind}", []).append((node, found))

    def take(self, kernel: Kernel) -> tuple[FileNode | None, Cover]:
        """The next node with a kernel's name, or the next one of its kind without a name."""
        name, _ = kernel.key[-1]
        held = self._waiting.get(name) or self._waiting.get(f"any {kernel.kind}")
        return held.pop(0) if held else (None, self.holder)

    def body(self, node: FileNode | None, found: Cover) -> _Scope:
        """What runs inside of a node; it counts for what the node computes."""
        file = (self.file.bodies.get(node.outputs) if node is not None else None) or File((), (), {})
        return _Scope(file, [found] * len(file.nodes), {**self.stored, **file.stored}, found)


def traced(kernels: Sequence[Kernel], calls: int, ran: File, covers: Sequence[Cover]) -> Iterator[TracedNode]:
    """The nodes that ran from the profiler's kernels, in the order in which they ran.

    Kernels name a node by its name and by its number in the runtime; nodes of equal names, or of one kind without a
    name, come in the same order in the optimised file and in a call.

    Args:
        kernels: of the profiler.
        calls: how many calls were noted.
        ran: the optimised file.
        covers: what each of its nodes computes.
    """
    scopes: dict[Key, _Scope] = {(): _Scope(ran, covers, ran.stored)}
    for kernel in kernels:
        scope = scopes[kernel.key[:-1]]
        node, found = scope.take(kernel)
        if kernel.holds:
            scopes[kernel.key] = scope.body(node, found)
        yield _traced(kernel, calls, node, found, scope.stored)


def _traced(
    kernel: Kernel, calls: int, node: FileNode | None, found: Cover, in_sight: Mapping[str, Tensor]
) -> TracedNode:  # fmt: skip
    """A kernel's work in one call: of all its runs, whose shapes may differ; a node that holds others does none."""
    *outer, (name, _) = kernel.key
    names = () if node is None else node.inputs
    stored = {} if kernel.holds else {v: in_sight[v] for v in names if v in in_sight}
    stored_bytes = sum(t.bytes for t in stored.values())
    work, moved_bytes, counted = 0, 0, True
    for (shown, outputs), runs in () if kernel.holds else kernel.runs.items():
        inputs = with_packed(names, shown, in_sight)
        once = macs(kernel.kind, inputs, outputs)
        work += runs * once
        moved_bytes += runs * (sum(t.bytes for t in (*inputs, *outputs)) - stored_bytes)
        counted = counted and is_counted(kernel.kind, once, outputs)
    shown, outputs = next(iter(kernel.runs))
    inputs, total = with_packed(names, shown, in_sight), kernel.runs.total()
    return TracedNode(
        name,
        kernel.kind,
        kernel.provider,
        () if kernel.holds else tuple(kernel.times_s),
        inputs,
        outputs,
        stored,
        round(work / calls),
        computes_in(kernel.kind, inputs),
        found,
        max(0, round(moved_bytes / calls)),
        round(stored_bytes * total / calls),
        max(1, round(total / calls)),
        tuple(name for name, _ in outer),
        kernel.holds,
        counted,
    )


def with_packed(
    names: Sequence[str], shown: Sequence[Tensor], stored: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:  # fmt: skip
    """What a kernel read: the profiler leaves out stored tensors that the kernel has packed for itself.

    Args:
        names: the values that its node reads; none where it is not known.
        shown: what the profiler shows, in order.
        stored: the stored tensors in sight.
    """
    names, rest, found = [name for name in names if name], list(shown), list[Tensor]()
    spare = len(rest) - sum(name not in stored for name in names)
    if not names or spare < 0:
        return tuple(shown)
    for name in names:
        if name not in stored:
            found.append(rest.pop(0))
        elif spare and rest[0].shape == stored[name].shape:
            found.append(rest.pop(0))
            spare -= 1
        else:
            found.append(stored[name])
    return tuple(shown) if rest else tuple(found)
