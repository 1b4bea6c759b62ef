"""Rules of normalisations."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import Axes, product
from .base import REQUIRED, Fault, Site, op


def channels_follow(site: Site, *operands: str) -> None:
    """Vectors with one entry per channel (axis 1), where they are there."""
    axes = site.axes("input")
    if len(axes) < 2:
        raise Fault(f"the input has {len(axes)} axes, expected at least 2")
    for operand in operands:
        if site.has(operand):
            (length,) = site.axes(operand, 1)
            site.unify(axes[1], length, "{input} has {left} channels, {" + operand + "} has {right}")


@op("batch_norm", "input", "running_mean", "running_var", "weight?", "bias?", eps=1e-5)
def batch_norm(site: Site) -> Sequence[Axes]:
    """`(x - mean) / sqrt(var + eps) * weight + bias` per channel (axis 1), with the statistics of training."""
    channels_follow(site, "running_mean", "running_var", "weight", "bias")
    return [site.axes("input")]


@op("instance_norm", "input", "weight?", "bias?", eps=1e-5)
def instance_norm(site: Site) -> Sequence[Axes]:
    """`(x - mean) / sqrt(var + eps) * weight + bias` per sample and channel, the statistics over the axes behind."""
    channels_follow(site, "weight", "bias")
    return [site.axes("input")]


@op("group_norm", "input", "weight?", "bias?", num_groups=REQUIRED, eps=1e-5)
def group_norm(site: Site) -> Sequence[Axes]:
    """As `instance_norm`, with the statistics over all channels of a group."""
    channels_follow(site, "weight", "bias")
    groups, channels = site.term("num_groups"), site.axes("input")[1]
    if site.size(channels) % site.size(groups):
        raise Fault(f"{site.show(groups)} groups do not divide {site.show(channels)} channels")
    each = site.fresh(site.size(channels) // site.size(groups))
    site.unify(channels, product([groups, each]), "{input} has {left} channels, the groups need {right}")
    site.call(groups, "groups")
    site.put("num_groups", groups)
    return [site.axes("input")]


def over_last_axes(site: Site, *operands: str) -> Sequence[Axes]:
    """The last axes have the lengths of `normalized_shape`, and so have the operands."""
    axes, shape = site.axes("input"), site.terms("normalized_shape")
    if not 0 < len(shape) <= len(axes):
        raise Fault(f"the input has {len(axes)} axes, the norm is over {len(shape)}")
    for axis, length in zip(axes[len(axes) - len(shape) :], shape, strict=True):
        site.unify(axis, length, "{input} has {left} where the norm expects {right}")
    for operand in operands:
        if site.has(operand):
            for axis, length in zip(site.axes("input")[-len(shape) :], site.axes(operand, len(shape)), strict=True):
                site.unify(axis, length, "{input} has {left}, {" + operand + "} has {right}")
    site.put("normalized_shape", shape)
    return [site.axes("input")]


@op("layer_norm", "input", "weight?", "bias?", normalized_shape=REQUIRED, eps=1e-5)
def layer_norm(site: Site) -> Sequence[Axes]:
    """`(x - mean) / sqrt(var + eps) * weight + bias` with the statistics over the last axes."""
    return over_last_axes(site, "weight", "bias")


@op("rms_norm", "input", "weight?", normalized_shape=REQUIRED, eps=None)
def rms_norm(site: Site) -> Sequence[Axes]:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axes; `eps` is by default the step above 1 in the format."""
    return over_last_axes(site, "weight")
