"""The `nasc` command: a thin skin over the Python interface. Heavy imports wait for the command that needs them."""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]
