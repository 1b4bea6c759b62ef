"""Rules of ops that look values up by their position: embedding, index, gather."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import Axes, has_batch
from ..types import Encoding
from .base import REQUIRED, Fault, Site, op
from .pointwise import broadcast
from .shapes import axis_at, moved


def of_weight(site: Site) -> Encoding:
    """As the table is stored."""
    return site.type("weight").encoding


@op("embedding", "input", "weight", encoding=of_weight, padding_idx=-1)
def embedding(site: Site) -> Sequence[Axes]:
    """Rows of a table by their number."""
    rows, _ = site.axes("weight", 2)
    site.fixed(rows, "its rows are called by number")
    return [(*site.axes("input"), site.axes("weight")[1])]


@op("index", "input", "indices*", encoding=moved, dims=REQUIRED)
def index(site: Site) -> Sequence[Axes]:
    """Elements by their positions along the axes `dims`, one tensor of positions for each; as numpy has it, the result
    has the positions' shape in place of those axes, or in front where they are not neighbours."""
    dims = site.integers("dims")
    shapes = site.all_axes()[1:]
    rank = site.type("input").rank
    if len(dims) != len(shapes) or not dims or not all(0 <= d < rank for d in dims):
        raise Fault(f"dims {list(dims)} do not fit {len(shapes)} tensors of positions and {rank} axes")
    for dim in dims:
        if not has_batch(site.axes("input")[dim]):
            site.fixed(site.axes("input")[dim], "its indices are called by number")
    axes, found = site.axes("input"), broadcast(site, shapes)
    neighbours = list(dims) == list(range(dims[0], dims[0] + len(dims)))
    at = dims[0] if neighbours else 0
    rest = [a for i, a in enumerate(axes) if i not in dims]
    return [(*rest[:at], *found, *rest[at:])]


@op("index_select", "input", "index", encoding=moved, dim=REQUIRED)
def index_select(site: Site) -> Sequence[Axes]:
    """Some indices of one axis, by a vector of positions."""
    dim = axis_at(site, site.axes("input"))
    (found,) = site.axes("index", 1)
    site.fixed(site.axes("input")[dim], "its indices are called by number")
    return [tuple(found if i == dim else a for i, a in enumerate(site.axes("input")))]


@op("gather", "input", "index", encoding=moved, dim=REQUIRED)
def gather(site: Site) -> Sequence[Axes]:
    """One value per position, the positions along one axis and given for every index of the others."""
    axes, positions = site.axes("input"), site.axes("index", site.type("input").rank)
    dim = axis_at(site, axes)
    site.fixed(axes[dim], "its indices are called by number")
    for i, (axis, position) in enumerate(zip(axes, positions, strict=True)):
        if i != dim and site.size(axis) == site.size(position):
            site.unify(axis, position, "{input} has {left} where {index} has {right}")
        elif i != dim:
            site.fixed(axis, "only a part of it is read")
    return [site.axes("index")]
