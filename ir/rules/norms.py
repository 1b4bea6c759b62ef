"""Rules of normalisations."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import Axes
from .base import REQUIRED, Fault, Site, op


@op("batch_norm", "input", "running_mean", "running_var", "weight?", "bias?", eps=1e-5)
def batch_norm(site: Site) -> Sequence[Axes]:
    """`(x - mean) / sqrt(var + eps) * weight + bias` per channel (axis 1), with the statistics of training."""
    axes = site.axes("input")
    if len(axes) < 2:
        raise Fault(f"the input has {len(axes)} axes, expected at least 2")
    for operand in ("running_mean", "running_var", "weight", "bias"):
        if site.has(operand):
            (length,) = site.axes(operand, 1)
            site.unify(axes[1], length, "{input} has {left} channels, {" + operand + "} has {right}")
    return [site.axes("input")]


@op("layer_norm", "input", "weight?", "bias?", normalized_shape=REQUIRED, eps=1e-5)
def layer_norm(site: Site) -> Sequence[Axes]:
    """`(x - mean) / sqrt(var + eps) * weight + bias` with the statistics over the last axes."""
    axes = site.axes("input")
    shape = site.terms("normalized_shape")
    if not 1 <= len(shape) <= len(axes):
        raise Fault(f"the input has {len(axes)} axes, the norm is over {len(shape)}")
    for axis, length in zip(axes[len(axes) - len(shape) :], shape, strict=True):
        site.unify(axis, length, "{input} has {left} where the norm expects {right}")
    for operand in ("weight", "bias"):
        if site.has(operand):
            for axis, length in zip(site.axes("input")[-len(shape) :], site.axes(operand, len(shape)), strict=True):
                site.unify(axis, length, "{input} has {left}, {" + operand + "} has {right}")
    site.put("normalized_shape", shape)
    return [site.axes("input")]
