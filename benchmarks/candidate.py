"""What one candidate of the jets network costs, against one export of the same network by torch.onnx.export.

    python benchmarks/candidate.py [--candidates 200] [--exports 3]

A candidate: `resize | fold-batch-norm | quantize`, its weights materialised and rounded (`calibrate` with weights only
and the activations' ranges known), ONNX bytes and `onnx.checker`; every one has other widths and bits, so nothing is
taken from a cache. Left out on both sides: the session; on ours: calibration's forward passes. Both warm, in one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import nasc
import numpy as np
import onnx
import torch
from nasc.compiler.passes import Context
from nasc.targets import target_named


def main() -> None:
    """Print the seconds of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--exports", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = nasc.load_task(Path(__file__).parents[1] / "examples" / "jets.py")
    example = task.example_inputs.args
    network = nasc.lower(task.model, example)
    target = target_named("onnxruntime:cpu")
    ours, theirs = [], []
    random = np.random.default_rng(0)
    for _ in range(5):
        candidate(network, target, random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(task.model, example)
    for i in range(options.candidates):
        ours.append(candidate(network, target, random))
        if i * options.exports // options.candidates != (i + 1) * options.exports // options.candidates:
            theirs.append(export(task.model, example))
    mine, peer = statistics.median(ours), statistics.median(theirs)
    print(f"candidate  {mine * 1e3:8.2f} ms  (median of {len(ours)}, quartiles {quartiles(ours)})")
    print(f"export     {peer * 1e3:8.1f} ms  (median of {len(theirs)})")
    print(f"ratio      1/{peer / mine:.0f}  (bar: 1/200)")


def quartiles(values: list[float]) -> str:
    """The middle half, in milliseconds."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low * 1e3:.2f} to {high * 1e3:.2f} ms"


def candidate(network: nasc.Network, target: object, random: np.random.Generator) -> float:
    """Seconds from the source network to checked bytes, without calibration's forward passes."""
    a, b, c = (int(v) for v in random.integers(16, 65, size=3))
    bits = random.integers(3, 9, size=8)
    layers = " | ".join(
        f"quantize{{layers=fc{i + 1}, weights=i{bits[i]}, activations=u{bits[4 + i]}<2^-4, 0>}}" for i in range(4)
    )
    pipeline = f"cleanup | resize{{fc1={a}, fc2={b}, fc3={c}}} | fold-batch-norm | merge-linear | {layers} | "
    pipeline += "calibrate{method=minmax} | legalize"
    parsed = nasc.parse_pipeline(pipeline)
    start = time.perf_counter()
    small = parsed.run(network, Context())
    artifact = target.emit(small.graph, small.weights, {"nasc.pipeline": pipeline})
    onnx.checker.check_model(artifact.model)
    return time.perf_counter() - start


def export(model: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> float:
    """Seconds of one export by the peer, to a file, without its reports."""
    import contextlib
    import io

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        batch = torch.export.Dim("batch")
        start = time.perf_counter()
        torch.onnx.export(
            model, example, str(Path(folder) / "m.onnx"), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
        return time.perf_counter() - start


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
