"""ONNX Runtime's Python library, which has no types of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

ort: Any = import_module("onnxruntime")

_state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")

REFUSALS: tuple[type[Exception], ...] = (
    _state.Fail, _state.InvalidArgument, _state.InvalidGraph, _state.InvalidProtobuf, _state.NotImplemented,
    _state.RuntimeException,
)  # fmt: skip
"""What ONNX Runtime raises for a model or for inputs that it does not take."""
