"""The output folder: what is written where, each file whole or not at all."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..ir import structure_digest
from ..ir.files import write_text
from .config import Settings, saved_text
from .figures import as_dict
from .files import write_json, write_lines
from .protocols import Deployed, Problem
from .records import Record
from .result import Named, Result

BEST = "best"
MODEL, NETWORK, TENSORS, MANIFEST = "model.onnx", "model.nasc", "model.safetensors", "manifest.json"
BESIDE = f"{MODEL}.data"
TRIALS, FRONT, CONFIG, REPORT = "trials.jsonl", "front.json", "nasc.toml", "report.html"


class NetworkEntry(BaseModel):
    """A network's figures in the manifest: costs with validation quality, and test quality."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str
    trial: int | None
    figures: dict[str, dict[str, Any]]
    test: dict[str, dict[str, Any]]


class Manifest(BaseModel):
    """Where a result comes from and what is known of it: `best/manifest.json`."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    nasc: str
    created: str
    name: str
    source: str
    source_words: list[str] = []
    source_digest: str
    target: str
    pipeline: str
    structure_digest: str
    candidate_key: str
    files: dict[str, str]
    objectives: list[str]
    constraints: list[str]
    rule: str
    best: NetworkEntry
    baseline: NetworkEntry
    reference: NetworkEntry | None
    confirmation: dict[str, dict[str, Any]]
    refused: dict[str, dict[str, dict[str, Any]]]
    deployed_test: dict[str, dict[str, Any]]
    check: dict[str, Any]
    layers: list[dict[str, Any]]
    seed: int
    notices: list[str]
    versions: dict[str, str]
    command: str


def metadata(problem: Problem, network: Any, record: Record, version: str) -> dict[str, str]:
    """What the deployed file says of itself. Nothing in it changes from run to run."""
    return {
        "nasc.version": version,
        "nasc.source": problem.source,
        "nasc.source_digest": problem.builder.digest,
        "nasc.pipeline": record.pipeline,
        "nasc.training_epochs": str(record.epochs),
        "nasc.structure_digest": structure_digest(network.graph),
    }


def network_path(output: Path) -> Path:
    """Where the winner's network is written; its tensors lie beside it."""
    return output / BEST / NETWORK


def deploy(problem: Problem, network: Any, record: Record, output: Path) -> Deployed:
    """Write the winner's network and its file for the target.

    Raises:
        NascError: a file cannot be written, or the target refuses the network.
    """
    folder = output / BEST
    folder.mkdir(parents=True, exist_ok=True)
    problem.builder.save(network, network_path(output))
    return problem.judge.deploy(network, folder / MODEL, metadata(problem, network, record, nasc_version()))


def deployed_files(output: Path, artifact: str) -> bool:
    """Whether the winner's files are there, and its file for the target is the one with this digest."""
    folder = output / BEST
    if not all((folder / name).is_file() for name in (MODEL, NETWORK, TENSORS)):
        return False
    files = [folder / name for name in (MODEL, BESIDE) if (folder / name).is_file()]
    return file_digest(*files) == artifact


def file_digest(*paths: Path) -> str:
    """SHA-256 (hex) of the bytes of files, one behind the other."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                found.update(piece)
    return found.hexdigest()


def nasc_version() -> str:
    """The version of nasc."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nasc")
    except PackageNotFoundError:  # a source tree that was never installed
        return "unknown"


def write_trials(output: Path, records: tuple[Record, ...]) -> None:
    """Write `trials.jsonl` anew, from the study."""
    write_lines(output / TRIALS, [record.as_dict() for record in records])


def write_settings(output: Path, settings: Settings) -> None:
    """Write the effective configuration, without the password that a storage's URL may hold."""
    storage = settings.search.storage
    if storage is not None:
        masked = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)
        settings = settings.model_copy(update={"search": settings.search.model_copy(update={"storage": masked})})
    write_text(output / CONFIG, saved_text(settings))


def write_result(result: Result, problem: Problem, settings: Settings) -> None:
    """Write manifest, front, trials and report."""
    write_json(result.folder / BEST / MANIFEST, manifest(result, problem, settings).model_dump())
    write_json(result.folder / FRONT, front(result))
    write_trials(result.folder, result.trials)
    from .report import report_html

    write_text(result.folder / REPORT, report_html(result))


def front(result: Result) -> dict[str, Any]:
    """The front as plain data: each member with its figures and the trials it stands for."""
    rows: list[dict[str, Any]] = []
    for member in result.front:
        record = result.trial(member.number)
        rows.append(
            {
                "trial": member.number,
                "pipeline": record.pipeline,
                "figures": as_dict(record.figures),
                "ties": list(member.ties),
                "best": member.number == result.best.number,
            }
        )
    return {
        "objectives": [str(o) for o in result.goals.objectives],
        "constraints": [str(c) for c in result.goals.constraints],
        "baseline": as_dict(result.baseline.figures),
        "reference": None if result.reference is None else as_dict(result.reference.figures),
        "best": result.best.number,
        "front": rows,
    }


def manifest(result: Result, problem: Problem, settings: Settings) -> Manifest:
    """The manifest of a result."""
    folder = result.folder / BEST
    graph = problem.builder.structure(result.best.pipeline).graph
    trial = None if result.best.number is None else result.trial(result.best.number)
    return Manifest(
        nasc=nasc_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        name=result.name,
        source=result.source,
        source_words=list(problem.words),
        source_digest=problem.builder.digest,
        target=result.target,
        pipeline=result.best.pipeline,
        structure_digest=structure_digest(graph),
        candidate_key="" if trial is None or trial.key is None else trial.key,
        files={
            name: file_digest(folder / name) for name in (MODEL, BESIDE, NETWORK, TENSORS) if (folder / name).is_file()
        },
        objectives=[str(o) for o in result.goals.objectives],
        constraints=[str(c) for c in result.goals.constraints],
        rule=result.rule,
        best=entry(result.best),
        baseline=entry(result.baseline),
        reference=None if result.reference is None else entry(result.reference),
        confirmation=as_dict(result.confirmation),
        refused={str(number): as_dict(figures) for number, figures in result.refused.items()},
        deployed_test=as_dict(result.deployed.quality),
        check=dict(result.deployed.check),
        layers=[asdict(row) for row in result.layers],
        seed=settings.seed,
        notices=list(result.notices),
        versions=dict(problem.versions),
        command=result.command,
    )


def entry(network: Named) -> NetworkEntry:
    """A network's part of the manifest."""
    return NetworkEntry(
        pipeline=network.pipeline, trial=network.number, figures=as_dict(network.figures), test=as_dict(network.test)
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest that a result wrote.

    Raises:
        NascError: the file is missing, damaged, or of a later version.
    """
    from pydantic import ValidationError

    from ..ir.errors import NascError

    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise NascError(f"{path} is no manifest that this version of nasc reads: {error}") from error
