"""Which range of real numbers integer codes should cover: by what values were seen, batch by batch or all together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

BINS = 2048
"""Bins of the histogram that `entropy_range` looks at."""
WINDOWS = 128
"""How many windows of the histogram it tries."""
SMOOTHING = 1e-4
"""Share of the mass that a bin which holds nothing is given before distributions are compared."""

SELDOM = 8
"""A value that no more elements than this have is no constant, however few elements there are."""

Range = tuple[float, float]


def widened(low: float, high: float) -> Range:
    """The range with zero in it: a code must stand for 0 exactly."""
    return min(low, 0.0), max(high, 0.0)


def whole_range(values: Tensor) -> Range:
    """From the smallest value to the largest, and zero."""
    return widened(float(values.min()), float(values.max()))


def percentile_range(values: Tensor, percent: float) -> Range:
    """What is left when half of `100 - percent` percent of the values are let go at each end, and zero."""
    share = (100 - percent) / 200
    ordered = values.sort().values
    last = ordered.numel() - 1
    return widened(float(ordered[round(share * last)]), float(ordered[round((1 - share) * last)]))


def average_range(ranges: Sequence[Range], momentum: float) -> Range:
    """The exponential moving average of the batches' ranges, in their order, and zero.

    Args:
        ranges: the smallest and the largest value of each batch.
        momentum: how much of the average so far is kept at each batch.

    Source: Jacob et al., CVPR 2018, section 3.
    """
    low, high = ranges[0]
    for next_low, next_high in ranges[1:]:
        low = momentum * low + (1 - momentum) * next_low
        high = momentum * high + (1 - momentum) * next_high
    return widened(low, high)


def entropy_range(values: Tensor, low: float, high: float, levels: int) -> Range:
    """The part of a range for which codes tell least else about the values than the values themselves do.

    Windows around zero grow from `levels` bins of a histogram to the whole range, to both sides in proportion. In each,
    the values outside count at its edges; what codes keep of it is its mass in `levels` groups of bins, spread evenly
    over the bins that hold any. The window with the smallest Kullback-Leibler divergence between the two is taken.
    Values that are zero, as a ReLU leaves many, are not looked at: every window has a code for just them. Constants,
    such as what a dark border becomes behind a convolution, keep their place in a window where they have a code for
    themselves; spread over its bins they would cost the more the wider the code, and the narrowest window would win.

    Args:
        values: what was seen, 1-d.
        low: lower end of the whole range, at most 0.
        high: upper end, at least 0.
        levels: how many codes there are; as many as there are bins or more leave nothing to gain.

    Source: Migacz, 8-bit inference with TensorRT, GTC 2017; constants apart from the rest are our own.
    """
    if high <= low or levels * 2 > BINS:
        return low, high
    seen = values.double().numpy()
    seen = seen[seen != 0]
    counts, edges = np.histogram(seen, bins=BINS, range=(low, high))
    shared, times = constants(seen)
    fixed, _ = np.histogram(shared, bins=BINS, range=(low, high), weights=times)
    best, least = (low, high), np.inf
    for share in np.linspace(levels / BINS, 1.0, WINDOWS):
        first = int(np.searchsorted(edges, share * low, side="right")) - 1
        last = int(np.searchsorted(edges, share * high, side="left"))
        if last - first < levels:
            continue
        found = divergence(counts, fixed, first, last, levels)
        if found < least:
            best, least = (float(edges[first]), float(edges[last])), found
    return widened(max(best[0], low), min(best[1], high))


def constants(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that more elements share than one bin holds on average, and how many elements do."""
    values, times = np.unique(seen, return_counts=True)
    often = times > max(SELDOM, len(seen) / BINS)
    return values[often], times[often]


def divergence(counts: np.ndarray, fixed: np.ndarray, first: int, last: int, levels: int) -> float:
    """How far what `levels` codes keep of the bins `first` to `last` (left out) is from a histogram clipped to them.

    Args:
        counts: of all values, by bin.
        fixed: those of them that are constants.
        first: the window's first bin.
        last: the bin behind it.
        levels: how many codes there are.
    """
    inside = counts[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    group = np.arange(len(inside)) * levels // len(inside)
    alone = np.bincount(group, fixed[first:last] > 0, levels) == 1
    told = np.where(alone[group], fixed[first:last], 0.0)
    holds = clipped > told
    mass = np.bincount(group, inside - told, levels)
    places = np.bincount(group, holds, levels)
    kept = told + np.where(holds, mass[group] / np.maximum(places[group], 1), 0.0)
    if kept.sum() == 0:
        return np.inf
    p, q = smoothed(clipped), smoothed(kept)
    return float((p * np.log(p / q)).sum())


def smoothed(counts: np.ndarray) -> np.ndarray:
    """A histogram as a distribution without empty bins."""
    shares = counts / counts.sum() + SMOOTHING / len(counts)
    return shares / shares.sum()
