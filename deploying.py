"""Networks as files that are deployed: written for a target, and held against the networks they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ir import NascError, UsageError
from .loading import load_task_again
from .making import Source, make

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .compiler.network import Network
    from .compiler.passes import Data
    from .search.comparison import Check
    from .search.layer_runs import LayerRun
    from .targets.artifact import Artifact

TARGET, PIPELINE = "nasc.target", "nasc.pipeline"
"""Entries of a file's metadata: the target it was written for, and the passes that made its network."""
OWN = "Its own evidence is in it: leave --against and what goes with it out, or name the file in it."


def export(
    network: Network,
    path: str | Path,
    *,
    target: str = "onnxruntime:cpu",
    metadata: Mapping[str, str] | None = None,
) -> Artifact:
    """Write a network as ONNX for a target. Tensors of 32 MiB and more in all lie beside it, in `PATH.data`.

    Args:
        network: what to write; a quantized one after `calibrate`, and after `legalize` for integer kernels.
        path: the file.
        target: the target to write for.
        metadata: more entries for the file's metadata, beside version and digest.

    Raises:
        UsageError: there is no such target, or the place cannot be written to.
        NascError: a value's step is not known, or an op cannot be written.
    """
    from .search.artifacts import artifact_of
    from .targets import target_named

    named = {"nasc.digest": network.key, **(metadata or {})}
    artifact = artifact_of(target_named(target), network, named, name=Path(path).name)
    artifact.save(path)
    return artifact


@dataclass(frozen=True)
class Export:
    """What was written, and how it does.

    Args:
        file: the ONNX file.
        beside: the file with its large tensors; None: there is none.
        size_bytes: of both.
        target: what it was written for.
        pipeline: all passes that made its network.
        added: those of them that were added for the target, as far as they changed something.
        layers: what runs as what.
        checks: the file beside the network; empty where it cannot run here.
        unchecked: why it cannot run here; empty: it can.
    """

    file: Path
    beside: Path | None
    size_bytes: int
    target: str
    pipeline: str
    added: str
    layers: tuple[LayerRun, ...]
    checks: tuple[Check, ...]
    unchecked: str

    @property
    def holds(self) -> bool:
        """Whether no check fails."""
        return all(check.holds is not False for check in self.checks)

    def rows(self) -> list[tuple[str, str]]:
        """What runs as what, for people."""
        from .search.layer_runs import by_runs

        return by_runs(self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        paths = {"file": str(self.file), "beside": None if self.beside is None else str(self.beside)}
        return {**asdict(self), **paths, "unchecked": self.unchecked or None}


def export_model(
    source: Source,
    output: str | Path | None = None,
    *,
    target: str = "auto",
    reproducer: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Export:
    """Write what a source names as ONNX, and compare the file with the network: what `nasc export` does.

    Args:
        source: the model and the passes.
        output: the file; None: the model's name with `.onnx`, in the current folder.
        target: what to write for; `auto` takes the best here.
        reproducer: where to write what a failing pass was given.
        tell: called with sentences on what one might not expect.

    Raises:
        UsageError: there is no such target or model, or the output is no place for the file.
        PassError: a pass refuses the network.
        NascError: the model cannot be lowered, or the network not be written.
    """
    from .search.comparison import Check, compare
    from .search.layer_runs import layer_runs
    from .targets import target_named
    from .targets.onnx.places import check_place

    chosen = target_named(target)
    path = Path(output) if output is not None else Path(f"{source.name}.onnx")
    check_place(path, {})

    def check(kept: Mapping[Path, str]) -> None:
        check_place(path, kept)

    made = make(source, chosen, check=check, reproducer=reproducer, tell=tell)
    said = {TARGET: chosen.name, **({PIPELINE: made.pipeline} if made.pipeline else {})}
    artifact = export(made.network, path, target=chosen.name, metadata=said)
    placement, checks, unchecked = None, (), chosen.unavailable() or ""
    if not unchecked:
        try:
            found = compare(made.network, chosen, path, made.inputs, of=made.inputs_from)
            placement, checks = found.placement, found.checks
        except NascError as error:  # the file is there: what is wrong with it is told with all else
            checks = (Check("agreement with torch", False, " ".join(str(error).split())),)
    return Export(
        path,
        path.with_name(artifact.location) if artifact.location else None,
        artifact.size_bytes,
        chosen.name,
        made.pipeline,
        made.added,
        layer_runs(made.network.graph, chosen, placement),
        checks,
        unchecked,
    )


def verify(
    path: str | Path,
    *,
    against: str | Path | Network | None = None,
    passes: str = "",
    data: str | Data = None,
    input: str | Sequence[str] | None = None,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | Sequence[str] | None = None,
    seed: int = 0,
    legalize: bool = True,
    target: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Check, ...]:
    """Run the evidence of a result again: digests, emission, agreement with torch, integer kernels, quality.

    Of an ONNX file alone: whether it computes what a network does, and the first layer where it does not.

    Args:
        path: the output folder of `compile`, or its `best/`; an ONNX file.
        against: what the file was made from: a network, or what `load_network` takes.
        passes: and the pipeline behind it.
        data: for the pipeline, and to compare on: inputs, or a model file that names them.
        input: of the model, see `load_network`.
        weights: of the model.
        arguments: of the model.
        seed: for passes that draw at random.
        legalize: whether the target's passes were added, as `nasc export` does.
        target: what runs the file; None: what it says it was written for, else the best here.
        tell: called with sentences on what one might not expect.

    Raises:
        UsageError: there is no manifest, no such file, or nothing to hold a file against.
        NascError: a file is damaged, or is not of this network.
    """
    from .targets.model_file import model_file

    if against is not None:
        source = Source(against, passes, data, input, weights, arguments, seed, legalize)
        return _verify_file(Path(path), source, target, tell)
    if not Path(path).is_dir():
        model_file(path, "verify")
        mend = "Name what it was made from: --against MODEL --passes PIPELINE."
        raise UsageError(f"{path}: error: there is nothing to hold this file against", mend=mend)
    if passes or any(said is not None for said in (data, input, weights, arguments, target)):
        raise UsageError("--passes, --data and the like speak of the network of --against", mend=OWN)
    from .search.verify import verify as run_again

    return run_again(Path(path), load_task_again)


def _verify_file(
    path: Path, source: Source, target: str | None, tell: Callable[[str], None] | None
) -> tuple[Check, ...]:
    """See `verify`."""
    from .search.comparison import compare
    from .targets import TargetError, target_named
    from .targets.model_file import model_file
    from .targets.onnx.places import said_by

    if path.is_dir():
        raise UsageError(f"{path}: error: is a folder", mend=OWN)
    file = model_file(path, "verify")
    chosen = target_named(target or said_by(file).get(TARGET, "auto"))
    if missing := chosen.unavailable():
        raise TargetError(f"{path}: error: {chosen.name} cannot run it here: {missing}", mend="Name another: --target.")
    made = make(source, chosen, tell=tell)
    try:
        return compare(made.network, chosen, file, made.inputs, of=made.inputs_from).checks
    except NascError as error:
        raise NascError(f"{path}: error: it is not of this network: {error.message}", mend=error.mend) from error
