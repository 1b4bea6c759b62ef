"""Which op of a network a kernel counts for, by the names of the file's nodes that it computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .cover import FileNode
from .trace import TracedNode

HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits", "Einsum", "Attention")
"""Kinds of file nodes that a merged kernel is called by."""


@dataclass
class Naming:
    """Ops by the names of a file's nodes.

    Args:
        written: the file's nodes.
        ran: the nodes that ran.
        nasc: whether nasc wrote the file; then what stands before a slash is the op.
    """

    written: Sequence[FileNode]
    ran: Sequence[TracedNode]
    nasc: bool
    _nodes: dict[str, FileNode] = field(init=False)
    _readers: dict[str, list[FileNode]] = field(init=False)
    _producers: dict[str, FileNode] = field(init=False)
    _kernels: dict[str, TracedNode] = field(init=False)

    def __post_init__(self) -> None:
        self._nodes = {node.name: node for node in self.written}
        self._producers = {value: node for node in self.written for value in node.outputs}
        self._kernels = {name: node for node in self.ran for name in node.cover.nodes}
        self._readers = {}
        for node in self.written:
            for value in node.inputs:
                self._readers.setdefault(value, []).append(node)

    def op(self, node: str) -> str:
        """The op of a file's node."""
        return node.partition("/")[0] if self.nasc else node

    def ops(self, node: TracedNode) -> tuple[str, ...]:
        """The ops that a running node computes."""
        return tuple(dict.fromkeys(map(self.op, node.cover.nodes)))

    def layer(self, node: TracedNode) -> str:
        """The op that a running node counts for."""
        found = [self._nodes[name] for name in node.cover.nodes]
        if not found:
            return self._beside(node) or node.name
        if (heavy := next((n for n in found if n.kind in HEAVY), None)) is not None:
            return self.op(heavy.name)
        last = found[-1]
        if last.kind == "DequantizeLinear" and (readers := self._readers.get(last.outputs[0])):
            return self._counts_for(readers[0])
        return self.op(last.name)

    def _beside(self, node: TracedNode) -> str:
        """The layer of the kernel that needs a value laid out anew: one that gives it or reads it.

        Blocked layouts begin at what reads the value in blocks and end at what gives it so; other layouts are those of
        heavy kernels, on either side.
        """
        gives = [found for found in [self._producers.get(node.cover.value)] if found is not None]
        reads = self._readers.get(node.cover.value, [])
        near = [*reads, *gives] if node.kind == "ReorderInput" else [*gives, *reads]
        heavy = [] if node.kind == "ReorderOutput" else filter(self._is_heavy, near)
        return next((self._counts_for(found) for found in (*heavy, *near)), "")

    def _counts_for(self, node: FileNode) -> str:
        """The layer of the kernel that computes a file's node."""
        kernel = self._kernels.get(node.name)
        return self.op(node.name) if kernel is None else self.layer(kernel)

    def _is_heavy(self, node: FileNode) -> bool:
        """Whether the kernel that computes a file's node computes a heavy one."""
        kernel = self._kernels.get(node.name)
        return kernel is not None and any(self._nodes[name].kind in HEAVY for name in kernel.cover.nodes)

    def location(self, op: str) -> str:
        """The user's line of an op, as the file has it."""
        if not self.nasc:
            return ""
        return next((n.location for n in self._named(op) if n.location), "")

    def _named(self, op: str) -> Iterable[FileNode]:
        return (node for node in self.written if self.op(node.name) == op)
