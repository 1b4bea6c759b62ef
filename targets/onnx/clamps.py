"""Clamps before a quantize, done on its codes: ReLU, ReLU6, hardtanh and clamp.

Rounding is monotone, so `quantize(clamp(x, low, high))` is `clamp(quantize(x), code(low), code(high))`, exactly.
Written so, the layer before the clamp meets its quantize directly and becomes an integer kernel whatever the clamp's
bounds and the quantize's zero; where the codes' own range is the narrower one nothing is left of the clamp at all.
"""

from __future__ import annotations

from math import inf
from typing import cast

import numpy as np

from ...ir import SPECS, Graph, Op, Type

CLAMPS = ("relu", "relu6", "hardtanh", "clamp")

MOVES = ("max_pool1d", "max_pool2d", "max_pool3d", "reshape", "permute")
"""Ops that give some of the values they read, for which clamping before or after is the same; codes stay codes."""


def folded(graph: Graph) -> frozenset[str]:
    """The results of clamps that quantizes alone read, directly or through moves and further such clamps."""
    absorbing: set[str] = set()
    found: set[str] = set()
    for op in reversed(graph.ops):
        if op.kind == "quantize":
            if narrow_codes(op.type):
                absorbing.add(op.name)
        elif op.kind in (*CLAMPS, *MOVES) and op.name not in graph.outputs:
            readers = graph.readers.get(op.name, ())
            clamp = op.kind in CLAMPS
            if readers and all(r.name in absorbing for r in readers) and (not clamp or ordered(*bounds(op))):
                absorbing.add(op.name)
                if clamp:
                    found.add(op.name)
    return frozenset(found)


def narrow_codes(type: Type) -> bool:
    """Whether values are integers of at most 8 bits with one step in all, as integer kernels read and write them."""
    one = type.step is not None and type.step.axis is None
    return one and type.format.family == "int" and type.format.bits <= 8


def source(graph: Graph, name: str, folded: frozenset[str] = frozenset()) -> Type:
    """The type of a value, or of the quantized one that it merely rearranges (or clamps, by a folded clamp)."""
    type = graph.types[name]
    op = graph.producers.get(name)
    if type.step is None and op is not None and (op.kind in MOVES or name in folded):
        return source(graph, op.inputs[0], folded)
    return type


def code_bounds(graph: Graph, quantize: Op, folded: frozenset[str]) -> tuple[int, int]:
    """The least and the greatest code that a quantize gives, by its format and by the folded clamps before it."""
    type = quantize.type
    low, high = type.format.low, type.format.high
    name = quantize.inputs[0]
    while (op := graph.producers.get(name)) is not None and (name in folded or op.kind in MOVES):
        if name in folded:
            least, most = (code_of(bound, type) for bound in bounds(op))
            low, high = min(max(least, low), high), min(max(most, low), high)
        name = op.inputs[0]
    return low, high


def ordered(low: float, high: float) -> bool:
    """Whether two bounds leave anything between them."""
    return low <= high


def bounds(op: Op) -> tuple[float, float]:
    """What a clamp holds its operand between."""
    if op.kind == "relu":
        return 0.0, inf
    if op.kind == "relu6":
        return 0.0, 6.0
    names = ("min_val", "max_val") if op.kind == "hardtanh" else ("min", "max")
    low, high = (op.attribute(n, SPECS[op.kind].attributes[n]) for n in names)
    return (-inf if low is None else float(cast(float, low)), inf if high is None else float(cast(float, high)))


def code_of(value: float, type: Type) -> int:
    """The code that a runtime gives a number: `clamp(round(value / step) + zero)` in binary32, ties to even."""
    step = type.step
    assert step is not None
    assert step.value is not None
    if value in (inf, -inf):
        return type.format.high if value > 0 else type.format.low
    code = float(np.rint(np.float32(value) / np.float32(step.value))) + (step.zero or 0)
    return int(min(max(code, type.format.low), type.format.high))
