"""What training networks as one saves: processor time per network and step, alone and in cohorts, in turns.

    python benchmarks/cohort.py

The network is that of `examples/jets.py` in few bits, at batches of 512; each figure is the median over rounds in which
all ways take their turn, so that a shared machine slows all alike. Printed as ratios to training alone.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import nasc
import torch
from nasc.api import load_task
from nasc.compiler.cohort import Cohort
from nasc.compiler.training import TrainingSettings, train
from torch import nn

SIZES = (1, 4, 16, 32)
ROUNDS, STEPS, BATCH = 5, 12, 512


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    task = load_task(Path(__file__).parent.parent / "examples" / "jets.py")
    x, y = task.required("train").take(slice(0, STEPS * BATCH))
    assert y is not None and isinstance(x, torch.Tensor)
    source = nasc.lower(task.model, task.example_inputs.inputs)
    network = source.apply("fold-batch-norm | quantize{weights=i4, activations=u4} | calibrate", data=x[:512])
    narrow = source.apply(
        "resize{fc1=32} | fold-batch-norm | quantize{weights=i3, activations=u5} | calibrate", data=x[:512]
    )
    settings = TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=1e-3)

    def spent(module: nn.Module, *, together: bool) -> float:
        start = time.process_time()
        train(module, (x, y), settings, together=together)
        return (time.process_time() - start) / STEPS

    rows: dict[str, list[float]] = {"alone": [], **{f"{k} as one": [] for k in SIZES}}
    for _ in range(ROUNDS):
        rows["alone"].append(spent(network.module(), together=False))
        for size in SIZES:
            module = Cohort([(network, narrow)[i % 2] for i in range(size)])
            rows[f"{size} as one"].append(spent(module, together=True) / size)
    print("networks  | ms per network and step | ratio to alone (paired)")
    for name, times in rows.items():
        ratio = statistics.median(t / alone for t, alone in zip(times, rows["alone"], strict=True))
        print(f"{name:<9} | {1e3 * statistics.median(times):23.2f} | {ratio:.2f}")


if __name__ == "__main__":
    main()
