"""Accuracy of the jets network against bit operations: the front that `nasc compile` finds with trained candidates.

    python benchmarks/jets_front.py                     # five seeds, one search after the other
    python benchmarks/jets_front.py --seeds 0 --output FOLDER

For each seed a source network is trained, and searched with `SETTINGS` (bits of every layer's weights and inputs, and
widths). Of the finalists that are at most so dear (`BARS`), the one with the least loss is taken, on validation samples
and the training samples that no candidate was trained on (no test sample takes part in choosing), written as ONNX, and
run with ONNX Runtime on the test rows. Printed are the
front on validation samples, the drop of each seed with its paired 95 % interval, the mean over seeds with the interval
of their spread (Student's t), and the time of each search (wall, and processor time of the process).

An existing output folder is not searched again, so figures can be printed anew.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nasc
import numpy
import onnxruntime
from nasc.api import load_task
from nasc.compiler.frontend.task import Task
from nasc.compiler.network import Network
from nasc.compiler.training import trained_checkpoint
from nasc.search.builder import HELD_OUT, MOST_HELD_OUT
from nasc.search.records import Record

MODEL = Path(__file__).parent.parent / "examples" / "jets.py"
SETTINGS: dict[str, Any] = {
    "search.strategy": "tpe",
    "search.trials": 20,
    "training.generations": 3,
    "training.generation_epochs": 4,
    "training.finalist_epochs": 200,
    "training.learning_rate": 0.01,
    "measure.budget_s": 0.3,
}
BARS = (40, 100)
"""Bit operations of the source network over those allowed."""
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
"""Student's t at 97.5 % by degrees of freedom."""


@dataclass(frozen=True)
class Found:
    """A finalist on the test rows: bit operations as a share, and the paired difference to the source in points."""

    fewer: float
    points: float
    error: float


def main() -> None:
    """Search each seed and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, default=Path(tempfile.gettempdir()) / "nasc-jets-front")
    parser.add_argument("--set", nargs="*", default=[], help="other settings, such as training.generations=3")
    given = parser.parse_args()
    settings = {**SETTINGS, **{name: json.loads(value) for name, value in (s.split("=", 1) for s in given.set)}}
    drops: dict[int, list[Found]] = {bar: [] for bar in BARS}
    for seed in given.seeds:
        folder = given.output / f"seed-{seed}"
        records = searched(seed, folder, settings)
        for bar, found in judged(seed, folder, records).items():
            drops[bar].append(found)
    print("\n  fewer | seeds | mean drop on test rows, 95 % interval over seeds | mean of the searches' own ratio")
    for bar, found in drops.items():
        points = numpy.array([f.points for f in found])
        half = T95[len(found) - 1] * points.std(ddof=1) / math.sqrt(len(found)) if len(found) > 1 else math.nan
        fewer = numpy.mean([f.fewer for f in found])
        print(f"  1/{bar:<4} | {len(found):5} | {points.mean():+.2f} ± {half:.2f} points | 1/{fewer:.0f}")


def searched(seed: int, folder: Path, settings: dict[str, Any]) -> list[Record]:
    """The finalists of one seed's search, cheapest first; printed with the time it took."""
    times = folder / "time.json"
    if not times.exists():
        wall, spent = time.perf_counter(), time.process_time()
        nasc.compile(MODEL, output=folder / "out", seed=seed, settings=settings)
        wall, spent = time.perf_counter() - wall, time.process_time() - spent
        times.write_text(json.dumps({"wall_s": wall, "cpu_s": spent}))
    took = json.loads(times.read_text())
    rows = [json.loads(line) for line in (folder / "out" / "trials.jsonl").read_text().splitlines()]
    records = [r for r in map(Record.of, rows) if r.bred and r.label.endswith("trained") and r.state == "complete"]
    records.sort(key=lambda r: r.figures["bit_operations"].value)
    print(f"\nseed {seed}: {took['wall_s']:.0f} s ({took['cpu_s']:.0f} s of processor time), {len(rows)} candidates")
    return records


def judged(seed: int, folder: Path, records: list[Record]) -> dict[int, Found]:
    """The best finalist for each bar, on the test rows with ONNX Runtime; prints all as validation has them."""
    task = load_task(MODEL)
    task = trained_checkpoint(task.with_seed(seed) if seed else task).task
    source = nasc.lower(task.model, task.example_inputs.inputs)
    x, y = task.required("test").take(slice(None))
    assert y is not None
    right = (source(x).argmax(1) == y).numpy()
    floating = cost(source)
    chosen: dict[int, Found] = {}
    for record in records:
        drop, loss = record.figures["accuracy"], record.figures["loss"]
        fewer = floating / record.figures["bit_operations"].value
        points = f"{100 * (drop.difference or 0):+.2f} ± {196 * (drop.error or 0):.2f} points"
        print(f"  1/{fewer:<4.0f} validation {points}, loss {loss.difference:+.4f}   {record.label}: {record.pipeline}")
    losses = {r.label: choosing_loss(network_of(folder, r), task) for r in records}
    for bar in BARS:
        cheap = [r for r in records if r.figures["bit_operations"].value <= floating / bar]
        best = min(cheap, key=lambda r: losses[r.label])
        network = network_of(folder, best)
        path = folder / f"{bar}.onnx"
        nasc.export(network.apply("legalize"), path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        apart = 100.0 * ((logits.argmax(1) == y.numpy()).astype(float) - right)
        found = Found(
            floating / best.figures["bit_operations"].value, apart.mean(), apart.std(ddof=1) / math.sqrt(len(apart))
        )
        print(
            f"  at most 1/{bar}: {best.label}, 1/{found.fewer:.0f}: test {found.points:+.2f} ± {1.96 * found.error:.2f}"
        )
        chosen[bar] = found
    return chosen


def network_of(folder: Path, finalist: Record) -> Network:
    """A finalist as its training left it."""
    return Network.load(folder / "out" / "finalists" / f"{finalist.label.replace(' ', '-')}.nasc")


def choosing_loss(network: Network, task: Task) -> float:
    """Mean loss on validation samples and those training samples that candidates are not trained on."""
    total, count = 0.0, 0
    train = task.required("train")
    held_out = min(len(train) // HELD_OUT, MOST_HELD_OUT)
    for x, y in (task.required("validation").take(slice(None)), train.take(slice(len(train) - held_out, None))):
        assert y is not None
        total += float(task.loss(network(x), y)) * len(y)
        count += len(y)
    return total / count


def cost(network: Network) -> float:
    """Bit operations of a network for one sample."""
    from nasc.targets import target_named

    return target_named("onnxruntime:cpu").cost(network.graph).bit_operations


if __name__ == "__main__":
    main()
