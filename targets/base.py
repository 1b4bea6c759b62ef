"""What every target and every loaded network promise, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from ..ir import Encoding, Graph, NascError, Op, Type, Weights
from .artifact import Artifact
from .cost import StaticCost
from .device_profile import DeviceProfile
from .plan import Placement, Plan
from .trace import Trace

Array = NDArray[Any]
Inputs: TypeAlias = "Sequence[Array] | Mapping[str, Array]"
"""One array per input of the network, in order or by name."""

Foreign: TypeAlias = "Callable[[Op, Sequence[Type], int], bytes]"
"""Gives an op as an ONNX model of an opset, from the op and the types of its operands, in which widths are numbers."""

Role = Literal["weight", "activation", "bias"]

Runs = Literal["native", "container", "float", "no"]
"""How a target runs values of a format.

`native`: computed in this format. `container`: exact codes in the next larger format the target computes in, at that
format's time. `float`: stored in this format, or as numbers already rounded to it, and computed in floating point: no
faster, see the reason. `no`: not at all.
"""


class TargetError(NascError):
    """A target cannot do what was asked: no such device, a model it does not load, a provider that fell back."""


@dataclass(frozen=True)
class Support:
    """How a target runs a format, and why.

    Args:
        runs: see `Runs`.
        reason: one sentence for people.
    """

    runs: Runs
    reason: str


@dataclass(frozen=True)
class Signature:
    """An input or output of a loaded network.

    Args:
        name: its name in the model file.
        dtype: numpy's name of its element type; the runtime's own where numpy has none.
        shape: its lengths; None where the file leaves them open.
        symbols: what the file calls its open lengths, `N`; empty for an axis whose length is fixed or has no name.
        ranked: whether the file says how many axes it has; if not, `shape` is empty.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    symbols: tuple[str, ...] = ()
    ranked: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"

    @property
    def type(self) -> str:
        """Its element type and lengths for people: `float32[N, 3, 32, 32]`."""
        lengths = (self.symbol(axis) or "?" if n is None else str(n) for axis, n in enumerate(self.shape))
        return f"{self.dtype}[{', '.join(lengths) if self.ranked else '...'}]"

    def symbol(self, axis: int) -> str:
        """What the file calls the length of an axis; empty where it has no name."""
        return self.symbols[axis] if self.symbols else ""


class Bound(Protocol):
    """A network with its inputs and outputs in place: what a latency meter times."""

    def __call__(self) -> None:
        """Run, and return when the outputs are there."""
        ...

    def outputs(self) -> list[Array]:
        """The outputs of the last call."""
        ...


class Session(Protocol):
    """A network loaded on a target, ready to run."""

    @property
    def inputs(self) -> tuple[Signature, ...]:
        """What it reads, in order."""
        ...

    @property
    def outputs(self) -> tuple[Signature, ...]:
        """What it gives, in order."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What its file says of itself."""
        ...

    def run(self, inputs: Inputs) -> list[Array]:
        """The outputs for some inputs.

        Raises:
            TargetError: the inputs do not fit the network.
        """
        ...

    def bind(self, inputs: Inputs) -> Bound:
        """A call that runs the network on these inputs into buffers made beforehand."""
        ...

    def placement(self) -> Placement:
        """The nodes that really run, after the runtime's own optimisation, and where."""
        ...


class Target(Protocol):
    """A runtime on a device."""

    @property
    def name(self) -> str:
        """What `--target` calls it."""
        ...

    @property
    def lanes(self) -> int:
        """How many channels it computes at once: widths that are multiples of it leave none of them idle."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The runtime and all that it is told when it loads a network, as plain data for a record."""
        ...

    def unavailable(self) -> str | None:
        """Why it cannot run on this machine, or None if it can."""
        ...

    def supports(self, encoding: Encoding, role: Role) -> Support:
        """How it runs values of a format."""
        ...

    def plan(self, graph: Graph) -> Plan:
        """Which layers will run on integer kernels, and what is missing where they will not."""
        ...

    def emit(
        self,
        graph: Graph,
        weights: Weights,
        metadata: Mapping[str, str] | None = None,
        *,
        location: str = "",
        foreign: Foreign | None = None,
    ) -> Artifact:
        """The artifact that is deployed.

        Args:
            graph: a graph with all steps known.
            weights: its numbers.
            metadata: what the file is to say of itself, beside nasc's version.
            location: name of a file beside the model for its large tensors; empty: they stay inside.
            foreign: gives ops without a rule (`aten.*`) in the target's own form; None: they are refused.

        Raises:
            NascError: an op that cannot be written, or a step that is not known.
        """
        ...

    def load(self, model: Artifact | Path | bytes, *, threads: int = 1, placed: bool = False) -> Session:
        """The network, ready to run.

        Args:
            model: an artifact, a file, or a model's bytes.
            threads: threads within one op.
            placed: keep what `placement` needs; costs some milliseconds.

        Raises:
            TargetError: the runtime refuses it, or the target is not available.
        """
        ...

    def floor(self, model: Artifact | Path | bytes) -> bytes:
        """A model of as many nodes as really run, each doing nothing: it takes the time of calls and nodes alone."""
        ...

    def cost(self, graph: Graph) -> StaticCost:
        """What the network costs by counting, before anything runs."""
        ...

    def trace(
        self, model: Artifact | Path | bytes, inputs: Sequence[Array] | None = None, *, batch: int = 1,
        threads: int = 1, budget_s: float = 2.0,
    ) -> Trace:  # fmt: skip
        """Run the model with every node timed.

        Args:
            model: an artifact, a file, or a model's bytes.
            inputs: one array per input; None: made-up ones.
            batch: length of the batch axis of made-up inputs.
            threads: threads within one op.
            budget_s: time for the calls.

        Raises:
            TargetError: the runtime refuses the model.
        """
        ...

    def identity(self) -> tuple[str, str]:
        """The device's name, and the runtime with its version: what measurements hold for."""
        ...

    def calibrate(self, threads: int = 1) -> DeviceProfile:
        """What the device does at best through this runtime; see `device_profile`, which keeps it."""
        ...
