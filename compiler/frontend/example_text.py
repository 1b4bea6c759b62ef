"""Example inputs as text: `1x3x64x64`, `2x24:i64`, `tokens=2x24:i64:0..999`, several with commas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...ir.errors import UsageError, did_you_mean
from ..data import Inputs, seeded

TYPES: dict[str, torch.dtype] = {
    "f32": torch.float32,
    "f64": torch.float64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}
"""The types an input may have, by the IR's names."""

WHOLE = (0, 9)
"""The smallest and largest of random whole numbers where the text names none: good for most vocabularies."""

_INPUT = re.compile(
    r"(?:(?P<name>[A-Za-z_][\w.:/-]*)=)?(?P<shape>[^:=]+)(?::(?P<type>[^:]+))?(?::(?P<low>-?\d+)\.\.(?P<high>-?\d+))?"
)
_WRITE = (
    "Write it as 1x3x224x224, the batch first; whole numbers as 2x24:i64 or 2x24:i64:0..999; several inputs with "
    "commas, 2x24:i64,2x24:bool; by keyword as tokens=2x24:i64."
)


@dataclass(frozen=True)
class InputText:
    """One input as a text describes it.

    Args:
        shape: lengths of its axes, the batch first.
        type: its type, by the IR's name.
        low: the smallest random whole number.
        high: the largest.
        name: the keyword it is given by; None for a positional input.
        says_type: whether the text names the type.
        says_range: whether it names the range.
    """

    shape: tuple[int, ...]
    type: str = "f32"
    low: int = WHOLE[0]
    high: int = WHOLE[1]
    name: str | None = None
    says_type: bool = field(default=False, compare=False)
    says_range: bool = field(default=False, compare=False)

    def drawn(self, generator: torch.Generator) -> Tensor:
        """A random tensor: normal numbers, whole numbers from `low` to `high`, or truth values."""
        kind = TYPES[self.type]
        if kind.is_floating_point:
            return torch.randn(self.shape, generator=generator).to(kind)
        if kind is torch.bool:
            return torch.rand(self.shape, generator=generator) < 0.5
        return torch.randint(self.low, self.high + 1, self.shape, generator=generator).to(kind)


def parse_inputs(text: str | Sequence[str]) -> tuple[InputText, ...]:
    """Read the inputs that one or several texts describe.

    Raises:
        UsageError: a text is no shape, a type is unknown, a range is empty, or only some inputs have names.
    """
    texts = (text,) if isinstance(text, str) else tuple(text)
    found = tuple(_parse(part.strip(), whole) for whole in texts for part in whole.split(","))
    named = [one.name for one in found if one.name is not None]
    if named and len(named) != len(found):
        raise UsageError(f"input {','.join(texts)!r}: either all inputs have names or none", mend=_WRITE)
    if len(set(named)) != len(named):
        raise UsageError(f"input {','.join(texts)!r}: a name is given twice", mend=_WRITE)
    return found


def example_of_text(text: str | Sequence[str]) -> Inputs:
    """Random inputs (seed 0) of the shapes and types that a text describes.

    Returns:
        A tensor for one input, a tuple for several, a dict where they have names.

    Raises:
        UsageError: see `parse_inputs`.
    """
    return drawn(parse_inputs(text))


def drawn(inputs: Sequence[InputText]) -> Inputs:
    """Random inputs (seed 0): a tensor for one, a tuple for several, a dict where they have names."""
    with seeded(0):
        made = [one.drawn(torch.default_generator) for one in inputs]
    if inputs and inputs[0].name is not None:
        return {str(one.name): tensor for one, tensor in zip(inputs, made, strict=True)}
    return made[0] if len(made) == 1 else tuple(made)


def _parse(text: str, whole: str) -> InputText:
    match = _INPUT.fullmatch(text)
    sizes = match["shape"].strip().lower().split("x") if match else []
    if match is None or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise UsageError(f"input {whole!r} is no shape", mend=_WRITE)
    kind = match["type"] or "f32"
    if kind not in TYPES:
        raise UsageError(f"input {whole!r}: there is no type {kind!r}", mend=did_you_mean(kind, list(TYPES)))
    low, high = WHOLE if match["low"] is None else (int(match["low"]), int(match["high"]))
    if match["low"] is not None and (TYPES[kind].is_floating_point or kind == "bool"):
        raise UsageError(f"input {whole!r}: only whole numbers have a range, {kind} has none", mend=_WRITE)
    if low > high:
        raise UsageError(f"input {whole!r}: the range {low}..{high} is empty", mend=_WRITE)
    says_type, says_range = match["type"] is not None, match["low"] is not None
    return InputText(tuple(map(int, sizes)), kind, low, high, match["name"], says_type, says_range)
