"""Work in a process of its own, which may crash, hang or run out of memory without harming whoever asked for it."""

from __future__ import annotations

from .worker import Ending, Worker, WorkerError, twice

__all__ = ["Ending", "Worker", "WorkerError", "twice"]
