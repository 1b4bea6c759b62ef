"""One lock per device and host, so that parallel workers never measure at the same time.

The lock is a file that the operating system locks for the process that holds it: it is free again the moment that
process ends, however it ends. Beside it a note says who holds it, so that whoever waits in vain can be told.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from ..ir.errors import NascError

DIRECTORY_VARIABLE = "NASC_LOCK_DIR"
DEFAULT_TIMEOUT_S = 900.0
SILENT_S = 1.0
"""Longer waits are told on standard error."""


class DeviceBusyError(NascError):
    """Another process (or thread) measured on the device for longer than we were willing to wait."""


class LockDirectoryError(NascError):
    """The folder for the lock files cannot be used: it cannot be made, or it belongs to somebody else."""


@dataclass(frozen=True)
class Hold:
    """A lock that is held now.

    Args:
        devices: the devices nobody else measures on meanwhile, sorted.
        waited_s: how long this process waited for them.
    """

    devices: tuple[str, ...]
    waited_s: float


_held = threading.local()


@contextmanager
def device_lock(
    *devices: str, timeout_s: float = DEFAULT_TIMEOUT_S, directory: str | Path | None = None
) -> Generator[Hold, None, None]:
    """Hold every named device of this host while the `with` block runs.

    Several devices are taken in sorted order, so two callers that want the same two cannot block each other for ever.
    A thread may enter again for a device it already holds. The lock is per user and host (see `lock_directory`).
    Waiting for more than a second is told on standard error.

    Args:
        devices: names such as `"cpu"` or a GPU's UUID; any text is allowed.
        timeout_s: the longest wait for all of them together.
        directory: the folder of the lock files; `lock_directory()` if not given.

    Raises:
        DeviceBusyError: a device did not come free in time; the message names its holder.
        LockDirectoryError: there is no folder to lock in.
    """
    folder = lock_directory() if directory is None else _own_folder(Path(directory))
    began = time.monotonic()
    taken: list[tuple[FileLock, Path]] = []
    entered: list[Path] = []
    counts = _thread_counts()
    names = tuple(sorted(set(devices)))
    try:
        for device in names:
            path = folder / f"{quote(device, safe='')}.lock"
            if counts.get(path, 0) == 0:
                lock = FileLock(path)
                _acquire(lock, path, device, timeout_s, began)
                taken.append((lock, path))
            counts[path] = counts.get(path, 0) + 1
            entered.append(path)
        yield Hold(names, time.monotonic() - began)
    finally:
        for path in entered:
            counts[path] -= 1
        for lock, path in reversed(taken):
            _note(path).unlink(missing_ok=True)
            lock.release()


def lock_directory() -> Path:
    """The folder in which this user's locks lie, made if it is missing.

    In this order: the folder named by NASC_LOCK_DIR (set it to one shared folder where containers share a device);
    the user's runtime directory `/run/user/<uid>`; a private folder in the system's temporary directory. The runtime
    directory is looked up by the user's number and not by XDG_RUNTIME_DIR, which a background job may not have:
    both must find the same lock.

    Raises:
        LockDirectoryError: the folder cannot be made, or is a link, or belongs to another user.
    """
    if named := os.environ.get(DIRECTORY_VARIABLE):
        return _own_folder(Path(named), shared=True)
    if sys.platform == "win32":
        return _own_folder(Path(tempfile.gettempdir()) / f"nasc-{os.environ.get('USERNAME', 'user')}")
    runtime = Path("/run/user") / str(os.getuid())
    if runtime.is_dir() and os.access(runtime, os.W_OK):
        return _own_folder(runtime / "nasc")
    return _own_folder(Path(tempfile.gettempdir()) / f"nasc-{os.getuid()}")


def holders(folder: Path) -> dict[str, str]:
    """Who holds which device's lock now, in words; devices that are free are left out.

    Args:
        folder: see `lock_directory`.
    """
    found: dict[str, str] = {}
    for note in sorted(folder.glob("*.holder")):
        lock = FileLock(note.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            found[unquote(note.stem)] = _holder(note.with_suffix(".lock"))
        else:
            lock.release()  # its holder died before it could take its note away
    return found


def program() -> str:
    """What runs in this process, as a person would call it: `nasc measure`, `search.py`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)  # of `python -m`
    name = Path(sys.argv[0]).name if spec is None else str(spec.name).removesuffix(".__main__")
    if name == "nasc":
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        return f"nasc {command}".rstrip()
    return name if name.strip("-c") else "python"


def _acquire(lock: FileLock, path: Path, device: str, timeout_s: float, began: float) -> None:
    remaining_s = max(0.0, timeout_s - (time.monotonic() - began))
    try:
        try:
            lock.acquire(timeout=min(SILENT_S, remaining_s))
        except Timeout:
            if remaining_s <= SILENT_S:
                raise
            _say_waiting(path, device, remaining_s - SILENT_S)
            lock.acquire(timeout=remaining_s - SILENT_S)
    except Timeout:
        raise DeviceBusyError(
            f"device {device!r} is being measured by {_holder(path)}; waited {timeout_s:g} s for it",
            mend="Wait until that process ends, stop it, or allow a longer wait (timeout_s).",
        ) from None
    except OSError as fault:
        raise LockDirectoryError(
            f"{path}: cannot lock this file ({fault.strerror or fault})",
            mend=f"Point {DIRECTORY_VARIABLE} to a folder on a local disk that you may write to.",
        ) from fault
    note = {"pid": os.getpid(), "program": program(), "since_unix_s": round(time.time(), 3)}
    scratch = _note(path).with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    scratch.write_text(json.dumps(note))
    scratch.replace(_note(path))


def _say_waiting(path: Path, device: str, longest_s: float) -> None:
    told = f"waiting for device {device!r}: it is being measured by {_holder(path)}; at most {longest_s:.0f} s more"
    print(told, file=sys.stderr, flush=True)


def _holder(path: Path) -> str:
    """Who holds the lock, from the note beside it; the note may be missing for a moment around a change of hands."""
    try:
        note = json.loads(_note(path).read_text())
        return f"process {note['pid']} ({note['program']}), for {time.time() - note['since_unix_s']:.0f} s now"
    except (OSError, ValueError, KeyError):
        return "another process"


def _note(path: Path) -> Path:
    return path.with_suffix(".holder")


def _thread_counts() -> dict[Path, int]:
    """How often this thread has entered each lock. A forked child does not hold what its parent holds."""
    if getattr(_held, "pid", None) != os.getpid():
        _held.pid = os.getpid()
        _held.counts = {}
    return _held.counts


def _own_folder(folder: Path, *, shared: bool = False) -> Path:
    mend = f"Remove it, or set {DIRECTORY_VARIABLE} to a folder that you may write to."
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat() if shared else folder.lstat()
    except OSError as fault:
        raise LockDirectoryError(f"{folder}: cannot make this folder ({fault.strerror})", mend=mend) from fault
    if not stat.S_ISDIR(found.st_mode):
        raise LockDirectoryError(f"{folder}: expected a folder of one's own, found a link or a file", mend=mend)
    if sys.platform != "win32" and not shared and found.st_uid != os.getuid():
        raise LockDirectoryError(
            f"{folder}: expected it to belong to user {os.getuid()}, not {found.st_uid}", mend=mend
        )
    return folder
