"""Rules of ops that give the same elements another shape: reshape, permute, expand, repeat and their like."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import ONE, Axes, Axis, Const, factors, has_batch, product
from ..formats import F32
from ..types import Encoding
from .base import REQUIRED, Fault, Site, op


def moved(site: Site) -> Encoding:
    """Moving or choosing elements keeps them as they are stored, codes included, but for those of several steps."""
    given = site.type("input").encoding
    return Encoding(F32) if given.step is not None and given.step.axis is not None else given


def axis_at(site: Site, axes: Axes, name: str = "dim") -> int:
    """The attribute `dim`, which must name an axis of the input."""
    dim = site.integer(name)
    if not 0 <= dim < len(axes):
        raise Fault(f"{name} {dim} is outside of the {len(axes)} axes of the input")
    return dim


@op("reshape", "input", encoding=moved, shape=REQUIRED)
def reshape(site: Site) -> Sequence[Axes]:
    """The same elements in row-major order under another shape; `shape` has one term per axis of the result."""
    source, target = site.axes("input"), list(site.terms("shape"))
    if not site.infers:
        have, want = product(source), product(target)
        if not site.alike(have, want):
            raise Fault(f"the input's elements are {site.show(have)}, the shape asks for {site.show(want)}")
        return [tuple(target)]
    for have, want in groups(site, source, target):
        wide = [i for i in want if target[i] != ONE]
        if len(wide) == 1:
            target[wide[0]] = product(source[i] for i in have)
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


@op("expand", "input", encoding=moved, shape=REQUIRED)
def expand(site: Site) -> Sequence[Axes]:
    """Axes of length 1 stretched to the lengths of `shape`, which may have more axes in front."""
    axes, target = site.axes("input"), site.terms("shape")
    if len(target) < len(axes):
        raise Fault(f"the input's {len(axes)} axes cannot be expanded to {len(target)}")
    new = len(target) - len(axes)
    for axis, wanted in zip(axes, target[new:], strict=True):
        if axis != ONE:
            site.unify(axis, wanted, "{input} has {left} where the shape asks for {right}")
    result = tuple(map(site.solver.resolve, target))
    site.put("shape", result)
    return [result]


@op("repeat", "input", encoding=moved, repeats=REQUIRED)
def repeat(site: Site) -> Sequence[Axes]:
    """Whole axes laid end to end `repeats` times; `repeats` may have more entries in front than the input has axes."""
    axes, times = site.axes("input"), site.terms("repeats")
    new = len(times) - len(axes)
    if new < 0:
        raise Fault(f"{len(times)} repeats for the input's {len(axes)} axes")
    site.put("repeats", times)
    return [(*times[:new], *(product([t, a]) for t, a in zip(times[new:], axes, strict=True)))]


@op("repeat_interleave", "input", encoding=moved, repeats=REQUIRED, dim=REQUIRED)
def repeat_interleave(site: Site) -> Sequence[Axes]:
    """Each index of an axis `repeats` times in a row."""
    axes, times = site.axes("input"), site.term("repeats")
    dim = axis_at(site, axes)
    site.put("repeats", times)
    return [tuple(product([a, times]) if i == dim else a for i, a in enumerate(axes))]


def shuffled(site: Site) -> Sequence[Axes]:
    """Indices of some axes in another order: what is carried along them cannot be told apart, but by size."""
    axes = site.axes("input")
    dims = site.integers("dims") or tuple(range(len(axes)))
    if not all(0 <= d < len(axes) for d in dims):
        raise Fault(f"dims {list(dims)} are outside of the {len(axes)} axes of the input")
    for dim in dims:
        if not isinstance(axes[dim], Const) and not site.by_size():
            site.fixed(axes[dim], f"{site.op.kind} changes the order along it")
    return [site.axes("input")]


op("flip", "input", encoding=moved, dims=REQUIRED)(shuffled)
op("roll", "input", encoding=moved, shifts=REQUIRED, dims=())(shuffled)


@op("pixel_shuffle", "input", encoding=moved, upscale_factor=REQUIRED)
def pixel_shuffle(site: Site) -> Sequence[Axes]:
    """Channels `C*r*r` over `H x W` as channels `C` over `H*r x W*r`."""
    *lead, channels, height, width = site.axes("input")
    r = site.integer("upscale_factor")
    each = site.fresh(site.size(channels) // (r * r))
    site.unify(channels, product([each, Const(r * r)]), "{input} has {left} channels, expected {right}")
    tall, wide = (Const(r * site.fixed(a, "it is an axis of pixels")) for a in (height, width))
    return [(*lead, each, tall, wide)]


@op("pixel_unshuffle", "input", encoding=moved, downscale_factor=REQUIRED)
def pixel_unshuffle(site: Site) -> Sequence[Axes]:
    """Channels `C` over `H*r x W*r` as channels `C*r*r` over `H x W`."""
    *lead, channels, height, width = site.axes("input")
    r = site.integer("downscale_factor")
    low, narrow = (Const(site.fixed(a, "it is an axis of pixels") // r) for a in (height, width))
    return [(*lead, product([channels, Const(r * r)]), low, narrow)]


@op("channel_shuffle", "input", encoding=moved, groups=REQUIRED)
def channel_shuffle(site: Site) -> Sequence[Axes]:
    """Channels `g*c` (axis 1) as `c*g`."""
    axes = site.axes("input")
    groups = site.term("groups")
    each = site.fresh(site.size(axes[1]) // site.size(groups))
    site.unify(axes[1], product([groups, each]), "{input} has {left} channels, the groups need {right}")
    site.put("groups", groups)
    return [(axes[0], product([each, groups]), *axes[2:])]
