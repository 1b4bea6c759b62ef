"""Passes: pure rewrites of networks, each with a name and options that print and parse."""

from .base import PASSES, Context, Data, Pass, PassError
from .calibrate import Calibrate
from .cleanup import Cleanup
from .convert import Convert
from .fold_batch_norm import FoldBatchNorm
from .legalize import Legalize
from .merge_linear import MergeLinear
from .place import Place
from .quantize import Quantize
from .resize import Resize

__all__ = [
    "PASSES",
    "Calibrate",
    "Cleanup",
    "Context",
    "Convert",
    "Data",
    "FoldBatchNorm",
    "Legalize",
    "MergeLinear",
    "Pass",
    "PassError",
    "Place",
    "Quantize",
    "Resize",
]
