"""Time from a graph to checked ONNX bytes, against `torch.onnx.export(dynamo=True)` of the same network.

    python benchmarks/emission.py [--rounds 20] [--json]

Both are warm, in one process and on one thread; figures are medians. The network is the jet classifier (16-64-32-32-5,
ReLU) in float and with 8-bit weights and activations, as nasc writes it after folding the batch norms; PyTorch exports
the float network, since it has no quantized form to export.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import torch
from nasc.ir import Graph, parse
from nasc.targets import static_cost, target_named
from torch import nn

SIZES = (16, 64, 32, 32, 5)


class Store:
    """Weights in two dictionaries."""

    def __init__(self, arrays: Mapping[str, Any], steps: Mapping[str, Any]) -> None:
        self.arrays, self.per_axis = arrays, steps

    def array(self, name: str) -> Any:
        """The tensor of a value."""
        return self.arrays[name]

    def steps(self, name: str) -> Any:
        """The steps of a value that has several."""
        return self.per_axis[name]

    def zeros(self, name: str) -> Any:
        """All codes are symmetric."""
        raise KeyError(name)


def network(quantized: bool) -> tuple[Graph, Store]:
    """The jet classifier as a graph, with random weights."""
    rng = np.random.default_rng(0)
    lines, arrays, steps, value = [], {}, {}, "features"
    for i, (into, out) in enumerate(pairwise(SIZES), 1):
        width = f"$fc{i}" if out != 5 else "5"
        given = f"$fc{i - 1}" if i > 1 else "16"
        if quantized:
            lines.append(
                f"%{value}.q: u8<0.02, 128>[N, {given}] = quantize %{value}".replace(", 128" if i > 1 else "", "")
            )
            value += ".q"
            arrays[f"fc{i}.weight"] = rng.integers(-127, 128, (out, into)).astype(np.int8)
            arrays[f"fc{i}.bias"] = rng.integers(-1000, 1000, out).astype(np.int32)
            steps[f"fc{i}.weight"] = rng.uniform(0.001, 0.002, out).astype(np.float32)
            steps[f"fc{i}.bias"] = np.float32(0.02) * steps[f"fc{i}.weight"]
        else:
            arrays[f"fc{i}.weight"] = rng.normal(size=(out, into)).astype(np.float32)
            arrays[f"fc{i}.bias"] = rng.normal(size=out).astype(np.float32)
        weight, bias = ("i8<per 0>", "i32<per 0>") if quantized else ("f32", "f32")
        lines.append(f"%fc{i}.weight: {weight}[{width}, {given}] = weight")
        lines.append(f"%fc{i}.bias: {bias}[{width}] = weight")
        lines.append(f'%fc{i}: f32[N, {width}] = linear %{value}, %fc{i}.weight, %fc{i}.bias at "jets.py":{20 + i}')
        value = f"fc{i}"
        if out != 5:
            lines.append(f'%act{i}: f32[N, {width}] = relu %fc{i} at "jets.py":{20 + i}')
            value = f"act{i}"
    widths = "\n".join(f"  width $fc{i} = {n}" for i, n in enumerate(SIZES[1:-1], 1))
    body = "\n".join(f"  {line}" for line in lines)
    text = f"nasc 1\ngraph @jets(%features: f32[N, 16]) {{\n{widths}\n{body}\n  return %{value}\n}}\n"
    return parse(text), Store(arrays, steps)


def module() -> nn.Module:
    """The same classifier in PyTorch, with the batch norms that nasc folds."""
    layers: list[nn.Module] = []
    for into, out in pairwise(SIZES):
        layers += [nn.Linear(into, out)] if out == 5 else [nn.Linear(into, out), nn.BatchNorm1d(out), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def export(model: nn.Module) -> onnx.ModelProto:
    """PyTorch's own export to ONNX, with a dynamic batch."""
    example = (torch.zeros(3, 16),)
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(), quiet[0], quiet[1]:
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(model, example, dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return program.model_proto


def median_s(call: Callable[[], object], rounds: int, warm: int = 3) -> float:
    """The median time of a call once it is warm."""
    for _ in range(warm):
        call()
    times: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(rounds: int) -> dict[str, float]:
    """All figures in seconds, and the ratio."""
    target = target_named("onnxruntime:cpu")
    figures: dict[str, float] = {}
    for name, quantized in (("float", False), ("int8", True)):
        graph, store = network(quantized)
        model = target.emit(graph, store).model
        figures[f"{name} emission"] = median_s(lambda g=graph, s=store: target.emit(g, s), 10 * rounds)
        figures[f"{name} checker"] = median_s(lambda m=model: onnx.checker.check_model(m), 10 * rounds)
        figures[f"{name} plan"] = median_s(lambda g=graph: target.plan(g), 10 * rounds)
        figures[f"{name} static cost"] = median_s(lambda g=graph: static_cost(g), 10 * rounds)
        figures[f"{name} session"] = median_s(lambda m=model: target.load(m), rounds)
        figures[f"{name} session with placement"] = median_s(lambda m=model: target.load(m, placed=True), rounds)
    model = module()
    figures["torch.onnx.export"] = median_s(lambda: export(model), max(3, rounds // 5), warm=2)
    ours = figures["int8 emission"] + figures["int8 checker"]
    figures["ratio of torch.onnx.export to int8 emission and checker"] = figures["torch.onnx.export"] / ours
    return figures


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--rounds", type=int, default=20, help="timed calls of the slow parts; the fast get ten times as many"
    )
    options.add_argument("--json", action="store_true", help="print one JSON object, times in seconds")
    given = options.parse_args()
    torch.set_num_threads(1)
    figures = measure(given.rounds)
    if given.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:58} {value:10.0f}" if name.startswith("ratio") else f"{name:58} {value * 1e3:10.3f} ms")


if __name__ == "__main__":
    main()
