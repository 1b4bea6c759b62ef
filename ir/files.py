"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import UsageError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place: a reader sees the old file or the new one.

    Raises:
        UsageError: the place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _refused(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, *, makes_folders: bool = False) -> None:
    """Refuse a place that no file can be written to, before anything is computed for it.

    Args:
        path: where a file would be written.
        makes_folders: whether folders that are missing will be made, as `write_atomically` does.

    Raises:
        UsageError: it is a folder, or its own folder is missing, a file, or closed to us.
    """
    mend = "Choose another output path."
    if path.is_dir():
        raise UsageError(f"{path}: error: a file would be written here, and this is a folder", mend=mend)
    folder = path.parent
    while makes_folders and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.exists():
        raise UsageError(f"{path}: error: there is no folder {folder}", mend=f"Make it first: mkdir -p {folder}")
    if not folder.is_dir():
        raise UsageError(f"{path}: error: cannot write here: {folder} is a file", mend=mend)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: error: cannot write here: {folder} may not be written to", mend=mend)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        UsageError: the place cannot be written to.
    """

    def fill(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, fill)


def _refused(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: error: cannot write here: {error.strerror}", mend="Choose another output path.")
