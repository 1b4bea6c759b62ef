"""The most memory that activations need at once."""

from __future__ import annotations

from ..ir import STORED, Graph, Op
from ..ir.rules.pointwise import UNARY
from ..ir.types import stored_bits

FUSED = frozenset({*UNARY, "batch_norm", "prelu", "quantize", "cast"})
"""Ops that a runtime computes while it writes what they read: their operand needs no room of its own."""


def peak_activation_bytes(graph: Graph) -> int:
    """The most bytes of activations that live at once for a batch of 1; see `live_bytes`."""
    return max(live_bytes(graph).values(), default=0)


def live_bytes(graph: Graph) -> dict[str, int]:
    """The bytes of activations that live while each op runs, for a batch of 1, when ops run in the graph's order.

    A value lives from the op that defines it to its last reader; inputs from the start, outputs to the end. While an op
    runs, what it reads and what it gives are both there. A value whose only reader treats each element alone (`FUSED`)
    is computed in registers and takes no room; a `reshape` shares the room of what it reads. Formats of fewer than 8
    bits are packed.

    Returns:
        By the ops' names, stored tensors left out.
    """
    rooms = _rooms(graph)
    last = dict.fromkeys(rooms.values(), -1)
    for i, op in enumerate(graph.ops):
        for name in op.inputs:
            if name in rooms:
                last[rooms[name]] = i
    for name in graph.outputs:
        if name in rooms:
            last[rooms[name]] = len(graph.ops)
    bytes_of = {room: _bytes(graph, room) for room in last}
    alive = {i.name for i in graph.inputs}
    now = sum(bytes_of[name] for name in alive)
    found: dict[str, int] = {}
    for i, op in enumerate(graph.ops):
        for room in {rooms[r] for r in op.results if r in rooms} - alive:
            alive.add(room)
            now += bytes_of[room]
        if op.kind not in STORED:
            found[op.name] = now
        for room in [r for r in alive if last[r] <= i]:
            alive.remove(room)
            now -= bytes_of[room]
    return found


def _rooms(graph: Graph) -> dict[str, str]:
    """For each activation that takes room, or shares it, the value that stands for that room."""
    rooms = {i.name: i.name for i in graph.inputs}
    for op in graph.ops:
        if op.kind in STORED:
            continue
        for name in op.results:
            if op.kind == "reshape" and op.inputs[0] in rooms:
                rooms[name] = rooms[op.inputs[0]]
            elif not _in_registers(graph, name, op):
                rooms[name] = name
    return rooms


def _in_registers(graph: Graph, name: str, op: Op) -> bool:
    readers = graph.readers.get(name, ())
    return (
        len(readers) == 1
        and readers[0].kind in FUSED
        and readers[0].inputs[0] == name
        and name not in graph.outputs
        and op.kind != "reshape"
    )


def _bytes(graph: Graph, name: str) -> int:
    return -(-stored_bits(graph.types[name], graph.sizes) // 8)
