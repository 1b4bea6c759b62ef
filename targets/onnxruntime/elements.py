"""Element types by the names that ONNX, ONNX Runtime and numpy (with `ml_dtypes`) give them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import np_dtype_to_tensor_dtype, tensor_dtype_to_np_dtype

from ..base import TargetError

NO_NUMBERS = ("UNDEFINED", "STRING")

DTYPES = {
    name.lower(): tensor_dtype_to_np_dtype(code).name
    for name, code in TensorProto.DataType.items()
    if name not in NO_NUMBERS
}
"""Numpy's names by ONNX Runtime's, which are ONNX's in small letters."""


def element_of(dtype: str) -> int:
    """The code of a type in ONNX, by numpy's name.

    Raises:
        TargetError: ONNX has no such type.
    """
    try:
        return int(
            np_dtype_to_tensor_dtype(np.dtype(dtype))
        )  # onnx has imported ml_dtypes, whose types numpy then knows
    except (TypeError, KeyError, ValueError):
        raise TargetError(f"ONNX has no numbers of type {dtype}") from None


def is_numpys(dtype: Any) -> bool:
    """Whether a type is numpy's own, and not one of `ml_dtypes`, which ONNX Runtime's arrays do not know."""
    return dtype.isbuiltin == 1
