"""Models that ONNX Runtime takes and that do harm when they run: each really does, nothing is made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 16
LEAST = -(2**63)


def model(nodes: Sequence[onnx.NodeProto], **weights: Any) -> bytes:
    """A model from `x` [1, 16] to `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, FEATURES])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "hostile", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def harmless(outputs: int = 64) -> bytes:
    """A small layer."""
    weight = np.random.default_rng(0).standard_normal((outputs, FEATURES)).astype("f4")
    return model([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], w=weight)


def crashes() -> bytes:
    """ONNX Runtime divides constants while it loads; the least 64-bit integer by -1 is more than x86 can hold."""
    nodes = [
        helper.make_node("Div", ["least", "minus"], ["q"]),
        helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    return model(nodes, least=np.array([LEAST]), minus=np.array([-1]))


def hangs() -> bytes:
    """A loop of 2^60 turns."""
    row = helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, FEATURES])
    out = helper.make_tensor_value_info("v2", TensorProto.FLOAT, [1, FEATURES])
    scalars = [helper.make_tensor_value_info(n, t, []) for n, t in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))]
    again = helper.make_tensor_value_info("c2", TensorProto.BOOL, [])
    turn = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])]
    body = helper.make_graph(turn, "turn", [*scalars, row], [again, out])
    loop = helper.make_node("Loop", ["turns", "true", "x"], ["y"], body=body)
    return model([loop], turns=np.array(2**60), true=np.array(True))


def reads_text() -> bytes:
    """Its input and its output are texts."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["N", FEATURES]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "hostile", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def writes_text() -> bytes:
    """Its output is text."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, ["N", FEATURES])
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)], "hostile", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def devours(gib: float = 64.0) -> bytes:
    """Asks for so much memory, and writes to all of it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ReduceProd", ["shape"], ["n"], keepdims=1),
        helper.make_node("Mul", ["n", "many"], ["length"]),
        helper.make_node("ConstantOfShape", ["length"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=1),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return model(nodes, many=np.array([int(gib * 2**30) // 4 // FEATURES]))
