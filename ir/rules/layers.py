"""Rules of ops that multiply an input with a weight: linear and convolution."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import ONE, Axes, Axis, Const, product
from .base import REQUIRED, Fault, Site, op
from .shapes import moved

CHANNELS = "{input} has {left} channels, {weight} expects {right}"


@op("linear", "input", "weight", "bias?", weight_axis=0, input_axis=1)
def linear(site: Site) -> Sequence[Axes]:
    """`y[..., o] = sum_i x[..., i] w[o, i] + b[o]`."""
    if not (axes := site.axes("input")):
        raise Fault("the input has no axes, expected at least 1")
    *lead, features = axes
    out, into = site.axes("weight", 2)
    site.unify(features, into, "{input} has {left} features, {weight} expects {right}")
    bias_follows(site, out)
    return [(*lead, out)]


def convolution(site: Site, spatial: int) -> Sequence[Axes]:
    """Cross-correlation over the last axes: input [N, C, ...], weight [O, C/groups, k...], output [N, O, ...]."""
    batch, channels, *space = site.axes("input", spatial + 2)
    out, per_group, *kernel = site.axes("weight", spatial + 2)
    groups = site.term("groups")
    if site.size(groups) == 1:
        site.unify(channels, per_group, CHANNELS)
    else:
        if site.size(out) % site.size(groups) or site.size(channels) % site.size(groups):
            raise Fault(f"{site.size(groups)} groups must divide {site.show(channels)} and {site.show(out)} channels")
        depthwise = site.infers and site.size(per_group) == 1
        if depthwise:
            site.fixed(per_group, "a depthwise filter reads one channel")
        multiple = site.size(out) // site.size(groups)
        each = ONE if depthwise and multiple == 1 else site.fresh(multiple)
        site.unify(channels, product([groups, per_group]), CHANNELS + " in {right} over all groups")
        site.unify(out, product([groups, each]), "{weight} has {left} outputs, the groups need {right}")
    site.put("groups", groups)
    bias_follows(site, out)
    sizes = [site.fixed(k, "a kernel's size is fixed") for k in kernel]
    return [(batch, out, *window(site, space, sizes))]


@op(
    "conv1d",
    "input",
    "weight",
    "bias?",
    weight_axis=0,
    input_axis=1,
    stride=(1,),
    padding=(0,),
    dilation=(1,),
    groups=1,
)
def conv1d(site: Site) -> Sequence[Axes]:
    """Convolution over one axis."""
    return convolution(site, 1)


@op(
    "conv2d", "input", "weight", "bias?", weight_axis=0, input_axis=1,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1,
)  # fmt: skip
def conv2d(site: Site) -> Sequence[Axes]:
    """Convolution over two axes."""
    return convolution(site, 2)


@op(
    "conv3d", "input", "weight", "bias?", weight_axis=0, input_axis=1,
    stride=(1, 1, 1), padding=(0, 0, 0), dilation=(1, 1, 1), groups=1,
)  # fmt: skip
def conv3d(site: Site) -> Sequence[Axes]:
    """Convolution over three axes."""
    return convolution(site, 3)


def transposed(site: Site, spatial: int) -> Sequence[Axes]:
    """The gradient of a convolution by its input: input [N, C, ...], weight [C, O/groups, k...], output [N, O, ...].

    Lengths: `(n - 1) s - 2 p + d (k - 1) + output_padding + 1`, as torch.nn.ConvTranspose2d documents.
    """
    batch, channels, *space = site.axes("input", spatial + 2)
    into, per_group, *kernel = site.axes("weight", spatial + 2)
    groups = site.term("groups")
    site.unify(channels, into, CHANNELS)
    if site.size(groups) != 1:
        each = site.fresh(site.size(channels) // site.size(groups))
        site.unify(channels, product([groups, each]), "{input} has {left} channels, the groups need {right}")
    out = product([groups, per_group])
    site.put("groups", groups)
    bias_follows(site, out)
    lengths = [site.fixed(a, "windows slide along it") for a in space]
    sizes = [site.fixed(k, "a kernel's size is fixed") for k in kernel]
    stride, padding, more, dilation = (
        site.integers(n, spatial) for n in ("stride", "padding", "output_padding", "dilation")
    )
    found = (
        Const((n - 1) * s - 2 * p + d * (k - 1) + o + 1)
        for n, k, s, p, o, d in zip(lengths, sizes, stride, padding, more, dilation, strict=True)
    )
    return [(batch, site.solver.resolve(out), *found)]


for _n in (1, 2, 3):
    _ones, _zeros = (1,) * _n, (0,) * _n

    @op(
        f"conv_transpose{_n}d", "input", "weight", "bias?", weight_axis=1, input_axis=0,
        stride=_ones, padding=_zeros, output_padding=_zeros, groups=1, dilation=_ones,
    )  # fmt: skip
    def conv_transpose(site: Site, spatial: int = _n) -> Sequence[Axes]:
        """Transposed convolution."""
        return transposed(site, spatial)


def bias_follows(site: Site, out: Axis) -> None:
    """A bias, where there is one, has one entry per output."""
    if site.has("bias"):
        (length,) = site.axes("bias", 1)
        site.unify(length, out, "{bias} has {left} entries, the layer has {right} outputs")


def window(site: Site, space: Sequence[Axis], kernel: Sequence[int], *, ceil: bool = False) -> Axes:
    """Output lengths of a sliding window: `floor((n + 2 p - d (k - 1) - 1) / s) + 1`, as torch.nn.Conv2d documents.

    With `ceil`, windows that start within the padded input are kept (torch.nn.MaxPool2d).
    """
    rank = len(space)
    stride, padding = site.integers("stride", rank), site.integers("padding", rank)
    dilation = site.integers("dilation", rank) if "dilation" in site.spec.attributes else (1,) * rank
    for name, values, least in (
        ("kernel", kernel, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        if min(values) < least:
            raise Fault(f"{name} must be at least {least}, found {list(values)}")
    lengths: list[Axis] = []
    for axis, k, s, p, d in zip(space, kernel, stride, padding, dilation, strict=True):
        if not isinstance(axis, Const) and s == 1 and 2 * p == d * (k - 1) and site.by_size():
            lengths.append(axis)
            continue
        n = site.fixed(axis, "a window slides along it")
        reach = n + 2 * p - d * (k - 1) - 1
        count = (-(-reach // s) if ceil else reach // s) + 1
        if count < 1:
            raise Fault(f"a window of {d * (k - 1) + 1} does not fit into {n} + 2*{p} values")
        if ceil and (count - 1) * s >= n + p:
            count -= 1
        lengths.append(Const(count))
    return tuple(lengths)


def pool(site: Site, spatial: int) -> Sequence[Axes]:
    """A window that keeps channels apart."""
    (*lead,) = site.axes("input")
    if len(lead) < spatial + 1:
        raise Fault(f"the input has {len(lead)} axes, expected at least {spatial + 1}")
    kernel = site.integers("kernel_size", spatial)
    return [(*lead[:-spatial], *window(site, lead[-spatial:], kernel, ceil=bool(site.attribute("ceil_mode"))))]


for _n in (1, 2, 3):
    _ones, _zeros = (1,) * _n, (0,) * _n

    @op(
        f"max_pool{_n}d", "input", encoding=moved, kernel_size=REQUIRED, stride=_ones, padding=_zeros, dilation=_ones,
        ceil_mode=False,
    )  # fmt: skip
    def max_pool(site: Site, spatial: int = _n) -> Sequence[Axes]:
        """The largest value of each window."""
        return pool(site, spatial)

    @op(
        f"avg_pool{_n}d", "input", kernel_size=REQUIRED, stride=_ones, padding=_zeros,
        ceil_mode=False, count_include_pad=True, divisor_override=None,
    )  # fmt: skip
    def avg_pool(site: Site, spatial: int = _n) -> Sequence[Axes]:
        """The mean of each window."""
        return pool(site, spatial)

    @op(f"adaptive_avg_pool{_n}d", "input", output_size=REQUIRED)
    def adaptive_avg_pool(site: Site, spatial: int = _n) -> Sequence[Axes]:
        """Means over as many windows as asked for."""
        (*lead,) = site.axes("input")
        if len(lead) < spatial + 1:
            raise Fault(f"the input has {len(lead)} axes, expected at least {spatial + 1}")
        for axis in lead[-spatial:]:
            site.fixed(axis, "windows are laid along it")
        return [(*lead[:-spatial], *(Const(s) for s in site.integers("output_size", spatial)))]
