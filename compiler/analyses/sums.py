"""Which ops look along the widths of a graph: those that sum over them, and those that take statistics.

Copies of a channel count twice in a sum, and not at all in a mean. So where channels are copied (Net2Net), one factor
of each sum must be divided by the number of copies; a statistic stays right on its own if all channels have the same
number of copies, and else not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from ...ir import SPECS, Graph, Op, widths_in
from ...ir.axes import Axis, Product, Sum


@dataclass(frozen=True)
class SumOver:
    """An op that sums products over widths.

    Args:
        widths: what it sums over.
        factors: the operands that are multiplied, by position; the one to divide first comes first.
    """

    widths: frozenset[str]
    factors: tuple[int, ...]


@dataclass(frozen=True)
class Statistic:
    """An op that takes a statistic over widths.

    Args:
        widths: what it runs along.
        power: what the result is multiplied by when each channel has k copies, as a power of k: 0 for a mean, -1 for
            a softmax, 1/2 for the length of a vector; None where it is no power of k, or widths lie side by side,
            since the statistic sees how many copies one has against the other.
    """

    widths: frozenset[str]
    power: float | None


def sum_of(graph: Graph, op: Op) -> SumOver | None:
    """What an op sums over, if anything."""
    spec = SPECS.get(op.kind)
    if spec is None:
        return None
    if spec.input_axis is not None:
        at = spec.index("weight")
        return _sum([graph.types[op.inputs[at]].axes[spec.input_axis]], (at, 0))
    if op.kind == "matmul":
        return _sum([graph.types[op.inputs[0]].axes[-1]], (0, 1))
    if op.kind == "scaled_dot_product_attention":
        return _sum([graph.types[op.inputs[0]].axes[-1]], (0, 1))
    if op.kind == "sum":
        return _sum(_reduced(graph, op), (0,))
    if op.kind == "einsum":
        left, result = cast(str, op.attribute("equation")).split("->")
        gone = [
            axis
            for name, letters in zip(op.inputs, left.split(","), strict=True)
            for axis, letter in zip(graph.types[name].axes, letters, strict=True)
            if letter not in result
        ]
        return _sum(gone, tuple(range(len(op.inputs))))
    return None


def _sum(axes: Iterable[Axis], factors: tuple[int, ...]) -> SumOver | None:
    widths = frozenset(w for axis in axes for w in widths_in(axis))
    return SumOver(widths, factors) if widths else None


def _reduced(graph: Graph, op: Op) -> list[Axis]:
    axes = graph.types[op.inputs[0]].axes
    dims = cast("tuple[int, ...]", op.attribute("dim", ())) or range(len(axes))
    return [axes[d] for d in dims]


def _along(graph: Graph, op: Op) -> list[Axis]:
    return [graph.types[op.inputs[0]].axes[cast(int, op.attribute("dim"))]]


def _normalized(graph: Graph, op: Op) -> list[Axis]:
    count = len(cast("tuple[object, ...]", op.attribute("normalized_shape")))
    return list(graph.types[op.inputs[0]].axes[-count:])


def _grouped(graph: Graph, op: Op) -> list[Axis]:
    """All behind the batch but the count of groups, which stands first in the channels' term."""
    channels = graph.types[op.inputs[0]].axes[1]
    groups = set(widths_in(cast(Axis, g))) if not isinstance(g := op.attribute("num_groups"), int) else set[str]()
    within = [
        t for t in (channels.terms if isinstance(channels, Product) else (channels,)) if not groups & {*widths_in(t)}
    ]
    return [*within, *graph.types[op.inputs[0]].axes[2:]]


def _keys(graph: Graph, op: Op) -> list[Axis]:
    return [graph.types[op.inputs[1]].axes[-2]]


STATISTICS: Mapping[str, tuple[Callable[[Graph, Op], list[Axis]], float | None]] = {
    "layer_norm": (_normalized, 0.0),
    "rms_norm": (_normalized, 0.0),
    "group_norm": (_grouped, 0.0),
    "instance_norm": (lambda graph, op: list(graph.types[op.inputs[0]].axes[2:]), 0.0),
    "softmax": (_along, -1.0),
    "log_softmax": (_along, None),
    "logsumexp": (_reduced, None),
    "prod": (_reduced, None),
    "mean": (_reduced, 0.0),
    "var": (_reduced, 0.0),
    "std": (_reduced, 0.0),
    "norm": (_reduced, 0.5),
    "scaled_dot_product_attention": (_keys, 0.0),
}
"""Along which axes an op takes a statistic, and what copies do to it."""


def statistic_of(graph: Graph, op: Op) -> Statistic | None:
    """What an op takes a statistic over, if anything."""
    if op.kind not in STATISTICS:
        return None
    axes, power = STATISTICS[op.kind]
    if op.kind == "norm":
        order = cast(float, op.attribute("ord", 2.0))
        power = 1 / order if order not in (0.0, float("inf"), float("-inf")) else 0.0 if order else None
    if op.kind in ("var", "std") and op.attribute("correction", 1) != 0:
        power = None
    along = tuple(axes(graph, op))
    if any(map(_side_by_side, along)):
        power = None
    widths = frozenset(w for axis in along for w in widths_in(axis))
    return Statistic(widths, power) if widths else None


def _side_by_side(axis: Axis) -> bool:
    """Whether parts of different widths, or a width and a fixed part, are laid end to end."""
    if isinstance(axis, Sum):
        return len({tuple(sorted(widths_in(part))) for part in axis.terms}) > 1
    return isinstance(axis, Product) and any(map(_side_by_side, axis.terms))
