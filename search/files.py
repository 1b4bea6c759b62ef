"""Write files so that a reader, or a kill at any moment, finds the old one or the new one, never half of one."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..ir.errors import NascError, UsageError


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary path in the same folder that takes the place of `path` if the block ends well.

    Raises:
        NascError: the folder cannot be written to, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp makes files that only their owner reads
        os.replace(temporary, path)  # noqa: PTH105 - the one atomic move
    except OSError as error:
        raise NascError(
            f"cannot write {path}: {error.strerror or error}", mend="Name a folder you can write to with --output."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        NascError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


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
        raise UsageError(
            f"the output folder {path} cannot be used: {error.strerror or error}",
            mend="Name a folder you can write to with --output.",
        ) from error
