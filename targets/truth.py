"""A table of what is really faster on a device: small networks of one op, in each format, timed once and kept.

Whether a format pays depends on the device and on its runtime's kernels, and never follows from the number of bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..ir import Graph, NascError, parse
from ..ir.axes import size
from ..ir.files import write_text
from .base import Target
from .lock import device_lock
from .provenance import processor
from .series import Run
from .statistics import judge, paired_ratio

VERSION = 3
"""Of the file; a table of another version is timed anew."""
ROUNDS, BLOCK_S = 15, 0.001
"""How often all formats of an op take turns, and for how long at least each time."""
CONFIDENCE, MARGIN = 0.95, 0.1
"""Of the verdicts: formats differ by factors, so that a tenth is the same."""
REAL = ("f32", "f16", "bf16")
"""Formats without a step."""
LAYERS = 3
"""How many equal layers stand behind each other, so that the first rounding does not count too much."""


@dataclass(frozen=True)
class Shape:
    """One op in one class of shapes.

    Args:
        op: its kind.
        name: the class, for people: `1 row`, `many rows`, `small maps`.
        batch: the length of the batch.
        axes: of an activation, without the batch; one in all layers.
        weight: the weight's lengths.
        attributes: as the IR writes them.
    """

    op: str
    name: str
    batch: int
    axes: tuple[int, ...]
    weight: tuple[int, ...]
    attributes: str = ""


SHAPES = (
    Shape("linear", "1 row", 1, (512,), (512, 512)),
    Shape("linear", "64 rows", 64, (256,), (256, 256)),
    Shape("linear", "1 row, narrow", 1, (32,), (32, 32)),
    Shape("conv2d", "large maps", 1, (32, 28, 28), (32, 32, 3, 3), " {padding=[1, 1]}"),
    Shape("conv2d", "small maps", 1, (128, 7, 7), (128, 128, 3, 3), " {padding=[1, 1]}"),
    Shape("conv2d", "1 x 1", 1, (64, 14, 14), (64, 64, 1, 1)),
    Shape("conv2d", "depthwise", 1, (96, 14, 14), (96, 1, 3, 3), " {padding=[1, 1], groups=96}"),
)
FORMATS = (
    ("i8", "u8"), ("i4", "u4"), ("i8", "f32"), ("i4", "f32"), ("i16", "u16"), ("i8", "u16"), ("i16", "f32"),
    ("f16", "f16"), ("f16", "f32"), ("f8e4m3", "f8e4m3"), ("f8e4m3", "f32"),
)  # fmt: skip
"""Formats of weights and of the layers' inputs that are timed against `f32`."""


DTYPES = {"f32": np.float32, "f16": np.float16, "f8e4m3": ml_dtypes.float8_e4m3fn}


@dataclass(frozen=True)
class Row:
    """What one format of one op in one shape takes.

    Args:
        op: the op's kind.
        shape: the class of shapes.
        weights: format of the weights.
        activations: format of the inputs.
        ratio: its time over that in `f32`, paired; None where the target refuses it.
        low, high: the ratio's 95 % interval.
        verdict: FASTER, SAME, SLOWER or AMBIGUOUS against `f32`; `no`: refused.
        reason: why it was refused.
    """

    op: str
    shape: str
    weights: str
    activations: str
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class Truth:
    """The table of one device.

    Args:
        target: the target's name.
        device: the device's name.
        runtime: the runtime and its version.
        rows: the table.
    """

    target: str
    device: str
    runtime: str
    rows: tuple[Row, ...]

    def only_slower(self, op: str, weights: str | None = None, activations: str | None = None) -> bool:
        """Whether a format of weights or of inputs was timed for an op, and is slower than `f32` wherever it was."""
        found = [
            row
            for row in self.rows
            if row.op == op and weights in (None, row.weights) and activations in (None, row.activations)
        ]
        return bool(found) and all(row.verdict in ("SLOWER", "no") for row in found)


def probe(target: Target, shapes: Sequence[Shape] = SHAPES, rounds: int = ROUNDS) -> Truth:
    """Time the table's rows on this device.

    Raises:
        TargetError: the target does not run here.
    """
    with device_lock("cpu"):
        rows = [row for shape in shapes for row in timed(target, shape, rounds)]
    return Truth(target.name, device_of(target), runtime(), tuple(rows))


def timed(target: Target, shape: Shape, rounds: int) -> Iterator[Row]:
    """All formats of one op in one shape, in turns with `f32`."""
    x = [np.random.default_rng(0).normal(0, 1, (shape.batch, *shape.axes)).astype(np.float32)]

    def run(weights: str, activations: str) -> Any:
        graph = network(shape, weights, activations)
        return target.load(target.emit(graph, Numbers(graph))).bind(x)

    runs: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for weights, activations in FORMATS:
        try:
            runs[f"{weights} {activations}"] = run(weights, activations)
        except NascError as error:
            refused[f"{weights} {activations}"] = error.message
    runs["f32 f32"] = run("f32", "f32")
    seconds = in_turns(runs, rounds, time.thread_time if target.name.endswith(":cpu") else time.perf_counter)
    for weights, activations in FORMATS:
        name = f"{weights} {activations}"
        if name in refused:
            yield Row(shape.op, shape.name, weights, activations, None, None, None, "no", refused[name])
            continue
        ratio = paired_ratio(seconds[name], seconds["f32 f32"], CONFIDENCE)
        verdict = judge(ratio, MARGIN, CONFIDENCE)
        low, high = ratio.interval.low, ratio.interval.high
        yield Row(shape.op, shape.name, weights, activations, ratio.value, low, high, str(verdict.value))


def in_turns(runs: Mapping[str, Run], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds per call of every run, round by round; each round runs all of them, in an order of its own.

    On a CPU the clock is that of the calling thread, in which a runtime of one thread works: what other processes do
    meanwhile does not count.
    """
    calls: dict[str, int] = {}
    for name, run in runs.items():
        run()
        start = clock()
        run()
        calls[name] = max(1, round(BLOCK_S / max(clock() - start, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    order, random = list(runs), np.random.default_rng(0)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            run, count = runs[name], calls[name]
            run()
            start = clock()
            for _ in range(count):
                run()
            found[name].append((clock() - start) / count)
    return found


def network(shape: Shape, weights: str, activations: str) -> Graph:
    """Some equal layers with ReLU behind each other, as `legalize` leaves them."""
    axes = f"[N, {', '.join(map(str, shape.axes))}]"
    codes = activations not in REAL
    real = "f32" if codes else activations
    type = weights if weights in REAL else f"{weights}<per 0>"
    lines = [f"graph @probe(%x: f32{axes}) {{"]
    value = "x"
    if real != "f32":
        lines.append(f"  %x.real: {real}{axes} = cast %x")
        value = "x.real"
    for i in range(LAYERS):
        if codes:
            zero = ", 128" if i == 0 and activations == "u8" else ""
            lines.append(f"  %q{i}: {activations}<0.03{zero}>{axes} = quantize %{value}")
            value = f"q{i}"
        lines.append(f"  %w{i}: {type}[{', '.join(map(str, shape.weight))}] = weight")
        lines.append(f"  %y{i}: {real}{axes} = {shape.op} %{value}, %w{i}{shape.attributes}")
        lines.append(f"  %r{i}: {real}{axes} = relu %y{i}")
        value = f"r{i}"
    if codes:
        lines.append(f"  %out: {activations}<0.03>{axes} = quantize %{value}")
        value = "out"
    return parse("\n".join(["nasc 1", *lines, f"  return %{value}", "}"]))


class Numbers:
    """Random numbers for a probe's weights; implements `nasc.ir.Weights`."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def array(self, name: str) -> Any:
        """Codes over the format's range, or small numbers."""
        type = self._graph.types[name]
        shape = tuple(size(axis, self._graph.sizes) for axis in type.axes)
        random = np.random.default_rng(len(name))
        if type.format.is_float:
            scale = 1.0 if type.quantized else 1 / np.sqrt(np.prod(shape[1:]))
            return random.normal(0, scale, shape).astype(DTYPES[type.format.name])
        dtype = np.int8 if type.format.bits <= 8 else np.int16
        return random.integers(-type.format.high, type.format.high, shape, endpoint=True).astype(dtype)

    def steps(self, name: str) -> Any:
        """Steps for which results stay of the size of inputs."""
        type = self._graph.types[name]
        lengths = [size(axis, self._graph.sizes) for axis in type.axes]
        spread = 1.0 if type.format.is_float else type.format.high / 1.7
        return np.full(lengths[0], 1 / (spread * float(np.sqrt(np.prod(lengths[1:])))), np.float32)

    def zeros(self, name: str) -> Any:
        """A probe's weights are symmetric."""
        raise KeyError(name)


def table(target: Target, *, again: bool = False, folder: Path | None = None) -> Truth:
    """The table of this device: as it was kept, or timed now (seconds) and kept.

    Args:
        target: whose.
        again: time it even if it was kept.
        folder: where to keep it; by default `NASC_CACHE_DIR`, else `nasc` in the user's cache.
    """
    path = (folder or cache_folder()) / f"truth-{key_of(target)}.json"
    if not again and (kept := read(path)) is not None:
        return kept
    found = probe(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"version": VERSION, **asdict(found)}
    write_text(path, json.dumps(record, indent=1) + "\n")
    return found


def read(path: Path) -> Truth | None:
    """A table that was kept; None where there is none of this version, or the file is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] != VERSION:
            return None
        rows = tuple(Row(**row) for row in record["rows"])
        return Truth(record["target"], record["device"], record["runtime"], rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def key_of(target: Target) -> str:
    """Names a table by target, device and runtime version."""
    return hashlib.sha256(f"{target.name}\n{device_of(target)}\n{runtime()}".encode()).hexdigest()[:16]


def device_of(target: Target) -> str:
    """The name of the device a target runs on."""
    return processor() if target.name.endswith(":cpu") else target.name


def runtime() -> str:
    """The installed runtime with its version."""
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "onnxruntime"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder for what is kept between runs."""
    if named := environment.get("NASC_CACHE_DIR"):
        return Path(named)
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nasc"
