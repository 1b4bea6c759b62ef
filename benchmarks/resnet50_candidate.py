"""What one candidate of ResNet-50 costs, against a plain copy of its weights and against `torch.onnx.export`.

    python benchmarks/resnet50_candidate.py [--candidates 10] [--exports 2] [--json]

A candidate: `resize` of every free width to a random size between half and all of it, its weights materialised, ONNX
with external data written to disk, the model's structure checked. Every candidate has other widths, so nothing is taken
from a cache but what a search keeps too: how much each channel of the source matters. A copy is what any tool pays at
least: the candidate's tensors read from memory and written to one file. All are warm, in one run, and in turns; times
are processor time of this thread where they are compared with a copy, since files are written in memory (`--folder`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nasc
import numpy as np
import onnx
import torch
from nasc.compiler.passes import Context
from nasc.search.artifacts import artifact_of
from nasc.targets import Artifact, target_named

BARS = {"copy": 4.0, "export": 20.0}


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds on the clock, seconds of the processor, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def candidate(network: nasc.Network, widths: dict[str, int], context: Context, path: Path) -> Artifact:
    """From the source network to files that are checked."""
    pipeline = nasc.parse_pipeline(f"resize{{{', '.join(f'{n}={v}' for n, v in widths.items())}}}")
    small = pipeline.run(network, context)
    artifact = artifact_of(target_named("onnxruntime:cpu"), small, name=path.name)
    artifact.save(path)
    onnx.checker.check_model(path)  # by its path: tensors beside the model are found, and not read
    return artifact


def copied(artifact: Artifact, path: Path) -> None:
    """The candidate's tensors, copied in memory once and written to a file: the least that a file of them costs."""
    with path.open("wb") as stream:
        for tensor in artifact.tensors:
            stream.write(tensor.array.reshape(-1).view(np.uint8).data)


def exported(model: torch.nn.Module, example: torch.Tensor, folder: Path) -> None:
    """One export by the peer, with external data and a free batch, without its reports."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(
            model, (example,), str(folder / "peer.onnx"), dynamo=True, external_data=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip


def main() -> None:
    """Print the medians and their ratios."""
    import torchvision

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--exports", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = torchvision.models.resnet50(weights=None).eval()
    example = torch.randn(2, 3, 224, 224)
    network = nasc.lower(model, example[:, :, :64, :64])
    context, random = Context(), np.random.default_rng(0)

    def sizes() -> dict[str, int]:
        return {name: int(random.integers(size // 2, size + 1)) for name, size in network.widths.items()}

    ours, copies, theirs, sizes_bytes = [], [], [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        candidate(network, sizes(), context, folder / "warm.onnx")
        if options.exports:
            exported(model, example, folder)
        for i in range(options.candidates):
            widths = sizes()
            wall, cpu, artifact = timed(lambda w=widths: candidate(network, w, context, folder / "ours.onnx"))
            ours.append((wall, cpu))
            copies.append(timed(lambda a=artifact: copied(a, folder / "copy.bin"))[:2])
            sizes_bytes.append(sum(t.array.nbytes for t in artifact.tensors))
            if i < options.exports:
                theirs.append(timed(lambda: exported(model, example, folder))[:2])
    report(ours, copies, theirs, sizes_bytes, as_json=options.json)


def report(
    ours: list[tuple[float, float]],
    copies: list[tuple[float, float]],
    theirs: list[tuple[float, float]],
    sizes_bytes: list[int],
    *,
    as_json: bool,
) -> None:
    """The figures as a table or as JSON."""
    ratio = statistics.median(a[1] / b[1] for a, b in zip(ours, copies, strict=True))
    wall = statistics.median(a[0] / b[0] for a, b in zip(ours, copies, strict=True))
    middle = statistics.median(a[1] for a in ours)
    peer = statistics.median(t[1] for t in theirs) / middle if theirs else None
    if as_json:
        print(json.dumps({"cpu_over_copy": ratio, "wall_over_copy": wall, "export_over_candidate": peer}))
        return
    print(f"weights    {statistics.median(sizes_bytes) / 1e6:8.1f} MB  (median of {len(ours)} candidates)")
    for name, rows in (("candidate", ours), ("copy", copies), ("export", theirs)):
        if rows:
            shown = [statistics.median(r[i] for r in rows) * 1e3 for i in (1, 0)]
            print(f"{name:10} {shown[0]:8.1f} ms of the processor, {shown[1]:8.1f} ms on the clock")
    print(f"candidate over copy    {ratio:6.2f}  on the clock {wall:.2f}  (bar: {BARS['copy']:g})")
    if peer is not None:
        print(f"export over candidate  {peer:6.1f}  (bar: {BARS['export']:g})")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
