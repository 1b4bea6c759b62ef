"""Emission: a graph and its weights as an ONNX model."""

from .emit import OPSETS, emit, opset_for
from .external import External
from .registry import EMITTERS, EmissionError, Emitter, emits
from .writer import Writer

__all__ = ["EMITTERS", "OPSETS", "EmissionError", "Emitter", "External", "Writer", "emit", "emits", "opset_for"]
