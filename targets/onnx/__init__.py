"""Emission: a graph and its weights as an ONNX model."""

from ..base import Foreign
from .emit import OPSETS, emit, opset_for
from .external import External
from .registry import EMITTERS, EmissionError, Emitter, emits
from .writer import Writer

__all__ = [
    "EMITTERS",
    "OPSETS",
    "EmissionError",
    "Emitter",
    "External",
    "Foreign",
    "Writer",
    "emit",
    "emits",
    "opset_for",
]
