"""`nasc opt`: apply a pipeline of passes to a lowered network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import note, print_table, print_text
from .model import Arguments, DataFrom, ExampleInput, Model, Passes, Seed, WeightsFile


@app.command()
def opt(
    model: Model,
    passes: Passes = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write text and weights instead of printing.")
    ] = None,
    data: DataFrom = None,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    seed: Seed = 0,
    dump_ir_after_all: Annotated[
        Path | None,
        typer.Option("--dump-ir-after-all", metavar="DIR", help="Write the network's text after every pass."),
    ] = None,
    dump_ir_after: Annotated[
        list[str] | None,
        typer.Option("--dump-ir-after", metavar="PASS", help="Show the network after this pass; may be repeated."),
    ] = None,
    dump_ir_after_change: Annotated[
        bool, typer.Option("--dump-ir-after-change", help="Show the network after passes that change it.")
    ] = False,
    dump_ir_to: Annotated[
        Path | None, typer.Option("--dump-ir-to", metavar="DIR", help="Write what is dumped there, not to stderr.")
    ] = None,
    reproducer: Annotated[
        Path, typer.Option(metavar="FILE.nasc", help="Where to write what a failing pass was given.")
    ] = Path("nasc-reproducer.nasc"),
    run_reproducer: Annotated[
        bool, typer.Option("--run-reproducer", help="MODEL is a reproducer: run what is in it.")
    ] = False,
    timing: Annotated[bool, typer.Option("--timing", help="Print how long each pass took.")] = False,
) -> None:
    """Rewrite a network by a pipeline of passes, verify it after each, and print it."""
    from .. import api, rewriting
    from ..compiler.dumps import Dumps
    from ..ir.errors import UsageError

    dumps = Dumps(
        dump_ir_after_all is not None,
        tuple(dump_ir_after or ()),
        dump_ir_after_change,
        dump_ir_after_all or dump_ir_to,
        note,
    )
    if run_reproducer:
        if passes:
            raise UsageError("--run-reproducer has its own pipeline", mend="Leave --passes out.")
        trace = rewriting.rewrite_again(Path(model), data=data, dump=dumps, output=output, tell=note)
    else:
        outputs = [reproducer] if output is None else [output, reproducer]
        network = partial(
            api.load_network, model, input=input, weights=weights, arguments=arg, outputs=outputs, tell=note
        )
        own = model if model.endswith(".py") else None
        trace = rewriting.rewrite(
            network,
            passes,
            data=data or own,
            seed=seed,
            dump=dumps,
            output=output,
            reproducer=reproducer,
            tell=note,
        )
    if output is None:
        print_text(str(trace.network.graph))
    else:
        trace.network.save(output)
        note(f"wrote {output} and {output.with_suffix('.safetensors')}")
    if timing:
        rows = [(s.text, f"{s.seconds * 1e3:.2f}", "yes" if s.changed else "no") for s in trace.steps]
        print_table("time per pass", ["pass", "ms", "changed"], rows, numbers=["ms"])
