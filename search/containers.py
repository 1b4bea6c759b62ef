"""What is not as narrow on the target as its format says: codes in larger containers, and numbers computed in float."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..ir.formats import BF16, F16, F32, F64
from .figures import METRICS, value_text
from .result import LayerRow, listed

REAL = frozenset(map(str, (BF16, F16, F32, F64)))
"""Formats of values that are not quantized."""
MARGIN = 0.05
"""Share of the counted bytes that the file may hold beyond them unsaid: zeros, shapes, tables and constants."""

CONTAINER = "fewer than 8 bits run in 8-bit containers: for accuracy and size only, at the speed of 8 bits"
FLOAT = "quantized, but computed in float: for accuracy and size, not at the speed of integers"


def containers(
    rows: Sequence[LayerRow], float_layers: Collection[str], stored_bytes: int | None, counted_bytes: float | None
) -> str | None:
    """What a reader of the bits and bytes of a network must know, as a sentence; None where they are what they seem.

    Args:
        rows: its layers.
        float_layers: those whose kernels were seen to compute in float.
        stored_bytes: of the tensors in its file; None where it is not known.
        counted_bytes: of its weights, as its costs say.
    """
    named: dict[str, list[str]] = {CONTAINER: [], FLOAT: []}
    for row in rows:
        if (found := _computed(row, row.name in float_layers)) is not None:
            named[found].append(row.name)
    parts = [f"{listed(names)}: {text}" for text, names in named.items() if names]
    if not parts:
        return None
    if stored_bytes is not None and counted_bytes is not None and stored_bytes > (1 + MARGIN) * counted_bytes:
        stored, counted = (value_text(METRICS["size"], value) for value in (stored_bytes, counted_bytes))
        parts.append(f"the file stores {stored} of weights, {counted} are counted")
    return "; ".join(parts)


def _computed(row: LayerRow, in_float: bool) -> str | None:
    """What is to be said of a layer. Integer kernels need integers on both sides: codes beside real numbers are read
    back into float."""
    both = [(row.weights, row.weights_run), (row.activations, row.inputs_run)]
    runs = {run for format, run in both if format not in REAL}
    if not runs & {"container", "float"}:
        return None
    if in_float or "float" in runs or any(format in REAL for format, _ in both):
        return FLOAT
    return CONTAINER
