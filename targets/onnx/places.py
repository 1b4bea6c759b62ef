"""Where an ONNX file may be written, and what a file says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ...ir import UsageError

SUFFIX, BESIDE = ".onnx", ".data"
"""Of an ONNX file, and behind that of the file beside it with its large tensors."""
MEND = "Choose another name for the output (-o)."


def check_place(path: Path, kept: Mapping[Path, str]) -> None:
    """Refuse a place for an ONNX file, before anything is computed for it.

    Args:
        path: where it would be written; large tensors lie in `PATH.data`.
        kept: files whose place neither may take, each with what it is; they need not be there yet.

    Raises:
        UsageError: the path does not end in `.onnx`, or is a folder; a file to keep, or one that nasc did not write,
            is there.
    """
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: error: an ONNX file is called NAME{SUFFIX}", mend=f"Write {path.stem}{SUFFIX}.")
    if path.is_dir():
        raise UsageError(f"{path}: error: is a folder", mend=MEND)
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
