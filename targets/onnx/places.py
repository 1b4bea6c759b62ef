"""Where an ONNX file may be written, and what a file says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ...ir import UsageError
from ...ir.files import check_writable

SUFFIX, BESIDE = ".onnx", ".data"
"""Of an ONNX file, and behind that of the file beside it with its large tensors."""
MEND = "Choose another name for the output (-o)."


def check_place(path: Path, kept: Mapping[Path, str]) -> None:
    """Refuse a place for an ONNX file, before anything is computed for it.

    Args:
        path: where it would be written; large tensors lie in `PATH.data`.
        kept: files whose place neither may take, each with what it is; they need not be there yet.

    Raises:
        UsageError: the path does not end in `.onnx`, is a folder, or cannot be written to; a file to keep, or one that
            nasc did not write, is there.
    """
    if path.is_dir():
        raise UsageError(f"{path}: error: is a folder", mend=f"Name the file in it: {path / ('NAME' + SUFFIX)}.")
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: error: an ONNX file is called NAME{SUFFIX}", mend=f"Write {path.stem}{SUFFIX}.")
    check_writable(path, makes_folders=True)
    beside = path.with_name(path.name + BESIDE)
    names = {file.resolve(): what for file, what in kept.items()}
    for place in (path, beside):
        if (what := names.get(place.resolve())) is not None:
            raise UsageError(f"{place}: error: the file would take the place of {what}", mend=MEND)
    there = next((place for place in (path, beside) if place.exists()), None)
    if there is not None and not written_here(path):
        raise UsageError(f"{there}: error: is there already, and nasc did not write it", mend=f"{MEND} Or delete it.")


def written_here(path: Path) -> bool:
    """Whether nasc wrote an ONNX file."""
    model = header(path)
    return model is not None and model.producer_name == "nasc"


def written_beside(path: Path) -> Path | None:
    """The file beside an ONNX file that holds its large tensors, where nasc wrote both; None where it did not.

    It must be called as nasc calls it, and end where the last tensor does.
    """
    model, beside = header(path), path.with_name(path.name + BESIDE)
    if model is None or model.producer_name != "nasc" or not beside.is_file():
        return None
    ends = [0]
    for tensor in model.graph.initializer:
        said = {entry.key: entry.value for entry in tensor.external_data}
        if said.get("location") == beside.name:
            ends.append(int(said["offset"]) + int(said["length"]))
    return beside if max(ends) == beside.stat().st_size > 0 else None


def said_by(path: Path) -> Mapping[str, str]:
    """The metadata of an ONNX file; nothing where it is none."""
    model = header(path)
    return {} if model is None else {entry.key: entry.value for entry in model.metadata_props}


def header(path: Path) -> onnx.ModelProto | None:
    """An ONNX file without the tensors beside it; None where there is none that can be read."""
    try:
        return onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return None
