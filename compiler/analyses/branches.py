"""Residual branches that can go: what is added to a value that it was computed from.

    %y = add %x, %b        where %b comes of %x, and %x has the type of %y        without the branch: %x for %y

That is a residual block, a half of a transformer's block, with or without a norm, a layer scale or a gate. A block that
changes the shape has layers on both sides of its sum; neither side is the other's source, so it stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from heapq import heappop, heappush

from ...ir import Graph, Op, fresh_name, layers


@dataclass(frozen=True)
class Branch:
    """A branch that can be removed.

    Args:
        name: the user's module that holds its layers; the sum's name where they lie in no module of their own.
        sum: the value that adds it.
        identity: the value that takes the sum's place.
        ops: the values that nothing else needs, in the graph's order, stored ones among them.
        layers: the layers among them.
    """

    name: str
    sum: str
    identity: str
    ops: tuple[str, ...]
    layers: tuple[str, ...]


def branches(graph: Graph) -> tuple[Branch, ...]:
    """The branches of a graph that can be removed, in the order of their sums; those without a layer are left out."""
    if (known := graph.__dict__.get("_branches")) is None:
        known = _branches(graph)
        object.__setattr__(graph, "_branches", known)
    return known


def _branches(graph: Graph) -> tuple[Branch, ...]:
    above = _Above(graph)
    every = {op.name for op in layers(graph)}
    taken: set[str] = set()
    found: list[Branch] = []
    for op in graph.ops:
        for identity, branch in _readings(graph, op):
            if not any(above.holds(branch, value) for value in _trunk(graph, identity)):
                continue
            gone = _only_for(graph, above, op, branch)
            held = tuple(name for name in gone if name in every)
            if not held:
                continue
            name = fresh_name(_module_of(held) or op.name, taken)
            taken.add(name)
            found.append(Branch(name, op.name, identity, gone, held))
            break
    return tuple(found)


def matches(branch: Branch, pattern: str) -> bool:
    """Whether a pattern names a branch: by its name, its sum's, or shell-like (`layer3.*`)."""
    return fnmatchcase(branch.name, pattern) or branch.sum == pattern


def _readings(graph: Graph, op: Op) -> Iterator[tuple[str, str]]:
    """A sum's two sides as identity and branch, both ways round, where the identity has the sum's type."""
    if op.kind != "add" or len(op.inputs) != 2 or op.inputs[0] == op.inputs[1]:
        return
    left, right = op.inputs
    if graph.types[left] == op.type:
        yield left, right
    if graph.types[right] == op.type:
        yield right, left


def _trunk(graph: Graph, value: str) -> Iterator[str]:
    """A value, and what it is the sum of: parallel branches are added one after the other."""
    waiting, seen = [value], {value}
    while waiting:
        at = waiting.pop()
        yield at
        op = graph.producers.get(at)
        if op is not None and op.kind == "add":
            waiting += [name for name in op.inputs if name not in seen]
            seen.update(op.inputs)


class _Above:
    """What each value is computed from."""

    def __init__(self, graph: Graph) -> None:
        self.place = {result: i for i, op in enumerate(graph.ops) for result in op.results}
        for entry in graph.inputs:
            self.place[entry.name] = len(graph.ops) + len(self.place)
        self._sets: dict[str, int] = {entry.name: 1 << self.place[entry.name] for entry in graph.inputs}
        for i, op in enumerate(graph.ops):
            found = 1 << i
            for name in op.inputs:
                found |= self._sets[name]
            for result in op.results:
                self._sets[result] = found

    def holds(self, value: str, source: str) -> bool:
        """Whether `value` is computed from `source`."""
        return value != source and bool(self._sets[value] >> self.place[source] & 1)


def _only_for(graph: Graph, above: _Above, end: Op, branch: str) -> tuple[str, ...]:
    """The ops that serve nothing but this side of the sum; none where another op reads the side itself."""
    outputs = set(graph.outputs)
    inside: set[str] = set()
    waiting: list[tuple[int, str]] = []
    seen: set[str] = set()

    def consider(value: str) -> None:
        op = graph.producers.get(value)
        if op is not None and op.name not in seen:
            seen.add(op.name)
            heappush(waiting, (-above.place[value], op.name))

    consider(branch)
    while waiting:
        _, name = heappop(waiting)
        op = graph.producers[name]
        readers = {reader.name for result in op.results for reader in graph.readers.get(result, ())}
        alone = readers <= inside or (readers == {end.name} and branch in op.results)
        if not alone or outputs.intersection(op.results):
            continue
        inside.add(op.name)
        for read in op.inputs:
            consider(read)
    return tuple(op.name for op in graph.ops if op.name in inside) if inside else ()


def _module_of(names: tuple[str, ...]) -> str:
    """The innermost module that holds all layers; one layer alone is its own."""
    if len(names) == 1:
        return names[0]
    common: list[str] = []
    for parts in zip(*(name.split(".") for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
