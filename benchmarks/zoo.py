"""The zoo's table: what nasc makes of networks nobody here wrote, and what its peers make of the same in the same run.

    python benchmarks/zoo.py                        # all of it: an hour or two
    python benchmarks/zoo.py 'torchvision/*' --no-peers
    python benchmarks/zoo.py 'timm/swin*' --lines zoo.jsonl

Columns: torch.export's seconds, nasc's own on top (lower), the largest difference from eager PyTorch, free widths, the
share of the parameters under them, the three proofs (permutation, narrowing, growing), the exported ONNX file's largest
difference under ONNX Runtime. Peers: seconds of `torch.onnx.export(dynamo=True)`; whether Torch-Pruning narrows the
network to three quarters and it still runs (it does not widen). Needs `pip install torchvision timm transformers
torch-pruning onnxscript`.

Each network runs in a process of its own, so that what crashes or never ends is one line of the table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")  # this folder has a zoo.py of its own

from zoo.models import ZooModel, zoo  # noqa: E402
from zoo.survey import Row, survey  # noqa: E402

LIMIT_S, PEER_LIMIT_S = 900, 60
"""Seconds that one network may take, and each peer on it."""


@dataclass(frozen=True)
class Asked:
    """What to find out of each network."""

    proofs: bool
    emission: bool
    peers: bool
    seed: int


def line(model: ZooModel, asked: Asked) -> dict[str, Any]:
    """One network's line, in this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        found = survey(model, seed=asked.seed, proofs=asked.proofs, emission=asked.emission).as_dict()
    except Exception as error:  # a fault is what the table is there to show
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:500]} [{Path(last.filename).name}:{last.lineno}]"
        found = Row(model.name, fault=text).as_dict()
    return found


def torch_onnx(model: ZooModel) -> str:
    """Seconds of PyTorch's own exporter, or why it fails."""
    import contextlib
    import io

    torch.set_num_threads(1)
    module, inputs = model.make().eval(), model.inputs()
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            torch.onnx.export(module, inputs, dynamo=True, verbose=False)
    except Exception as error:
        return f"fails: {type(error).__name__}"
    return f"{time.perf_counter() - start:.1f} s"


def torch_pruning(model: ZooModel) -> str:
    """Whether Torch-Pruning narrows the network to three quarters of its channels without help."""
    import torch_pruning

    torch.set_num_threads(1)
    module, inputs = model.make().eval(), model.inputs()
    heads = [m for m in module.modules() if isinstance(m, torch.nn.Linear) and m.out_features in (10, 100, 1000)]
    before = sum(p.numel() for p in module.parameters())
    start = time.perf_counter()
    try:
        importance = torch_pruning.importance.MagnitudeImportance(p=2)
        torch_pruning.pruner.MagnitudePruner(
            module, inputs, importance=importance, pruning_ratio=0.25, ignored_layers=heads
        ).step()
        with torch.no_grad():
            module(*inputs)
    except Exception as error:
        return f"fails: {type(error).__name__}"
    after = sum(p.numel() for p in module.parameters())
    return f"{time.perf_counter() - start:.1f} s, {after / before:.2f} of the parameters left"


def row_of(model: ZooModel, asked: Asked, limit_s: float) -> dict[str, Any]:
    """One network's line with its peers', each from a process of its own."""
    found = apart(lambda: line(model, asked), limit_s)
    row = Row(model.name, fault=found).as_dict() if isinstance(found, str) else found
    if asked.peers:
        peers = {"torch.onnx": torch_onnx, "torch-pruning": torch_pruning}
        row["peers"] = {name: apart(partial(peer, model), PEER_LIMIT_S) for name, peer in peers.items()}
    return row


def apart(function: Callable[[], Any], limit_s: float) -> Any:
    """What a function gives in a process of its own, or in words how that ended."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=lambda: answers.put(function()))
    process.start()
    deadline, found = time.monotonic() + limit_s, None
    while found is None and time.monotonic() < deadline:
        try:
            found = answers.get(timeout=1)
        except queue.Empty:
            if not process.is_alive() and answers.empty():
                break
    if found is None:
        ended = f"ended with {process.exitcode}" if not process.is_alive() else f"took over {limit_s:.0f} s"
        found = f"the process {ended}"
    process.kill()
    process.join()
    return found


def shown(row: dict[str, Any]) -> str:
    """A line of the table."""
    name = f"{row['name']:<52}"
    if row["fault"]:
        return f"{name} {row['fault']}"
    proofs = " ".join(f"{n[0]}:{p}" for n, p in row["proofs"].items())
    raw = " ".join(f"{k}x{n}" for k, n in row["raw"].items())
    emitted = row.get("emission")
    more = [f"onnx {max(emitted['errors'], default=float('nan')):.0e} {emitted['fault']}"] if emitted else []
    more += [f"{k}: {v}" for k, v in row.get("peers", {}).items()]
    return (
        f"{name} {row['parameters'] / 1e6:7.2f}M export {row['export_s']:6.2f} s lower {row['lower_s']:5.2f} s "
        f"error {row['error']:.0e} widths {row['widths']:4} share {row['share']:6.1%} "
        f"{'' if row['dynamic'] else 'static '}{proofs} {raw} {', '.join(more)}".rstrip()
    )


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="networks, as torchvision/* (default: all)")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-proofs", action="store_true")
    parser.add_argument("--no-emission", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for each network")
    parser.add_argument("--lines", type=Path, help="append each line as JSON; networks that it holds are not run again")
    options = parser.parse_args()
    asked = Asked(not options.no_proofs, not options.no_emission, not options.no_peers, options.seed)
    known: dict[str, dict[str, Any]] = {}
    if options.lines and options.lines.exists():
        known = {row["name"]: row for row in map(json.loads, options.lines.read_text().splitlines())}
    rows: list[dict[str, Any]] = []
    for model in zoo():
        if not any(fnmatchcase(model.name, p) for p in options.patterns):
            continue
        row = known.get(model.name) or row_of(model, asked, options.limit)
        rows.append(row)
        print(shown(row), flush=True)
        if options.lines and model.name not in known:
            with options.lines.open("a") as file:
                file.write(json.dumps(row) + "\n")
    summary(rows)


def summary(rows: list[dict[str, Any]]) -> None:
    """What the bars ask, by where the networks come from."""
    for source in dict.fromkeys(r["name"].partition("/")[0] for r in rows):
        here = [r for r in rows if r["name"].startswith(f"{source}/")]
        lowers = sum(not r["fault"] and r["error"] <= 1e-4 for r in here)
        free = sum(not r["fault"] and r["share"] >= 0.9 for r in here)
        proved = sum(bool(r["proofs"]) and all(p.startswith("holds") for p in r["proofs"].values()) for r in here)
        emits = sum(bool(r.get("emission") and r["emission"]["agrees"]) for r in here)
        print(
            f"{source}: {len(here)} networks, {lowers} lower and equal eager, {free} with 90 % under free widths, "
            f"{proved} proved, {emits} equal under ONNX Runtime"
        )


if __name__ == "__main__":
    main()
