"""The errors nasc raises on purpose: each names the place, what was expected and found, and how to mend it."""

from __future__ import annotations


class NascError(Exception):
    """Something failed that a person can act on; the command line prints it without a traceback and exits with 1.

    Args:
        message: what was expected and what was found, with the place (`file:line: …`) where there is one.
        mend: what to do about it, as one sentence; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, mend: str | None = None) -> None:
        super().__init__(message if mend is None else f"{message}\n  {mend}")
        self.message = message
        self.mend = mend


class UsageError(NascError):
    """The request itself is wrong: an unknown name, a bad option, a missing file. The command line exits with 2."""

    exit_code = 2


def nearest(name: str, known: list[str], limit: int = 3) -> list[str]:
    """The known names most like `name`, best first: what an error offers as a correction."""
    from difflib import get_close_matches

    return get_close_matches(name, known, n=limit, cutoff=0.5)


def did_you_mean(name: str, known: list[str]) -> str:
    """A sentence that offers the nearest known names, or lists what there is."""
    if close := nearest(name, known):
        return f"Did you mean {' or '.join(close)}?"
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"Known here: {listed}." if known else "There is none here."
