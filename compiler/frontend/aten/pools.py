"""Pools and changes of resolution."""

from __future__ import annotations

from typing import Any

from ....ir.graph import Attribute
from .base import Call, Converted, convert, spread


@convert(*(f"max_pool{n}d.default" for n in (1, 2, 3)))
def max_pool(call: Call) -> Converted:
    """The largest value of each window."""
    rank = int(call.kind[-2])
    return Converted(
        f"max_pool{rank}d", (call.first,), {**windows(call, rank), "dilation": spread(call["dilation"], rank)}
    )


def windows(call: Call, rank: int) -> dict[str, Attribute]:
    """What all pools say of their windows."""
    kernel = spread(call["kernel_size"], rank)
    return {
        "kernel_size": kernel,
        "stride": spread(call["stride"] or kernel, rank),
        "padding": spread(call["padding"], rank),
        "ceil_mode": bool(call["ceil_mode"]),
    }


@convert(*(f"avg_pool{n}d.default" for n in (1, 2, 3)))
def avg_pool(call: Call) -> Converted:
    """The mean of each window."""
    rank = int(call.kind[-2])
    attributes: dict[str, Attribute] = {
        **windows(call, rank),
        "count_include_pad": bool(call["count_include_pad"]),
        "divisor_override": call.arguments.get("divisor_override"),
    }
    return Converted(f"avg_pool{rank}d", (call.first,), attributes)


@convert(*(f"adaptive_avg_pool{n}d.default" for n in (1, 2, 3)))
def adaptive(call: Call) -> Converted:
    """Means over as many windows as asked for."""
    rank = int(call.kind[-2])
    return Converted(call.kind, (call.first,), {"output_size": spread(call["output_size"], rank)})


@convert("adaptive_max_pool2d.default")
def adaptive_max(call: Call) -> Converted | None:
    """The largest value of everything, the one size that is asked for in practice."""
    if tuple(call["output_size"]) != (1, 1):
        return None
    return Converted("amax", (call.first,), {"dim": (call.rank - 2, call.rank - 1), "keepdim": True}, results=1)


@convert(
    *(f"upsample_{mode}.{overload}" for overload in ("vec", "default") for mode in (
        "nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d", "_bilinear2d_aa",
        "_bicubic2d_aa", "nearest_exact2d")),
    "_upsample_bilinear2d_aa.vec", "_upsample_bicubic2d_aa.vec", "_upsample_nearest_exact2d.vec",
)  # fmt: skip
def interpolate(call: Call) -> Converted | None:
    """Another resolution."""
    name = call.kind.removeprefix("_").removeprefix("upsample_")
    mode = name.removesuffix("_aa").rstrip("123d").replace("nearest_exact", "nearest-exact")
    size: tuple[Any, ...] = tuple(call.value.shape[2:])
    if not all(isinstance(n, int) for n in size):
        return None
    scales = call.arguments.get("scale_factors")
    if scales is None:
        found = [call.arguments[n] for n in ("scales_d", "scales_h", "scales_w", "scales") if n in call.arguments]
        scales = found if found and None not in found else None
    attributes: dict[str, Attribute] = {
        "size": size,
        "mode": mode,
        "align_corners": bool(call.arguments.get("align_corners", False)),
        "antialias": name.endswith("_aa"),
        "scale_factor": None if scales is None else tuple(float(s) for s in scales),
    }
    return Converted("interpolate", (call.first,), attributes)
