"""A model that does nothing, node by node: what calls and nodes cost before any work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..base import Signature, TargetError
from ..inputs import number
from .elements import element_of, is_numpys

INT64 = int(onnx.TensorProto.INT64)
TO_INT64 = onnx.AttributeProto(name="to", type=onnx.AttributeProto.INT, i=INT64)


def floor_model(inputs: Sequence[Signature], nodes: int) -> bytes:
    """A model with the same inputs, and as many nodes that the runtime neither removes nor merges.

    The first node reads the lengths of an input (or one element of it, if all lengths are fixed, since the runtime
    would compute them beforehand); each further one negates those few integers. The result says nothing.

    Args:
        inputs: what the model reads.
        nodes: how many nodes it has, at least 1.

    Raises:
        TargetError: a model without inputs or nodes, or with an input that is no tensor of numbers.
    """
    if not inputs:
        raise TargetError("the model has no inputs, so the runtime would compute the floor beforehand")
    if nodes < 1:
        raise TargetError("no node runs when the model is called: the runtime computed all of it beforehand")
    graph = onnx.GraphProto(name="floor")
    for signature in inputs:
        tensor = graph.input.add(name=signature.name).type.tensor_type
        tensor.elem_type = element_of(signature.dtype)
        if signature.ranked:
            tensor.shape.SetInParent()
        for axis, length in enumerate(signature.shape):
            symbol = signature.symbol(axis)
            tensor.shape.dim.add(**({"dim_value": length} if length is not None else {"dim_param": symbol or None}))
    first = min(inputs, key=lambda s: (s.ranked and None not in s.shape, not _sliced(s)))
    element, rank = element_of(first.dtype), len(first.shape)
    if None in first.shape or not first.ranked:
        element = INT64
        graph.node.add(op_type="Shape", input=[first.name], output=["0"])
    elif not rank:
        element = INT64
        graph.node.add(op_type="Cast", input=[first.name], output=["0"]).attribute.append(TO_INT64)
    elif not _sliced(first):
        raise TargetError(f"the runtime takes no single element of {first.dtype}")
    else:
        for name, value in (("starts", 0), ("ends", 1)):
            data = np.full(rank, value, np.int64).tobytes()
            graph.initializer.add(name=name, data_type=INT64, dims=[rank], raw_data=data)
        graph.node.add(op_type="Slice", input=[first.name, "starts", "ends"], output=["0"])
    for i in range(1, nodes):
        node = graph.node.add(op_type="Neg" if element == INT64 else "Cast", input=[str(i - 1)], output=[str(i)])
        if element != INT64:
            node.attribute.append(TO_INT64)
            element = INT64
    graph.output.add(name=str(nodes - 1)).type.tensor_type.elem_type = element
    model = onnx.ModelProto(ir_version=9, producer_name="nasc", graph=graph)
    model.opset_import.add(domain="", version=20)
    return model.SerializeToString()


def _sliced(signature: Signature) -> bool:
    """Whether the runtime's `Slice` takes an input's type."""
    dtype = number(signature, "input")
    return is_numpys(dtype) or dtype.name == "bfloat16"
