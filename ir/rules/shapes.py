"""Rules of ops that move, join or reduce elements: reshape, permute, cat, mean and their like."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import ONE, Axes, Axis, factors, has_batch, product, total
from ..types import Encoding
from .base import REQUIRED, Fault, Site, op


def moved(site: Site) -> Encoding:
    """Moving or choosing elements keeps them as they are stored, integer codes included."""
    return site.type("input").encoding


@op("reshape", "input", encoding=moved, shape=REQUIRED)
def reshape(site: Site) -> Sequence[Axes]:
    """The same elements in row-major order under another shape; `shape` has one term per axis of the result."""
    source, target = site.axes("input"), list(site.terms("shape"))
    if not site.infers:
        have, want = product(source), product(target)
        if have != want:
            raise Fault(f"the input's elements are {site.show(have)}, the shape asks for {site.show(want)}")
        return [tuple(target)]
    for have, want in groups(site, source, target):
        if len(want) == 1:
            target[want[0]] = product(source[i] for i in have)
        else:
            site.unify(
                product(source[i] for i in have),
                product(target[i] for i in want),
                "{input} has {left} elements where the shape asks for {right}",
            )
    axes = tuple(map(site.solver.resolve, target))
    site.put("shape", axes)
    return [axes]


def groups(site: Site, source: Axes, target: Sequence[Axis]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes on both sides that hold the same number of elements: the finest way to cut both shapes alike."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        have, want, i, j = [i], [j], i + 1, j + 1
        while (ours := elements(site, source, have)) != (theirs := elements(site, target, want)):
            if ours < theirs and i < len(source):
                have, i = [*have, i], i + 1
            elif theirs < ours and j < len(target):
                want, j = [*want, j], j + 1
            else:
                raise Fault(f"[{', '.join(map(str, source))}] does not fill [{', '.join(map(str, target))}]")
        found.append((have, want))
    if i < len(source) or j < len(target):
        rest = (list(range(i, len(source))), list(range(j, len(target))))
        if elements(site, source, rest[0]) != elements(site, target, rest[1]):
            raise Fault(f"[{', '.join(map(str, source))}] does not fill [{', '.join(map(str, target))}]")
        have, want = found.pop() if found else ([], [])
        found.append((have + rest[0], want + rest[1]))
    return found


def elements(site: Site, axes: Sequence[Axis], chosen: Sequence[int]) -> tuple[int, int]:
    """How often the batch stands in a product of axes, and the product of all else."""
    terms = [f for k in chosen for f in factors(site.solver.resolve(axes[k]))]
    return sum(map(has_batch, terms)), site.size(product(terms))


@op("permute", "input", encoding=moved, dims=REQUIRED)
def permute(site: Site) -> Sequence[Axes]:
    """Axes in another order."""
    axes = site.axes("input")
    dims = site.integers("dims", len(axes))
    if sorted(dims) != list(range(len(axes))):
        raise Fault(f"dims {list(dims)} is not an order of the {len(axes)} axes")
    return [tuple(axes[d] for d in dims)]


@op("cat", "tensors*", dim=0)
def cat(site: Site) -> Sequence[Axes]:
    """Operands laid end to end along one axis; the others agree."""
    shapes = site.all_axes()
    rank, dim = len(shapes[0]), site.integer("dim")
    if not 0 <= dim < rank or any(len(s) != rank for s in shapes):
        raise Fault(f"operands with {', '.join(str(len(s)) for s in shapes)} axes cannot be joined along axis {dim}")
    for shape in shapes[1:]:
        for position in range(rank):
            if position != dim:
                site.unify(shape[position], shapes[0][position], "operands of {left} and {right} cannot be joined")
    joined = total(site.solver.resolve(s[dim]) for s in shapes)
    return [tuple(joined if i == dim else site.solver.resolve(a) for i, a in enumerate(shapes[0]))]


def reduce(site: Site) -> Sequence[Axes]:
    """One value for all along the axes `dim` (all axes where it is empty); `keepdim` leaves them with length 1."""
    axes = site.axes("input")
    dims = site.integers("dim") or tuple(range(len(axes)))
    if not all(0 <= d < len(axes) for d in dims):
        raise Fault(f"dim {list(dims)} is outside of the {len(axes)} axes of the input")
    keep = bool(site.attribute("keepdim"))
    return [tuple(ONE if i in dims else a for i, a in enumerate(axes) if keep or i not in dims)]


for _kind in ("mean", "sum", "amax", "amin"):
    op(_kind, "input", dim=(), keepdim=False)(reduce)
