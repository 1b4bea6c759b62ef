"""What layers cost in integers and in real numbers on this device: the prices in `nasc.compiler.passes.pays`.

    python benchmarks/integer_prices.py

Networks and layers alone, in real numbers and with everything in codes, run in turns under the runtime's profiler, one
thread. A layer's time is the mean of the faster half of its kernel's calls, less what an op of one element takes there.
Within a network weights and large maps come from beyond the core's caches; a layer alone finds its weights there, so
that they do not count. Prices of what `amounts` counts are fitted to all relative errors, without negative ones. The
last table shows all kernels of an op that stands between two convolutions.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nasc
import numpy as np
import torch
from nasc.compiler.passes.pays import CALL_NS, LAYER_NS, amounts, keeps_weights, layer_amounts
from nasc.ir import Graph, Op, layers, parse
from nasc.ir.axes import size
from nasc.targets import target_named
from nasc.targets.latency_model import priced
from nasc.targets.truth import Numbers
from torch import Tensor, nn

CPU = target_named("onnxruntime:cpu")
CALLS, TURNS = 120, 4
PROFILER_NS = 2500.0
"""What the profiler adds to a kernel of one element, where it shows 3.5 us and calls without it take 1."""


@dataclass(frozen=True)
class Row:
    """A layer's class, where it was timed, what it does and how long it took."""

    key: tuple[str, str]
    place: str
    work: tuple[float, ...]
    time_ns: float


@dataclass(frozen=True)
class Layer:
    """A layer to time: channels in and out, length of the map's sides, of the window's, groups, batch and stride.

    A linear layer has no window; its `side` counts nothing and its batch is the number of rows.
    """

    read: int
    given: int
    side: int = 1
    window: int = 0
    groups: int = 1
    batch: int = 1
    stride: int = 1

    @property
    def kind(self) -> str:
        return "conv2d" if self.window else "linear"

    @property
    def weight(self) -> tuple[int, ...]:
        """The weight's lengths."""
        return (self.given, self.read // self.groups, *([self.window] * 2 if self.window else []))

    @property
    def axes(self) -> tuple[list[int], list[int]]:
        """Of the input and of the result, without the batch."""
        if not self.window:
            return [self.read], [self.given]
        side = (self.side + 2 * (self.window // 2) - self.window) // self.stride + 1
        return [self.read, self.side, self.side], [self.given, side, side]

    def amounts(self, how: str) -> tuple[str, tuple[float, ...]]:
        """See `pays.amounts`; weights are in the caches."""
        given, made = ([self.batch, *axes] for axes in self.axes)
        kind, (*work, _, elements) = amounts(self.kind, self.weight, given, made, self.groups, how)
        return kind, (*work, 0.0, elements)

    def graph(self, how: str) -> Graph:
        """The layer in `real` numbers or in `codes`."""
        given, made = (f"[N, {', '.join(map(str, axes))}]" for axes in self.axes)
        half = self.window // 2
        attributes = f" {{padding=[{half}, {half}], stride=[{self.stride}, {self.stride}], groups={self.groups}}}"
        codes = how == "codes"
        lines = [
            f"graph @layer(%x: f32{given}) {{",
            *([f"  %x.q: u8<0.03, 128>{given} = quantize %x"] if codes else []),
            f"  %w: {'i8<per 0>' if codes else 'f32'}[{', '.join(map(str, self.weight))}] = weight",
            f"  %y: f32{made} = {self.kind} %x{'.q' * codes}, %w{attributes if self.window else ''}",
            f"  %r: f32{made} = relu %y",
            *([f"  %r.q: u8<0.03>{made} = quantize %r"] if codes else []),
            f"  return %r{'.q' * codes}",
            "}",
        ]
        return parse("\n".join(["nasc 1", *lines]))


LAYERS = [
    *[Layer(3, g, s, w, stride=t) for g, s, w, t in ((16, 56, 3, 1), (32, 112, 3, 2), (32, 64, 3, 1), (64, 112, 7, 2))],
    *[Layer(3, 28, 24, 3, batch=8), Layer(1, 16, 28, 5, batch=8), Layer(1, 32, 28, 3, batch=4)],
    *[Layer(4, 32, 28, 3, batch=2), Layer(8, 8, 28, 3, batch=4), Layer(8, 32, 28, 3, batch=2)],
    *[Layer(16, 16, 28, 3, batch=4), Layer(28, 48, 11, 3, batch=8), Layer(32, 32, 28, 3), Layer(64, 64, 28, 3)],
    *[Layer(64, 128, 28, 3, stride=2), Layer(128, 128, 14, 3), Layer(256, 256, 7, 3), Layer(48, 64, 4, 3, batch=16)],
    *[Layer(512, 512, 4, 3), Layer(16, 16, 28, 5, batch=2)],
    *[
        Layer(a, b, s, 1, batch=4)
        for a, b, s in ((16, 64, 28), (64, 16, 28), (256, 256, 7), (32, 192, 14), (192, 32, 14))
    ],
    *[Layer(64, 64, 28, 1), Layer(128, 128, 14, 1, batch=2), Layer(24, 144, 28, 1), Layer(64, 128, 28, 1, stride=2)],
    *[Layer(c, c, s, w, c, b, t) for c, s, w, b, t in ((32, 56, 3, 1, 1), (96, 28, 3, 1, 1), (96, 56, 3, 1, 2))],
    *[Layer(c, c, s, w, c, b) for c, s, w, b in ((192, 14, 3, 2), (384, 7, 3, 4), (64, 28, 5, 1))],
    *[Layer(c, c, s, w, c, b) for c, s, w, b in ((24, 28, 5, 4), (24, 28, 3, 4), (40, 14, 3, 4), (72, 14, 3, 4))],
    *[Layer(64, 64, 28, 3, 4), Layer(128, 128, 14, 3, 8), Layer(64, 64, 28, 3, 16), Layer(64, 64, 28, 1, 4, 2)],
    *[Layer(k, n, batch=m) for m, k, n in ((64, 64, 64), (16, 576, 128), (64, 256, 256), (128, 256, 1024))],
    *[Layer(k, n, batch=m) for m, k, n in ((128, 1024, 256), (64, 1024, 1024), (16, 512, 512), (128, 32, 128))],
]
NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    "resnet18": ((64, 112), {}),
    "mobilenet_v2": ((112, 224), {}),
    "mnasnet1_0": ((96,), {}),
    "squeezenet1_1": ((112,), {}),
    "shufflenet_v2_x0_5": ((96,), {}),
    "shufflenet_v2_x1_0": ((128,), {}),
    "resnext50_32x4d": ((64,), {}),
    "regnet_y_400mf": ((96,), {}),
    "efficientnet_b0": ((96,), {}),
}
"""Of torchvision, with the lengths of their images' sides."""
REAL = "cleanup | fold-batch-norm | merge-linear"
CODES = "quantize{weights=i8, activations=u8} | place | calibrate{method=minmax, samples=4} | legalize"
BETWEEN = {
    "prelu": "prelu %A, %slope",
    "leaky_relu": "leaky_relu %A",
    "sigmoid": "sigmoid %A",
    "hardswish": "hardswish %A",
    "gelu": "gelu %A",
    "add": "add %A, %B",
    "mul": "mul %A, %B",
    "max_pool2d": "max_pool2d %A {kernel_size=[3, 3], stride=[1, 1], padding=[1, 1]}",
    "avg_pool2d": "avg_pool2d %A {kernel_size=[3, 3], stride=[1, 1], padding=[1, 1]}",
}


def between(expression: str, channels: int, side: int, how: str) -> Graph:
    """An op between two convolutions of one pixel, and with everything else in codes."""
    codes = how == "codes"
    axes, weight = f"[N, {channels}, {side}, {side}]", f"[{channels}, {channels}, 1, 1]"

    def rounded(name: str) -> list[str]:
        return [f"  %{name}.q: u8<0.03, 128>{axes} = quantize %{name}"] if codes else []

    q = ".q" * codes
    stored = "i8<per 0>" if codes else "f32"
    lines = ["nasc 1", f"graph @between(%x: f32{axes}) {{", *rounded("x"), f"  %slope: f32[{channels}] = weight"]
    for name in "ab":
        lines += [f"  %w{name}: {stored}{weight} = weight", f"  %{name}: f32{axes} = conv2d %x{q}, %w{name}"]
        lines += rounded(name)
    expression = expression.replace("%A", f"%a{q}").replace("%B", f"%b{q}")
    moves = codes and expression.startswith("max_pool")
    lines += [f"  %z: {'u8<0.03, 128>' if moves else 'f32'}{axes} = {expression}", *([] if moves else rounded("z"))]
    lines += [f"  %wy: {stored}{weight} = weight", f"  %y: f32{axes} = conv2d %z{q * (not moves)}, %wy", *rounded("y")]
    return parse("\n".join([*lines, f"  return %y{q}", "}"]))


def networks() -> Iterator[tuple[str, nasc.Network, Tensor]]:
    """Networks of one kind or another, with what they read."""
    import torchvision

    for name, (sides, options) in NETWORKS.items():
        for side in sides:
            torch.manual_seed(0)
            images = torch.randn(4, 3, side, side)
            model = getattr(torchvision.models, name)(weights=None, **options).eval()
            yield f"{name} {side}", nasc.lower(model, images[:2]), images
    for side in (256, 512, 1024, 2048):
        layers = [m for _ in range(3) for m in (nn.Linear(side, side), nn.ReLU())]
        rows = torch.randn(4, side)
        yield f"linear {side}", nasc.lower(nn.Sequential(*layers), rows[:2]), rows


def kernels(models: Sequence[bytes | str], feed: dict[str, np.ndarray]) -> Iterator[dict[tuple[str, str], float]]:
    """Nanoseconds per call of the kernels of each model by kind and name, run in turns."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for i, model in enumerate(models):
            options = ort.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.enable_profiling, options.log_severity_level = True, 4
            options.profile_file_prefix = str(Path(folder) / str(i))
            sessions.append(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
        for _ in range(TURNS):
            for session in sessions:
                for _ in range(CALLS // TURNS):
                    session.run(None, feed)
        for session in sessions:
            times: dict[tuple[str, str], list[float]] = {}
            for event in json.loads(Path(session.end_profiling()).read_text()):
                if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                    key = event["args"]["op_name"], event["name"].removesuffix("_kernel_time")
                    times.setdefault(key, []).append(event["dur"] * 1e3 + 500)
            yield {key: float(np.mean(np.sort(t)[: len(t) // 2])) - PROFILER_NS for key, t in times.items()}


def kinds(graphs: Sequence[Graph], batch: int) -> Iterator[dict[str, float]]:
    """Nanoseconds per call of the kernels of each graph by kind, equal ones added up."""
    entry = graphs[0].inputs[0]
    shape = [size(axis, graphs[0].sizes, batch) for axis in entry.type.axes]
    feed = {entry.name: np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)}
    for found in kernels([CPU.emit(graph, Numbers(graph)).model for graph in graphs], feed):
        total: dict[str, float] = {}
        for (kind, _), time_ns in found.items():
            total[kind] = total.get(kind, 0.0) + time_ns
        yield total


def alone() -> Iterator[Row]:
    """The layers alone."""
    for layer in LAYERS:
        for how, found in zip(CALL_NS, kinds([layer.graph(how) for how in CALL_NS], layer.batch), strict=True):
            kind, work = layer.amounts(how)
            yield Row((kind, how), "alone", work, sum(t for k, t in found.items() if k.endswith(("Conv", "Gemm"))))


def within() -> Iterator[Row]:
    """The layers of networks."""
    for name, network, samples in networks():
        real = network.apply(REAL)
        codes = network.apply(f"{REAL} | {CODES}", data=[samples])
        models = [CPU.emit(made.graph, made.weights).model for made in (real, codes)]
        feed = {real.graph.inputs[0].name: samples[:1].numpy()}
        kept = keeps_weights(real.graph)
        for how, found in zip(CALL_NS, kernels(models, feed), strict=True):
            times = {
                re.sub(r"(_nchwc|_token_\d+)+$", "", at.removeprefix("fused ")): time_ns
                for (kind, at), time_ns in found.items()
                if kind.endswith(("Conv", "Gemm"))
            }
            for op in layers(real.graph):
                merged = (n for n in followers(real.graph, op) if n in times)
                if op.kind in ("conv2d", "linear") and (at := next(merged, None)):
                    kind, work = layer_amounts(real.graph, op, how, kept=kept)
                    yield Row((kind, how), name, work, times[at])


def followers(graph: Graph, op: Op) -> Iterator[str]:
    """The op and what a runtime may merge with it, whose name the kernel then has."""
    for _ in range(4):
        yield op.name
        readers = graph.readers.get(op.name, ())
        if len(readers) != 1:
            return
        op = readers[0]


def layer_table() -> None:
    """Time all layers, fit prices and show what those in use predict."""
    rows = [*within(), *alone()]
    for key in LAYER_NS:
        cases = [row for row in rows if row.key == key]
        fitted = priced([(row.work, max(row.time_ns - CALL_NS[key[1]], 100.0) * 1e-9) for row in cases])
        print(*key, "fitted", [float(f"{p * 1e9:.3g}") for p in fitted], "in use", list(LAYER_NS[key]))
        for place in dict.fromkeys(row.place for row in cases):
            here = [row for row in cases if row.place == place]
            ratios = [
                (CALL_NS[key[1]] + sum(a * b for a, b in zip(LAYER_NS[key], row.work, strict=True))) / row.time_ns
                for row in here
                if row.time_ns > 0
            ]
            low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
            print(f"  {place:28} {len(here):3} layers: {middle:5.2f} of what was measured ({low:.2f} to {high:.2f})")


def between_table() -> None:
    """Time what stands between convolutions."""
    for channels, side, batch in ((32, 28, 4), (64, 14, 4)):
        for name, expression in BETWEEN.items():
            graphs = [between(expression, channels, side, how) for how in CALL_NS]
            for how, found in zip(CALL_NS, kinds(graphs, batch), strict=True):
                each = ", ".join(f"{k} {t / (batch * channels * side**2):.2f}" for k, t in found.items())
                print(f"{name:12} {channels:3} x {side}^2, {how:5}: ns per element: {each}")


if __name__ == "__main__":
    layer_table()
    between_table()
