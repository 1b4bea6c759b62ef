"""Images at another resolution.

ONNX's Resize and PyTorch's `interpolate` take coordinates by nearly the same formulas. Where the pixels that Resize
would read are the same, it is a Resize; else, as along each axis the result is linear in the input, products with
constant matrices, or for the nearest pixel a Gather.
"""

from __future__ import annotations

from math import floor
from typing import cast

import numpy as np

from ...ir import Op
from ...ir.formats import F32
from .elements import Array
from .lengths import positions
from .matrices import along_axes
from .registry import EmissionError, emits
from .writer import Writer

LINEAR = ("linear", "bilinear", "trilinear")


@emits("interpolate")
def interpolate(writer: Writer, op: Op) -> None:
    """The axes behind the channels at other lengths.

    Raises:
        EmissionError: a mode that is not written.
    """
    mode = str(writer.attribute(op, "mode"))
    sizes = writer.lengths(op.name)[2:]
    lengths = writer.lengths(op.inputs[0])[2:]
    scales = cast("tuple[float, ...] | None", writer.attribute(op, "scale_factor"))
    rates = [rate(n, m, scales[i] if scales else None) for i, (n, m) in enumerate(zip(lengths, sizes, strict=True))]
    if mode in ("nearest", "nearest-exact"):
        nearest(
            writer,
            op,
            [pixels(m, n, r, exact=mode != "nearest") for n, m, r in zip(lengths, sizes, rates, strict=True)],
        )
    elif mode in LINEAR or mode == "bicubic":
        weighted(writer, op, rates)
    elif mode == "area" and all(n % m == 0 for n, m in zip(lengths, sizes, strict=True)):
        kernel = [n // m for n, m in zip(lengths, sizes, strict=True)]
        writer.node(
            "AveragePool", [writer.real(op.inputs[0], op.type.format)], op.name, kernel_shape=kernel, strides=kernel
        )
    else:
        raise EmissionError(op, f"ONNX has no interpolation called {mode!r}")


def rate(length: int, wanted: int, scale: float | None) -> float:
    """How many input pixels an output pixel is wide: by the scale where one is given, else by the lengths.

    Source: `compute_scales_value` in ATen/native/UpSample.h.
    """
    return 1 / scale if scale else length / wanted


def pixels(wanted: int, length: int, each: float, *, exact: bool) -> Array:
    """The input pixel of each output pixel: `floor(i * scale)`, or `floor((i + 1/2) * scale)` for nearest-exact.

    Source: `nearest_neighbor_compute_source_index` in ATen/native/UpSample.h, in binary32.
    """
    single = np.float32(each)
    places = (np.arange(wanted, dtype=np.float32) + np.float32(0.5 if exact else 0.0)) * single
    return np.minimum(np.floor(places).astype(np.int64), length - 1)


def nearest(writer: Writer, op: Op, chosen: list[Array]) -> None:
    """The nearest pixel: a Resize where every pixel becomes a whole number of them, else one Gather per axis."""
    given, lengths = writer.real(op.inputs[0], op.type.format), writer.lengths(op.inputs[0])[2:]
    whole = [
        len(at) % n == 0 and np.array_equal(at, np.arange(len(at)) // (len(at) // n))
        for at, n in zip(chosen, lengths, strict=True)
    ]
    if all(whole):
        scales = np.array([1, 1, *(len(at) // n for at, n in zip(chosen, lengths, strict=True))], np.float32)
        by = writer.initializer(f"{op.name}/scales", scales, F32)
        writer.node(
            "Resize", [given, "", by], op.name, mode="nearest", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )  # fmt: skip
        return
    for i, at in enumerate(chosen):
        where = positions(writer, f"{op.name}/at{i}", at)
        last = i == len(chosen) - 1
        given = writer.node("Gather", [given, where], op.name if last else f"{op.name}/along{i}", axis=2 + i)


def weighted(writer: Writer, op: Op, rates: list[float]) -> None:
    """Means of pixels by weight: a Resize where its coordinates are PyTorch's, else products with matrices."""
    format, cubic = op.type.format, writer.attribute(op, "mode") == "bicubic"
    given, corners = writer.real(op.inputs[0], format), bool(writer.attribute(op, "align_corners"))
    lengths, sizes = (writer.lengths(n)[2:] for n in (op.inputs[0], op.name))
    same = corners or all(r == n / m for r, n, m in zip(rates, lengths, sizes, strict=True))
    if len(sizes) == 2 and same and not writer.attribute(op, "antialias"):
        writer.node(
            "Resize", [given, "", "", writer.integers(sizes)], op.name, axes=(2, 3),
            mode="cubic" if cubic else "linear",
            coordinate_transformation_mode="align_corners" if corners else "half_pixel",
            cubic_coeff_a=-0.75,
        )  # fmt: skip
        return
    matrices = [
        matrix(n, m, r, corners=corners, cubic=cubic, smooth=bool(writer.attribute(op, "antialias")))
        for n, m, r in zip(lengths, sizes, rates, strict=True)
    ]
    along_axes(writer, op, given, matrices)


def matrix(length: int, wanted: int, each: float, *, corners: bool, cubic: bool, smooth: bool) -> Array:
    """The matrix `[wanted, length]` of one axis.

    Source: `area_pixel_compute_source_index`, `HelperInterpCubic` and, for antialiased weights,
    `_compute_indices_min_size_weights_aa` in ATen/native/UpSample.h and cpu/UpSampleKernel.cpp; cubic weights with
    -0.75, antialiased ones with -0.5.
    """
    found = np.zeros((wanted, length))
    if corners:
        each = (length - 1) / (wanted - 1) if wanted > 1 else 0.0
    for i in range(wanted):
        if smooth:
            reach = (2.0 if cubic else 1.0) * max(each, 1.0)
            centre = each * (i + 0.5)
            first, behind = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), length)
            apart = (np.arange(first, behind) - centre + 0.5) / max(each, 1.0)
            weights = cubic_weight(apart, -0.5) if cubic else np.maximum(0.0, 1 - np.abs(apart))
            found[i, first:behind] = weights / weights.sum()
            continue
        place = each * i if corners else each * (i + 0.5) - 0.5
        if not cubic:
            place = max(place, 0.0)
        at = floor(place)
        for k in range(-1, 3) if cubic else (0, 1):
            share = float(cubic_weight(np.array(place - at - k), -0.75)) if cubic else 1 - abs(place - at - k)
            found[i, min(max(at + k, 0), length - 1)] += share
    return found


def cubic_weight(x: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (Keys, IEEE Trans. ASSP 1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
