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
        "or a lowered network (model.nasc).",
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
