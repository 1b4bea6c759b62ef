"""How each width can grow so that the network's function stays: what to divide where channels are copied.

A width grows by copying channels (Net2Net). Every sum over the width then counts copies, and one of its factors is
divided by their number: as a rule the weight that reads the width; in the product of queries and keys, which no weight
reads, what made the queries. Where a statistic runs along the width (layer norm, softmax, mean) the function stays if
all channels have the same number of copies, that is if the width grows by a whole multiple.

Source: Chen, Goodfellow, Shlens, Net2Net, ICLR 2016, section 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ...ir import SPECS, STORED, Graph, Op, widths_in
from .marks import HOMOGENEOUS, Marks
from .sums import Statistic, SumOver, statistic_of, sum_of

Exactness: TypeAlias = Literal["any", "multiples", "none"]
"""To which sizes a width grows with the function kept: to all, to whole multiples of its own, or to none."""


@dataclass(frozen=True)
class Growth:
    """How the widths of a graph grow.

    Args:
        divided: for each stored tensor the widths whose number of copies divides it, with the elements it divides
            (None: all of them).
        multiples: widths that keep the function when they grow by whole multiples, and the op that asks for it.
        inexact: widths that have no way to grow with the function kept, and the op that is in the way.
    """

    divided: Mapping[str, Mapping[str, Tensor | None]] = field(default_factory=dict[str, "dict[str, Tensor | None]"])
    multiples: Mapping[str, Op] = field(default_factory=dict[str, Op])
    inexact: Mapping[str, Op] = field(default_factory=dict[str, Op])

    def exactness(self, width: str) -> Exactness:
        """To which sizes a width grows with the function kept."""
        return "none" if width in self.inexact else "multiples" if width in self.multiples else "any"

    def why(self, width: str) -> Op | None:
        """The op that stands against other sizes."""
        return self.inexact.get(width) or self.multiples.get(width)


def growth(graph: Graph, stored: Mapping[str, Tensor] | None = None) -> Growth:
    """Find out how the widths of a graph grow.

    Args:
        graph: a graph whose terms say which index of an axis belongs to which width (`ordered_graph`).
        stored: the graph's stored integer tensors, for ops that look up by them.
    """
    state = _State(graph, Marks(graph, stored or {}))
    found = [(op, sum_of(graph, op), statistic_of(graph, op)) for op in graph.ops if op.kind not in STORED]
    for op, _, statistic in found:
        for width in statistic.widths if statistic else ():
            state.multiples.setdefault(width, op)
    powers = {w: _powers(graph, w, found, state) for w in state.multiples}
    for op, summed, _ in found:
        for width in sorted(summed.widths) if summed else ():
            assert summed is not None
            power = powers.get(width, {})
            total = 1 + sum(power.get(op.inputs[i], 0.0) for i in summed.factors)
            if total == 1:
                state.divide(op, summed, width)
            elif total != 0:
                state.inexact.setdefault(width, op)
    return Growth(state.divided, state.multiples, state.inexact)


class _State:
    """What is known so far."""

    def __init__(self, graph: Graph, marks: Marks) -> None:
        self.graph = graph
        self.marks = marks
        self.divided: dict[str, dict[str, Tensor | None]] = {}
        self.multiples: dict[str, Op] = {}
        self.inexact: dict[str, Op] = {}

    def divide(self, op: Op, summed: SumOver, width: str) -> None:
        """Divide one factor of a sum by the number of copies of a width's channels."""
        if width in self.inexact:
            return
        for i in summed.factors:
            name = op.inputs[i]
            if self.read_alike(name, width):
                self.divided.setdefault(name, {})[width] = None
                return
            if (way := self.marks.of(name, op)) is None:
                continue
            if all(self.free(n, width) for n in way.tensors):
                if mixing := next((o for o in way.ops if self.mixes(o, width)), None):
                    self.multiples.setdefault(width, mixing)
                for tensor, mask in way.tensors.items():
                    self.divided.setdefault(tensor, {})[width] = None if bool(mask.all()) else mask
                    if width not in {w for a in self.graph.types[tensor].axes for w in widths_in(a)}:
                        self.multiples.setdefault(width, op)
                return
        self.inexact.setdefault(width, op)

    def mixes(self, op: Op, width: str) -> bool:
        """Whether an op adds up channels of the width: what it gives is divided alike only if all are."""
        along = sum_of(self.graph, op) or statistic_of(self.graph, op)
        return along is not None and width in along.widths

    def free(self, name: str, width: str) -> bool:
        """Whether nothing has been divided here yet; dividing twice would be one time too many."""
        return width not in self.divided.get(name, {})

    def read_alike(self, name: str, width: str) -> bool:
        """Whether a stored tensor is read only by layers that sum over the width along its input axis."""
        producer = self.graph.producers.get(name)
        if producer is None or producer.kind not in STORED or name in self.graph.outputs:
            return False
        for reader in self.graph.readers[name]:
            spec = SPECS.get(reader.kind)
            if spec is None or spec.input_axis is None or reader.inputs[spec.index("weight")] != name:
                return False
            if reader.inputs.count(name) != 1 or width not in widths_in(producer.type.axes[spec.input_axis]):
                return False
        return True


def _powers(
    graph: Graph, width: str, found: list[tuple[Op, SumOver | None, Statistic | None]], state: _State
) -> dict[str, float]:
    """By which power of k each value is multiplied when all channels of a width have k copies; zeros left out."""
    power: dict[str, float] = {}
    for op, summed, statistic in found:
        given = [power.get(n, 0.0) for n in op.inputs]
        own = 0.0
        if statistic and width in statistic.widths:
            if statistic.power is None or (any(given) and op.kind != "norm"):
                state.inexact.setdefault(width, op)
                continue
            own = statistic.power
        if summed and width in summed.widths:
            continue
        if not any(given) and not own:
            continue
        result = _result_power(graph, op, given) if any(given) else 0.0
        if result is None:
            state.inexact.setdefault(width, op)
        elif result + own:
            power.update(dict.fromkeys(op.results, result + own))
    if any(n in power for n in graph.outputs):
        state.inexact.setdefault(width, graph.producers[next(n for n in graph.outputs if n in power)])
    return power


def _result_power(graph: Graph, op: Op, given: list[float]) -> float | None:
    """The power of an op's result by those of its operands; None where it is not a power of k."""
    if op.kind in ("mul", "matmul", "einsum"):
        return sum(given)
    if op.kind == "div":
        left, right = (given[0], given[1]) if len(given) == 2 else (given[0], 0.0)
        return -left if op.attribute("input") is not None else left - right
    if op.kind in ("sqrt", "rsqrt", "reciprocal", "square"):
        return given[0] * {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0, "square": 2.0}[op.kind]
    if op.kind == "pow" and isinstance(exponent := op.attribute("other"), int | float):
        return given[0] * exponent
    if op.kind in ("clamp", "maximum") and len(given) == 1:
        return given[0]
    if op.kind == "add" and len(given) == 1 and isinstance(other := op.attribute("other"), float) and abs(other) < 1e-4:
        return given[0]
    if op.kind in ("add", "sub", "cat", "stack", "where") and len(set(given)) == 1 and len(given) > 1:
        return given[0]
    if op.kind == "linear" and not any(given[1:]) and len(given) == 2:
        return given[0]
    return given[0] if op.kind in HOMOGENEOUS and not any(given[1:]) else None


def copies(index: Tensor, old: int) -> Tensor:
    """How many copies each old index has among the new ones; shape [old]."""
    return torch.bincount(index[index >= 0], minlength=old)


def uniform(index: Tensor, old: int) -> bool:
    """Whether all old indices that are kept have the same number of copies."""
    counts = copies(index, old)
    return len(set(counts[counts > 0].tolist())) == 1
