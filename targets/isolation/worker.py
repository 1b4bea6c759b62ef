"""The caller's side of a worker process: start it, ask it, and say what became of it.

    with Worker(Bench, target) as worker:
        record = worker.call("measure", model, limit_s=60.0)

The process is started when it is first asked, kept over calls, and started again after a failure. It is spawned, not
forked, and imports what the called object needs and nothing else. It ends with this object, and when this process
ends, however that happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from socket import socket, socketpair
from typing import Any, TypeVar

from ...ir.errors import NascError
from .child import means_no_memory
from .wire import receive, send

Answer = TypeVar("Answer")

START_LIMIT_S = 120.0
"""The longest time to wait for a new process: importing takes half a second on an idle machine."""
END_LIMIT_S = 10.0
"""The longest time between the end of the line and the end of the process at its other end."""
TAIL = 400
"""So many characters of what a process printed last are shown."""
_PREFIX = "nasc-worker-"
_PROGRAM = """
import json, sys
given = json.loads(sys.argv[1])
sys.path[:] = given["path"]
from importlib import import_module
import_module(given["module"]).main(*given["arguments"])
"""


class Ending(StrEnum):
    """How a worker failed."""

    KILLED = "killed"  # by a signal from outside
    CRASHED = "crashed"  # by a signal that it brought upon itself, or by leaving
    HANG = "hang"  # no answer within the limit; then killed by us
    MEMORY = "out of memory"  # it asked for more than its limit, or the kernel ended it for want of memory
    FAULT = "fault"  # an error that nobody expected; the process lives


class WorkerError(NascError):
    """The process that did the work failed; the next call starts a new one.

    Args:
        message: what happened.
        ending: how it failed.
        mend: what to do about it.
        trace: the traceback of a fault.
    """

    def __init__(self, message: str, ending: Ending, *, mend: str | None = None, trace: str | None = None) -> None:
        super().__init__(message, mend=mend)
        self.ending = ending
        self.trace = trace


@dataclass
class _Running:
    """One process and what belongs to it."""

    process: subprocess.Popen[bytes]
    line: socket
    folder: Path
    owner: int
    kills: int | None

    def end(self) -> None:
        """Kill it and everything it started, and remove what it left behind. A forked child of ours owns nothing."""
        self.line.close()
        if os.getpid() != self.owner:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ended(self) -> tuple[int | None, str]:
        """Its exit status, None where it does not come, and what it printed last."""
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.process.wait(END_LIMIT_S)
        try:
            text = (self.folder / "output").read_text(errors="replace").strip()
        except OSError:
            text = ""
        if len(text) > TAIL:
            text = text[-TAIL:].partition("\n")[2] or text[-TAIL:]
        return status, text


class Worker:
    """A process with one object in it.

    Args:
        kind: the object's class, importable by the other process.
        arguments: what it is made with; they are sent again to each new process.
        work: what the object does, for messages: "measuring".
        memory_limit_bytes: of data that the process may have (RLIMIT_DATA); None: no limit.
    """

    def __init__(
        self, kind: type, *arguments: object, work: str = "the work", memory_limit_bytes: int | None = None
    ) -> None:
        self._kind = kind
        self._arguments = arguments
        self._work = work
        self._limit_bytes = memory_limit_bytes
        self._running: _Running | None = None
        self._finalizer: Any = None
        self._turn = threading.RLock()
        self.started = 0

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process now; None where there is none."""
        return None if self._running is None else self._running.process.pid

    def close(self) -> None:
        """End the process; the next call would start a new one."""
        with self._turn:
            if self._finalizer is not None:
                self._finalizer()
            self._running = self._finalizer = None

    def ready(self) -> int:
        """See that the process runs; gives its number, counted from 1: a new process remembers nothing.

        Raises:
            WorkerError: it does not start.
        """
        with self._turn:
            if self._running is not None and self._running.process.poll() is not None:
                self.close()  # it died between two calls, of which none was harmed
            if self._running is None:
                self._start()
            return self.started

    def call(self, name: str, *arguments: object, limit_s: float, **named: object) -> Any:
        """Call a method of the object.

        Args:
            name: the method.
            arguments: its arguments, and the named ones.
            limit_s: the longest time it may take.

        Raises:
            WorkerError: the process was killed, crashed, hung, ran out of memory, or met an error nobody expected.
            NascError: what the method itself raises.
        """
        with self._turn:
            self.ready()
            return self._asked((limit_s, name, arguments, named), limit_s)

    def _start(self) -> None:
        if sys.platform == "win32":
            raise WorkerError(
                "worker processes need Linux or macOS",
                Ending.FAULT,
                mend="Measure in this process: --no-isolate, or isolate = false under [measure].",
            )
        _sweep()
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        ours, theirs = socketpair()
        given = {
            "path": [entry for entry in sys.path if entry],
            "module": f"{__package__}.child",
            "arguments": [theirs.fileno(), os.getpid(), str(folder), self._limit_bytes],
        }
        try:
            with (folder / "output").open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM, json.dumps(given)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "TMPDIR": str(folder)},
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C is for the caller, who ends this process
                )
        except OSError as error:
            ours.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise WorkerError(f"no process can be started: {error}", Ending.FAULT) from error
        finally:
            theirs.close()
        self.started += 1
        self._running = _Running(process, ours, folder, os.getpid(), _kills())
        self._finalizer = weakref.finalize(self, self._running.end)
        self._asked((self._kind, self._arguments), START_LIMIT_S)

    def _asked(self, question: object, limit_s: float) -> Any:
        assert self._running is not None
        line, deadline_s = self._running.line, time.monotonic() + limit_s
        try:
            send(line, question, deadline_s)
            answer = receive(line, deadline_s)
        except TimeoutError:
            self.close()
            raise WorkerError(
                f"{self._work} gave no answer within {limit_s:g} s and was stopped",
                Ending.HANG,
                mend="Allow more time: --limit, or measure.limit_s in a search.",
            ) from None
        except (EOFError, OSError):
            error = self._obituary(self._running)
            self.close()
            raise error from None
        except BaseException:
            self.close()  # who knows what it is doing now
            raise
        match answer:
            case ("done", value):
                return value
            case ("refused", kind, message, mend):
                error = NascError.__new__(kind)
                NascError.__init__(error, message, mend=mend)
                raise error
            case ("memory", text):
                self.close()
                raise self._no_memory(text)
            case (_, text, trace):
                raise WorkerError(f"{self._work} failed: {text}", Ending.FAULT, trace=trace)
            case _:
                raise AssertionError(answer)

    def _obituary(self, running: _Running) -> WorkerError:
        """What became of a process that is gone."""
        status, printed = running.ended()
        said = f"; it said: {printed}" if printed else ""
        if status is None:
            return WorkerError(f"the process of {self._work} closed its line and went on{said}", Ending.CRASHED)
        if means_no_memory(printed):
            return self._no_memory(printed.splitlines()[-1])
        if status >= 0:
            return WorkerError(f"the process of {self._work} ended with status {status}{said}", Ending.CRASHED)
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        if status in (-signal.SIGKILL, -signal.SIGTERM):
            if running.kills is not None and (_kills() or 0) > running.kills:
                return self._no_memory("the kernel ended the process, since the whole machine had no memory left")
            return WorkerError(f"the process of {self._work} was killed from outside ({name})", Ending.KILLED)
        return WorkerError(f"the process of {self._work} crashed ({name}){said}", Ending.CRASHED)

    def _no_memory(self, text: str) -> WorkerError:
        limit = "" if self._limit_bytes is None else f" (limit {self._limit_bytes / 2**30:.2g} GiB)"
        return WorkerError(
            f"{self._work} ran out of memory{limit}: {text}",
            Ending.MEMORY,
            mend="Allow more: --memory, or measure.memory_limit_bytes in a search; or take a smaller batch.",
        )


def twice(ask: Callable[[], Answer]) -> Answer:
    """An answer; asked for once more where the process failed: of a new one, unless it lives (`Ending.FAULT`).

    Raises:
        WorkerError: the second one failed as well.
    """
    try:
        return ask()
    except WorkerError:
        return ask()


def most_memory_bytes() -> int | None:
    """What a worker may have by default: four fifths of the memory that is free now; None where that cannot be told."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return None if free is None else free * 4 // 5


def _kills() -> int | None:
    """How often the kernel has ended a process for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _sweep() -> None:
    """Remove the folders of workers whose callers are gone without having had the time to."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not owner.isdigit():
            continue
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            continue
