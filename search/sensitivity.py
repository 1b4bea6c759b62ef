"""How much each choice of bits hurts by itself: one layer at a time, all others in real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..compiler.losses import Loss, loss_value
from ..compiler.network import Network
from ..compiler.passes import Context
from ..compiler.passes.base import Batch
from ..compiler.pipeline import Pipeline, parse_pipeline
from ..ir.errors import NascError, UsageError
from .space import FORMAT_PARTS, Knob, Space, amount

QUIETEST = 10 ** (-14.45)
"""Noise over signal that is counted at least: what binary32 itself rounds away (144.5 dB)."""


@dataclass(frozen=True)
class Damage:
    """What one choice does alone.

    Args:
        name: the choice's: `fc1.weights`.
        layers: the layers it holds for.
        part: `weights`, `activations` or `biases`.
        format: what they are stored in.
        bits: of the format.
        noise: power of the difference of outputs over the power of the source network's outputs.
        loss: how much the mean loss grows; None where there are no labels.
    """

    name: str
    layers: tuple[str, ...]
    part: str
    format: str
    bits: int
    noise: float
    loss: float | None

    @property
    def sqnr_db(self) -> float:
        """Signal over quantization noise of the network's output, in decibel."""
        return -10 * math.log10(max(self.noise, QUIETEST))


@dataclass(frozen=True)
class Sensitivity:
    """What all choices of a space do alone.

    Args:
        samples: how many samples it was seen on.
        loss: the source network's mean loss on them; None where there are no labels.
        damages: one per choice, knob by knob, from few bits to many.
    """

    samples: int
    loss: float | None
    damages: tuple[Damage, ...]

    @property
    def slope(self) -> float | None:
        """Loss per noise: the line through the origin that fits the damages best, each relative to its size.

        Noise is known far better than the difference of two losses on few samples, and where it is small the one is
        proportional to the other. None where there are no labels, or loss does not grow with noise.
        """
        rows = [(d.noise, d.loss) for d in self.damages if d.loss is not None and d.noise > QUIETEST]
        if not rows:
            return None
        noise, loss = np.array(rows).T
        weights = 1 / (noise + np.median(noise))
        top, bottom = loss * noise * weights**2, noise**2 * weights**2
        found = math.fsum(top) / math.fsum(bottom)  # in any order the same, as those read back have another
        return found if found > 0 else None

    def hurts(self) -> Mapping[str, Mapping[str, float]]:
        """By choice and format, what it is thought to hurt: loss where there are labels (by noise), else noise.

        More bits never count as more hurt: what luck makes so is evened out.
        """
        scale = self.slope or 1.0
        found: dict[str, dict[str, float]] = {}
        for damage in self.damages:
            of_knob = found.setdefault(damage.name, {})
            least = min(of_knob.values(), default=math.inf)
            of_knob[damage.format] = min(scale * max(damage.noise, QUIETEST), least)
        return found

    def ranked(self) -> list[tuple[str, list[Damage]]]:
        """The knobs by what they hurt at equal bits, the most sensitive first, each with its damages.

        Sensitivity is the mean over a knob's formats of `noise * 4^bits`: rounding to b bits adds noise in proportion
        to 4^-b (Bennett, Bell System Technical Journal 27, 1948), so this is what is left when bits are accounted for.
        """
        found: dict[str, list[Damage]] = {}
        for damage in self.damages:
            found.setdefault(damage.name, []).append(damage)

        def sensitivity(rows: Sequence[Damage]) -> float:
            return sum(math.log(max(d.noise, QUIETEST)) + d.bits * math.log(4) for d in rows) / len(rows)

        return sorted(found.items(), key=lambda item: -sensitivity(item[1]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "samples": self.samples,
            "loss": self.loss,
            "damages": [{**asdict(d), "sqnr_db": d.sqnr_db} for _, rows in self.ranked() for d in rows],
        }

    @staticmethod
    def of_dict(data: Mapping[str, Any]) -> Sensitivity:
        """The inverse of `as_dict`."""
        rows = (
            Damage(r["name"], tuple(r["layers"]), r["part"], r["format"], r["bits"], r["noise"], r["loss"])
            for r in data["damages"]
        )
        return Sensitivity(data["samples"], data["loss"], tuple(rows))


def sensitivity(
    network: Network,
    space: Space,
    context: Context,
    batches: Sequence[Batch],
    labels: Sequence[Tensor] | None = None,
    loss: Loss | None = None,
    told: Callable[[Damage], None] = lambda damage: None,
) -> Sensitivity:
    """Round one choice of a space at a time and see what it does to the outputs.

    Args:
        network: the source network after `space.before` and `space.between`.
        space: whose choices of weights, activations and biases.
        context: has the calibration data; what it remembers is shared by all choices.
        batches: inputs to see the outputs on.
        labels: for each batch, to take the loss by.
        loss: mean loss of a batch.
        told: called with each damage as it is known.

    Raises:
        UsageError: the space chooses no formats.
        NascError: the network's outputs are zero or not finite.
    """
    knobs = [k for k in space.knobs if k.part in FORMAT_PARTS]
    if not knobs:
        raise UsageError("the search space chooses no formats, so there is nothing to be sensitive to")
    wanted = [_first(network(*batch)).double() for batch in batches]
    power = sum(float(w.square().sum()) for w in wanted)
    if not 0 < power < math.inf:
        raise NascError(
            "the source network's outputs are zero or not finite, so nothing can be said of damage to them",
            mend="Load its trained weights (`checkpoint`), or give other data.",
        )
    count = sum(len(b[0]) for b in batches)
    source = None if labels is None or loss is None else _mean_loss(wanted, labels, loss)
    rest = Pipeline(tuple(p for p in parse_pipeline(space.after).passes if p.name != "legalize"))
    found: list[Damage] = []
    for knob in knobs:
        for choice in sorted(knob.choices, key=lambda c, k=knob: amount(k, c)):
            rounded = (parse_pipeline(only(knob, choice)) + rest).run(network, context) if choice != "f32" else network
            outputs = [_first(rounded(*batch)).double() for batch in batches]
            noise = sum(float((o - w).square().sum()) for o, w in zip(outputs, wanted, strict=True)) / power
            grown = None
            if source is not None and labels is not None and loss is not None:
                grown = _mean_loss(outputs, labels, loss) - source
            found.append(Damage(knob.name, knob.targets, knob.part, choice, amount(knob, choice), noise, grown))
            told(found[-1])
    return Sensitivity(count, source, tuple(found))


def only(knob: Knob, choice: str) -> str:
    """The pass that makes one choice and no other."""
    return f"quantize{{layers=[{', '.join(knob.targets)}], {knob.part}={choice}}}"


def _first(outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _mean_loss(outputs: Sequence[Tensor], labels: Sequence[Tensor], loss: Loss) -> float:
    each = [loss_value(loss, o.float(), y) * len(y) for o, y in zip(outputs, labels, strict=True)]
    return sum(each) / sum(len(y) for y in labels)
