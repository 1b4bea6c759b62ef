"""Tables and JSON on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer


def print_text(text: str) -> None:
    """Text to standard output as it is: no colours, no wrapping."""
    typer.echo(text, nl=not text.endswith("\n"))


def print_json(value: Any) -> None:
    """A value as JSON to standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def unsaid(text: str) -> None:
    """Take what a command need not say: that weights are untrained, where none are looked at."""


def note(text: str) -> None:
    """A remark to standard error."""
    typer.echo(text, err=True)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """A table to standard output.

    Args:
        title: printed above.
        columns: headings.
        rows: one sequence of cells each.
        numbers: the columns to align to the right.
        whole: the columns whose cells are never broken, such as a person's file and line.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify = "right" if column in numbers else "left"
        table.add_column(escape(column), justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
