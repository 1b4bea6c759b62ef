"""ONNX files read back into the IR: the ops that nasc writes, and what other exporters write with them."""

from .base import READERS, Reader, ReadError
from .read import Reading, read

__all__ = ["READERS", "ReadError", "Reader", "Reading", "read"]
