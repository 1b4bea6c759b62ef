"""`nasc compile`: search for the network that serves best on this device, and write it with the evidence."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..ir.errors import UsageError
from .app import app
from .console import note, print_json, print_table
from .measure import estimating
from .model import Arguments, ExampleInput, Model, Rules, WeightsFile, WidthBounds, WidthMultiple, bounds_of

Repeated = list[str] | None
TO_MEASURE = "To measure energy, leave --energy out and add --objective energy:min."


@app.command()
def compile(
    model: Model,
    search: Annotated[
        str | None,
        typer.Option(
            help="Strategy: tpe, random, brute-force, grid, qmc, nsga2, nsga3, gp, cma-es, ilp.  \\[default: tpe]"
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Candidates to pay for; repeated ones are free.  \\[default: 120]")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result and the study.")] = Path(
        "nasc-out"
    ),
    objective: Annotated[Repeated, typer.Option(help="NAME, NAME:max or NAME:max:WEIGHT; repeat for several.")] = None,
    constraint: Annotated[
        Repeated, typer.Option(help="'latency<=2ms', 'accuracy>=baseline-1pt'; may be repeated.")
    ] = None,
    space: Rules = None,
    widths: Annotated[
        bool | None, typer.Option("--widths/--no-widths", help="Offer widths and blocks to the search.")
    ] = None,
    width_bounds: WidthBounds = None,
    width_multiple: WidthMultiple = None,
    train_epochs: Annotated[int | None, typer.Option(help="Epochs of training per candidate.  \\[default: 0]")] = None,
    generations: Annotated[
        int | None, typer.Option(help="Rounds of trained candidates after the trials.  \\[default: 0]")
    ] = None,
    tolerance: Annotated[
        str | None, typer.Option(help="Quality the winner may lose: 1pt, 2%.  \\[default: 1pt]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random.  \\[default: 0]")] = None,
    target: Annotated[str | None, typer.Option(help="Runtime and device.  \\[default: auto]")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples per inference in measurements.  \\[default: 1]")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime.  \\[default: 1]")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL.  \\[default: a journal in the folder]")
    ] = None,
    only_faster: Annotated[
        bool | None,
        typer.Option(help="Give layers whose integers take longer than float their real numbers back."),
    ] = None,
    forecast: Annotated[
        bool | None,
        typer.Option("--forecast/--no-forecast", help="Forecast latency; do not measure what is surely beaten."),
    ] = None,
    energy: Annotated[
        str | None,
        typer.Option(metavar="estimate", help="Count energy at the literature's prices, marked estimated."),
    ] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds after which no candidate is started.")] = None,
    input: ExampleInput = None,
    weights: WeightsFile = None,
    arg: Arguments = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; flags override it.")] = None,
    save_config: Annotated[Path | None, typer.Option(help="Write the effective settings to a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Search for a faster, smaller network of the same quality, and write it as ONNX with the evidence.

    The same command continues a search that was stopped.
    """
    from .. import api
    from ..ir.files import write_text
    from ..search.config import configuration

    flags = {
        "search.strategy": search,
        "search.trials": trials,
        "search.objectives": objective,
        "search.constraints": constraint,
        "search.space": space,
        "search.widths": widths,
        "search.width_bounds": bounds_of(width_bounds),
        "search.width_multiple": width_multiple,
        "search.tolerance": tolerance,
        "search.storage": storage,
        "search.only_faster": only_faster,
        "search.forecast": forecast,
        "search.time_limit_s": time_limit,
        "training.epochs": train_epochs,
        "training.generations": generations,
        "seed": seed,
        "target": target,
        "measure.batch": batch,
        "measure.threads": threads,
        "measure.meter": None if energy is None else estimating(energy, mend=TO_MEASURE),
    }
    settings = configuration(flags, path=config)
    if energy is not None:
        check_counted(settings.settings)
    show_settings(settings)
    if save_config is not None:
        write_text(save_config, settings.text)
    from .progress import Watch

    task = partial(api.load_task, model, input=input, weights=weights, arguments=arg)
    with Watch() as watch:
        result = api.search_task(task, settings.settings, output, observer=watch, progress=watch.epoch)
    if as_json:
        print_json(result.as_dict())
        return
    show_result(result, output)


def check_counted(settings: Any) -> None:
    """Refuse to count energy that nothing asks for.

    Raises:
        UsageError: neither an objective nor a constraint is about energy.
    """
    wanted = (*settings.search.objectives, *settings.search.constraints)
    if not any(text.startswith("energy") for text in wanted):
        raise UsageError(
            "--energy estimate counts energy for the search, and neither an objective nor a constraint asks for it",
            mend="Add --objective energy:min, or a --constraint such as 'energy<=5uJ'.",
        )


def show_settings(configuration: Any) -> None:
    """The settings that are not at their default, and where each comes from."""
    changed = [row for row in configuration.rows if row.file is not None or row.flag is not None]
    if changed:
        text = ", ".join(
            f"{row.name}={row.effective} ({'flag' if row.flag is not None else 'file'})" for row in changed
        )
        note(f"settings: {text}")


def show_result(result: Any, output: Path) -> None:
    """The front and the winner, as tables."""
    columns, rows = result.table()
    print_table("the front (best trade-offs)", columns, rows, numbers=columns[1:-1])
    for line in result.summary():
        note(line)
    note(f"wrote {output}/best/model.onnx, {output}/report.html")
