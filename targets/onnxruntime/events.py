"""What ONNX Runtime's profiler notes, call by call: kernels, and the kernels of the bodies of loops and branches.

The profiler writes an event when something ends: a kernel of a body before the node that holds it, the call last. What
ended since a node with a body began therefore ran inside of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..trace import Tensor
from .work import tensor

KERNEL = "_kernel_time"
"""What the profiler puts behind a node's name for the time of its kernel."""

Key = tuple[tuple[str, str], ...]
"""A kernel by the names and numbers of the nodes that hold it and its own, the outermost first."""
Operands = tuple[Tensor, ...]


@dataclass(frozen=True)
class Noted:
    """One run of a kernel.

    Args:
        event: the profiler's.
        inside: what ran in its body.
    """

    event: Mapping[str, Any]
    inside: tuple[Noted, ...] = ()

    @property
    def name(self) -> str:
        """The node's name; the runtime calls those without one by kind and number."""
        return self.event["name"].removesuffix(KERNEL)


@dataclass(frozen=True)
class Call:
    """One call of the network.

    Args:
        nodes: what ran in it, in order.
        seconds: how long it took, noting included.
    """

    nodes: tuple[Noted, ...]
    seconds: float


@dataclass
class Kernel:
    """A kernel over all calls.

    Args:
        key: which one.
        kind: its op type.
        provider: the execution provider.
        times_s: the sum of its runs in each call.
        runs: how often it ran with the same shapes read and given, in all calls.
        holds: whether others ran in its body; then its time is theirs and the profiler's, and counts for nothing.
    """

    key: Key
    kind: str
    provider: str
    times_s: list[float]
    runs: Counter[tuple[Operands, Operands]] = field(default_factory=Counter[tuple[Operands, Operands]])
    holds: bool = False


def calls_of(events: Sequence[Mapping[str, Any]], holders: Collection[str]) -> list[Call]:
    """The calls that were noted from beginning to end, in order.

    Args:
        events: of the profiler, in its order.
        holders: kinds of nodes with bodies.
    """
    calls: list[Call] = []
    ended: list[Noted] = []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(KERNEL):
            first = len(ended)
            while event["args"]["op_name"] in holders and first and ended[first - 1].event["ts"] >= event["ts"]:
                first -= 1
            ended[first:] = [Noted(event, tuple(ended[first:]))]
        elif event["cat"] == "Session" and event["name"] == "model_run":
            calls.append(Call(tuple(ended), event["dur"] * 1e-6))
            ended = []
    return calls


def kernels_of_calls(calls: Sequence[Call]) -> list[Kernel]:
    """The kernels of some calls in the order in which they first ran, those with bodies before what is in them."""
    found: dict[Key, Kernel] = {}
    shapes: dict[str, Operands] = {}
    for number, call in enumerate(calls):
        for key, noted in _all(call.nodes, ()):
            args = noted.event["args"]
            if key not in found:
                found[key] = Kernel(key, args["op_name"], args["provider"], [0.0] * len(calls))
            kernel = found[key]
            kernel.times_s[number] += noted.event["dur"] * 1e-6
            kernel.holds = kernel.holds or bool(noted.inside)
            kernel.runs[_operands(args["input_type_shape"], shapes), _operands(args["output_type_shape"], shapes)] += 1
    return list(found.values())


def _all(nodes: Sequence[Noted], outer: Key) -> Iterator[tuple[Key, Noted]]:
    for noted in nodes:
        key = (*outer, (noted.name, noted.event["args"]["node_index"]))
        yield key, noted
        yield from _all(noted.inside, key)


def _operands(shown: Sequence[Mapping[str, Sequence[int]]], known: dict[str, Operands]) -> Operands:
    """Tensors as the profiler shows them; many runs show the same ones."""
    text = str(shown)
    if text not in known:
        known[text] = tuple(tensor(element, shape) for entry in shown for element, shape in entry.items())
    return known[text]
