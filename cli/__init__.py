"""The `nasc` command: a thin skin over the Python interface. Nothing here computes; heavy imports wait for their command."""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]
