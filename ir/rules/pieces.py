"""Rules of ops that join values or take parts of them: cat, stack, split, narrow, select, pad and their like."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import Axes, Axis, Const, has_batch, product, total
from .base import REQUIRED, Fault, Site, op
from .layers import window
from .shapes import axis_at, moved


@op("cat", "tensors*", dim=0)
def cat(site: Site) -> Sequence[Axes]:
    """Operands laid end to end along one axis; the others agree."""
    shapes = site.all_axes()
    rank, dim = len(shapes[0]), site.integer("dim")
    if not 0 <= dim < rank or any(len(s) != rank for s in shapes):
        raise Fault(f"operands with {', '.join(str(len(s)) for s in shapes)} axes cannot be joined along axis {dim}")
    agree(site, shapes, but=dim)
    joined = total(site.solver.resolve(s[dim]) for s in shapes)
    return [tuple(joined if i == dim else site.solver.resolve(a) for i, a in enumerate(shapes[0]))]


def agree(site: Site, shapes: Sequence[Axes], but: int | None = None) -> None:
    """All operands have the same axes, one perhaps apart."""
    for shape in shapes[1:]:
        for position, axis in enumerate(shape):
            if position != but:
                site.unify(axis, shapes[0][position], "operands of {left} and {right} cannot be joined")


@op("stack", "tensors*", dim=0)
def stack(site: Site) -> Sequence[Axes]:
    """Operands of one shape along a new axis."""
    shapes = site.all_axes()
    dim = site.integer("dim")
    if any(len(s) != len(shapes[0]) for s in shapes) or not 0 <= dim <= len(shapes[0]):
        raise Fault(f"operands with {', '.join(str(len(s)) for s in shapes)} axes cannot be stacked at axis {dim}")
    agree(site, shapes)
    first = tuple(map(site.solver.resolve, shapes[0]))
    return [(*first[:dim], Const(len(shapes)), *first[dim:])]


@op("split", "input", encoding=moved, sizes=REQUIRED, dim=0)
def split(site: Site) -> Sequence[Axes]:
    """Consecutive parts of an axis, one result each; their lengths are `sizes`."""
    axes = site.axes("input")
    dim, sizes = axis_at(site, axes), site.terms("sizes")
    site.unify(axes[dim], total(sizes), "{input} has {left} along the axis, the parts are {right}")
    site.put("sizes", sizes)
    return [along(site, dim, size) for size in sizes]


def along(site: Site, dim: int, length: Axis) -> Axes:
    """The input's axes with another length for one."""
    axes = site.axes("input")
    return (*axes[:dim], site.solver.resolve(length), *axes[dim + 1 :])


@op("narrow", "input", encoding=moved, dim=REQUIRED, start=0, length=REQUIRED)
def narrow(site: Site) -> Sequence[Axes]:
    """The part of an axis that begins at `start` and is `length` long."""
    axes = site.axes("input")
    dim = axis_at(site, axes)
    start, length = site.term("start"), site.term("length")
    rest = site.size(axes[dim]) - site.size(start) - site.size(length)
    if rest < 0 or has_batch(axes[dim]):
        raise Fault(f"a part of {site.show(length)} from {site.show(start)} is not within {site.show(axes[dim])}")
    whole = [start, length, *([site.fresh(rest)] if rest else [])]
    site.unify(axes[dim], total(whole), "{input} has {left} along the axis, the part needs {right}")
    site.put("start", start)
    site.put("length", length)
    return [along(site, dim, length)]


@op("slice", "input", encoding=moved, dim=REQUIRED, start=0, end=REQUIRED, step=1)
def slice_(site: Site) -> Sequence[Axes]:
    """Every `step`-th index of an axis from `start` on and before `end`."""
    axes = site.axes("input")
    dim, start, end, step = axis_at(site, axes), *(site.integer(n) for n in ("start", "end", "step"))
    length = site.fixed(axes[dim], "every few of its indices are taken")
    return [along(site, dim, Const(len(range(length)[start:end:step])))]


@op("select", "input", encoding=moved, dim=REQUIRED, index=REQUIRED)
def select(site: Site) -> Sequence[Axes]:
    """One index of an axis, which goes."""
    axes = site.axes("input")
    dim = axis_at(site, axes)
    if not has_batch(axes[dim]) and site.integer("index") >= site.fixed(axes[dim], "one of its indices is taken"):
        raise Fault(f"index {site.integer('index')} is not within {site.show(axes[dim])}")
    axes = site.axes("input")
    return [(*axes[:dim], *axes[dim + 1 :])]


@op("unbind", "input", encoding=moved, dim=0)
def unbind(site: Site) -> Sequence[Axes]:
    """Each index of an axis as a result of its own."""
    dim = axis_at(site, site.axes("input"))
    count = site.fixed(site.axes("input")[dim], "each of its indices is a value of its own")
    axes = site.axes("input")
    return [(*axes[:dim], *axes[dim + 1 :])] * count


@op("glu", "input", dim=REQUIRED)
def glu(site: Site) -> Sequence[Axes]:
    """The first half of an axis times the sigmoid of the second."""
    axes = site.axes("input")
    dim = axis_at(site, axes)
    half = site.fresh(site.size(axes[dim]) // 2)
    site.unify(axes[dim], total([half, half]), "{input} has {left} along the axis, two halves are {right}")
    return [along(site, dim, half)]


@op("pad", "input", encoding=moved, pad=REQUIRED, mode="constant", value=0.0)
def pad(site: Site) -> Sequence[Axes]:
    """More indices before and after axes, the last axis first: `[before, after, before of the next to last, …]`."""
    axes = list(site.axes("input"))
    amounts = site.integers("pad")
    for k in range(len(amounts) // 2):
        before, after = amounts[2 * k : 2 * k + 2]
        at = len(axes) - 1 - k
        if before == after == 0:
            continue
        if before < 0 or after < 0 or site.attribute("mode") != "constant" or isinstance(axes[at], Const):
            axes[at] = Const(site.fixed(axes[at], "it is padded by its own values or cut") + before + after)
        else:
            axes[at] = total([Const(before), axes[at], Const(after)])
    return [tuple(axes)]


@op("slice_scatter", "input", "source", dim=REQUIRED, start=0, end=REQUIRED, step=1)
def slice_scatter(site: Site) -> Sequence[Axes]:
    """The input with a part of one axis replaced."""
    axes, source = site.axes("input"), site.axes("source")
    dim = axis_at(site, axes)
    site.fixed(axes[dim], "a part of it is replaced")
    site.fixed(source[dim], "it replaces a part")
    agree(site, [axes, source], but=dim)
    return [site.axes("input")]


@op("select_scatter", "input", "source", dim=REQUIRED, index=REQUIRED)
def select_scatter(site: Site) -> Sequence[Axes]:
    """The input with one index of an axis replaced."""
    axes, source = site.axes("input"), site.axes("source")
    dim = axis_at(site, axes)
    site.fixed(axes[dim], "one of its indices is replaced")
    agree(site, [(*axes[:dim], *axes[dim + 1 :]), source])
    return [site.axes("input")]


@op("unfold", "input", encoding=moved, kernel_size=REQUIRED, stride=(1, 1), padding=(0, 0), dilation=(1, 1))
def unfold(site: Site) -> Sequence[Axes]:
    """Windows of an image as columns: [N, C, H, W] as [N, C*kh*kw, number of windows] (torch.nn.Unfold)."""
    batch, channels, *space = site.axes("input", 4)
    kernel = site.integers("kernel_size", 2)
    rows, columns = window(site, space, kernel)
    return [(batch, product([channels, Const(kernel[0] * kernel[1])]), product([rows, columns]))]


@op(
    "fold", "input", encoding=moved, output_size=REQUIRED, kernel_size=REQUIRED, stride=(1, 1), padding=(0, 0),
    dilation=(1, 1),
)  # fmt: skip
def fold(site: Site) -> Sequence[Axes]:
    """Columns summed back into an image: [N, C*kh*kw, windows] as [N, C, H, W] (torch.nn.Fold)."""
    batch, columns, windows = site.axes("input", 3)
    area = site.integers("kernel_size", 2)[0] * site.integers("kernel_size", 2)[1]
    channels = site.fresh(site.size(columns) // area)
    site.unify(columns, product([channels, Const(area)]), "{input} has {left} rows, the windows need {right}")
    site.fixed(windows, "it counts windows")
    height, width = site.integers("output_size", 2)
    return [(batch, channels, Const(height), Const(width))]


@op("tensor_unfold", "input", encoding=moved, dim=REQUIRED, size=REQUIRED, step=1)
def tensor_unfold(site: Site) -> Sequence[Axes]:
    """Overlapping parts of one axis, their inside as a new last axis (torch.Tensor.unfold)."""
    axes = site.axes("input")
    dim, size, step = axis_at(site, axes), site.integer("size"), site.integer("step")
    length = site.fixed(axes[dim], "windows slide along it")
    return [(*along(site, dim, Const((length - size) // step + 1)), Const(size))]
