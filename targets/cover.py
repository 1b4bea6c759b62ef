"""Which nodes of a file each node that really runs computes, found again through a runtime's optimiser.

A runtime merges nodes, renames them, lays values out anew and puts nodes of its own in between. Three things survive
that: names of values (a merged node gives what its last part gave), names of nodes behind known prefixes and suffixes,
and the order of what reads what. From the values that a running node reads and gives follows what lies between them in
the file. Where a value was renamed, the node's name says where to begin, and its further inputs how far it reaches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

DRESSING = re.compile(r"^fused |_nchwc$|_token_[0-9]+$|/duplicated$|/[A-Za-z]*Fusion[A-Za-z]*$|_fused$|_quant$")
"""What ONNX Runtime puts around the names of nodes and values that it merges, copies or lays out anew."""

COPY = "/duplicated"
"""What ONNX Runtime puts behind the name of a value that it computes once more for another reader."""

LAYOUT = frozenset({"ReorderInput", "ReorderOutput", "Transpose"})
"""Kinds that change how a value lies in memory, and not what it is."""


CLAMPS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid"})
"""Kinds that may stand between a layer and the QuantizeLinear of its result in one integer kernel."""


@dataclass(frozen=True)
class FileNode:
    """A node of a model file.

    Args:
        name: its name.
        kind: its op type.
        inputs: the values it reads; left-out ones are empty.
        outputs: the values it gives.
        activation: the function that a merged node applies to its result.
        location: the user's line, where the file says it.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activation: str = ""
    location: str = ""


@dataclass(frozen=True)
class Cover:
    """What a running node computes.

    Args:
        nodes: names of the file's nodes, in the file's order.
        value: for a node that only lays a value out anew: that value.
    """

    nodes: tuple[str, ...] = ()
    value: str = ""


def cover(written: Sequence[FileNode], ran: Sequence[FileNode], given: Iterable[str]) -> list[Cover]:
    """For each running node, which of the written nodes it computes.

    Args:
        written: the nodes of the file, in order.
        ran: the nodes that run, in an order in which each reads only what stands before it.
        given: values that no node of the file computes: inputs and stored tensors.
    """
    return _Search(written, given).covers(ran)


@dataclass
class _Search:
    written: Sequence[FileNode]
    given: Iterable[str]
    by_name: dict[str, FileNode] = field(init=False)
    producers: dict[str, FileNode] = field(init=False)
    readers: dict[str, list[FileNode]] = field(init=False)
    alias: dict[str, str] = field(init=False)
    taken: dict[str, int] = field(default_factory=dict[str, int])
    named: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.producers = {value: node for node in self.written for value in node.outputs if value}
        self.by_name = self.producers | {node.name: node for node in self.written}
        self.readers = {}
        for node in self.written:
            for value in dict.fromkeys(node.inputs):
                self.readers.setdefault(value, []).append(node)
        self.alias = {value: value for value in (*self.producers, *self.given)}

    def covers(self, ran: Sequence[FileNode]) -> list[Cover]:
        """See `cover`."""
        for node in ran:
            for value in (*node.inputs, *node.outputs):
                if value.endswith(COPY) and (plain := value.removesuffix(COPY)) in self.alias:
                    self.alias[value] = plain
            if (name := undressed(node.name, self.by_name)) is not None:
                self.named.add(self.by_name[name].name)
        self._spread(ran)
        found: list[set[str]] = []
        for index, node in enumerate(ran):
            if self._is_layout(node):
                self._pass_on(node)
                found.append(set())
                continue
            names = self._of(node)
            for name in names:
                self.taken.setdefault(name, index)
            found.append(names)
        self._leftovers(found, ran)
        order = {node.name: i for i, node in enumerate(self.written)}
        return [
            Cover(tuple(sorted(names, key=order.__getitem__)), "" if names else self._value(node))
            for names, node in zip(found, ran, strict=True)
        ]

    def _is_layout(self, node: FileNode) -> bool:
        return node.kind in LAYOUT and undressed(node.name, self.by_name) is None

    def _value(self, node: FileNode) -> str:
        values = (*node.inputs[:1], *node.outputs)
        return next((self.alias[v] for v in values if v in self.alias), "") if self._is_layout(node) else ""

    def _pass_on(self, node: FileNode) -> None:
        """A layout's two sides are one value."""
        source, result = node.inputs[0], node.outputs[0]
        if source in self.alias:
            self.alias.setdefault(result, self.alias[source])
        elif result in self.alias:
            self.alias[source] = self.alias[result]

    def _spread(self, ran: Sequence[FileNode]) -> None:
        """Names of values through chains of layouts, from their ends to their beginnings."""
        for node in reversed(ran):
            if self._is_layout(node):
                self._pass_on(node)

    def _of(self, node: FileNode) -> set[str]:
        """What one running node computes, as far as it is not taken by one before it."""
        starts = {self.alias[v] for v in node.inputs if v in self.alias}
        ends = [self.alias[v] for v in node.outputs if v in self.alias and self.alias[v] in self.producers]
        if not ends:
            begun = undressed(node.name, self.by_name)
            if begun is None:
                return set()
            last = self._reach(self.by_name[begun], node, starts)
            ends = [last.outputs[0]]
            self.alias[node.outputs[0]] = last.outputs[0]
        found = {self.producers[end].name for end in ends}
        return found | {n.name for end in ends for n in self._behind(end, starts)}

    def _behind(self, end: str, starts: set[str]) -> Iterator[FileNode]:
        """The nodes that compute a value from some others; those taken before are not entered."""
        open_values, seen = [end], set[str]()
        while open_values:
            value = open_values.pop()
            node = self.producers.get(value)
            if node is None or node.name in seen or (value in starts and value != end) or node.name in self.taken:
                continue
            seen.add(node.name)
            yield node
            open_values += node.inputs

    def _reach(self, begun: FileNode, node: FileNode, starts: set[str]) -> FileNode:
        """The last of the nodes behind `begun` that a running node has merged with it."""
        last = begun
        if node.kind.startswith("Q") and (end := self._codes(begun)) is not None:
            return end
        read = Counter(self.alias[v] for v in node.inputs if v in self.alias)
        read -= Counter(v for n in self._behind(begun.outputs[0], starts) for v in n.inputs if v in starts)
        while len(readers := self.readers.get(last.outputs[0], [])) == 1 and readers[0].name not in self.named:
            further = readers[0]
            others = [v for v in further.inputs if v in self.producers and v != last.outputs[0]]
            if not any(read[v] for v in others) and not (node.activation and further.kind == node.activation):
                break
            read -= Counter(others)
            last = further
        return last

    def _codes(self, begun: FileNode) -> FileNode | None:
        """The QuantizeLinear of an integer kernel's result, behind the clamps that are merged with it."""
        last = begun
        while len(readers := self.readers.get(last.outputs[0], [])) == 1 and readers[0].name not in self.named:
            last = readers[0]
            if last.kind == "QuantizeLinear":
                return last
            if last.kind not in CLAMPS:
                return None
        return None

    def _leftovers(self, found: list[set[str]], ran: Sequence[FileNode]) -> None:
        """Nodes that nothing seems to compute were merged into what computes their operands, or are gone."""
        for node in self.written:
            if node.name in self.taken:
                continue
            sources = [self.producers[v].name for v in node.inputs if v in self.producers]
            held = [self.taken[name] for name in sources if name in self.taken]
            if held:
                self.taken[node.name] = max(held)
                found[max(held)].add(node.name)


def undressed(name: str, known: Mapping[str, object]) -> str | None:
    """The known name in a name that a runtime made of it; None where there is none."""
    while name not in known:
        plain = DRESSING.sub("", name)
        if plain == name:
            return None
        name = plain
    return name
