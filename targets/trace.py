"""What a runtime notes of the nodes that it runs: their times, operands, and which nodes of the file they compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from .cover import Cover, FileNode


@dataclass(frozen=True)
class Tensor:
    """An operand or a result of a kernel.

    Args:
        element: the name of its element type: `float`, `uint8`.
        shape: its lengths.
        element_bytes: bytes of one element.
    """

    element: str
    shape: tuple[int, ...]
    element_bytes: int = 4

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.elements * self.element_bytes


@dataclass(frozen=True)
class TracedNode:
    """A node that ran.

    Args:
        name: its name after the runtime's optimisation.
        kind: its kernel.
        provider: which execution provider ran it.
        times_s: its time in each call, all runs together.
        inputs: what it read, stored tensors included.
        outputs: what it gave.
        stored: the stored tensors among what it read, by name.
        macs: its multiply-additions in a call, as it runs them: with channels that the runtime adds to fill its
            registers.
        format: what it computes in: `i8` for integer kernels, `f8`, `f32`.
        cover: the nodes of the file that it computes, or of which it computes a part.
        activation_bytes: bytes of activations that it reads and writes in a call.
        stored_bytes: bytes of stored tensors that it reads in a call.
        runs: how often it runs in a call; `inputs`, `outputs` are those of the first.
        within: names of the nodes in whose bodies it runs, the outermost first.
        holds: whether others run in its body; its own time is not known then, and `times_s` is empty.
        counted: whether `macs` holds what it multiplies.
    """

    name: str
    kind: str
    provider: str
    times_s: tuple[float, ...] = field(repr=False)
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    stored: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    macs: int = 0
    format: str = "f32"
    cover: Cover = field(default_factory=Cover)
    activation_bytes: int = 0
    stored_bytes: int = 0
    runs: int = 1
    within: tuple[str, ...] = ()
    holds: bool = False
    counted: bool = True

    @property
    def time_s(self) -> float:
        """The lower decile of its times: other processes and interrupts only ever add to them; 0 if it holds others."""
        if self.holds:
            return 0.0
        return sorted(self.times_s)[len(self.times_s) // 10]


@dataclass(frozen=True)
class Trace:
    """What the runtime noted of some calls.

    Args:
        nodes: the nodes that ran, in the order in which they ran.
        calls_s: the time of each call, noting included.
        written: the nodes of the file, in order.
        metadata: what the file says of itself.
    """

    nodes: tuple[TracedNode, ...]
    calls_s: tuple[float, ...]
    written: tuple[FileNode, ...]
    metadata: Mapping[str, str]
