"""Pools and changes of resolution."""

from __future__ import annotations

from math import inf
from typing import Any

from onnx import NodeProto

from ....ir import Const
from .base import Reader, reads
from .layers import padded, spatial, window_of


@reads("MaxPool", "AveragePool")
def pool(reader: Reader, node: NodeProto) -> None:
    """The largest value or the mean of each window.

    More padding behind than before is a `ceil_mode` where that gives the same windows, else a pad of its own.
    """
    if len(node.output) > 1 and node.output[1]:
        raise reader.error("it also gives positions")
    kernel = list(reader.attribute("kernel_shape"))
    rank, largest = len(kernel), node.op_type == "MaxPool"
    lengths = spatial(reader, rank)
    window = window_of(reader, lengths, kernel)
    pads, stride, dilation = window["pads"], window["stride"], window["dilation"]
    given = reader.value(0)
    attributes: dict[str, Any] = {"kernel_size": tuple(kernel), "stride": stride}
    if largest:
        attributes["dilation"] = dilation
    elif any(d != 1 for d in dilation):
        raise reader.error("it takes means of windows with gaps")
    else:
        attributes["count_include_pad"] = bool(reader.attribute("count_include_pad", 0))
    kind = f"{'max' if largest else 'avg'}_pool{rank}d"
    before, behind = pads[:rank], pads[rank:]
    ceil = bool(reader.attribute("ceil_mode", 0))
    if before != behind or ceil:
        wanted = [
            _count(n, k, s, d, b + e, ceil=ceil)
            for n, k, s, d, b, e in zip(lengths, kernel, stride, dilation, before, behind, strict=True)
        ]
        torchs = [
            _torch_count(n, k, s, d, b) for n, k, s, d, b in zip(lengths, kernel, stride, dilation, before, strict=True)
        ]
        fits = all(b <= k // 2 for b, k in zip(before, kernel, strict=True)) and wanted == torchs
        if fits and (largest or not attributes["count_include_pad"]):
            reader.give(kind, [given], padding=tuple(before), ceil_mode=True, **attributes)
            return
        if not largest and not attributes["count_include_pad"]:
            raise reader.error(f"means of windows with the padding {pads}, which do not count it")
        more = [
            max(0, (c - 1) * s + d * (k - 1) + 1 - n - b - e)
            for c, n, k, s, d, b, e in zip(wanted, lengths, kernel, stride, dilation, before, behind, strict=True)
        ]
        given = padded(
            reader, given, before + [e + m for e, m in zip(behind, more, strict=True)], -inf if largest else 0.0
        )
        before = [0] * rank
    elif any(b > k // 2 for b, k in zip(before, kernel, strict=True)):
        given = padded(reader, given, pads, -inf if largest else 0.0)
        before = [0] * rank
    reader.give(kind, [given], padding=tuple(before), **attributes)


def _count(n: int, k: int, s: int, d: int, pads: int, *, ceil: bool) -> int:
    reach = n + pads - d * (k - 1) - 1
    return (-(-reach // s) if ceil else reach // s) + 1


def _torch_count(n: int, k: int, s: int, d: int, padding: int) -> int:
    count = _count(n, k, s, d, 2 * padding, ceil=True)
    return count - 1 if (count - 1) * s >= n + padding else count


@reads("GlobalAveragePool")
def global_mean(reader: Reader, node: NodeProto) -> None:
    """The mean of all that lies behind the channels."""
    rank = reader.rank() - 2
    if 1 <= rank <= 3:
        reader.give(f"adaptive_avg_pool{rank}d", [reader.value(0)], output_size=(1,) * rank)
    else:
        reader.give("mean", [reader.value(0)], dim=tuple(range(2, rank + 2)), keepdim=True)


@reads("GlobalMaxPool")
def global_max(reader: Reader, node: NodeProto) -> None:
    """The largest of all that lies behind the channels."""
    reader.give("amax", [reader.value(0)], dim=tuple(range(2, reader.rank())), keepdim=True)


COORDINATES = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}


@reads("Resize")
def resize(reader: Reader, node: NodeProto) -> None:
    """Another resolution, where its coordinates are PyTorch's."""
    rank = reader.rank()
    axes = reader.type(0).axes
    named = [a % rank for a in reader.attribute("axes", list(range(rank)))]
    sizes: list[Any] = list(axes)
    scales: list[float] | None = None
    if reader.there(3):
        for a, n in zip(named, reader.lengths(3), strict=True):
            sizes[a] = n if not isinstance(n, int) else Const(n)
    else:
        scales = [1.0] * rank
        for a, s in zip(named, reader.numbers(2), strict=True):
            scales[a] = float(s)
            if s != 1:
                sizes[a] = Const(int(axes[a].value * s)) if isinstance(axes[a], Const) else None
    if tuple(sizes[:2]) != tuple(axes[:2]) or not all(isinstance(s, Const) for s in sizes[2:]):
        raise reader.error("it changes the batch or the channels, or goes by lengths that depend on the batch")
    mode, places = reader.attribute("mode", "nearest"), reader.attribute("coordinate_transformation_mode", "half_pixel")
    space = rank - 2
    attributes: dict[str, Any] = {"size": tuple(s.value for s in sizes[2:])}
    if mode == "nearest" and places == "asymmetric" and reader.attribute("nearest_mode", "") == "floor":
        attributes["mode"] = "nearest"
    elif mode == "nearest" and places == "half_pixel" and reader.attribute("nearest_mode", "") == "round_prefer_ceil":
        attributes["mode"] = "nearest-exact"
    elif mode in ("linear", "cubic") and places in COORDINATES and space in ((1, 2, 3) if mode == "linear" else (2,)):
        linear = {1: "linear", 2: "bilinear", 3: "trilinear"}
        if reader.attribute("antialias", 0) or (
            mode == "cubic" and abs(reader.attribute("cubic_coeff_a", -0.75) + 0.75) > 1e-6
        ):
            raise reader.error("its weights are not PyTorch's")
        attributes |= {"mode": linear[space] if mode == "linear" else "bicubic", "align_corners": COORDINATES[places]}
    else:
        raise reader.error(f"PyTorch has no resize of mode {mode!r} with coordinates {places!r}")
    whole = scales is not None and all(s == int(s) for s in scales)
    if scales is not None and not whole:
        attributes["scale_factor"] = tuple(scales[2:])
    reader.give("interpolate", [reader.value(0)], **attributes)
