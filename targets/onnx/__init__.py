"""Emission: a graph and its weights as an ONNX model."""

from .emit import OPSET, emit
from .external import External
from .registry import EMITTERS, EmissionError, Emitter, emits
from .writer import Writer

__all__ = ["EMITTERS", "OPSET", "EmissionError", "Emitter", "External", "Writer", "emit", "emits"]
