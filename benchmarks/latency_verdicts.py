"""How often the latency meter is wrong: one network loaded twice, and a network made about 10 % slower.

    python benchmarks/latency_verdicts.py [--comparisons 100] [--network mlp|conv|vgg7] [--image 224] [--only slower]
        [--gpu] [--stay] [--json FILE]

Both networks are loaded anew again and again while they are measured, as `nasc measure` does; with --stay each is
measured in one place in memory. `vgg7` has 13 MB of weights in 8 bits, whose place matters most. Every other
comparison runs while another process keeps all processors busy. Wrong are FASTER or SLOWER between equal networks, and
anything but SLOWER for the slower one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from nasc.targets import Target, target_named
from nasc.targets.latency import LatencyMeter
from nasc.targets.latency_record import Latency
from nasc.targets.measure import interval as shown
from nasc.targets.measure import on_gpu, plain
from nasc.targets.moving import Loaded, Run
from onnx import TensorProto, helper, numpy_helper

# One thread per processor that does nothing but arithmetic; it ends when its standard input is closed.
LOAD = """
import os, sys, threading
import numpy as np
def spin():
    a = np.ones((256, 256), np.float32)
    while True:
        a @ a
for _ in range(os.cpu_count() or 1):
    threading.Thread(target=spin, daemon=True).start()
print("busy", flush=True)
sys.stdin.read()
"""


class Builder:
    """Collects the nodes and weights of a small ONNX network, weights drawn from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Append a node and give the name of its result."""
        result = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def weight(self, *shape: int) -> str:
        """Append a weight, scaled so that signals neither grow nor fade."""
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return self.constant((self.random.standard_normal(shape) * scale).astype("f4"))

    def constant(self, values: np.ndarray) -> str:
        """Append a tensor of given values."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, value: str, step: float) -> str:
        """Round a value to 8-bit codes and read them back."""
        step_of, zero = self.constant(np.float32(step)), self.constant(np.uint8(0))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", value, step_of, zero), step_of, zero)

    def integer_weight(self, *shape: int) -> str:
        """Append an 8-bit weight, scaled as `weight` does, read through its step."""
        step = np.float32(np.sqrt(2 / np.prod(shape[1:])) / 32)
        codes = np.clip(np.rint(self.random.standard_normal(shape) * 32), -127, 127).astype("i1")
        return self.node("DequantizeLinear", self.constant(codes), self.constant(step), self.constant(np.int8(0)))

    def linear(self, value: str, inputs: int, outputs: int) -> str:
        return self.node("Gemm", value, self.weight(outputs, inputs), transB=1)

    def conv(self, value: str, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> str:
        pads = [size // 2] * 4
        return self.node("Conv", value, self.weight(outputs, inputs, size, size), strides=[stride] * 2, pads=pads)

    def model(self, result: str, shape: list[int], classes: int) -> bytes:
        """The network from `x` of the given shape to `result`, one row of so many classes."""
        self.nodes.append(helper.make_node("Identity", [result], ["y"]))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, "network", [x], [y], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def mlp(*, slower: bool, image: int) -> tuple[bytes, list[int]]:
    """16-64-32-32-5 at batch 1; the slower one has one more layer."""
    build = Builder()
    value, width = "x", 16
    for outputs in (64, 32, 32, 32) if slower else (64, 32, 32):
        value, width = build.node("Relu", build.linear(value, width, outputs)), outputs
    return build.model(build.linear(value, width, 5), [1, 16], 5), [1, 16]


def conv(*, slower: bool, image: int) -> tuple[bytes, list[int]]:
    """ResNet-18's convolutions; the slower one has two more in its first stage: 10 % more time for 224 pixels, 8 % for
    112."""
    build = Builder()
    value = build.node("Relu", build.conv("x", 3, 64, size=7, stride=2))
    value, width = build.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    if slower:
        value = build.node("Relu", build.conv(build.node("Relu", build.conv(value, 64, 60)), 60, 64))
    for outputs in (64, 128, 256, 512):
        for _ in range(2):
            stride = 1 if outputs == width else 2
            inner = build.node("Relu", build.conv(value, width, outputs, stride=stride))
            short = value if outputs == width else build.conv(value, width, outputs, size=1, stride=stride)
            value = build.node("Relu", build.node("Add", build.conv(inner, outputs, outputs), short))
            width = outputs
    pooled = build.node("Flatten", build.node("GlobalAveragePool", value))
    return build.model(build.linear(pooled, width, 1000), [1, 3, image, image], 1000), [1, 3, image, image]


def vgg7(*, slower: bool, image: int) -> tuple[bytes, list[int]]:
    """VGG7 for 32 pixels on integer kernels; the slower one has one more layer in its last stage."""
    build = Builder()
    value, width = build.integers("x", 1 / 64), 3
    for outputs in (128, 256, 512):
        for _ in range(3 if slower and outputs == 512 else 2):
            weight = build.integer_weight(outputs, width, 3, 3)
            value = build.integers(build.node("Conv", value, weight, pads=[1] * 4), 1 / 64)
            width = outputs
        value = build.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = build.node("Flatten", value)
    for inputs, outputs in ((512 * 16, 1024), (1024, 10)):
        value = build.integers(build.node("Gemm", value, build.integer_weight(outputs, inputs), transB=1), 1 / 64)
    return build.model(value, [1, 3, 32, 32], 10), [1, 3, 32, 32]


NETWORKS: dict[str, Callable[..., tuple[bytes, list[int]]]] = {"mlp": mlp, "conv": conv, "vgg7": vgg7}


def loaded(network: tuple[bytes, list[int]], target: Target) -> Loaded:
    """A fresh session on one thread with bound buffers, which can be loaded anew."""
    model, shape = network
    values = np.random.default_rng(1).standard_normal(shape).astype("f4")

    def make() -> Run:
        return target.load(model).bind([values.copy()])

    began_s = time.perf_counter()
    return Loaded(make, make(), time.perf_counter() - began_s)


@contextmanager
def busy_machine() -> Generator[None, None, None]:
    """Another process keeps every processor busy meanwhile."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOAD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def compare(name: str, comparisons: int, image: int, *, slower: bool, stay: bool, target: Target) -> list[Latency]:
    """So many comparisons of fresh sessions, every other one on a busy machine; each is told as it comes."""
    clock = "wall" if on_gpu(target) else "auto"
    network, other = NETWORKS[name](slower=slower, image=image), NETWORKS[name](slower=False, image=image)
    results: list[Latency] = []
    for number in range(comparisons):
        with busy_machine() if number % 2 else nullcontext():
            meter = LatencyMeter(seed=number, clock=clock)
            runs = loaded(network, target), loaded(other, target)
            latency = meter.measure(*(run.call for run in runs)) if stay else meter.measure(*runs)
        results.append(latency)
        told = "" if latency.ratio is None else f"{latency.ratio.value:.3f} {shown(latency.ratio.interval, plain)}, "
        print(
            f"{name}{' slower' if slower else ''} {number + 1}/{comparisons}{', busy' if number % 2 else ''}: "
            f"{latency.verdict} {told}{latency.places} places, {latency.elapsed_s:.1f} s",
            file=sys.stderr,
            flush=True,
        )
    return results


def summary(name: str, results: list[Latency], *, slower: bool) -> list[dict[str, object]]:
    """One row for the quiet half, one for the busy half."""
    rows: list[dict[str, object]] = []
    for half, machine in enumerate(("quiet", "busy")):
        part = results[half::2]
        verdicts = Counter(str(result.verdict) for result in part)
        ratios = [result.ratio.value for result in part if result.ratio]
        row: dict[str, object] = {"network": name, "against": "10 % slower" if slower else "itself", "machine": machine}
        row |= {verdict: verdicts[verdict] for verdict in ("FASTER", "SAME", "SLOWER", "AMBIGUOUS")}
        row |= {
            "ratio": round(median(ratios), 4),
            "spread_percent": round(100 * float(np.std(np.log(ratios))), 2),
            "latency_ms": round(1e3 * median(result.median_s for result in part), 4),
            "places": median(result.places for result in part),
            "seconds": round(median(result.elapsed_s for result in part), 1),
            "thread_clock": sum(result.clock != "wall" for result in part),
            "contended": sum("contended" in result.flags for result in part),
        }
        rows.append(row)
    return rows


def main() -> int:
    """Print the table; exit with 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=20, help="of each pair of networks (100 for the whole)")
    parser.add_argument("--network", choices=[*NETWORKS], action="append", help="only this one")
    parser.add_argument("--only", choices=["equal", "slower"], help="one of the two pairs of each network")
    parser.add_argument("--image", type=int, default=224, help="pixels of a side for conv")
    parser.add_argument("--gpu", action="store_true", help="on the CUDA provider")
    parser.add_argument("--stay", action="store_true", help="measure each network in one place in memory")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    options = parser.parse_args()
    target = target_named("onnxruntime:cuda" if options.gpu else "onnxruntime:cpu")
    rows: list[dict[str, object]] = []
    records: list[dict[str, object]] = []
    for name in options.network or NETWORKS:
        for slower in {"equal": (False,), "slower": (True,)}.get(options.only, (False, True)):
            results = compare(name, options.comparisons, options.image, slower=slower, stay=options.stay, target=target)
            rows += summary(name, results, slower=slower)
            records += [{"network": name, "slower": slower} | result.as_dict() for result in results]
    print(" ".join(f"{key:>14}" for key in rows[0]))
    for row in rows:
        print(" ".join(f"{value!s:>14}" for value in row.values()))
    if options.json:
        options.json.write_text(json.dumps(records))
    wrong = sum(row["FASTER"] + row["SLOWER"] for row in rows if row["against"] == "itself")  # pyright: ignore
    missed = sum(options.comparisons // 2 - row["SLOWER"] for row in rows if row["against"] != "itself")  # pyright: ignore
    print(f"\n{os.cpu_count()} processors; {wrong} wrong verdicts on equal networks, {missed} slower ones not found")
    pairs = len(options.network or NETWORKS)
    return int(wrong > 0.02 * options.comparisons * pairs or missed > 0.05 * options.comparisons * pairs)


if __name__ == "__main__":
    sys.exit(main())
