"""A problem without training, runtime or noise of a machine: quality and costs are formulas over a network's bits.

The networks are real (parsed from text, rewritten by the real passes up to calibration), so that pipelines, keys and
digests are what they are in earnest. Run as a script it searches, and notes every candidate that is paid for in a
file, so that a test can kill it and count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from nasc.compiler.network import Network
from nasc.compiler.passes import Train
from nasc.compiler.pipeline import parse_pipeline
from nasc.compiler.weights import Source, Store
from nasc.ir import Encoding, Graph, NascError, layers, operand, parse, text
from nasc.ir.axes import size
from nasc.ir.files import write_text
from nasc.search.config import configuration
from nasc.search.figures import METRICS, Figure, Figures, Metric
from nasc.search.protocols import Deployed, Problem, Report, Split
from nasc.search.run import search
from nasc.targets.base import Role, Support
from nasc.targets.onnxruntime.formats import support

GRAPH = """nasc 1
graph @small(%x: f32[N, 16]) {
  width $fc1 = 64
  width $fc2 = 32
  width $fc3 = 32
  %fc1.weight: f32[$fc1, 16] = weight
  %fc1.bias: f32[$fc1] = weight
  %fc1: f32[N, $fc1] = linear %x, %fc1.weight, %fc1.bias
  %act1: f32[N, $fc1] = relu %fc1
  %fc2.weight: f32[$fc2, $fc1] = weight
  %fc2.bias: f32[$fc2] = weight
  %fc2: f32[N, $fc2] = linear %act1, %fc2.weight, %fc2.bias
  %act2: f32[N, $fc2] = relu %fc2
  %fc3.weight: f32[$fc3, $fc2] = weight
  %fc3.bias: f32[$fc3] = weight
  %fc3: f32[N, $fc3] = linear %act2, %fc3.weight, %fc3.bias
  %act3: f32[N, $fc3] = relu %fc3
  %fc4.weight: f32[5, $fc3] = weight
  %fc4.bias: f32[5] = weight
  %fc4: f32[N, 5] = linear %act3, %fc4.weight, %fc4.bias
  return %fc4
}
"""
HURT = {"fc1": 1.0, "fc2": 0.3, "fc3": 0.5, "fc4": 2.0}
"""How much the rounding of each layer hurts: what a search has to find out."""
SAMPLES: Mapping[str, int] = {"validation": 4000, "confirmation": 16000, "test": 10000}
BASE_ACCURACY = 0.75


def small() -> Network:
    """The source network."""
    graph = parse(GRAPH)
    torch.manual_seed(0)
    recipes = {op.name: Source(torch.randn([size(a, graph.sizes) for a in op.type.axes])) for op in graph.stored}
    return Network(graph, Store(recipes))


def asked(pipeline: str) -> int:
    """The epochs of training that a pipeline asks for."""
    return sum(step.epochs for step in parse_pipeline(pipeline).passes if isinstance(step, Train))


def bits(graph: Graph) -> dict[str, tuple[int, int, int]]:
    """Multiply-adds, bits of weights and bits of activations of each layer."""
    found: dict[str, tuple[int, int, int]] = {}
    for op in layers(graph):
        weight = graph.types[operand(op, "weight") or ""]
        macs = math.prod(size(axis, graph.sizes) for axis in weight.axes)
        found[op.name] = (macs, weight.format.bits, graph.types[op.inputs[0]].format.bits)
    return found


@dataclass
class SmallBuilder:
    """Makes candidates of the small network; calibration is left out.

    Args:
        paid: a file that gets a line for each candidate that is finished, or None.
        delay_s: how long finishing takes.
        fail: raises for pipelines it does not like.
        trained_epochs: the epochs that were trained.
        trains: whether finalists can be trained.
        labels: whether there are samples to train on.
        cohorts: how many networks were trained together, for how many epochs.
    """

    paid: Path | None = None
    delay_s: float = 0.0
    fail: Callable[[str], None] = lambda pipeline: None
    trained_epochs: list[int] = field(default_factory=list[int])
    trains: bool = False
    labels: bool = True
    cohorts: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    @cached_property
    def network(self) -> Network:
        return small()

    @property
    def digest(self) -> str:
        return self.network.key

    @property
    def graph(self) -> Graph:
        return self.network.graph

    @property
    def teachable(self) -> bool:
        return self.labels

    @property
    def trainable(self) -> bool:
        return self.trains

    def source(self) -> Network:
        return self.network

    def structure(self, pipeline: str) -> Network:
        return self.network.apply(parse_pipeline(pipeline).split()[0])

    def finish(self, network: Network, pipeline: str) -> Network:
        self.fail(pipeline)
        time.sleep(self.delay_s)
        if self.paid is not None:
            with self.paid.open("a") as file:
                file.write(f"{network.key}\n")
        return network

    def trained(self, pipeline: str, epochs: int) -> str:
        return str(parse_pipeline(f"{pipeline.split(' | train')[0]} | train{{epochs={epochs}}}"))

    def train(self, network: Network, pipeline: str, report: Report | None = None) -> Network:
        for epoch in range(1, asked(pipeline) + 1):
            self.trained_epochs.append(epoch)
            if report and report(epoch, {"accuracy": accuracy(network.graph, "validation", gained=0.005 * epoch)}):
                break
        return network

    def train_all(self, networks: Sequence[Network], pipelines: Sequence[str]) -> list[Network | NascError]:
        (epochs,) = set(map(asked, pipelines))
        self.cohorts.append((len(networks), epochs))
        return list(networks)

    def keep(self, network: Network, path: Path) -> None:
        write_text(path, text(network.graph))

    def load(self, path: Path, pipeline: str) -> Network:
        network = self.structure(pipeline)
        assert path.read_text() == text(network.graph)
        return network

    def save(self, network: Network, path: Path) -> None:
        write_text(path, text(network.graph))
        write_text(path.with_suffix(".safetensors"), "tensors")


def lost(graph: Graph) -> float:
    """Accuracy that rounding really costs."""
    total = 0.0
    for name, (_, weights, activations) in bits(graph).items():
        total += HURT.get(name, 1.0) * (4.0**-weights + 0.5 * 4.0**-activations)
    return 2.0 * total + sum(0.01 * (1 - graph.sizes[w] / n) for w, n in (("fc1", 64), ("fc2", 32)) if w in graph.sizes)


def accuracy(graph: Graph, split: Split, gained: float = 0.0) -> Figure:
    """Accuracy as so many samples would show it: the truth with the luck of the draw, the same for the same network."""
    drop = max(lost(graph) - gained, 0.0)
    error = 0.0 if drop == 0 else math.sqrt((drop + 0.02) / SAMPLES[split])
    luck = random.Random(f"{split}{sorted(bits(graph).items())}").gauss(0, error)
    value = BASE_ACCURACY - drop + luck
    spread = 1.96 * math.sqrt(value * (1 - value) / SAMPLES[split])
    return Figure(
        value, "measured", value - spread, value + spread, value - BASE_ACCURACY, error, samples=SAMPLES[split]
    )


@dataclass
class SmallJudge:
    """Judges by formula.

    Args:
        overhead: the sentence on overhead, or None.
        splits: the samples there are.
        missing: metrics that cannot be had.
        timed: networks that were measured.
    """

    overhead: str | None = "One call costs more than the arithmetic of the small network."
    splits: frozenset[Split] = frozenset({"validation", "confirmation", "test"})
    missing: dict[str, str] = field(default_factory=dict)
    timed: list[str] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> Sequence[Metric]:
        names = ("accuracy", "loss", "latency", "bit_operations", "macs", "parameters", "size", "average_bits")
        return [METRICS[name] for name in names]

    @property
    def unavailable(self) -> Mapping[str, str]:
        return self.missing

    def static(self, network: Network) -> Figures:
        rows = bits(network.graph).values()
        weights = sum(macs for macs, _, _ in rows)
        return {
            "bit_operations": Figure(sum(m * w * a for m, w, a in rows)),
            "macs": Figure(weights),
            "parameters": Figure(weights),
            "size": Figure(sum(m * w for m, w, _ in rows) / 8),
            "average_bits": Figure(sum(m * w for m, w, _ in rows) / weights),
        }

    def layers(self, network: Network) -> Mapping[str, Mapping[str, float]]:
        return {
            name: {"macs": m, "bit_operations": m * w * a, "size": m * w / 8}
            for name, (m, w, a) in bits(network.graph).items()
        }

    def supports(self, encoding: Encoding, role: Role) -> Support:
        return support("CPUExecutionProvider", encoding, role)

    def quality(self, network: Network, split: Split) -> Figures:
        if split == "test":
            self.tested.append(network.key)
        drop = lost(network.graph)
        return {
            "accuracy": accuracy(network.graph, split),
            "loss": Figure(0.7 + 2 * drop, "measured", difference=2 * drop, error=0.001),
        }

    def measure(self, network: Network, metrics: Sequence[str]) -> Figures:
        self.timed.append(network.key)
        rows = bits(network.graph).values()
        quantized = all(w <= 8 and a <= 8 for _, w, a in rows)
        ratio = (0.4 if quantized else 1.0) * sum(m for m, _, _ in rows) / 4256
        time_s = 1e-4 * ratio
        verdict = "FASTER" if ratio < 0.98 else "SAME"
        return {
            name: Figure(
                time_s, "measured", time_s * 0.99, time_s * 1.01, None, None, ratio, ratio * 0.99, ratio * 1.01, verdict
            )
            for name in metrics
        }

    def overhead_bound(self) -> str | None:
        return self.overhead

    def timing_key(self, network: Network) -> str:
        rows = bits(network.graph)
        return json.dumps([(n, m, w <= 8 and a <= 8) for n, (m, w, a) in rows.items()])

    def deploy(self, network: Network, path: Path, metadata: Mapping[str, str]) -> Deployed:
        content = json.dumps([text(network.graph), dict(metadata)], sort_keys=True)
        write_text(path, content)
        figures = self.quality(network, "test") if "test" in self.splits else {}
        check: dict[str, Any] = {"agrees": True, "samples": 256, "largest_difference": 0.0}
        stored = sum(m * (1 if w <= 8 else 4) for m, w, _ in bits(network.graph).values())
        return Deployed(hashlib.sha256(content.encode()).hexdigest(), check, figures, stored)


def problem(builder: SmallBuilder | None = None, judge: SmallJudge | None = None) -> Problem:
    """The search problem."""
    return Problem("small", "small.py", builder or SmallBuilder(), judge or SmallJudge(), "onnxruntime:cpu")


def main() -> None:
    """Search as a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--paid", type=Path)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--strategy", default="tpe")
    parser.add_argument("--delay", type=float, default=0.02)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = configuration(
        {"search.trials": given.trials, "search.strategy": given.strategy}, folder=Path(os.devnull)
    ).settings
    try:
        search(problem(SmallBuilder(given.paid, given.delay)), settings, given.output)
    except NascError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
