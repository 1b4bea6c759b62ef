"""The argument MODEL and what may be said beside it: the same for every command that takes a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model file (model.py; it is code and runs as code), package.module:attribute "
        "(torchvision.models:resnet18), timm:NAME, a program of torch.export.save (model.pt2), "
        "an ONNX file (model.onnx), or a lowered network (model.nasc).",
    ),
]
ExampleInput = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Random example inputs: 1x3x224x224, 2x24:i64, 2x24:i64:0..999; several with commas, "
        "by keyword as tokens=2x24:i64.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="A checkpoint for the model: .safetensors, or of torch.save."),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="An argument of what makes the model: num_classes=10."),
]
Passes = Annotated[str, typer.Option("--passes", metavar="PIPELINE", help="Passes, as in 'resize{fc1=24} | cleanup'.")]
DataFrom = Annotated[str | None, typer.Option("--data", metavar="MODEL", help="Model file whose data passes may use.")]
Seed = Annotated[int, typer.Option(help="Seed for passes that draw at random.")]
Legalize = Annotated[
    bool, typer.Option(help="Bring quantized layers into the form that the target runs, where the passes do not.")
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--space", metavar="RULE", help="'linear: weights=[i4, i8], activations=[u8]'; may be repeated."),
]
WidthBounds = Annotated[
    str | None,
    typer.Option(metavar="LOW..HIGH", help="Sizes of widths, as shares of their own.  \\[default: 0.25..1]"),
]
WidthMultiple = Annotated[
    int | None, typer.Option(help="Sizes of widths are multiples of this.  \\[default: what suits the target]")
]


def bounds_of(text: str | None) -> tuple[float, float] | None:
    """The two numbers of `0.25..1`.

    Raises:
        UsageError: the text is no such thing.
    """
    if text is None:
        return None
    from ..ir.errors import UsageError

    low, dots, high = text.partition("..")
    try:
        return float(low), float(high or ("" if dots else low))
    except ValueError:
        raise UsageError(f"--width-bounds {text!r} is no range", mend="Write --width-bounds 0.25..1.") from None
