"""How a format's values lie in an ONNX tensor: element types, containers and bytes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ...ir import Format, NascError, Type, format_named
from ...ir.formats import BF16, BOOL, F8E4M3, F8E5M2, F16, F32, F64, I32, I64

Array = NDArray[Any]

FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64 = 1, 2, 3, 4, 5, 6, 7
"""Element types of `onnx.TensorProto` that the emitters name themselves."""

_EXACT: dict[Format, tuple[int, Any]] = {
    F32: (1, np.float32),
    F16: (10, np.float16),
    F64: (11, np.float64),
    BF16: (16, ml_dtypes.bfloat16),
    F8E4M3: (17, ml_dtypes.float8_e4m3fn),
    F8E5M2: (19, ml_dtypes.float8_e5m2),
    BOOL: (9, np.bool_),
    I32: (INT32, np.int32),
    I64: (INT64, np.int64),
}
_CONTAINERS: dict[tuple[int, bool], tuple[int, Any]] = {
    (8, True): (INT8, np.int8),
    (8, False): (UINT8, np.uint8),
    (16, True): (INT16, np.int16),
    (16, False): (UINT16, np.uint16),
}


UINT4, INT4 = 21, 22
"""Element types of codes of 4 bits, two to a byte; from opset 21 on."""

PACKED_BITS = 4
"""Stored codes of at most so many bits are packed."""


def packed(codes: Array) -> Array:
    """Codes of 4 bits as bytes, the first of two in the lower half (ONNX IR, `TensorProto.raw_data`); 1-d."""
    halves = np.ascontiguousarray(codes).reshape(-1).astype(np.uint8) & 0x0F
    if halves.size % 2:
        halves = np.append(halves, np.uint8(0))
    return halves[::2] | halves[1::2] << 4


def is_packed(type: Type) -> bool:
    """Whether stored values of a type are packed where the style asks for it."""
    return type.step is not None and type.format.is_int and type.format.bits <= PACKED_BITS


_FOUND: dict[str, tuple[int, np.dtype[Any]]] = {}


def element(format: Format) -> tuple[int, np.dtype[Any]]:
    """The `TensorProto` element type that holds values of `format`, and its numpy dtype.

    Integers of 2 to 16 bits lie in the next larger container of 8 or 16 bits: ONNX Runtime has integer kernels for
    8-bit containers only, so fewer bits are codes that use a part of the container's range.

    Raises:
        NascError: ONNX has no container for the format.
    """
    if (found := _FOUND.get(format.name)) is not None:
        return found
    if exact := _EXACT.get(format):
        return _FOUND.setdefault(format.name, (exact[0], np.dtype(exact[1])))
    if format.is_int and format.bits <= 16:
        code, dtype = _CONTAINERS[8 if format.bits <= 8 else 16, format.signed]
        return _FOUND.setdefault(format.name, (code, np.dtype(dtype)))
    raise NascError(f"ONNX has no container for values of format {format}", mend="Convert the value to another format.")


def stored(array: Any, format: Format, name: str) -> Array:
    """A tensor of the weights' store as a contiguous array of the container's dtype; no value is changed.

    Raises:
        NascError: the store gave an array of another dtype whose values the container might not hold.
    """
    dtype = element(format)[1]
    found = np.asarray(array)
    if found.dtype == dtype:
        return found if found.flags.c_contiguous or found.ndim == 0 else np.ascontiguousarray(found)
    if format.is_int and found.dtype.kind in "iu":
        return _integers(found, format, dtype, name)
    raise NascError(f"the weights hold {name} as {found.dtype}, its type says {format} ({dtype})")


def _integers(found: Array, format: Format, dtype: np.dtype[Any], name: str) -> Array:
    """Codes in another integer container, if all are codes of the format."""
    if found.size and (int(found.min()) < format.low or int(found.max()) > format.high):
        raise NascError(
            f"the codes of {name} lie between {found.min()} and {found.max()},"
            f" {format} holds {format.low} to {format.high}"
        )
    return np.ascontiguousarray(found.astype(dtype))


KERNELS: dict[str, frozenset[int]] = {
    kind: frozenset(elements)
    for kind, elements in {
        "Where": (FLOAT, 10, 11, INT32, INT64, UINT8),
        "Pad": (FLOAT, 10, 11, INT32, INT64, UINT8, INT8, 9),
        "TopK": (FLOAT, 10, 11, INT32, INT64),
        "ReduceMax": (FLOAT, 10, 11, INT32, INT64, UINT8, INT8),
        "ArgMax": (FLOAT, 10, 11, INT32, UINT8, INT8),
        "Arithmetic": (FLOAT, 10, 11, INT32, INT64, 16),
        "Compare": (FLOAT, 10, 11, INT32, INT64),
        "Equal": (FLOAT, 10, 11, INT32, INT64, 9),
        "Trilu": (FLOAT, 10, 11, INT64, 9),
    }.items()
}
"""Element types that ONNX Runtime's CPU provider has kernels for, where those are few."""


def computing(kind: str, format: Format) -> Format:
    """The format in which a node of a kind computes values of a format: integers without a kernel as 32-bit ones, or
    64-bit ones in binary64.

    Floats stay what they are: ONNX Runtime computes 16-bit ones in 32 bits by itself.
    """
    if format.is_float or element(format)[0] in KERNELS[kind]:
        return format
    if format == I64:
        return F64
    return I32 if INT32 in KERNELS[kind] else I64


def format_of(dtype: np.dtype[Any]) -> Format:
    """The format of an array's element type.

    Raises:
        NascError: the IR has none.
    """
    for format, (_, kind) in _EXACT.items():
        if np.dtype(kind) == dtype:
            return format
    if dtype.kind in "iu":
        return format_named(f"{dtype.kind}{8 * dtype.itemsize}")
    raise NascError(f"the IR has no format for tensors of {dtype}")
