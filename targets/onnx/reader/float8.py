"""`GemmFloat8`: a linear layer whose input and weight are 8-bit floats."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from ....ir import Step
from ..elements import FLOAT, Array
from .base import Reader, Scale, reads
from .quantized import stored_codes


@reads("com.microsoft.GemmFloat8")
def gemm_float8(reader: Reader, node: NodeProto) -> None:
    """A linear layer; its weight has the op's second scale for its step, or the vector that alone scales the result.

    Raises:
        ReadError: it does more, or the first scale is not the step of the input.
    """
    layout = tuple(int(reader.attribute(name, 0)) for name in ("transA", "transB"))
    plain = reader.attribute("activation", "NONE") in ("", "NONE") and reader.attribute("alpha", 1.0) == 1
    codes = reader.constants.get(node.input[1])
    if codes is None or layout != (0, 1) or not plain or reader.there(2) or reader.attribute("dtype", FLOAT) != FLOAT:
        raise reader.error("nasc reads it with constant codes [out, in], without a third operand, with a result in f32")
    given = reader.value(0)
    step = reader.types[given].step
    first, second, result = (reader.scalar(i) if reader.there(i) else 1.0 for i in (3, 4, 5))
    if step is None or first != step.value or second is None or result != 1:
        raise reader.error("its scales must be constants: the step of its input, that of its weight, and 1")
    if second != 1 or (steps := steps_behind(reader, codes.shape[0])) is None:
        weight = _weight(reader, Scale(Step.of(float(second))), str(second))
        reader.give("linear", [given, weight])
        return
    name, several = steps
    weight = _weight(reader, Scale(Step.per(0, known=True), several), name)
    reader.float8[node.output[0]] = given, weight


def _weight(reader: Reader, scale: Scale, called: str) -> str:
    """The stored codes with some steps; the same for all who read both."""
    key = f"{reader.node.input[1]} in steps {called}"
    if key not in reader.values:
        reader.values[key] = stored_codes(reader, reader.node.input[1], scale)
    return reader.values[key]


def steps_behind(reader: Reader, outputs: int) -> tuple[str, Array] | None:
    """The constant vector that a node's result is multiplied with and read by nothing else, if it can be its steps."""
    result = reader.node.output[0]
    after = reader.readers.get(result, ())
    if reader.uses[result] != 1 or len(after) != 1 or after[0].op_type != "Mul":
        return None
    name = next((n for n in after[0].input if n != result), "")
    held = reader.constants.get(name)
    if held is None or held.shape != (outputs,) or held.dtype != np.float32:
        return None
    return (name, held) if (held > 0).all() and np.isfinite(held).all() else None


def scaled_layer(reader: Reader) -> bool:
    """Whether a Mul is by the steps of a layer's weight; then it gives the layer."""
    found = next((reader.float8[n] for n in reader.node.input if n in reader.float8), None)
    if found is not None:
        reader.give("linear", found)
    return found is not None
