"""Whether torch and the deployed file give the same numbers, layer by layer, where no activation is quantized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..compiler.execution import run
from ..compiler.network import Network
from ..ir.layers import layers
from ..targets import Target
from ..targets.agree import sqnr_db
from ..targets.onnx.showing import showing_values
from .judge import TOLERANCE_DB


@dataclass(frozen=True)
class LayerValue:
    """The result of one layer on both sides.

    Args:
        layer: its name.
        place: the user's line, or empty.
        sqnr_db: power of torch's numbers over that of the difference, in decibels.
    """

    layer: str
    place: str
    sqnr_db: float

    @property
    def agrees(self) -> bool:
        """Whether the numbers agree as much as a deployed file's must."""
        return self.sqnr_db >= TOLERANCE_DB

    @property
    def named(self) -> str:
        """The layer with the user's line: `%fc (net.py:7)`."""
        return f"%{self.layer} ({self.place})" if self.place else f"%{self.layer}"


@dataclass(frozen=True)
class LayerValues:
    """The results of all layers that the file has under their names, in order; each side goes on with its own.

    Args:
        values: one entry each.
        hidden: how many layers the file has no value for.
        unseen: why none was compared; empty: some were.
    """

    values: tuple[LayerValue, ...]
    hidden: int = 0
    unseen: str = ""

    @property
    def first_below(self) -> LayerValue | None:
        """The first layer whose numbers agree less than a deployed file's must."""
        return next((v for v in self.values if not v.agrees), None)

    @property
    def holds(self) -> bool | None:
        """Whether no layer differs; None where none could be compared."""
        return self.first_below is None if self.values else None

    def __str__(self) -> str:
        if not self.values:
            return self.unseen
        hidden = f"; {self.hidden} more have no value in the file" if self.hidden else ""
        if (first := self.first_below) is not None:
            text = f"the first of {len(self.values)} layers that differs is {first.named}"
            return f"{text}: {first.sqnr_db:.1f} dB{hidden}"
        worst = min(self.values, key=lambda v: v.sqnr_db)
        least = "all bits" if math.isinf(worst.sqnr_db) else f"at least {worst.sqnr_db:.1f} dB (%{worst.layer})"
        return f"{least} in each of {len(self.values)} layers{hidden}"


def layer_values(network: Network, target: Target, inputs: Sequence[Tensor], deployed: Path) -> LayerValues:
    """Compare the results of layers. The target runs a copy of the file that returns them.

    Args:
        network: in the form that the target runs.
        target: what runs the file.
        inputs: real ones, one tensor per input.
        deployed: the file.
    """
    found = {op.name: op for op in layers(network.graph)}
    shown, names = showing_values(deployed, tuple(found))
    if not names:
        unseen = "the file has no value that is called like a layer" if found else "there are no layers"
        return LayerValues((), len(found), unseen)
    arrays = target.load(shown).run([t.numpy() for t in inputs])[-len(names) :]
    theirs = dict(zip(names, arrays, strict=True))
    values: list[LayerValue] = []

    def observe(name: str, ours: Tensor) -> None:
        if name in theirs:
            other = theirs.pop(name).astype("float64")
            ratio = sqnr_db(ours.double().numpy(), other) if other.shape == tuple(ours.shape) else -math.inf
            values.append(LayerValue(name, str(found[name].location or ""), ratio))

    with torch.no_grad():
        run(network.graph, network.values, inputs, observe=observe)
    return LayerValues(tuple(values), len(found) - len(names))
