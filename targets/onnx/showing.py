"""A deployed file that shows what it computes inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx


def showing(deployed: Path, watched: Sequence[str]) -> tuple[bytes, str]:
    """A deployed model that also returns quantized activations, last, as the numbers that its own steps make of them.

    Args:
        deployed: the file.
        watched: names of the activations.

    Returns:
        The model, and the first activation that it does not have, or nothing.
    """
    model = onnx.load(deployed)
    makers = {name: node for node in model.graph.node for name in node.output}
    for name in watched:
        rounds = makers.get(f"{name}/wide", makers.get(name))
        if rounds is None or rounds.op_type != "QuantizeLinear":
            return b"", name
        axis = {a.name: onnx.helper.get_attribute_value(a) for a in rounds.attribute if a.name == "axis"}
        real = f"{name}/shown"
        model.graph.node.append(onnx.helper.make_node("DequantizeLinear", [name, *rounds.input[1:]], [real], **axis))
        model.graph.output.append(onnx.helper.make_tensor_value_info(real, onnx.TensorProto.FLOAT, None))
    return model.SerializeToString(), ""


def showing_values(deployed: Path, watched: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """A deployed model that also returns values of real numbers, last.

    Args:
        deployed: the file.
        watched: names of values.

    Returns:
        The model, and those of the values that it has, in the order in which it computes them.
    """
    model = onnx.load(deployed)
    wanted = set(watched)
    names = tuple(name for node in model.graph.node for name in node.output if name in wanted)
    for name in names:
        shown = f"{name}/shown"
        model.graph.node.append(onnx.helper.make_node("Identity", [name], [shown]))
        model.graph.output.append(onnx.ValueInfoProto(name=shown))
    return model.SerializeToString(), names
