"""The emitters: one small function per op kind, found by the kind's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ...ir import NascError, Op

if TYPE_CHECKING:
    from .writer import Writer

Emitter: TypeAlias = "Callable[[Writer, Op], None]"
"""Writes the nodes of one op; the last node's result bears the name of the op's result."""

EMITTERS: dict[str, Emitter] = {}


class EmissionError(NascError):
    """An op or a value cannot be written as ONNX; the message names it, and the user's line where there is one."""

    def __init__(self, op: Op, message: str, *, mend: str | None = None) -> None:
        place = f"{op.location}: " if op.location else ""
        super().__init__(f"{place}error: {op.kind} %{op.name}: {message}", mend=mend)


def emits(*kinds: str) -> Callable[[Emitter], Emitter]:
    """Declare the emitter of one or several op kinds."""

    def declare(emitter: Emitter) -> Emitter:
        for kind in kinds:
            EMITTERS[kind] = emitter
        return emitter

    return declare
