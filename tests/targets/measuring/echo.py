"""An object that a test calls in another process, which must be able to import it."""

from __future__ import annotations

import os
import tempfile


class Echo:
    """An object to call over there."""

    def fail(self) -> None:
        raise ZeroDivisionError("a fault")

    def leave(self, status: int) -> None:
        os.write(2, b"something about it\n")
        os._exit(status)

    def own(self) -> tuple[str, int]:
        return tempfile.mkdtemp(), os.getpid()
