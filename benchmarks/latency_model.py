"""How well latency is predicted before it is measured: random candidates of ResNet-18, and a line through their MACs.

    python benchmarks/latency_model.py [--learn 40] [--test 50] [--image 64] [--seed 0] [--json FILE] [--load FILE]

Every candidate draws each width uniformly between 0.25 and 1.5 of its size, and for each layer whether it computes on 8
bits or in float. Each is measured in turns with the source network, and those to learn from are profiled; all of them
are visited several times, so that each has been seen at the machine's best. The model is fitted to the first ones
(those whose profile was not disturbed) and predicts the others; so does a line through their multiply-additions, fitted
to all of the first. The candidates predicted have no part in either fit. `--load` evaluates an earlier run's file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torchvision
from nasc.compiler.frontend.lower import lower_module
from nasc.compiler.network import Network
from nasc.compiler.passes import Context
from nasc.compiler.pipeline import parse_pipeline
from nasc.ir import layers, parse, text
from nasc.targets import static_cost, target_named
from nasc.targets.artifact import Artifact
from nasc.targets.inputs import example_arrays
from nasc.targets.latency import LatencyMeter
from nasc.targets.latency_model import Example, LatencyModel, disturbed, fit, spearman, spent, work_of
from nasc.targets.profile import kernels_of
from nasc.targets.statistics import undisturbed, undisturbed_ratio

TARGET = target_named("onnxruntime:cpu")
NARROWEST, WIDEST = 0.25, 1.5


def source(image: int) -> Network:
    """ResNet-18 with the weights it is made with."""
    torch.manual_seed(0)
    return lower_module(torchvision.models.resnet18().eval(), (torch.randn(2, 3, image, image),))


def draw(network: Network, random: Random) -> str:
    """A random candidate as a pipeline."""
    sizes = {name: max(1, round(random.uniform(NARROWEST, WIDEST) * length)) for name, length in network.graph.widths}
    chosen = [op.name for op in layers(network.graph) if random.random() < 0.5]
    widths = ", ".join(f"{name}={length}" for name, length in sizes.items())
    passes = [f"resize{{{widths}, grow=nearly}}", "cleanup", "fold-batch-norm", "merge-linear"]
    if chosen:
        named = ", ".join(chosen)
        passes += [f"quantize{{layers=[{named}], weights=i8, activations=u8}}", "calibrate{method=minmax, samples=4}"]
    return " | ".join([*passes, "legalize"])


@dataclass
class Candidate:
    """A candidate, ready to be measured.

    Args:
        pipeline: what makes it of the source network.
        network: the candidate.
        run: one call of it.
        rounds_s: of every round so far, its time and the source network's.
        kernels_s: the least time of each op in any profile so far.
    """

    pipeline: str
    network: Network
    artifact: Artifact
    run: Callable[[], Any]
    rounds_s: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    kernels_s: dict[str, float] = field(default_factory=dict[str, float])

    def visit(self, reference: Callable[[], Any], budget_s: float, *, profiled: bool) -> None:
        """Measure it in turns with the source network for a while, and profile it."""
        latency = LatencyMeter(budget_s=budget_s).measure(self.run, reference)
        self.rounds_s += zip(latency.rounds_s, latency.reference_rounds_s, strict=True)
        if not profiled:
            return
        for name, time_s in spent(
            self.network.graph, kernels_of(TARGET.trace(self.artifact, budget_s=budget_s))
        ).items():
            self.kernels_s[name] = min(time_s, self.kernels_s.get(name, time_s))

    def record(self) -> dict[str, Any]:
        """What was seen of it, as plain data."""
        own_s, reference_s = np.array(self.rounds_s).T
        ratio = undisturbed_ratio(own_s, reference_s, 0.99)
        return {
            "pipeline": self.pipeline,
            "graph": text(self.network.graph),
            "ratio": ratio.value,
            "half_width": ratio.half_width,
            "reference_s": float(np.median(reference_s[undisturbed([own_s, reference_s])])),
            "rounds": len(self.rounds_s),
            "kernels_s": self.kernels_s,
            "macs": static_cost(self.network.graph).macs,
        }


def collect(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Draw and build the candidates, and visit all of them again and again."""
    network = source(options.image)
    folded = network.apply("cleanup | fold-batch-norm | merge-linear")
    reference = loaded(TARGET.emit(folded.graph, folded.weights))
    context = Context.of(torch.randn(4, 3, options.image, options.image), seed=options.seed)
    random = Random(options.seed)
    found: list[Candidate] = []
    for _ in range(options.learn + options.test):
        pipeline = draw(network, random)
        made = parse_pipeline(pipeline).run(network, context)
        artifact = TARGET.emit(made.graph, made.weights)
        found.append(Candidate(pipeline, made, artifact, loaded(artifact)))
    for visit in range(options.visits):
        for number, candidate in enumerate(found):
            print(f"\rvisit {visit + 1}, candidate {number + 1}", end="", file=sys.stderr, flush=True)
            candidate.visit(reference, options.budget, profiled=number < options.learn)
    print(file=sys.stderr)
    return [candidate.record() for candidate in found]


def loaded(artifact: Artifact) -> Callable[[], Any]:
    """One call of a network, on made-up inputs."""
    session = TARGET.load(artifact)
    return session.bind(example_arrays(session.inputs, 1))


def examples_of(records: list[dict[str, Any]]) -> list[Example]:
    """Records as examples; latencies are ratios times one latency of the source network."""
    reference_s = float(np.median([r["reference_s"] for r in records]))
    found: list[Example] = []
    for record in records:
        graph = parse(record["graph"])
        latency_s = record["ratio"] * reference_s
        total_s = sum(record["kernels_s"].values()) or 1.0
        times_s = {name: time_s * latency_s / total_s for name, time_s in record["kernels_s"].items()}
        found.append(Example(work_of(graph, TARGET.plan(graph)), times_s, latency_s))
    return found


def by_macs(records: list[dict[str, Any]], examples: list[Example], learn: int) -> Any:
    """Predictions by a line through multiply-additions, fitted to relative errors like the model."""
    macs = np.array([r["macs"] for r in records], float)
    latency_s = np.array([e.latency_s for e in examples])
    design = np.stack([np.ones_like(macs), macs], 1)
    weights = 1 / latency_s[:learn]
    line, *_ = np.linalg.lstsq(design[:learn] * weights[:, None], latency_s[:learn] * weights, rcond=None)
    return design @ line


def evaluated(name: str, predicted: Any, measured_s: Any) -> dict[str, Any]:
    """How predictions compare with measurements."""
    errors = np.abs(predicted / measured_s - 1)
    return {
        "fit": name,
        "spearman": round(spearman(predicted, measured_s), 4),
        "median_error_percent": round(100 * float(np.median(errors)), 2),
        "p90_error_percent": round(100 * float(np.quantile(errors, 0.9)), 2),
    }


def main() -> int:
    """Print the table; exit with 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn", type=int, default=40, help="candidates to fit to")
    parser.add_argument("--test", type=int, default=50, help="candidates to predict")
    parser.add_argument("--image", type=int, default=64, help="height and width of the image")
    parser.add_argument("--seed", type=int, default=0, help="of the candidates")
    parser.add_argument("--visits", type=int, default=6, help="how often to measure each candidate")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of one visit, and of one profile")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--load", type=Path, help="evaluate this file instead of measuring")
    options = parser.parse_args()
    records = json.loads(options.load.read_text()) if options.load else collect(options)
    if options.json:
        options.json.write_text(json.dumps(records))
    examples = examples_of(records)
    start_s = time.perf_counter()
    sound = [
        example
        for record, example in zip(records[: options.learn], examples, strict=False)
        if not disturbed(record["kernels_s"], record["ratio"] * record["reference_s"])
    ]
    model: LatencyModel = fit(sound)
    fit_s = time.perf_counter() - start_s
    tested = examples[options.learn :]
    measured_s = np.array([e.latency_s for e in tested])
    start_s = time.perf_counter()
    predictions = [model.predict(e.work) for e in tested]
    each_s = (time.perf_counter() - start_s) / max(1, len(tested))
    ours = evaluated("model", np.array([p.seconds for p in predictions]), measured_s)
    line = evaluated("MACs", by_macs(records, examples, options.learn)[options.learn :], measured_s)
    known = np.median([record["half_width"] for record in records])
    print(
        f"{len(tested)} candidates of ResNet-18, {min(measured_s) * 1e3:.2f} to {max(measured_s) * 1e3:.2f} ms, "
        f"known to {known:.1%}"
    )
    print(f"fitted to {len(sound)} of {options.learn} others in {fit_s:.1f} s, {each_s * 1e3:.2f} ms each")
    for row in (ours, line):
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    inside = np.mean([p.low <= s <= p.high for p, s in zip(predictions, measured_s, strict=True)])
    print(f"{inside:.0%} of the measurements lie in their predicted intervals (90 % asked); "
          f"left out of fitting: error {model.error}, rank correlation {model.rank}")  # fmt: skip
    better = ours["spearman"] > line["spearman"] and ours["median_error_percent"] < line["median_error_percent"]
    return int(not (better and ours["spearman"] >= 0.95 and ours["median_error_percent"] <= 10))


if __name__ == "__main__":
    sys.exit(main())
