"""The command group: how errors are shown, which exit codes they give, and which commands there are."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..ir.errors import NascError


class Group(TyperGroup):
    """Commands whose expected errors are printed as one message; exit codes 1 (failed), 2 (usage), 130 (stopped)."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; `--debug` lets errors through with their traceback."""
        try:
            return super().invoke(ctx)
        except NascError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(shown(error), err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None


def shown(error: NascError) -> str:
    """An error as the command line prints it: `nasc: error: …`, or the place first where the message has one."""
    text = "\n  ".join([str(error), *getattr(error, "__notes__", [])])
    if text.startswith("error: "):
        return f"nasc: {text}"
    return text if _has_place(text) else f"nasc: error: {text}"


def _has_place(text: str) -> bool:
    """Whether a message starts with a place, `net.py:3: error: …`, and does not quote another program's error."""
    place, found, _ = text.partition("\n")[0].partition(": error: ")
    if not found or ": " in place:
        return False
    last = place.rpartition(" ")[2]  # a path, a line, a value: a sentence ends otherwise
    return last == place or place.startswith("graph @") or any(sign in last for sign in "./\\:%")


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Compile a PyTorch network into a faster, smaller, verified ONNX network for your own device.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"nasc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """Run the command line."""
    app()


from . import (  # noqa: E402  (commands register themselves on `app`)
    compile,
    cost,
    doctor,
    export,
    inspect,
    measure,
    profile,
    rewrite,
    sensitivity,
    space,
    targets,
    verify,
)

COMMANDS = (compile, cost, doctor, export, inspect, measure, profile, rewrite, sensitivity, space, targets, verify)
