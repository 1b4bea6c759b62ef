"""Rules of ops that look along an axis: sums, means, largest values, norms, running sums, orders."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import ONE, Axes, Const
from ..formats import I64
from ..types import Encoding
from .base import REQUIRED, Fault, Site, op
from .pointwise import real, truth
from .shapes import axis_at


def reduced(site: Site) -> Sequence[Axes]:
    """One value for all along the axes `dim` (all axes where it is empty); `keepdim` leaves them with length 1."""
    axes = site.axes("input")
    dims = site.integers("dim") or tuple(range(len(axes)))
    if not all(0 <= d < len(axes) for d in dims):
        raise Fault(f"dim {list(dims)} is outside of the {len(axes)} axes of the input")
    keep = bool(site.attribute("keepdim"))
    return [tuple(ONE if i in dims else a for i, a in enumerate(axes) if keep or i not in dims)]


def summed(site: Site) -> Encoding:
    """Sums of truth values and small integers are `i64`."""
    found = site.promoted()
    return Encoding(found if found.is_float else I64)


op("mean", "input", dim=(), keepdim=False, encoding=real)(reduced)
op("sum", "input", dim=(), keepdim=False, encoding=summed)(reduced)
op("prod", "input", dim=(), keepdim=False, encoding=summed)(reduced)
op("var", "input", dim=(), correction=1, keepdim=False, encoding=real)(reduced)
op("std", "input", dim=(), correction=1, keepdim=False, encoding=real)(reduced)
op("norm", "input", ord=2.0, dim=(), keepdim=False, encoding=real)(reduced)
op("logsumexp", "input", dim=(), keepdim=False, encoding=real)(reduced)
op("any", "input", dim=(), keepdim=False, encoding=truth)(reduced)
op("all", "input", dim=(), keepdim=False, encoding=truth)(reduced)
for _kind in ("amax", "amin"):
    op(_kind, "input", dim=(), keepdim=False)(reduced)


@op("cumsum", "input", encoding=summed, dim=REQUIRED)
def cumsum(site: Site) -> Sequence[Axes]:
    """Running sums along an axis."""
    axes = site.axes("input")
    site.fixed(axes[axis_at(site, axes)], "sums run along it")
    return [site.axes("input")]


def ordinal(site: Site) -> Encoding:
    """Positions are `i64`."""
    return Encoding(I64)


def located(site: Site) -> Sequence[Encoding]:
    """Values as they are stored, and their positions."""
    return (site.type("input").encoding, Encoding(I64))


def position(site: Site) -> Sequence[Axes]:
    """Where along an axis the largest or smallest value stands; over all elements where `dim` is none."""
    axes, keep = site.axes("input"), bool(site.attribute("keepdim"))
    if site.attribute("dim") is None:
        for axis in axes:
            site.fixed(axis, "positions along it are given out")
        return [(ONE,) * len(axes) if keep else ()]
    dim = axis_at(site, axes)
    site.fixed(axes[dim], "positions along it are given out")
    return [tuple(ONE if i == dim else a for i, a in enumerate(site.axes("input")) if keep or i != dim)]


def both(site: Site) -> Sequence[Axes]:
    """The largest or smallest values along an axis, and where they stand."""
    return [*position(site), *position(site)]


for _kind in ("argmax", "argmin"):
    op(_kind, "input", dim=None, keepdim=False, encoding=ordinal)(position)
for _kind in ("max", "min"):
    op(_kind, "input", dim=REQUIRED, keepdim=False, encoding=located)(both)


@op("topk", "input", encoding=located, k=REQUIRED, dim=REQUIRED, largest=True, sorted=True)
def topk(site: Site) -> Sequence[Axes]:
    """The `k` largest values along an axis, and where they stand."""
    axes = site.axes("input")
    dim, k = axis_at(site, axes), site.integer("k")
    if k > site.fixed(axes[dim], "positions along it are given out"):
        raise Fault(f"there are no {k} values along {site.show(axes[dim])}")
    found = tuple(Const(k) if i == dim else a for i, a in enumerate(site.axes("input")))
    return [found, found]


@op("sort", "input", encoding=located, dim=REQUIRED, descending=False, stable=False)
def sort(site: Site) -> Sequence[Axes]:
    """Values along an axis in order, and where they stood."""
    axes = site.axes("input")
    site.fixed(axes[axis_at(site, axes)], "positions along it are given out")
    return [site.axes("input"), site.axes("input")]
