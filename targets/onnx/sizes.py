"""How many bytes the tensors of an ONNX file take."""

from __future__ import annotations

import onnx
from onnx import TensorProto, numpy_helper


def initializer_bytes(model: bytes) -> int:
    """The bytes of all constant tensors of a model, those in the file beside it included; codes of 4 bits are halves.

    Args:
        model: the model's file.
    """
    return sum(map(_bytes, onnx.load_model_from_string(model).graph.initializer))


def _bytes(tensor: TensorProto) -> int:
    if tensor.data_location == TensorProto.EXTERNAL:
        return next(int(entry.value) for entry in tensor.external_data if entry.key == "length")
    return len(tensor.raw_data) or numpy_helper.to_array(tensor).nbytes
