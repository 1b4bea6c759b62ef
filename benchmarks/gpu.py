"""What formats gain on a GPU, in time and in energy, and how far off energy meters are on it.

    python benchmarks/gpu.py [--budget 4] [--json FILE]

First table: the meter against a reference of its own, the driver's energy counter around half a minute of calls without
a pause; beside it the two naive meters, around one call each.

Second table: networks in f32 (TF32), f16, bf16, with 4-bit weights and as products of 8-bit floats on ONNX Runtime's
CUDA provider: latency, its ratio to f32 with the verdict, energy per call, the largest difference of the outputs from
torch's f32.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import nasc
import numpy as np
import pynvml
import torch
import torchvision
from nasc.compiler.network import Network
from nasc.targets import target_named
from nasc.targets.bench import Bench
from nasc.targets.energy import EnergyMeter
from nasc.targets.measure import Conditions

CUDA = target_named("onnxruntime:cuda")
FORMATS = {
    "f32": "",
    "f16": "convert{to=f16}",
    "bf16": "convert{to=bf16}",
    "i4 weights": "quantize{weights=i4} | calibrate",
    "f8 products": "quantize{weights=f8e4m3, activations=f8e4m3} | calibrate",
}
LINEAR = ("i4 weights", "f8 products")
"""Formats that pay in linear layers only."""
REFERENCE_S = 30.0


def mlp() -> torch.nn.Module:
    """3 x 4096."""
    layers = [m for _ in range(3) for m in (torch.nn.Linear(4096, 4096), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers)


NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...], int]] = {
    "MLP 3 x 4096": (mlp, (4096,), 1),
    "MLP, many rows": (mlp, (4096,), 4096),
    "ResNet-50": (torchvision.models.resnet50, (3, 224, 224), 32),
    "ViT-B/16": (torchvision.models.vit_b_16, (3, 224, 224), 32),
}
"""What makes a network, the shape of a sample, the batch to time."""


def lowered(name: str) -> Network:
    """A network with the weights that it is made with."""
    torch.manual_seed(0)
    make, shape, _ = NETWORKS[name]
    return nasc.lower(make().eval(), torch.randn(2, *shape)).apply("fold-batch-norm")


def formats(budget_s: float, found: list[dict[str, Any]]) -> None:
    """The table of formats."""
    print(
        f"\n{'network':<14} {'batch':>5} {'format':<11} {'ms':>8} {'ratio':>6} {'verdict':<10} {'mJ':>9} {'error':>8}"
    )
    for name, (_, shape, batch) in NETWORKS.items():
        network = lowered(name)
        x = torch.randn(2, *shape)
        expected = network(x).numpy()
        baseline = CUDA.emit(network.graph, network.weights)
        for format, pipeline in FORMATS.items():
            if format in LINEAR and not name.startswith("MLP"):
                continue
            try:
                candidate = network.apply(pipeline, data=x) if pipeline else network
                artifact = CUDA.emit(candidate.graph, candidate.weights)
                error = float(np.abs(CUDA.load(artifact).run([x.numpy()])[0] - expected).max() / np.abs(expected).max())
                conditions = Conditions(
                    ("latency", "energy"), batch=batch, budget_s=budget_s, floor=False, baseline_energy=False
                )
                with Bench(CUDA) as bench:
                    got = bench.measure(artifact, conditions, baseline)
                found.append({"network": name, "format": format, "error": error} | got.as_dict())
                latency, energy = got.latency, got.energy
                assert latency is not None and latency.ratio is not None and energy is not None
                print(
                    f"{name:<14} {batch:>5} {format:<11} {1e3 * latency.median_s:>8.3f} {latency.ratio.value:>6.3f} "
                    f"{latency.verdict or '':<10} {1e3 * (energy.energy_j or 0):>9.2f} {error:>8.1e} "
                    f"{' '.join(f.value for f in (*latency.flags, *energy.flags))}",
                    flush=True,
                )
            except nasc.NascError as fault:
                print(f"{name:<14} {'':>5} {format:<11} {str(fault)[:200]}", flush=True)


def continuous(device: Any, run: Callable[[], object]) -> float:
    """Joules of a call, from the counter before and after many calls without a pause.

    It is not read in between: a reading may take as long as a call, and the GPU rests meanwhile.
    """
    before, calls, began_s = pynvml.nvmlDeviceGetTotalEnergyConsumption(device), 0, time.perf_counter()
    while time.perf_counter() - began_s < REFERENCE_S:
        for _ in range(100):
            run()
        calls += 100
    return 1e-3 * (pynvml.nvmlDeviceGetTotalEnergyConsumption(device) - before) / calls


def energies(budget_s: float, found: list[dict[str, Any]]) -> None:
    """The table of meters."""
    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    print(
        f"{'network':<14} {'batch':>5} {'nasc mJ':>9} {'reference':>9} {'error %':>8} {'one call':>9} {'thread':>9} "
        f"{'period ms':>9}"
    )
    network = lowered("ResNet-50")
    batch = NETWORKS["ResNet-50"][2]
    run = CUDA.load(CUDA.emit(network.graph, network.weights)).bind([np.zeros((batch, 3, 224, 224), np.float32)])
    for _ in range(200):
        run()
    energy = replace(EnergyMeter.nvml(index=0), budget_s=budget_s).measure(run)
    reference = continuous(device, run)
    naive = [fmean(around(device, run, thread=thread) for _ in range(100)) for thread in (False, True)]
    assert energy.energy_j is not None and energy.counter_period_s is not None
    found.append({"batch": batch, "reference_j": reference, "naive_j": naive} | energy.as_dict())
    print(
        f"{'ResNet-50':<14} {batch:>5} {1e3 * energy.energy_j:>9.2f} {1e3 * reference:>9.2f} "
        f"{100 * (energy.energy_j / reference - 1):>8.2f} {100 * (naive[0] / reference - 1):>8.0f}% "
        f"{100 * (naive[1] / reference - 1):>8.0f}% {1e3 * energy.counter_period_s:>9.1f} "
        f"{' '.join(f.value for f in energy.flags)}",
        flush=True,
    )


def around(device: Any, run: Callable[[], object], *, thread: bool) -> float:
    """One call's joules by a naive meter: the counter read before and after it, or a thread that polls the power."""
    time.sleep(0.0137)
    powers_w: list[float] = []
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            powers_w.append(1e-3 * pynvml.nvmlDeviceGetPowerUsage(device))

    poller = threading.Thread(target=poll)
    if thread:
        poller.start()
    before_j, began_s = 1e-3 * pynvml.nvmlDeviceGetTotalEnergyConsumption(device), time.perf_counter()
    run()
    took_s = time.perf_counter() - began_s
    after_j = 1e-3 * pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
    done.set()
    if not thread:
        return after_j - before_j
    poller.join()
    return fmean(powers_w or [0.0]) * took_s


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds per latency and per energy")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    options = parser.parse_args()
    print(f"{CUDA.identity()}, driver {pynvml_driver()}")
    found: list[dict[str, Any]] = []
    try:
        energies(options.budget, found)
        formats(options.budget, found)
    finally:
        if options.json:
            options.json.write_text(json.dumps(found))


def pynvml_driver() -> str:
    """The driver's version."""
    pynvml.nvmlInit()
    return str(pynvml.nvmlSystemGetDriverVersion())


if __name__ == "__main__":
    main()
