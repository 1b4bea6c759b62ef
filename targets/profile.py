"""Where a network spends its time on a device: every kernel with the ops it computes, its share, and its roof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .artifact import Artifact
from .base import Array, Target
from .device_profile import DeviceProfile, Limit, Roof
from .latency_record import Latency
from .measure import Conditions, seconds
from .naming import Naming
from .trace import Trace, TracedNode

COARSE_S = 5e-6
"""Times of a kernel up to which the profiler's step of a microsecond shows."""
STEP_S = 1e-6
"""The profiler's step."""
GAP = 0.2
"""Share of the latency outside of kernels from which on it is said."""
NONE: tuple[tuple[None, str], float] = (None, ""), 0.0
"""No part of a bound."""


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
        time_s: lower decile of its times; 0 where it holds others, whose times are their own.
        share: of the time of all kernels.
        macs: multiply-additions in a call, as the kernel runs them.
        activation_bytes: bytes of activations read and written in a call.
        stored_bytes: bytes of stored tensors read in a call.
        roof: the least time that the device needs for it; None without a device profile, or where its work is not
            counted.
        runs: how often it runs in a call, more than once in loops; for a layer, the sum over its kernels.
        times_s: its time in each call; none for a layer's.
        holds: whether others run in its body, as in a loop's.
        counted: whether `macs` holds what it multiplies.
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
    holds: bool = False
    counted: bool = True

    @property
    def coarse(self) -> bool:
        """Whether the profiler's step decides its time; every run of a kernel of a layer brings a step of its own."""
        return not self.holds and self.time_s < COARSE_S * self.runs

    @property
    def achieved(self) -> float | None:
        """The roof's time over the kernel's: 1 is the best the device can do; None without a roof or if coarse."""
        return None if self.roof is None or self.coarse or self.holds else self.roof.seconds / self.time_s

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
    def uncounted(self) -> tuple[KernelProfile, ...]:
        """The kernels whose work is not counted; without it there is no bound of the whole."""
        return tuple(k for k in self.kernels if not k.counted)

    @property
    def bound_s(self) -> float | None:
        """The least time of the whole: a call, every node's overhead, every kernel's roof.

        None without a profile of the device, or where the work of a kernel is not counted.
        """
        return sum(self._bounds.values()) or None

    @property
    def _bounds(self) -> dict[tuple[Limit, str], float]:
        """The parts of `bound_s` by what sets them and, of the memory's, by the level."""
        if self.device is None or self.uncounted:
            return {}
        nodes = sum(k.runs for k in self.kernels)
        found: dict[tuple[Limit, str], float] = {("overhead", ""): self.device.call_s + nodes * self.device.node_s}
        for roof in (k.roof for k in self.kernels if k.roof is not None):
            found[roof.limit, roof.level] = found.get((roof.limit, roof.level), 0.0) + roof.seconds
        return found

    @property
    def limit(self) -> Limit | None:
        """What most of `bound_s` goes to; None where there is none."""
        parts: dict[Limit, float] = {}
        for (limit, _), seconds_ in self._bounds.items():
            parts[limit] = parts.get(limit, 0.0) + seconds_
        return max(parts, key=lambda name: parts[name], default=None)

    @property
    def level(self) -> str:
        """Where most of the bytes of `limit` are; empty where something else than memory sets it."""
        return max((e for e in self._bounds.items() if e[0][0] == self.limit), key=lambda e: e[1], default=NONE)[0][1]

    @property
    def achieved(self) -> float | None:
        """`bound_s` over the latency without the profiler; None where there is no bound."""
        return None if self.bound_s is None else self.bound_s / self.latency.median_s

    @property
    def unattributed_s(self) -> float:
        """The part of the latency that is in no kernel; 0 where kernels take longer, as the profiler slows them."""
        return max(0.0, self.latency.median_s - self.kernels_s)

    @property
    def layers(self) -> tuple[KernelProfile, ...]:
        """The kernels of each layer as one, in the order of their first."""
        found: dict[str, list[KernelProfile]] = {}
        for kernel in self.kernels:
            found.setdefault(kernel.layer, []).append(kernel)
        return tuple(map(joined, found.values()))

    @property
    def _holders(self) -> str:
        """Layers with bodies, as a list."""
        return ", ".join(dict.fromkeys(k.layer for k in self.kernels if k.holds))

    def rows(self, *, by_kernel: bool = False) -> list[tuple[str, ...]]:
        """The lines of a table; see `COLUMNS`."""
        return [row(entry) for entry in (self.kernels if by_kernel else self.layers)]

    def summary(self) -> list[str]:
        """The figures of the whole."""
        found = [
            f"latency without the profiler {seconds(self.latency.median_s)}, "
            f"kernels together {seconds(self.kernels_s)} (lower deciles of {self.calls} calls)"
        ]
        if self.bound_s is not None and self.achieved is not None:
            found.append(
                f"the least this device needs: {seconds(self.bound_s)}, {self.achieved:.0%} of the latency; most of it "
                + (self.level or str(self.limit))
            )
        return found

    def remarks(self) -> list[str]:
        """What to know before using the figures."""
        found: list[str] = []
        runs = sum(k.runs for k in self.kernels)
        if self.unattributed_s > max(GAP * self.latency.median_s, STEP_S * (runs + 1)):
            share = self.unattributed_s / self.latency.median_s
            found.append(
                f"{seconds(self.unattributed_s)} of the latency, {share:.0%}, are in no kernel: what the runtime needs "
                f"to call the network and to start {runs} kernels" + (", and its loops" if self._holders else "")
            )
        if self.kernels_s > (1 + GAP) * self.latency.median_s + STEP_S * runs:
            found.append("kernels together take longer than the network without the profiler, which slows short ones")
        if self._holders:
            found.append(
                f"{self._holders}: its time and work are those of the kernels in its body; what the runtime needs "
                "beside them to run the body cannot be told from the profiler's own time"
            )
        if self.device is not None and self.uncounted:
            names = ", ".join(dict.fromkeys(f"{k.layer} ({k.kernel})" for k in self.uncounted))
            found.append(f"the work of {names} is not counted, so there is no bound for it and for the whole")
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
            "level": self.level,
            "unattributed_s": self.unattributed_s,
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
        "" if entry.holds else seconds(entry.time_s),
        "" if entry.holds else f"{entry.share:.1%}",
        rate,
        "" if roof is None or entry.holds else seconds(roof.seconds),
        "" if entry.achieved is None else f"{entry.achieved:.0%}",
        "" if roof is None or entry.holds else roof.level or roof.limit,
        "/".join(entry.location.split("/")[-2:]),
    )


def joined(kernels: Sequence[KernelProfile]) -> KernelProfile:
    """Several kernels of one layer as one entry; it is called by the one that takes longest."""
    first = max(kernels, key=lambda k: (k.macs, k.time_s))
    roofs = [k.roof for k in kernels if k.roof is not None]
    counted = all(k.counted for k in kernels)
    roof = (
        None
        if not roofs or not counted
        else replace(max(roofs, key=lambda r: r.seconds), seconds=sum(r.seconds for r in roofs))
    )
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
        runs=sum(k.runs for k in kernels),
        times_s=(),
        holds=all(k.holds for k in kernels),
        counted=counted,
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
    batch: int,
) -> NetworkProfile:
    """A profile from what was measured.

    Args:
        target: the target's name.
        conditions: how it was measured.
        latency: without the profiler.
        traced: with it.
        device: what the device can do, for bounds.
        provenance: when, where and with what.
        batch: length of the batch axis that was measured.
    """
    return NetworkProfile(
        target,
        batch,
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
    held = _held(traced.nodes)
    turns = {node.within[0]: _held([n for n in traced.nodes if n.within[:1] == node.within[:1]])
             for node in traced.nodes if node.runs > 1 and node.within}  # fmt: skip
    return tuple(
        _kernel(
            node, naming, total_s, turns.get(node.within[0], held) if node.runs > 1 and node.within else held, device
        )
        for node in traced.nodes
    )


def _held(nodes: Sequence[TracedNode]) -> int:
    """The bytes of all stored tensors that some nodes read."""
    return sum({(t.element, t.shape, v): t.bytes for node in nodes for v, t in node.stored.items()}.values())


def _kernel(
    node: TracedNode, naming: Naming, total_s: float, held: int, device: DeviceProfile | None
) -> KernelProfile:  # fmt: skip
    layer = naming.layer(node)
    roof = None
    if device is not None and node.counted:
        once = node.activation_bytes / node.runs
        roof = device.roof(node.macs, [(node.activation_bytes, once), (node.stored_bytes, held)], node.format)
    return KernelProfile(
        "/".join((*node.within, node.name)),
        node.kind,
        node.provider,
        layer,
        naming.ops(node),
        naming.location(layer),
        node.format,
        node.time_s,
        node.time_s / total_s,
        node.macs,
        node.activation_bytes,
        node.stored_bytes,
        roof,
        node.runs,
        node.times_s,
        node.holds,
        node.counted,
    )
