"""Rules of ops that give an image another resolution."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import Axes, Const
from .base import REQUIRED, Fault, Site, op


@op("interpolate", "input", size=REQUIRED, mode="nearest", align_corners=False, antialias=False, scale_factor=None)
def interpolate(site: Site) -> Sequence[Axes]:
    """The axes behind the channels at other lengths (torch.nn.functional.interpolate).

    `scale_factor` is what coordinates are computed by where it is given, and does not change the size.
    """
    batch, channels, *space = site.axes("input")
    size = site.integers("size")
    if len(size) != len(space):
        raise Fault(f"{len(size)} sizes for {len(space)} axes behind the channels")
    for axis in space:
        site.fixed(axis, "it is an axis of pixels")
    return [(batch, channels, *map(Const, size))]
