"""Measure what ONNX Runtime reaches at best on a device: large products, copies at every level, and nothing at all.

All rates are the best of several calls, since other processes and interrupts only ever take time. The kernels are the
runtime's own: a network cannot do better with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ...ir import Encoding, Graph, Step, format_named, parse
from ...ir.axes import size
from ..base import Signature
from ..device_profile import DeviceProfile, Level
from ..host import Load, ThisHost
from ..inputs import example_arrays
from ..lock import device_lock
from ..onnx.elements import element
from ..provenance import processor
from .floor import floor_model
from .library import ort
from .profiler import trace
from .session import OnnxRuntimeSession, Provider

PRODUCT = """nasc 1
graph @product(%x: {given}[N, {n}]) {{
{quantize}  %w: {stored}[{n}, {n}] = weight
  %y: f32[N, {n}] = linear %{read}, %w
  return %y
}}"""
PRODUCTS_F8 = 8
"""Products that read the same codes, so that rounding to them does not count."""
CONVOLUTION = """nasc 1
graph @convolution(%x: f32[N, {c}, 28, 28]) {{
{quantize}  %w: {stored}[{c}, {c}, 3, 3] = weight
  %y: f32[N, {c}, 28, 28] = conv2d %{read}, %w {{padding=[1, 1]}}
{requantize}  return %{result}
}}"""
NARROW = {
    "i8": Encoding(format_named("i8"), Step.per(0, known=True)),
    "f16": Encoding(format_named("f16"), None),
    "f8": Encoding(format_named("f8e4m3"), Step.of(2.0**-5)),
}
"""Formats whose peaks are measured where their kernels run, and the weights that show it."""
CHAIN = 8
"""Nodes of the network that moves bytes."""
CALLS_S = 0.25
"""Time for the calls of one experiment."""
CONTENDED = 0.25
"""Processors kept busy by others from which on a profile says so."""
MEMORY_BYTES, GPU_MEMORY_BYTES = 1 << 27, 1 << 30
"""Bytes that are moved to see the memory behind the caches, at least; four times the last cache if that is more."""


def calibrate(target: Any, provider: Provider, threads: int) -> DeviceProfile:
    """Measure a device through one execution provider; takes about fifteen seconds.

    Args:
        target: the target, which emits the networks.
        provider: the execution provider with its options.
        threads: threads within one op.
    """
    device, runtime = identity(provider[0])
    host = ThisHost()
    with device_lock("cpu"):
        before = host.counters()
        call_s, node_s = overheads(provider, threads)
        peaks = {"f32": peak(target, provider, threads, "f32")}
        for format, stored in NARROW.items():
            if target.supports(stored, "weight").runs == "native":
                peaks[format] = peak(target, provider, threads, format)
        levels = tuple(bandwidths(target, provider, threads))
        load = Load.between(before, host.counters())
    prices = _prices(target, provider, threads)
    remarks = () if (load.others or 0) < CONTENDED else ("other processes were busy meanwhile; peaks may be too low",)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return DeviceProfile(target.name, device, runtime, threads, peaks, levels, call_s, node_s, now, remarks, prices)


def _prices(target: Any, provider: Provider, threads: int) -> dict[str, Any] | None:
    """What operations and bytes cost here, where the device has a meter that can tell; takes a minute then."""
    from ..energy import MeterUnavailableError
    from ..measure import energy_meter
    from .energy_prices import energy_prices

    try:
        meter = energy_meter(target)
    except MeterUnavailableError:
        return None
    caches = cache_sizes() if provider[0] == "CPUExecutionProvider" else {}
    found = energy_prices(target, provider, threads, meter, caches)
    return None if found is None else found.as_dict()


def identity(provider: str) -> tuple[str, str]:
    """The device's name, and the runtime with its version."""
    runtime = f"onnxruntime {ort.__version__}"
    if provider == "CPUExecutionProvider":
        return processor(), runtime
    from ..energy import EnergyMeter

    return EnergyMeter.nvml().support().device, runtime


def overheads(provider: Provider, threads: int) -> tuple[float, float]:
    """What a call costs, and what each node costs: from networks of 4 and of 64 nodes that do nothing."""
    signature = (Signature("x", "float32", (None, 1)),)
    times: dict[int, float] = {}
    for nodes in (4, 64):
        session = OnnxRuntimeSession(floor_model(signature, nodes), provider, threads=threads, placed=False)
        times[nodes] = best_s(session.bind(example_arrays(session.inputs, 1)), repeat=50)
    node_s = (times[64] - times[4]) / 60
    return max(0.0, times[4] - 4 * node_s), node_s


def best_s(run: Callable[[], object], *, repeat: int = 1, budget_s: float = CALLS_S) -> float:
    """The least time of a call, each time taken over `repeat` calls in a row."""
    began_s = perf_counter()
    found: list[float] = []
    while len(found) < 5 or perf_counter() - began_s < budget_s:
        start_s = perf_counter()
        for _ in range(repeat):
            run()
        found.append((perf_counter() - start_s) / repeat)
    return min(found[1:])


def peak(target: Any, provider: Provider, threads: int, format: str) -> float:
    """Multiply-additions per second in a format: the better of a matrix product and a convolution, which 8-bit floats
    have none of.

    They are large enough to keep a device busy for far longer than a call costs: 0.1 billion multiply-additions for one
    thread of a processor, 60 billion for a GPU.
    """
    found: list[float] = []
    n, c, images = (512, 128, 1) if provider[0] == "CPUExecutionProvider" else (4096, 512, 32)
    experiments = [(product_text(n, format), n)]
    if format != "f8":
        experiments.append((convolution_text(c, format), images))
    for text, batch in experiments:
        graph = parse(text)
        model = target.emit(graph, Filled(graph))
        found.append(kernel_rate(model, provider, batch, threads))
    return max(found)


def kernel_rate(model: Any, provider: Provider, batch: int, threads: int) -> float:
    """Multiply-additions per second of the one kernel of a model that has any; of whole calls on other devices."""
    if provider[0] == "CPUExecutionProvider":
        traced = trace(model, provider, None, batch=batch, threads=threads, budget_s=CALLS_S)
        work = [(n.macs, min(n.times_s)) for n in traced.nodes]
        return max(count / max(time_s, 1e-6) for count, time_s in work)
    traced = trace(model, provider, None, batch=batch, threads=threads, budget_s=0)
    count = sum(n.macs for n in traced.nodes)
    session = OnnxRuntimeSession(model, provider, threads=threads, placed=False)
    return count / best_s(session.bind(example_arrays(session.inputs, batch)))


def product_text(n: int, format: str) -> str:
    """A matrix product of n x n weights; of 8-bit floats several."""
    if format == "f8":
        lines = [f"  %q: f8e4m3<2^-5>[N, {n}] = quantize %x"]
        for i in range(PRODUCTS_F8):
            lines.append(f"  %w{i}: f8e4m3<2^-5>[{n}, {n}] = weight")
            lines.append(f"  %y{i}: f32[N, {n}] = linear %q, %w{i}")
        results = ", ".join(f"%y{i}" for i in range(PRODUCTS_F8))
        return "\n".join(["nasc 1", f"graph @product(%x: f32[N, {n}]) {{", *lines, f"  return {results}", "}"])
    if format != "i8":
        return PRODUCT.format(given=format, stored=format, n=n, quantize="", read="x")
    quantize = f"  %q: u8<2^-6, 128>[N, {n}] = quantize %x\n"
    return PRODUCT.format(given="f32", stored="i8<per 0>", n=n, quantize=quantize, read="q")


def convolution_text(c: int, format: str) -> str:
    """A convolution of c channels over an image of 28 x 28."""
    if format != "i8":
        held = {"stored": format, "quantize": "", "read": "x", "requantize": "", "result": "y"}
        return CONVOLUTION.format(c=c, **held).replace("%x: f32", f"%x: {format}").replace("%y: f32", f"%y: {format}")
    quantize = f"  %q: u8<2^-6, 128>[N, {c}, 28, 28] = quantize %x\n"
    requantize = f"  %z: u8<2^-4, 128>[N, {c}, 28, 28] = quantize %y\n"
    held = {"stored": "i8<per 0>", "quantize": quantize, "read": "q", "requantize": requantize, "result": "z"}
    return CONVOLUTION.format(c=c, **held)


class Filled:
    """Weights for any graph (`Weights`): small random numbers, codes of the whole range, equal steps.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._random = np.random.default_rng(0)

    def array(self, name: str) -> Any:
        """A tensor's numbers or codes."""
        type = self._graph.types[name]
        shape = tuple(size(axis, self._graph.sizes) for axis in type.axes)
        if type.format.is_int:
            return self._random.integers(-127, 128, shape).astype(np.int8)
        return (self._random.standard_normal(shape) / 16).astype(element(type.format)[1])

    def steps(self, name: str) -> Any:
        """A tensor's steps."""
        type = self._graph.types[name]
        assert type.step is not None and type.step.axis is not None
        return np.full(size(type.axes[type.step.axis], self._graph.sizes), 2.0**-7, np.float32)

    def zeros(self, name: str) -> Any:
        """Codes are symmetric."""
        raise KeyError(name)


def bandwidths(target: Any, provider: Provider, threads: int) -> list[Level]:
    """Bytes per second of each cache and of the memory.

    A chain of nodes that each negate a tensor reads and writes as many bytes; between a smaller and a larger tensor
    that both fit the level, what calls and nodes cost cancels. Behind the second cache the weights of a product with
    one row, which are only read, may be faster; the better of both counts.
    """
    caches = cache_sizes() if provider[0] == "CPUExecutionProvider" else {}
    found: list[Level] = []
    below = 4096
    for name, held in caches.items():
        large = max(2 * below, held // 2) if held // 2 > below else held
        rate = copying(target, provider, threads, large // 4, large)
        if held > 1 << 20:
            rate = max(rate, reading(target, provider, threads, held // 2))
        found.append(Level(name, held, rate))
        below = held
    whole = max(MEMORY_BYTES if provider[0] == "CPUExecutionProvider" else GPU_MEMORY_BYTES, 4 * below)
    rate = max(
        copying(target, provider, threads, whole // 2, whole), reading(target, provider, threads, min(whole, 1 << 28))
    )
    return [*monotone(found, rate), Level("memory", None, rate)]


def monotone(caches: list[Level], memory: float) -> list[Level]:
    """A cache is at least as fast as what lies behind it: what was measured behind it went through it."""
    found: list[Level] = []
    least = memory
    for entry in reversed(caches):
        least = max(least, entry.bytes_per_s)
        found.append(Level(entry.name, entry.size_bytes, least))
    return found[::-1]


def copying(target: Any, provider: Provider, threads: int, small: int, large: int) -> float:
    """Bytes per second, from chains of nodes over tensors that take `small` and `large` bytes with their copies."""
    times: list[float] = []
    for held in (small, large):
        elements = max(1, held // 8)
        graph = parse(chain_text())
        session = OnnxRuntimeSession(target.emit(graph, Filled(graph)), provider, threads=threads, placed=False)
        run = session.bind([np.zeros(elements, np.float32)])
        times.append(best_s(run, repeat=max(1, min(50, (1 << 20) // held))))
    moved = CHAIN * (large // 8 - small // 8) * 8
    return moved / max(times[1] - times[0], 1e-9)


def chain_text() -> str:
    """Nodes behind each other that each negate a tensor of as many elements as the batch is long."""
    lines = [f"  %n{i}: f32[N] = neg %{f'n{i - 1}' if i else 'x'}" for i in range(CHAIN)]
    return "\n".join(["nasc 1", "graph @chain(%x: f32[N]) {", *lines, f"  return %n{CHAIN - 1}", "}"]) + "\n"


def reading(target: Any, provider: Provider, threads: int, held: int) -> float:
    """Bytes per second of weights that are read once per call, by a product with one row."""
    n = max(64, int((held / 4) ** 0.5))
    graph = parse(product_text(n, "f32"))
    session = OnnxRuntimeSession(target.emit(graph, Filled(graph)), provider, threads=threads, placed=False)
    return 4 * n * n / best_s(session.bind(example_arrays(session.inputs, 1)))


def cache_sizes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> Mapping[str, int]:
    """The sizes in bytes of the caches for data of a processor, by level, as Linux shows them; empty elsewhere."""
    found: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            shown = (index / "size").read_text().strip()
            factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(shown[-1:], 1)
            found[f"L{(index / 'level').read_text().strip()}"] = int(shown.rstrip("KMG")) * factor
        except (OSError, ValueError):
            continue
    return found
