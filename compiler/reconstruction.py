"""Least squares on what a layer reads: which codes of its weight keep its outputs.

A layer is a matrix product, a convolution one on the patches under its kernel, in as many groups as it has. Outputs are
`W x`; on data, the squared error of codes `Q` is `tr((Q - W) H (Q - W)^T)` with `H = sum x x^T`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ir import SPECS, Op

BLOCK = 128
"""Columns that are rounded before the rest of the weight is mended."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What is kept of a layer's inputs, in binary64.

    Args:
        gram: `sum x x^T` of the inputs in the rounded network, [groups, columns, columns].
        cross: `sum r x^T` with the inputs r of the real-numbered network, of the same shape.
        real: `sum r r^T`.
        rounded_sum: `sum x`, [groups, columns].
        real_sum: `sum r`.
        count: of how many outputs per channel.
    """

    gram: Tensor
    cross: Tensor
    real: Tensor
    rounded_sum: Tensor
    real_sum: Tensor
    count: int

    def centred(self) -> Moments:
        """The moments about the means: what counts where a bias takes up any difference of means."""
        x, r = self.rounded_sum[..., None], self.real_sum[..., None]
        return Moments(
            self.gram - x @ x.mT / self.count,
            self.cross - r @ x.mT / self.count,
            self.real - r @ r.mT / self.count,
            torch.zeros_like(self.rounded_sum),
            torch.zeros_like(self.real_sum),
            self.count,
        )

    def mean_difference(self, real: Tensor, rounded: Tensor) -> Tensor:
        """By how much outputs are too small on average, [groups, rows], for weights [groups, rows, columns]."""
        wanted, found = real @ self.real_sum[..., None], rounded @ self.rounded_sum[..., None]
        return (wanted - found)[..., 0] / self.count


def moments_of(layer: Op, weight: Tensor, rounded: list[Tensor], real: list[Tensor]) -> Moments:
    """The moments of a layer's inputs, batch by batch.

    Args:
        layer: linear, or a convolution over one or two axes.
        weight: its weight; only the shape counts.
        rounded: its input in the rounded network.
        real: its input in the real-numbered network.
    """
    sums: Any = [0, 0, 0, 0, 0, 0]
    for left, right in zip(rounded, real, strict=True):
        x, r = columns(layer, weight, left), columns(layer, weight, right)
        found = (x @ x.mT, r @ x.mT, r @ r.mT, x.sum(2), r.sum(2), x.shape[2])
        sums = [total + more for total, more in zip(sums, found, strict=True)]
    return Moments(*sums)


def columns(layer: Op, weight: Tensor, x: Tensor) -> Tensor:
    """What each output of a layer is a product with: [groups, columns, outputs of all samples], in binary64."""
    if layer.kind == "linear":
        return x.reshape(-1, x.shape[-1]).T[None].double()
    attributes = SPECS[layer.kind].attributes
    options: dict[str, Any] = {n: layer.attribute(n, attributes[n]) for n in ("stride", "padding", "dilation")}
    kernel, groups = tuple(weight.shape[2:]), x.shape[1] // weight.shape[1]
    if layer.kind == "conv1d":  # as one over two axes, the first of which has one position
        x, kernel = x[:, :, None], (1, *kernel)
        options = {n: (0 if n == "padding" else 1, *v) for n, v in options.items()}
    patches = F.unfold(x.double(), kernel, **options)
    samples, rows, places = patches.shape
    return patches.reshape(samples, groups, rows // groups, places).permute(1, 2, 0, 3).flatten(2)


def damped(gram: Tensor, damping: float) -> Tensor:
    """A Gram matrix that has an inverse: its diagonal is larger by a share of its mean."""
    mean = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    return gram + damping * mean[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype)


def towards(rows: Tensor, seen: Moments, damping: float) -> Tensor:
    """The real weights that on the rounded network's inputs come nearest to the outputs of the real-numbered one.

    Args:
        rows: the weight, [groups, rows, columns].
        seen: the moments of the inputs.
        damping: see `damped`; keeps the weights near to those given.
    """
    missing = rows @ (seen.cross - seen.gram)
    return rows + torch.linalg.solve(damped(seen.gram, damping), missing.mT).mT


def output_error(found: Tensor, rows: Tensor, seen: Moments) -> Tensor:
    """Squared error of the outputs of each row, [groups, rows], against the real weight on real inputs."""
    own = ((found @ seen.gram) * found).sum(2)
    both = ((found @ seen.cross.mT) * rows).sum(2)
    return own - 2 * both + ((rows @ seen.real) * rows).sum(2)


def rounded_codes(rows: Tensor, gram: Tensor, steps: Tensor, low: Tensor, high: Tensor, damping: float) -> Tensor:
    """Codes of a weight less their zeros, column by column, the error of each spread over the columns behind it.

    Args:
        rows: real numbers, [groups, rows, columns].
        gram: `sum x x^T`, [groups, columns, columns].
        steps: [groups, rows, 1].
        low: the smallest code less the zero, [groups, rows, 1].
        high: the largest code less the zero, [groups, rows, 1].
        damping: see `damped`.

    Source: Frantar et al., ICLR 2023 (GPTQ), algorithm 1; columns in the order of the diagonal, largest first.
    """
    gram = damped(gram, damping)
    order = gram.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    width = gram.shape[1]
    gram = gram.gather(1, order[..., None].expand_as(gram)).gather(2, order[:, None].expand_as(gram))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    spread = torch.linalg.cholesky(inverse, upper=True)
    left = rows.gather(2, order[:, None].expand_as(rows))
    codes = torch.zeros_like(left)
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        errors = torch.zeros_like(left[:, :, start:end])
        for at in range(start, end):
            real = left[:, :, at]
            codes[:, :, at] = torch.round(real / steps[..., 0]).clamp(low[..., 0], high[..., 0])
            error = (real - codes[:, :, at] * steps[..., 0]) / spread[:, None, at, at]
            errors[:, :, at - start] = error
            left[:, :, at:end] -= error[..., None] * spread[:, None, at, at:end]
        left[:, :, end:] -= errors @ spread[:, start:end, end:]
    back = torch.empty_like(codes)
    return back.scatter_(2, order[:, None].expand_as(codes), codes)
