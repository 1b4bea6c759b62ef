"""Run the evidence of a result again: the files, the emission, the agreement of the two executions, the quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..compiler.frontend.task import Task
from ..compiler.network import Network
from ..ir import NascError, UsageError
from ..ir.axes import size
from ..targets import target_named
from .artifacts import artifact_of
from .comparison import Check, compare
from .judge import CHECKED, session_run
from .output import MANIFEST, MODEL, NETWORK, Manifest, file_digest, read_manifest
from .quality import quality_of

CLOSE = 1e-6
"""Difference up to which a quality is the same number."""


def verify(folder: Path, load_task: Callable[[str, Sequence[str]], Task]) -> tuple[Check, ...]:
    """Check a result's folder.

    Args:
        folder: `best/`, or the output folder that holds it.
        load_task: gives the task of a source that the manifest names, from what was said beside it.

    Raises:
        UsageError: there is no manifest.
        NascError: the manifest or the network's files are damaged.
    """
    home = folder / "best" if (folder / "best" / MANIFEST).is_file() else folder
    if not (home / MANIFEST).is_file():
        raise UsageError(f"{folder}: error: there is no {MANIFEST}", mend="Name the output folder of `nasc compile`.")
    manifest = read_manifest(home / MANIFEST)
    checks = [_digest(home, name, digest) for name, digest in manifest.files.items()]
    if not all(check.holds for check in checks if check.name != f"digest of {MODEL}" or not (home / MODEL).is_file()):
        return tuple(checks)
    network = Network.load(home / NETWORK)
    target = target_named(manifest.target)
    session = target.load(home / MODEL, placed=True)
    checks.append(_emission(network, manifest, session.metadata))
    try:
        task = load_task(manifest.source, manifest.source_words)
    except NascError as error:
        task = None
        checks.append(Check("source", None, f"{manifest.source} cannot be loaded here: {error.message}"))
    inputs = _inputs(network, task)
    found = compare(network, target, home / MODEL, inputs, session)
    checks.append(found.outputs)
    if "accuracy" in (manifest.deployed_test or {}):
        checks += found.top_class
    checks += [found.inside, found.kernels]
    if task is not None and manifest.deployed_test:
        checks += _quality(task, session_run(session, network), manifest.deployed_test)
    return tuple(checks)


def _digest(home: Path, name: str, expected: str) -> Check:
    path = home / name
    if not path.is_file():
        return Check(f"digest of {name}", False, "the file is missing")
    found = file_digest(path)
    return Check(
        f"digest of {name}",
        found == expected,
        found[:16] if found == expected else f"{found[:16]}, expected {expected[:16]}",
    )


def _emission(network: Network, manifest: Manifest, metadata: Mapping[str, str]) -> Check:
    """Whether the network's text and tensors give the deployed bytes again."""
    held = {key: value for key, value in metadata.items() if key != "nasc.version"}
    again = artifact_of(target_named(manifest.target), network, held)
    same = again.digests(MODEL) == {name: manifest.files.get(name) for name in again.digests(MODEL)}
    return Check("emitted again from model.nasc", same, "the same bytes" if same else "other bytes")


def _inputs(network: Network, task: Task | None) -> tuple[torch.Tensor, ...]:
    """Real inputs where there is a task, otherwise standard normal ones."""
    from ..compiler.execution import positional

    if task is not None:
        return positional(next(iter(task.calibration_batches(samples=CHECKED, size=CHECKED))), network.graph)
    random = torch.Generator().manual_seed(0)
    shapes = [tuple(size(a, network.graph.sizes, CHECKED) for a in i.type.axes) for i in network.graph.inputs]
    return tuple(torch.randn(shape, generator=random) for shape in shapes)


def _quality(task: Task, run: Callable[..., Any], expected: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    with task.importing():
        quality = quality_of(task, run, "test", tuple(expected))
    checks: list[Check] = []
    for name, value in quality.values.items():
        told = float(expected[name]["value"])
        text = f"{value:.6g} on {quality.samples:,} samples, reported {told:.6g}"
        checks.append(Check(f"{name} on test samples", abs(value - told) <= CLOSE * max(1.0, abs(told)), text))
    return checks
