"""What runs in the worker process: one object, whose methods are called over a line until the line is cut.

Nothing here outlives the process that asked: a thread watches the line and the parent, and ends the process, its
scratch folder included, when either is gone. Should that thread not get its turn (foreign code may hold the
interpreter's lock for ever), the alarm clock set for each call ends the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import threading
import traceback
from pathlib import Path
from socket import socket
from typing import Any, Literal

from ...ir.errors import NascError
from .wire import receive, send

OUT_OF_MEMORY = (
    "bad_alloc", "Failed to allocate memory", "out of memory", "OUT_OF_MEMORY", "Unable to allocate", "MemoryError",
    "Cannot allocate memory", "can't start new thread",
)  # fmt: skip
"""How C++, ONNX Runtime, CUDA, numpy, Python and the system say that there is no more memory."""

ALARM_SHARE = 1.1
"""The alarm clock goes off so much later than the caller's limit: it is for callers that are gone."""

Answer = (
    tuple[Literal["done"], Any]
    | tuple[Literal["refused"], type[NascError], str, str | None]
    | tuple[Literal["memory"], str]
    | tuple[Literal["fault"], str, str]
)
"""A result; an expected error as class, message and mend; what there was no memory for; a fault and its traceback."""


def main(descriptor: int, parent: int, folder: str, memory_limit_bytes: int | None) -> None:
    """Serve calls until the other end of the line is closed.

    Args:
        descriptor: this end of the line.
        parent: the process that asked.
        folder: for temporary files; removed at the end.
        memory_limit_bytes: of data that this process may have; None: as much as there is.
    """
    _limit(memory_limit_bytes)
    line = socket(fileno=descriptor)
    threading.Thread(target=_watch, args=(line, parent, folder), name="nasc-watch", daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        kind, arguments = receive(line)
        server, answer = None, _answered(lambda: kind(*arguments))
        if answer[0] == "done":
            server, answer = answer[1], ("done", None)
        send(line, answer)
        while True:
            limit_s, name, arguments, named = receive(line)
            signal.alarm(int(limit_s * ALARM_SHARE) + 1)
            method = getattr(server, name)
            answer = _answered(lambda method=method, arguments=arguments, named=named: method(*arguments, **named))
            signal.alarm(0)
            send(line, answer)
            del answer, arguments, named
    shutil.rmtree(folder, ignore_errors=True)


def _answered(call: Any) -> Answer:
    try:
        return ("done", call())
    except MemoryError as error:
        return ("memory", str(error) or "a Python object")
    except NascError as error:
        if means_no_memory(str(error)):
            return ("memory", _first_line(error))
        return ("refused", type(error), error.message, error.mend)
    except Exception as error:
        if means_no_memory(str(error)):
            return ("memory", _first_line(error))
        return ("fault", f"{type(error).__name__}: {error}", traceback.format_exc())


def means_no_memory(text: str) -> bool:
    """Whether a message says that there is no more memory."""
    return any(sign.lower() in text.lower() for sign in OUT_OF_MEMORY)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _limit(memory_limit_bytes: int | None) -> None:
    """Bound what this process may take, and offer it first should the whole machine run out of memory."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_limit_bytes is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        asked = memory_limit_bytes if most == resource.RLIM_INFINITY else min(memory_limit_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (asked, asked))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _watch(line: socket, parent: int, folder: str) -> None:
    """End this process when the line is cut or the parent is gone."""
    poll = select.poll()
    poll.register(line.fileno(), 0)  # hang-up and errors are always told
    while not poll.poll(1000) and os.getppid() == parent:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
