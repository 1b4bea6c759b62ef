"""Passes: pure rewrites of networks, each with a name and options that print and parse."""

from .base import PASSES, Context, Data, Pass, PassError
from .calibrate import Calibrate
from .check_accumulators import CheckAccumulators
from .cleanup import Cleanup
from .convert import Convert
from .correct_bias import CorrectBias
from .drop import Drop
from .equalize import Equalize
from .fold_batch_norm import FoldBatchNorm
from .legalize import Legalize
from .merge_linear import MergeLinear
from .place import Place
from .quantize import Quantize
from .reestimate_batch_norm import ReestimateBatchNorm
from .resize import Resize
from .round_weights import RoundWeights
from .train import Train

__all__ = [
    "PASSES",
    "Calibrate",
    "CheckAccumulators",
    "Cleanup",
    "Context",
    "Convert",
    "CorrectBias",
    "Data",
    "Drop",
    "Equalize",
    "FoldBatchNorm",
    "Legalize",
    "MergeLinear",
    "Pass",
    "PassError",
    "Place",
    "Quantize",
    "ReestimateBatchNorm",
    "Resize",
    "RoundWeights",
    "Train",
]
