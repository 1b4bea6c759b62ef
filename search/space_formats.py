"""Which formats a rule of the search space may offer, and how they are written."""

from __future__ import annotations

from ..ir import Encoding, ParseError, UsageError, format_named, parse_encoding
from ..ir.formats import F8E4M3, F8E5M2, LISTED, TERNARY

OFFERED = {
    "weights": "any format of 16 bits or fewer",
    "activations": "integers of 2 to 16 bits, ternary, f8e4m3 and f8e5m2, without blocks,",
    "biases": "integers of 2 to 16 bits",
}
"""What a rule may offer to each part: of activations the formats that ONNX has."""
WRITTEN = {"weights": "[i4, i8] or i2..i8", "activations": "[u4, u8] or u4..u8", "biases": "[i4, i8] or i2..i8"}
"""What to write, by part."""


def offered(encoding: Encoding, part: str) -> bool:
    """Whether a rule may offer a format to a part of a layer; see `OFFERED`."""
    format = encoding.format
    if format.bits > 16:
        return False
    if part == "weights":
        return format.takes_step or format.name in ("f16", "bf16")
    plain = encoding.step is None or encoding.step.block is None
    return plain and (format.family == "int" or (part == "activations" and format in (TERNARY, F8E4M3, F8E5M2)))


def encoding_offered(text: str, part: str) -> Encoding:
    """The encoding that a word of a rule stands for; `f32` leaves things as they are.

    Raises:
        UsageError: no such format, or not one for this part.
    """
    try:
        encoding = parse_encoding(text, "space")
    except ParseError as error:
        raise UsageError(
            f"search space: {part}: {text!r} is no format",
            mend=f"{part} may be {OFFERED[part]} or f32; write {WRITTEN[part]}."
            + (f" {LISTED}" if part == "weights" else ""),
        ) from error
    if encoding.format != format_named("f32") and not offered(encoding, part):
        raise UsageError(
            f"search space: {part} may be {OFFERED[part]} or f32; found {text}", mend=f"Write {WRITTEN[part]}."
        )
    return encoding
