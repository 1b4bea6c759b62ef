"""All layers in 8 bits by nasc, against ONNX Runtime's own `quantize_static` and against float, side by side.

    python benchmarks/quantized_speed.py [--networks resnet18,mlp] [--seconds 6] [--samples 128]

One thread. For every network `quantize_static` (after `quant_pre_process`) is tried at each of its settings; all of
them, nasc's files (steps per channel, or per tensor in linear layers; what does not pay left real, or all layers in
integers) and the float one are then timed in turns, in several visits. The best setting of either is the fastest one;
with theirs, each of its calibration methods gives an output error on inputs that nobody calibrated on, of which the
smallest counts. Behind it stands by which kernels the two files differ. The second table holds the time from the
lowered source graph to the bytes of the quantized model, nasc's and theirs, with the same samples in the same batches
and the same method (MinMax), in seconds of processor time on one processor, the least of three; "beyond" is what
remains without the forward passes.

Weights are random, batch norms have the statistics of the samples, so that activations are of the size of trained ones.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nasc
import numpy as np
import onnxruntime.quantization as ortq
import torch
from nasc.compiler.execution import run
from nasc.compiler.passes.calibrate import channels_last
from nasc.targets import check_placement, target_named
from nasc.targets.agree import agree
from nasc.targets.latency import LatencyMeter
from nasc.targets.statistics import Ratio, judge, undisturbed, undisturbed_ratio
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

CPU = target_named("onnxruntime:cpu")
PIPELINE = (
    "cleanup | fold-batch-norm | merge-linear | quantize{weights=i8, activations=u8} | SETTING"
    " | calibrate{METHOD} | legalize"
)
OURS = {
    "channel": "place{only=faster}",
    "linear/tensor": "quantize{layers=linear, weights=i8, activations=u8, per=tensor} | place{only=faster}",
    "all": "place",
}
"""Settings of nasc: passes behind `quantize`."""
BATCH = 16
CONFIDENCE, MARGIN = 0.99, 0.02
"""Of the verdicts."""
REPEATS = 3
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


class Reader(ortq.CalibrationDataReader):
    """Batches for `quantize_static`."""

    def __init__(self, name: str, batches: list[Tensor]) -> None:
        self.left: Iterator[Tensor] = iter(batches)
        self.name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None."""
        batch = next(self.left, None)
        return None if batch is None else {self.name: batch.numpy()}


def quantized(source: Path, target: Path, setting: Setting, batches: list[Tensor], name: str, method: str) -> bytes:
    """A float model quantized by ONNX Runtime."""
    ortq.quantize_static(
        source, target, Reader(name, batches), quant_format=setting.format, per_channel=setting.per_channel,
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
class Rounds:
    """Runs that take turns, visited again and again, so that each is seen at the machine's best.

    Args:
        meter: of one visit.
        runs: by name.
        seconds: of every round so far, by name.
    """

    meter: LatencyMeter
    runs: Mapping[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def visit(self) -> None:
        """Measure all of them for a while."""
        for name, latency in self.meter.measure_together(self.runs).items():
            self.seconds.setdefault(name, []).extend(latency.rounds_s)

    def ratio(self, name: str, other: str) -> Ratio:
        """One run over another."""
        return undisturbed_ratio(self.seconds[name], self.seconds[other], CONFIDENCE)

    def best_s(self, name: str) -> float:
        """The latency of a run at the machine's best."""
        times_s = np.array(self.seconds[name])
        return float(np.median(times_s[undisturbed([times_s])]))


def judged(ratio: Ratio) -> str:
    """The verdict on a ratio."""
    return str(judge(ratio, MARGIN, CONFIDENCE).value)


def apart(mine: Mapping[str, int], theirs: Mapping[str, int]) -> str:
    """By which kernels two models differ, such as `-1 DequantizeLinear`."""
    more = {kind: mine.get(kind, 0) - theirs.get(kind, 0) for kind in sorted({*mine, *theirs})}
    return " ".join(f"{count:+d} {kind}" for kind, count in more.items() if count) or "the same"


def compare(name: str, options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """The lines of both tables for one network."""
    make, shape, timed = NETWORKS[name]
    torch.manual_seed(0)
    samples = torch.randn(options.samples, *shape)
    fresh = torch.randn(64, *shape)
    model = settled(make(), samples[:BATCH])
    batches = list(samples.split(BATCH))
    network = nasc.lower(model, samples[:3])
    real = network.apply("cleanup | fold-batch-norm | merge-linear")
    input_name = real.graph.inputs[0].name
    path, prepared = folder / "float.onnx", folder / "prepared.onnx"
    CPU.emit(real.graph, real.weights).save(path)
    quant_pre_process(path, prepared)

    def ours(method: str, setting: str = OURS["channel"]) -> tuple[nasc.Network, bytes]:
        made = network.apply(PIPELINE.replace("METHOD", method).replace("SETTING", setting), data=batches)
        return made, CPU.emit(made.graph, made.weights).model

    values = {op.name: real.weights.real(op.name) for op in real.graph.stored}
    session = CPU.load(prepared)
    ours(f"method=minmax, samples={BATCH}")
    with on_one_processor(), torch.no_grad():
        ours_s, forward_s, theirs_s, their_forward_s = least(
            lambda: ours(f"method=minmax, samples={options.samples}"),
            lambda: [run(real.graph, values, (channels_last(b),)) for b in batches],
            lambda: quantized(prepared, folder / "theirs.onnx", SETTINGS[0], batches, input_name, "MinMax"),
            lambda: [session.run([b.numpy()]) for b in batches],
        )

    feed = [fresh[:timed].numpy()]
    kernels: dict[str, Mapping[str, int]] = {}
    sessions: dict[str, Any] = {}
    floats: dict[str, str] = {}
    for setting, passes in OURS.items():
        made, mine = ours(f"samples={options.samples}", passes)
        sessions[setting] = CPU.load(mine, placed=True)
        placed = sessions[setting].placement()
        kernels[setting] = placed.kernels
        floats[setting] = ", ".join(check_placement(CPU.plan(made.graph), placed).float_layers) or "none"
    float_run = CPU.load(path).bind(feed)
    runs: dict[str, Any] = {setting: session.bind(feed) for setting, session in sessions.items()}
    for setting in SETTINGS:
        try:
            model_bytes = quantized(prepared, folder / "s.onnx", setting, batches[:1], input_name, "MinMax")
            their_session = CPU.load(model_bytes, placed=True)
            kernels[str(setting)] = their_session.placement().kernels
            runs[str(setting)] = their_session.bind(feed)
        except (nasc.NascError, RuntimeError, ValueError) as error:
            print(f"  {name}: quantize_static {setting}: {str(error)[:100]}")
    found = Rounds(LatencyMeter(budget_s=options.seconds, lock=False, width=1e-9), {**runs, "float": float_run})
    for _ in range(options.visits):
        found.visit()
    best = min((s for s in SETTINGS if str(s) in runs), key=lambda s: found.ratio(str(s), "float").value)
    own = min(sessions, key=lambda s: found.ratio(s, "float").value)
    reference = lambda x: CPU.load(path).run([x.numpy()])  # noqa: E731
    error = agree(reference, lambda x: sessions[own].run([x.numpy()]), [fresh]).sqnr_db
    errors: dict[str, float] = {}
    for method in METHODS:
        given = batches if method == "MinMax" else [batches[0][:8]]
        theirs = CPU.load(quantized(prepared, folder / "e.onnx", best, given, input_name, method))
        errors[method] = agree(reference, lambda x, s=theirs: s.run([x.numpy()]), [fresh]).sqnr_db
    their_method = max(errors, key=lambda m: errors[m])
    against_float, against_theirs = found.ratio(own, "float"), found.ratio(own, str(best))
    first = (
        f"{name:13} {found.best_s('float') * 1e3:8.2f} {found.best_s(own) * 1e3:8.2f}"
        f" {1 / against_float.value:6.2f}x {judged(against_float):9} {found.best_s(str(best)) * 1e3:8.2f}"
        f" {1 / against_theirs.value:6.2f}x {judged(against_theirs):9} {error:6.1f} {errors[their_method]:6.1f}"
        f"  {own}; {best}, {their_method}; float layers: {floats[own]};"
        f" kernels: {apart(kernels[own], kernels[str(best)])}"
    )
    beyond, their_beyond = ours_s - forward_s, theirs_s - their_forward_s
    second = (
        f"{name:13} {ours_s:8.2f} {forward_s:8.2f} {beyond:8.2f} {theirs_s:9.2f} {their_forward_s:8.2f}"
        f" {their_beyond:8.2f}   1/{theirs_s / ours_s:.1f}   1/{their_beyond / max(beyond, 1e-3):.1f}"
    )
    return first, second


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--seconds", type=float, default=6.0, help="of one visit to all files of a network")
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--samples", type=int, default=128)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(2)
    lines: list[tuple[str, str]] = []
    for name in options.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(compare(name, options, Path(folder)))
            print(*lines[-1], sep="\n", flush=True)
    print("\nms: float, nasc, over float; quantize_static's best, nasc over it; SQNR in dB: nasc, theirs")
    print(*(first for first, _ in lines), sep="\n")
    print("\nCPU s: nasc, forward passes, beyond; quantize_static, forward passes, beyond; ratios (bars: 1/2, 1/10)")
    print(*(second for _, second in lines), sep="\n")


if __name__ == "__main__":
    main()
