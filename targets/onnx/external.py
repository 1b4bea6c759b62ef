"""Tensors beside the model: ONNX's external data, the only way past protobuf's 2 GiB and much faster to load."""

from __future__ import annotations

from onnx import TensorProto

from ..artifact import Beside
from .elements import Array

ALIGNMENT = 4096
"""Offsets of large tensors are multiples of a page, so that a runtime can map them (ONNX, `external_data_helper`)."""


class External:
    """Collects the tensors that go into the file beside the model.

    Args:
        location: the file's name, relative to the model's folder.
        least_bytes: tensors smaller than this stay inside the model.
    """

    def __init__(self, location: str, least_bytes: int = 1024) -> None:
        self.location = location
        self.least_bytes = least_bytes
        self.parts: list[Beside] = []
        self.size_bytes = 0

    def take(self, tensor: TensorProto, array: Array) -> bool:
        """Put a tensor into the file beside the model, if it is large enough."""
        if array.nbytes < self.least_bytes:
            return False
        offset = -(-self.size_bytes // ALIGNMENT) * ALIGNMENT
        self.parts.append(Beside(tensor.name, tensor.data_type, offset, array))
        self.size_bytes = offset + array.nbytes
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", str(offset)), ("length", str(array.nbytes))):
            tensor.external_data.add(key=key, value=value)
        return True
