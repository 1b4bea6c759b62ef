"""Write data as JSON so that a reader, or a kill at any moment, finds the old file or the new one."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..ir.errors import NascError, UsageError
from ..ir.files import write_text


def json_text(data: Any, *, indent: int | None = 2) -> str:
    """Data as JSON; what JSON has no number for (infinities, not-a-number) becomes null."""
    return json.dumps(_finite(data), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


def write_json(path: Path, data: Any) -> None:
    """Write data as JSON, atomically."""
    write_text(path, json_text(data) + "\n")


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one line of JSON per row, atomically."""
    write_text(path, "".join(json_text(row, indent=None) + "\n" for row in rows))


def append_line(path: Path, row: Any) -> None:
    """Add one line of JSON with a single write, so that other readers never see half of it.

    Raises:
        NascError: it cannot be written.
    """
    try:
        with path.open("ab", buffering=0) as file:
            file.write((json_text(row, indent=None) + "\n").encode())
    except OSError as error:
        raise NascError(f"cannot write {path}: {error.strerror or error}") from error


def prepare_folder(path: Path) -> None:
    """Make an output folder and see that it can be written to.

    Raises:
        UsageError: it is a file, or cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".writable."):
            pass
    except OSError as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: OSError) -> UsageError:
    """What to say of an output folder that the system refuses."""
    return UsageError(
        f"the output folder {path} cannot be used: {error.strerror or error}",
        mend="Name a folder you can write to with --output.",
    )
