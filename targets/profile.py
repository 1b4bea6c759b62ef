"""Where a network spends its time on a device: every kernel with the ops it computes, its share, and its roof."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .artifact import Artifact
from .base import Array, Target
from .cover import FileNode
from .device_profile import DeviceProfile, Limit, Roof
from .latency import Latency
from .measure import Conditions, seconds
from .trace import Trace, TracedNode

HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits", "Einsum", "Attention")
"""Kinds of file nodes that a merged kernel is called by."""
COARSE_S = 5e-6
"""Times of a kernel up to which the profiler's step of a microsecond shows."""


@dataclass(frozen=True)
class KernelProfile:
    """One kernel that ran.

    Args:
        name: its name after the runtime's optimisation.
        kernel: what runs: `QLinearConv`, `FusedConv`, `ReorderInput`.
        provider: the execution provider.
        layer: the op of the network that it counts for: a layer, or what else it mainly computes; for kernels that only
            convert values, the op that needs it.
        ops: the ops of the network that it computes, the layer among them; a foreign file's nodes; none where it
            only converts values.
        location: the user's line of the layer, where the file says it.
        format: what it computes in: `i8` for integer kernels, `f8`, `f32`.
        time_s: lower decile of its times.
        share: of the time of all kernels.
        macs: multiply-additions, as the kernel runs them.
        activation_bytes: bytes of activations read and written.
        stored_bytes: bytes of stored tensors read.
        roof: the least time that the device needs for it; None without a device profile.
        runs: how many kernels this stands for; 1, but for a layer's.
        times_s: its time in each call; none for a layer's.
    """

    name: str
    kernel: str
    provider: str
    layer: str
    ops: tuple[str, ...]
    location: str
    format: str
    time_s: float
    share: float
    macs: int
    activation_bytes: int
    stored_bytes: int
    roof: Roof | None = None
    runs: int = 1
    times_s: tuple[float, ...] = field(default=(), repr=False)

    @property
    def coarse(self) -> bool:
        """Whether the profiler's step decides its time; every kernel of a layer brings a step of its own."""
        return self.time_s < COARSE_S * self.runs

    @property
    def achieved(self) -> float | None:
        """The roof's time over the kernel's: 1 is the best the device can do; None without a profile, or if coarse."""
        return None if self.roof is None or self.coarse else self.roof.seconds / self.time_s

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times of calls to five digits, which are the profiler's microseconds up to 0.1 s."""
        record: dict[str, Any] = {**asdict(self), "achieved": self.achieved}
        del record["times_s"]
        if self.times_s:
            record["times_s"] = [float(f"{value:.5g}") for value in self.times_s]
        return record


@dataclass(frozen=True)
class NetworkProfile:
    """A network on a device, kernel by kernel.

    Args:
        target: the target's name.
        batch: length of the batch axis.
        threads: threads of the runtime.
        calls: timed calls with the profiler on.
        kernels: in the order in which they run.
        latency: of the same network without the profiler.
        device: what the device can do; None where it was not asked for.
        nasc: whether ops are those of nasc's IR; otherwise they are nodes of the file.
        provenance: when, where and with what it was taken.
    """

    target: str
    batch: int
    threads: int
    calls: int
    kernels: tuple[KernelProfile, ...]
    latency: Latency
    device: DeviceProfile | None = None
    nasc: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def kernels_s(self) -> float:
        """The time of all kernels."""
        return sum(k.time_s for k in self.kernels)

    @property
    def bound_s(self) -> float | None:
        """The least time of the whole: a call, every node's overhead, every kernel's roof; None without a profile."""
        if self.device is None:
            return None
        work_s = sum(k.roof.seconds for k in self.kernels if k.roof is not None)
        return self.device.call_s + len(self.kernels) * self.device.node_s + work_s

    @property
    def limit(self) -> Limit | None:
        """What most of `bound_s` goes to; None without a profile."""
        if self.device is None:
            return None
        parts: dict[Limit, float] = {"overhead": self.device.call_s + len(self.kernels) * self.device.node_s}
        for kernel in self.kernels:
            if kernel.roof is not None:
                parts[kernel.roof.limit] = parts.get(kernel.roof.limit, 0.0) + kernel.roof.seconds
        return max(parts, key=lambda name: parts[name])

    @property
    def achieved(self) -> float | None:
        """`bound_s` over the latency without the profiler; None without a device profile."""
        return None if self.bound_s is None else self.bound_s / self.latency.median_s

    @property
    def layers(self) -> tuple[KernelProfile, ...]:
        """The kernels of each layer as one, in the order of their first."""
        found: dict[str, list[KernelProfile]] = {}
        for kernel in self.kernels:
            found.setdefault(kernel.layer, []).append(kernel)
        return tuple(map(joined, found.values()))

    def rows(self, *, by_kernel: bool = False) -> list[tuple[str, ...]]:
        """The lines of a table; see `COLUMNS`."""
        return [row(entry) for entry in (self.kernels if by_kernel else self.layers)]

    def remarks(self) -> list[str]:
        """What to know before using the figures, and the figures of the whole."""
        found = [
            f"latency without the profiler {seconds(self.latency.median_s)}, "
            f"kernels together {seconds(self.kernels_s)} (lower deciles of {self.calls} calls)"
        ]
        if self.bound_s is not None and self.achieved is not None:
            found.append(
                f"the least this device needs: {seconds(self.bound_s)} ({self.achieved:.0%}), most of it {self.limit}"
            )
        coarse = sum(k.time_s for k in self.kernels if k.coarse)
        if coarse > 0.1 * self.kernels_s or not self.kernels_s:
            found.append(
                "the profiler counts in microseconds: short kernels' times and shares are rough, and what they achieve "
                "is not said; try a larger --batch"
            )
        if not self.target.endswith(":cpu"):
            found.append("times are those of the host, which may only start the device's work")
        if self.device is not None:
            found += self.device.remarks
        return found + [f"flag: {flag.value}" for flag in self.latency.flags]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the latency's rounds and every kernel's time in every call."""
        return {
            "target": self.target,
            "batch": self.batch,
            "threads": self.threads,
            "calls": self.calls,
            "kernels_s": self.kernels_s,
            "bound_s": self.bound_s,
            "limit": self.limit,
            "achieved": self.achieved,
            "kernels": [k.as_dict() for k in self.kernels],
            "layers": [k.as_dict() for k in self.layers],
            "latency": self.latency.as_dict(),
            "device": None if self.device is None else self.device.as_dict(),
            "provenance": dict(self.provenance),
        }


COLUMNS = ("layer", "kernels", "on", "in", "time", "share", "GMAC/s", "bound", "achieved", "limit", "line")
"""The headings of `NetworkProfile.rows`."""


def row(entry: KernelProfile) -> tuple[str, ...]:
    """One line of the table."""
    rate = f"{entry.macs / entry.time_s / 1e9:.3g}" if entry.macs and entry.time_s else ""
    roof = entry.roof
    return (
        entry.layer,
        entry.kernel,
        entry.provider.removesuffix("ExecutionProvider"),
        entry.format,
        seconds(entry.time_s),
        f"{entry.share:.1%}",
        rate,
        "" if roof is None else seconds(roof.seconds),
        "" if entry.achieved is None else f"{entry.achieved:.0%}",
        "" if roof is None else roof.level or roof.limit,
        "/".join(entry.location.split("/")[-2:]),
    )


def joined(kernels: Sequence[KernelProfile]) -> KernelProfile:
    """Several kernels of one layer as one entry; it is called by the one that takes longest."""
    first = max(kernels, key=lambda k: (k.macs, k.time_s))
    roofs = [k.roof for k in kernels if k.roof is not None]
    roof = None if not roofs else replace(max(roofs, key=lambda r: r.seconds), seconds=sum(r.seconds for r in roofs))
    return replace(
        first,
        kernel=" + ".join(dict.fromkeys(k.kernel for k in kernels)),
        provider=" + ".join(dict.fromkeys(k.provider for k in kernels)),
        ops=tuple(dict.fromkeys(op for k in kernels for op in k.ops)),
        time_s=sum(k.time_s for k in kernels),
        share=sum(k.share for k in kernels),
        macs=sum(k.macs for k in kernels),
        activation_bytes=sum(k.activation_bytes for k in kernels),
        stored_bytes=sum(k.stored_bytes for k in kernels),
        roof=roof,
        runs=len(kernels),
        times_s=(),
    )


def profile_model(
    target: Target,
    model: Artifact | Path,
    *,
    inputs: Sequence[Array] | None = None,
    batch: int = 1,
    threads: int = 1,
    budget_s: float = 4.0,
    device: DeviceProfile | None = None,
) -> NetworkProfile:
    """Time every kernel of a model, and the model without the profiler, in this process.

    `isolation.bench.IsolatedBench.network_profile` does it in a process of its own.

    Args:
        target: where to run.
        model: nasc's or any other ONNX model.
        inputs: real inputs; None: made-up ones.
        batch: length of the batch axis of made-up inputs.
        threads: threads of the runtime.
        budget_s: time for both series of calls together.
        device: what the device can do, for bounds.

    Raises:
        UsageError: a batch or a number of threads below 1, or no budget.
        TargetError: the runtime refuses the model.
        DeviceBusyError: somebody else measures all the time.
    """
    from .bench import Bench

    conditions = Conditions(batch=batch, threads=threads, budget_s=budget_s, floor=False)
    with Bench(target) as bench:
        return bench.network_profile(model, conditions, device, inputs)


def profile_of(
    target: str,
    conditions: Conditions,
    latency: Latency,
    traced: Trace,
    device: DeviceProfile | None,
    provenance: Mapping[str, Any],
) -> NetworkProfile:
    """A profile from what was measured.

    Args:
        target: the target's name.
        conditions: how it was measured.
        latency: without the profiler.
        traced: with it.
        device: what the device can do, for bounds.
        provenance: when, where and with what.
    """
    return NetworkProfile(
        target,
        conditions.batch,
        conditions.threads,
        len(traced.calls_s),
        kernels_of(traced, device),
        latency,
        device,
        is_nascs(traced),
        provenance,
    )


def is_nascs(traced: Trace) -> bool:
    """Whether a model was written by nasc, and its nodes bear the names of ops."""
    return "nasc.version" in traced.metadata


def kernels_of(traced: Trace, device: DeviceProfile | None = None) -> tuple[KernelProfile, ...]:
    """The kernels of a trace with their ops and roofs.

    Args:
        traced: what the runtime noted.
        device: for the roofs.
    """
    naming = Naming(traced.written, traced.nodes, nasc=is_nascs(traced))
    total_s = sum(node.time_s for node in traced.nodes) or 1.0
    held = sum({(t.element, t.shape, v): t.bytes for node in traced.nodes for v, t in node.stored.items()}.values())
    return tuple(_kernel(node, naming, total_s, held, device) for node in traced.nodes)


def _kernel(
    node: TracedNode, naming: Naming, total_s: float, held: int, device: DeviceProfile | None
) -> KernelProfile:  # fmt: skip
    stored = sum(t.bytes for t in node.stored.values())
    moved = sum(t.bytes for t in (*node.inputs, *node.outputs)) - stored
    layer = naming.layer(node)
    return KernelProfile(
        node.name,
        node.kind,
        node.provider,
        layer,
        naming.ops(node),
        naming.location(layer),
        node.format,
        node.time_s,
        node.time_s / total_s,
        node.macs,
        moved,
        stored,
        None if device is None else device.roof(node.macs, [(moved, moved), (stored, held)], node.format),
        times_s=node.times_s,
    )


@dataclass
class Naming:
    """Ops by the names of a file's nodes.

    Args:
        written: the file's nodes.
        ran: the nodes that ran.
        nasc: whether nasc wrote the file; then what stands before a slash is the op.
    """

    written: Sequence[FileNode]
    ran: Sequence[TracedNode]
    nasc: bool
    _nodes: dict[str, FileNode] = field(init=False)
    _readers: dict[str, list[FileNode]] = field(init=False)
    _producers: dict[str, FileNode] = field(init=False)
    _kernels: dict[str, TracedNode] = field(init=False)

    def __post_init__(self) -> None:
        self._nodes = {node.name: node for node in self.written}
        self._producers = {value: node for node in self.written for value in node.outputs}
        self._kernels = {name: node for node in self.ran for name in node.cover.nodes}
        self._readers = {}
        for node in self.written:
            for value in node.inputs:
                self._readers.setdefault(value, []).append(node)

    def op(self, node: str) -> str:
        """The op of a file's node."""
        return node.partition("/")[0] if self.nasc else node

    def ops(self, node: TracedNode) -> tuple[str, ...]:
        """The ops that a running node computes."""
        return tuple(dict.fromkeys(map(self.op, node.cover.nodes)))

    def layer(self, node: TracedNode) -> str:
        """The op that a running node counts for."""
        found = [self._nodes[name] for name in node.cover.nodes]
        if not found:
            return self._beside(node) or node.name
        if (heavy := next((n for n in found if n.kind in HEAVY), None)) is not None:
            return self.op(heavy.name)
        last = found[-1]
        if last.kind == "DequantizeLinear" and (readers := self._readers.get(last.outputs[0])):
            return self._counts_for(readers[0])
        return self.op(last.name)

    def _beside(self, node: TracedNode) -> str:
        """The layer of the kernel that needs a value laid out anew: one that gives it or reads it.

        Blocked layouts begin at what reads the value in blocks and end at what gives it so; other layouts are those of
        heavy kernels, on either side.
        """
        gives = [found for found in [self._producers.get(node.cover.value)] if found is not None]
        reads = self._readers.get(node.cover.value, [])
        near = [*reads, *gives] if node.kind == "ReorderInput" else [*gives, *reads]
        heavy = [] if node.kind == "ReorderOutput" else filter(self._is_heavy, near)
        return next((self._counts_for(found) for found in (*heavy, *near)), "")

    def _counts_for(self, node: FileNode) -> str:
        """The layer of the kernel that computes a file's node."""
        kernel = self._kernels.get(node.name)
        return self.op(node.name) if kernel is None else self.layer(kernel)

    def _is_heavy(self, node: FileNode) -> bool:
        """Whether the kernel that computes a file's node computes a heavy one."""
        kernel = self._kernels.get(node.name)
        return kernel is not None and any(self._nodes[name].kind in HEAVY for name in kernel.cover.nodes)

    def location(self, op: str) -> str:
        """The user's line of an op, as the file has it."""
        if not self.nasc:
            return ""
        return next((n.location for n in self._named(op) if n.location), "")

    def _named(self, op: str) -> Iterable[FileNode]:
        return (node for node in self.written if self.op(node.name) == op)
