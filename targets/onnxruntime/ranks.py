"""Inputs of which an ONNX file says no shape, not even how many axes; the runtime shows them as scalars."""

from __future__ import annotations

from pathlib import Path

from ..artifact import Artifact


def unranked(model: Artifact | Path | bytes) -> frozenset[str]:
    """The names of a model's inputs without a shape; none where it is in the runtime's own format."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if isinstance(model, Path):
            proto = onnx.load(str(model), load_external_data=False)
        else:
            proto = onnx.load_from_string(model.model if isinstance(model, Artifact) else model)
    except DecodeError:
        return frozenset()
    types = ((entry.name, entry.type.tensor_type) for entry in proto.graph.input if entry.type.HasField("tensor_type"))
    return frozenset(name for name, type in types if not type.HasField("shape"))
