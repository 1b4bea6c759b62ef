"""Run a graph over several batches at once, op by op, so that what was seen can change what comes later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..ir import STORED, Graph, Op
from .execution import Frame, batch_of, compute, last_uses


class Lockstep:
    """One run of a graph over all batches together, one op after the other.

    All batches' activations of one depth are held at once.

    Args:
        graph: what runs.
        values: real numbers of the stored values; `set` replaces one as long as nothing has read it.
        batches: inputs, one tuple of tensors each.
        quantize: how `quantize` ops round; by default as a runtime does.
    """

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Tensor],
        batches: Sequence[tuple[Tensor, ...]],
        quantize: Callable[[Op, Tensor], Tensor] | None = None,
    ) -> None:
        self.graph = graph
        self._frames = [Frame(graph, batch_of(graph, batch), quantize=quantize) for batch in batches]
        self._known: list[dict[str, Tensor]] = [
            {i.name: t for i, t in zip(graph.inputs, batch, strict=True)} for batch in batches
        ]
        self._values = dict(values)
        self._last = last_uses(graph)

    def value(self, name: str) -> Tensor:
        """A stored value as it is now."""
        return self._values[name]

    def set(self, name: str, tensor: Tensor) -> None:
        """Give a stored value other numbers."""
        self._values[name] = tensor

    def given(self, name: str) -> list[Tensor]:
        """A value that is known and still needed, in each batch."""
        return [known[name] for known in self._known]

    def results(self, op: Op) -> list[Tensor]:
        """The first result of an op in each batch, without going on."""
        return [found[0] for found in self._computed(op)]

    def go(self, op: Op) -> None:
        """Run the next op in all batches, and forget what nothing reads any more."""
        if op.kind in STORED:
            return
        for known, results in zip(self._known, self._computed(op), strict=True):
            known.update(zip(op.results, results, strict=True))
            for name in self._last.get(op.name, ()):
                known.pop(name, None)

    @torch.no_grad()
    def _computed(self, op: Op) -> list[tuple[Tensor, ...]]:
        found: list[tuple[Tensor, ...]] = []
        for frame, known in zip(self._frames, self._known, strict=True):
            result = compute(frame, op, [known[n] if n in known else self._values[n] for n in op.inputs])
            found.append(result if isinstance(result, tuple) else (result,))
        return found


def unrounded(op: Op, x: Tensor) -> Tensor:
    """What `quantize` does in a network of real numbers: nothing."""
    return x
