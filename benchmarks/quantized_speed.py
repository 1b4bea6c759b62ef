"""All layers in 8 bits by nasc, against ONNX Runtime's own `quantize_static` and against float, side by side.

    python benchmarks/quantized_speed.py [--networks resnet18,mlp] [--tries 20] [--visits 100] [--samples 128]

One thread. For every network `quantize_static` (after `quant_pre_process`) is tried at each of its settings, and nasc
at each of its own (steps per channel, or per tensor in linear, in wide, or in all layers; all layers in integers, or
what does not pay left real). In every visit all files are loaded anew, in random order, and run in turns for a moment:
where a session lies in memory changes its latency by several percent for as long as it lives, so one session of each
would tell little. The first visits choose the fastest setting of either side; further ones compare these two and float,
since the smallest of several noisy figures is smaller than it should be. With the best setting of either side each of
its calibration methods gives an output error on inputs that nobody calibrated on, of which the smallest counts; times
do not depend on it. Behind it stands by which kernels the two files differ.

The second table holds the time from the lowered source graph to the bytes of the quantized model, nasc's and theirs,
with the same samples in the same batches and the same method (MinMax), in seconds of processor time on one processor,
the least of seven; "beyond" is what remains without the forward passes.

Weights are random, batch norms have the statistics of the samples, so that activations are of the size of trained ones.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import nasc
import numpy as np
import onnxruntime.quantization as ortq
import torch
from nasc.compiler.execution import run
from nasc.compiler.passes.calibrate import channels_last
from nasc.ir import Op, operand
from nasc.ir.axes import size
from nasc.targets import check_placement, target_named
from nasc.targets.agree import agree
from nasc.targets.latency import LatencyMeter
from nasc.targets.statistics import Ratio, judge, paired_ratio
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

CPU = target_named("onnxruntime:cpu")
PIPELINE = (
    "cleanup | fold-batch-norm | merge-linear | quantize{weights=i8, activations=u8} | SETTING | CALIBRATE | legalize"
)
WIDE = 192
"""Layers of more output channels than this pay for steps per channel, by about 1.5 ns a channel."""
PER_TENSOR: dict[str, Callable[[Op, int], bool]] = {
    "channel": lambda layer, width: False,
    "linear/tensor": lambda layer, width: layer.kind == "linear",
    "wide/tensor": lambda layer, width: width > WIDE,
    "tensor": lambda layer, width: True,
}
"""By setting of nasc, which layers (by kind and output channels) have steps per tensor."""
PLACES = {"": "place", ", faster": "place{only=faster}"}
OURS = [steps + place for steps in PER_TENSOR for place in PLACES]
BOTH = "channel"
"""The setting whose time to the bytes is taken: all layers in integers, as theirs are."""
BATCH = 16
CONFIDENCE, MARGIN = 0.99, 0.02
"""Of the verdicts."""
VISIT_S = 0.2
"""How long a file runs in one visit."""
SLOW = 1.2
"""Settings this much slower than the fastest of their side are left out of further visits."""
REPEATS = 7
"""How often the time to the bytes is taken; the least counts."""
U8, S8 = ortq.QuantType.QUInt8, ortq.QuantType.QInt8
QDQ, QOPERATOR = ortq.QuantFormat.QDQ, ortq.QuantFormat.QOperator


class MLP(nn.Sequential):
    """Three layers of 1024."""

    def __init__(self) -> None:
        super().__init__(*[m for _ in range(2) for m in (nn.Linear(1024, 1024), nn.ReLU())], nn.Linear(1024, 1024))


class VGG7(nn.Sequential):
    """128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-1024FC-10 for 32 x 32 pixels."""

    def __init__(self) -> None:
        parts: list[nn.Module] = []
        before = 3
        for width in (128, 256, 512):
            for _ in range(2):
                parts += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            parts.append(nn.MaxPool2d(2))
        super().__init__(*parts, nn.Flatten(), nn.Linear(512 * 16, 1024), nn.ReLU(), nn.Linear(1024, 10))


class Block(nn.Module):
    """One encoder block: attention and FFN with layer norms before them, 256 wide, 4 heads."""

    def __init__(self, width: int = 256, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; shape [batch, tokens, width]."""
        y = self.norm1(x)
        batch, tokens, width = x.shape
        heads = [f(y).view(batch, tokens, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value)]
        y = nn.functional.scaled_dot_product_attention(*heads)
        x = x + self.project(y.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def torchvision_model(name: str) -> Callable[[], nn.Module]:
    """A network of torchvision with random weights."""

    def make() -> nn.Module:
        import torchvision

        return getattr(torchvision.models, name)(weights=None)

    return make


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet18": (torchvision_model("resnet18"), (3, 112, 112), 1),
    "vgg7": (VGG7, (3, 32, 32), 1),
    "mobilenet_v2": (torchvision_model("mobilenet_v2"), (3, 112, 112), 1),
    "block": (Block, (128, 256), 1),
    "mlp": (MLP, (1024,), 64),
}
"""How a network is made, the shape of one sample, and the batch that is timed."""


@dataclass(frozen=True)
class Setting:
    """One way to call `quantize_static`."""

    format: Any
    activations: Any
    weights: Any
    per_channel: bool
    reduce_range: bool = False

    def __str__(self) -> str:
        names = {U8: "u8", S8: "s8"}
        form = "QDQ" if self.format == QDQ else "QOp"
        more = "/channel" * self.per_channel + "/reduced" * self.reduce_range
        return f"{form} {names[self.activations]}x{names[self.weights]}{more}"


SETTINGS = [
    Setting(QDQ, U8, S8, True),
    Setting(QDQ, U8, S8, False),
    Setting(QDQ, U8, U8, False),
    Setting(QDQ, S8, S8, True),
    Setting(QDQ, U8, S8, True, True),
    Setting(QOPERATOR, U8, S8, True),
    Setting(QOPERATOR, U8, U8, False),
]
METHODS = {
    "MinMax": ortq.CalibrationMethod.MinMax,
    "Entropy": ortq.CalibrationMethod.Entropy,
    "Percentile": ortq.CalibrationMethod.Percentile,
}


SAME_METHOD = "calibrate{method=minmax, OPTIONS}"
OUR_METHODS = [f"calibrate{{method={m}, weights=mse, OPTIONS}}" for m in ("mse", "percentile", "average", "minmax")]
OUR_METHODS += [f"{method} | correct-bias" for method in OUR_METHODS]


class Reader(ortq.CalibrationDataReader):
    """Batches for `quantize_static`."""

    def __init__(self, name: str, batches: list[Tensor]) -> None:
        self.left: Iterator[Tensor] = iter(batches)
        self.name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None."""
        batch = next(self.left, None)
        return None if batch is None else {self.name: batch.numpy()}


def quantized(source: Path, target: Path, setting: Setting, reader: Reader, method: str) -> bytes:
    """A float model quantized by ONNX Runtime."""
    ortq.quantize_static(
        source, target, reader, quant_format=setting.format, per_channel=setting.per_channel,
        reduce_range=setting.reduce_range, activation_type=setting.activations, weight_type=setting.weights,
        calibrate_method=METHODS[method], extra_options={"ActivationSymmetric": setting.activations == S8},
    )  # fmt: skip
    return target.read_bytes()


def settled(model: nn.Module, samples: Tensor) -> nn.Module:
    """The model with batch norms that have seen the samples."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
    if norms:
        model.train()
        with torch.no_grad():
            model(samples)
    return model.eval()


@contextmanager
def on_one_processor() -> Generator[None, None, None]:
    """Threads that wait for each other by spinning would count as work: there is one of them at a time."""
    whole, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(whole)})
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, whole)


def least(*functions: Callable[[], Any]) -> list[float]:
    """The least processor time of each function, all threads together, over some calls in turns."""
    found = [math.inf] * len(functions)
    for _ in range(REPEATS):
        for at, function in enumerate(functions):
            start = time.process_time()
            function()
            found[at] = min(found[at], time.process_time() - start)
    return found


@dataclass
class Visits:
    """Files run in turns in many visits, loaded anew for each.

    Args:
        files: models by name.
        feed: the inputs.
        seconds: the latency in every visit so far, by name.
    """

    files: Mapping[str, bytes]
    feed: list[np.ndarray]
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def visit(self, names: Sequence[str]) -> None:
        """Measure some of them for a moment."""
        order = random.sample(names, len(names))
        runs = {name: CPU.load(self.files[name]).bind(self.feed) for name in order}
        meter = LatencyMeter(budget_s=VISIT_S * len(runs), lock=False, width=1e-9)
        for name, latency in meter.measure_together(runs).items():
            self.seconds.setdefault(name, []).append(latency.median_s)

    def choose(self, sides: Sequence[Sequence[str]], visits: int) -> list[str]:
        """The fastest file of each side, by visits to all that may be."""
        left = [list(side) for side in sides]
        for _ in range(visits):
            self.visit([name for side in left for name in side])
            best = [min(map(self.median_s, side)) for side in left]
            left = [[n for n in side if self.median_s(n) < SLOW * s] for side, s in zip(left, best, strict=True)]
        return [min(side, key=self.median_s) for side in left]

    def compare(self, names: Sequence[str], visits: int) -> None:
        """Forget all latencies and measure these files."""
        self.seconds.clear()
        for _ in range(visits):
            self.visit(names)

    def ratio(self, name: str, other: str) -> Ratio:
        """One file over another, from visit to visit."""
        return paired_ratio(self.seconds[name], self.seconds[other], CONFIDENCE)

    def median_s(self, name: str) -> float:
        """The latency of a file."""
        return median(self.seconds[name])


def judged(ratio: Ratio) -> str:
    """The verdict on a ratio."""
    return str(judge(ratio, MARGIN, CONFIDENCE).value)


def within(ratio: Ratio) -> str:
    """How much faster a ratio says that a run is, with its interval."""
    ends = ratio.interval
    return f"{1 / ratio.value:6.3f}x [{1 / ends.high:.3f}, {1 / ends.low:.3f}]"


def apart(mine: bytes, theirs: bytes) -> str:
    """By which kernels two models differ, such as `-1 DequantizeLinear`."""
    ours, others = (CPU.load(model, placed=True).placement().kernels for model in (mine, theirs))
    more = {kind: ours.get(kind, 0) - others.get(kind, 0) for kind in sorted({*ours, *others})}
    return " ".join(f"{count:+d} {kind}" for kind, count in more.items() if count) or "the same"


class Case:
    """One network, its samples, and both ways to quantize it.

    Args:
        name: one of `NETWORKS`.
        samples: how many to calibrate on.
        folder: for files.
    """

    def __init__(self, name: str, samples: int, folder: Path) -> None:
        make, shape, timed = NETWORKS[name]
        torch.manual_seed(0)
        self.name, self.samples, self.folder = name, samples, folder
        given = torch.randn(samples, *shape)
        self.fresh = torch.randn(64, *shape)
        self.feed = [self.fresh[:timed].numpy()]
        self.batches = list(given.split(BATCH))
        self.network = nasc.lower(settled(make(), given[:BATCH]), given[:3])
        self.real = self.network.apply("cleanup | fold-batch-norm | merge-linear")
        self.path, self.prepared = folder / "float.onnx", folder / "prepared.onnx"
        CPU.emit(self.real.graph, self.real.weights).save(self.path)
        quant_pre_process(self.path, self.prepared)

    def ours(self, calibration: str, setting: str = BOTH) -> tuple[nasc.Network, bytes]:
        """The network and the model that nasc makes of the source graph."""
        pipeline = PIPELINE.replace("CALIBRATE", calibration).replace("SETTING", self.setting(setting))
        pipeline = pipeline.replace("OPTIONS", f"samples={self.samples}")
        made = self.network.apply(pipeline, data=self.batches)
        return made, CPU.emit(made.graph, made.weights).model

    def setting(self, name: str) -> str:
        """The passes of one of `OURS`."""
        steps, comma, place = name.partition(", ")
        graph = self.real.graph
        layers = [op for op in graph.ops if op.kind in ("conv2d", "linear")]
        widths = [size(graph.types[operand(op, "weight") or ""].axes[0], graph.sizes) for op in layers]
        chosen = [op.name for op, width in zip(layers, widths, strict=True) if PER_TENSOR[steps](op, width)]
        found = PLACES[comma + place]
        if chosen:
            found = f"quantize{{layers=[{', '.join(chosen)}], weights=i8, activations=u8, per=tensor}} | {found}"
        return found

    def theirs(self, setting: Setting, batches: list[Tensor], method: str) -> bytes:
        """The model that `quantize_static` makes of the prepared one."""
        reader = Reader(self.real.graph.inputs[0].name, batches)
        return quantized(self.prepared, self.folder / "theirs.onnx", setting, reader, method)

    def time_to_bytes(self) -> str:
        """The line of the second table."""
        values = {op.name: self.real.weights.real(op.name) for op in self.real.graph.stored}
        session = CPU.load(self.prepared)
        self.ours(SAME_METHOD)
        with on_one_processor(), torch.no_grad():
            ours_s, forward_s, theirs_s, their_forward_s = least(
                lambda: self.ours(SAME_METHOD),
                lambda: [run(self.real.graph, values, (channels_last(b),)) for b in self.batches],
                lambda: self.theirs(SETTINGS[0], self.batches, "MinMax"),
                lambda: [session.run([b.numpy()]) for b in self.batches],
            )
        beyond, their_beyond = ours_s - forward_s, theirs_s - their_forward_s
        return (
            f"{self.name:13} {ours_s:8.2f} {forward_s:8.2f} {beyond:8.2f} {theirs_s:9.2f} {their_forward_s:8.2f}"
            f" {their_beyond:8.2f}   1/{theirs_s / ours_s:.1f}   1/{their_beyond / max(beyond, 1e-3):.1f}"
        )

    def latencies(self, tries: int, visits: int) -> str:
        """The line of the first table."""
        files = {"float": self.path.read_bytes()}
        floats: dict[str, str] = {}
        for name in OURS:
            made, model = self.ours(OUR_METHODS[0], name)
            if model in files.values():
                continue
            files[name] = model
            placed = CPU.load(files[name], placed=True).placement()
            floats[name] = ", ".join(check_placement(CPU.plan(made.graph), placed).float_layers) or "none"
        settings = {str(setting): setting for setting in SETTINGS}
        for name, setting in list(settings.items()):
            try:
                files[name] = self.theirs(setting, self.batches[:1], "MinMax")
                CPU.load(files[name])
            except (nasc.NascError, RuntimeError, ValueError) as error:
                print(f"  {self.name}: quantize_static {name}: {str(error)[:100]}")
                del settings[name]
        found = Visits(files, self.feed)
        own, best = found.choose([list(floats), list(settings)], tries)
        found.compare([own, best, "float"], visits)
        (method, error), (their_method, their_error) = self.least_error(own), self.their_least_error(settings[best])
        against_float, against_theirs = found.ratio(own, "float"), found.ratio(own, best)
        return (
            f"{self.name:13} {found.median_s('float') * 1e3:8.2f} {found.median_s(own) * 1e3:8.2f}"
            f" {1 / against_float.value:6.2f}x {judged(against_float):9} {found.median_s(best) * 1e3:8.2f}"
            f" {within(against_theirs)} {judged(against_theirs):9} {error:6.1f} {their_error:6.1f}"
            f"  {own}, {method}; {best}, {their_method}; float layers: {floats[own]};"
            f" kernels: {apart(files[own], files[best])}"
        )

    def sqnr_db(self, model: bytes) -> float:
        """How far a model's outputs are from the float model's, on fresh inputs."""
        reference, session = CPU.load(self.path), CPU.load(model)
        return agree(lambda x: reference.run([x.numpy()]), lambda x: session.run([x.numpy()]), [self.fresh]).sqnr_db

    def least_error(self, setting: str) -> tuple[str, float]:
        """The calibration of nasc's with the highest SQNR in dB."""
        errors = {method: self.sqnr_db(self.ours(method, setting)[1]) for method in OUR_METHODS}
        method, error = max(errors.items(), key=lambda entry: entry[1])
        return method.replace(", OPTIONS", ""), error

    def their_least_error(self, setting: Setting) -> tuple[str, float]:
        """The calibration method of theirs with the highest SQNR in dB; slow ones see half of a batch."""
        errors: dict[str, float] = {}
        for method in METHODS:
            batches = self.batches if method == "MinMax" else [self.batches[0][:8]]
            errors[method] = self.sqnr_db(self.theirs(setting, batches, method))
        return max(errors.items(), key=lambda entry: entry[1])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--tries", type=int, default=20, help="visits that choose the settings")
    parser.add_argument("--visits", type=int, default=100, help="visits that compare the chosen ones")
    parser.add_argument("--samples", type=int, default=128)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(2)
    latencies: list[str] = []
    times: list[str] = []
    for name in options.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            case = Case(name, options.samples, Path(folder))
            times.append(case.time_to_bytes())
            print(times[-1], flush=True)
            latencies.append(case.latencies(options.tries, options.visits))
            print(latencies[-1], flush=True)
    print("\nms: float, nasc, over float; quantize_static's best, nasc over it; SQNR in dB: nasc, theirs")
    print(*latencies, sep="\n")
    print("\nCPU s: nasc, forward passes, beyond; quantize_static, forward passes, beyond; ratios (bars: 1/2, 1/10)")
    print(*times, sep="\n")


if __name__ == "__main__":
    main()
