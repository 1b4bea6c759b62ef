"""A model that does nothing, node by node: what calls and nodes cost before any work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..base import Signature, TargetError

ELEMENTS = {"float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9,
            "float16": 10, "float64": 11, "bfloat16": 16}  # fmt: skip
"""`onnx.TensorProto` element types by numpy's names."""

INT64 = ELEMENTS["int64"]


def floor_model(inputs: Sequence[Signature], nodes: int) -> bytes:
    """A model with the same inputs, and as many nodes that the runtime neither removes nor merges.

    The first node reads the lengths of the first input (or one element of it, if all lengths are fixed, since the
    runtime would compute them beforehand); each further one negates those few integers. The result says nothing.

    Args:
        inputs: what the model reads.
        nodes: how many nodes it has, at least 1.

    Raises:
        TargetError: a model without inputs or nodes.
    """
    if nodes < 1 or not inputs:
        raise TargetError(f"a floor needs nodes and inputs, found {nodes} and {len(inputs)}")
    graph = onnx.GraphProto(name="floor")
    for signature in inputs:
        tensor = graph.input.add(name=signature.name).type.tensor_type
        tensor.elem_type = ELEMENTS[signature.dtype]
        tensor.shape.SetInParent()
        for length in signature.shape:
            tensor.shape.dim.add(**({"dim_param": "N"} if length is None else {"dim_value": length}))
    first, rank = inputs[0], len(inputs[0].shape)
    element = INT64
    if None in first.shape:
        graph.node.add(op_type="Shape", input=[first.name], output=["0"])
    else:
        element = ELEMENTS[first.dtype]
        for name, value in (("starts", 0), ("ends", 1)):
            data = np.full(rank, value, np.int64).tobytes()
            graph.initializer.add(name=name, data_type=INT64, dims=[rank], raw_data=data)
        graph.node.add(op_type="Slice", input=[first.name, "starts", "ends"], output=["0"])
    for i in range(1, nodes):
        node = graph.node.add(op_type="Neg" if element == INT64 else "Cast", input=[str(i - 1)], output=[str(i)])
        if element != INT64:
            node.attribute.add(name="to", type=onnx.AttributeProto.INT, i=INT64)
            element = INT64
    graph.output.add(name=str(nodes - 1)).type.tensor_type.elem_type = element
    model = onnx.ModelProto(ir_version=9, producer_name="nasc", graph=graph)
    model.opset_import.add(domain="", version=20)
    return model.SerializeToString()
