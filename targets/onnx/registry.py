"""The emitters: one small function per op kind, found by the kind's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ...ir import Graph, NascError, Op
from ...ir.places import place

if TYPE_CHECKING:
    from .writer import Writer

Emitter: TypeAlias = "Callable[[Writer, Op], None]"
"""Writes the nodes of one op; the last node's result bears the name of the op's result."""

EMITTERS: dict[str, Emitter] = {}


class EmissionError(NascError):
    """An op or a value cannot be written as ONNX; the message names it, and the user's line where there is one.

    Args:
        op: what cannot be written.
        message: why.
        mend: what to do about it.
        graph: where it stands; without it only the op's own line is known, which weights and quantizes have none of.
    """

    def __init__(self, op: Op, message: str, *, mend: str | None = None, graph: Graph | None = None) -> None:
        self.op, self.why = op, message
        location = op.location if graph is None else place(graph, op)
        super().__init__(f"{f'{location}: ' if location else ''}error: {op.kind} %{op.name}: {message}", mend=mend)

    def within(self, graph: Graph) -> EmissionError:
        """The same error at the user's line that the op stands for in a graph."""
        return EmissionError(self.op, self.why, mend=self.mend, graph=graph)


def emits(*kinds: str) -> Callable[[Emitter], Emitter]:
    """Declare the emitter of one or several op kinds."""

    def declare(emitter: Emitter) -> Emitter:
        for kind in kinds:
            EMITTERS[kind] = emitter
        return emitter

    return declare
