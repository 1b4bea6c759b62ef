"""What repeated measurements allow to say: intervals of medians, ratios, and the verdict on a ratio.

Everything here is a pure function of the samples. Nothing assumes a normal distribution: intervals come from ranks,
because timings have heavy tails that a mean and a standard deviation would follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from math import ceil, exp, log, log1p, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

SLOWED = 1.1
"""Rounds that took longer than this much of the best ones found the machine slowed down by others."""
FEWEST_KEPT = 16
"""Rounds that are kept in any case."""
LEAST_S = 1e-12
"""What a round counts as that was too short for the clock."""
DIFFERENT = 0.01
"""Chance of two samples as different as this, from which on they are held to differ."""

PLACE_MARGIN = 0.25
"""By how much equal networks may differ in one place each: at most 0.20 was seen (see docs/measuring.md)."""

Places = Sequence[int] | npt.NDArray[np.int64]
"""Of each round, in which place in memory it was timed."""
Samples = Sequence[float] | npt.NDArray[np.float64]


class Verdict(StrEnum):
    """What a ratio of two latencies amounts to, at the confidence of its interval and a margin (2 % by default)."""

    FASTER = "FASTER"  # the whole interval lies below 1 - margin
    SLOWER = "SLOWER"  # the whole interval lies above 1 + margin
    SAME = "SAME"  # the whole interval lies within 1 ± margin
    AMBIGUOUS = "AMBIGUOUS"  # the interval straddles a margin: the samples do not settle it


@dataclass(frozen=True)
class Interval:
    """Where a quantity lies with a given confidence.

    Args:
        low: lower end, in the unit of the quantity.
        high: upper end.
        confidence: least probability that the interval covers the quantity. It is below what was asked for where there
            were too few samples, and the interval is then the samples' whole range.
        places: from how many places in memory it comes; None where rounds alone count.
    """

    low: float
    high: float
    confidence: float
    places: int | None = None

    def as_dict(self) -> dict[str, float]:
        """The fields, ready for JSON."""
        return {"low": self.low, "high": self.high, "confidence": self.confidence}


@dataclass(frozen=True)
class Ratio:
    """A latency over a reference's latency; below 1 is faster.

    Args:
        value: the median of the paired ratios.
        interval: where the true median ratio lies.
    """

    value: float
    interval: Interval

    @property
    def half_width(self) -> float:
        """Half of the interval's width, relative to the value."""
        return (self.interval.high - self.interval.low) / 2 / self.value

    def as_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return {"value": self.value, "interval": self.interval.as_dict()}


def median_interval(samples: Samples, confidence: float, share: float = 1.0, places: Places | None = None) -> Interval:
    """The interval between two order statistics that covers the true median with the asked confidence.

    The exact binomial ranks (David and Nagaraja, Order Statistics, 3rd ed., section 7.1) of as many independent samples
    as the given ones are worth: see `autocorrelation_time`.

    Args:
        samples: at least one value, in the order in which they were taken; more than 0 where there are places.
        confidence: the least probability of covering the median.
        share: what part of the permitted error this interval may use up. Where intervals of growing samples are looked
            at until one pleases, the shares of all looks together are at most 1, and the confidence holds for all.
        places: where each sample was taken; see `_over_places`. None: wherever it was, the interval is for there.
    """
    values = np.asarray(samples, dtype=np.float64)
    if places is None:
        return _median_ranks(values, confidence, share)
    logs = np.log(np.maximum(values, LEAST_S))
    _, interval = _over_places(logs, places, lambda part: float(np.median(part)), _median_ranks, confidence, share)
    return _exp(interval)


def paired_ratio(
    samples: Samples, reference: Samples, confidence: float, share: float = 1.0, places: Places | None = None
) -> Ratio:
    """The typical ratio of two runs that took turns, from their values round by round, with its interval.

    The Hodges-Lehmann estimate of the logarithms (the median of the means of all pairs of rounds), with the interval
    that belongs to Wilcoxon's signed ranks (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed.,
    sections 3.2 and 3.3). It assumes that log-ratios scatter symmetrically, as those of equal runs do. It withstands
    outliers in up to 29 % of the rounds and needs about two thirds of the rounds that a plain median needs.

    Args:
        samples: one value per round.
        reference: the reference's value of the same rounds.
        confidence: as in `median_interval`, and so are `share` and `places`.
    """
    logs = np.log(np.asarray(samples, dtype=np.float64)) - np.log(np.asarray(reference, dtype=np.float64))
    logs = np.rint(logs * 1e9) * 1e-9  # so that rounding errors of equal values are not taken for a pattern
    if places is None:
        return Ratio(exp(_hodges_lehmann(logs)), _exp(_signed_ranks(logs, confidence, share)))
    value, interval = _over_places(logs, places, _hodges_lehmann, _signed_ranks, confidence, share)
    return Ratio(exp(value), _exp(interval))


def fewest_places(confidence: float) -> int:
    """How many places an interval needs at least.

    The difference of two runs whose places are fast or slow by chance has one given sign in at most a quarter of them.
    That it has the same sign in all of K places, 2 / 4^K, is to be at most half of the permitted error; looking again
    later does not add to that, since places with one sign in all had it before.
    """
    return ceil(log(4 / (1 - confidence), 4))


def undisturbed_ratio(
    samples: Samples, reference: Samples, confidence: float, share: float = 1.0, places: Places | None = None
) -> Ratio:
    """The ratio of two runs on a machine that others slow down now and then; arguments as in `paired_ratio`.

    A neighbour on the sibling thread of a core or in the caches slows a machine down for seconds at a time, and not
    every network by the same factor: the ratio then differs between such spells by up to a fifth, while within one it
    repeats to half a percent. Where the undisturbed rounds have other ratios than the rest (Mann and Whitney's test, at
    1 %), they alone count; else all do. Neither choice favours a run: ratios of equal runs stay symmetric. A place in
    memory that slows both runs down is left out like a spell; where places differ, the test may find so too readily,
    which costs places, and so width, but favours no run either.
    """
    from scipy.stats import mannwhitneyu

    runs = np.array([samples, reference], dtype=np.float64)
    kept = undisturbed(runs)
    logs = np.log(runs[0] / runs[1])
    if not kept.all() and mannwhitneyu(logs[kept], logs[~kept]).pvalue < DIFFERENT:
        runs = runs[:, kept]
        places = None if places is None else np.asarray(places)[kept]
    return paired_ratio(runs[0], runs[1], confidence, share, places)


def undisturbed(runs: Sequence[Samples] | npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which rounds found the machine at its best: those at most a tenth slower than the best tenth of them.

    Work of others only ever adds time, so the fastest spell tells most about a network (Chen and Revels, Robust
    benchmarking in noisy environments, 2016). What a round took is the geometric mean over all runs, so the choice
    favours none of them.

    Args:
        runs: of each run, its value of every round.

    Returns:
        True for rounds to keep: at least `FEWEST_KEPT`, or all.
    """
    totals = np.log(np.maximum(np.asarray(runs, dtype=np.float64), LEAST_S)).mean(0)
    ordered = np.sort(totals)
    best = ordered[(len(ordered) - 1) // 10]
    return (totals <= best + np.log(SLOWED)) | (totals <= ordered[min(FEWEST_KEPT, len(ordered)) - 1])


def judge(ratio: Ratio, margin: float, confidence: float) -> Verdict:
    """The verdict on a ratio: SAME within 1 ± margin, FASTER or SLOWER wholly beyond it, else AMBIGUOUS.

    An interval of less than the asked confidence settles nothing.
    """
    low, high = ratio.interval.low, ratio.interval.high
    if ratio.interval.confidence < confidence:
        return Verdict.AMBIGUOUS
    if high < 1 - margin:
        return Verdict.FASTER
    if low > 1 + margin:
        return Verdict.SLOWER
    if low >= 1 - margin and high <= 1 + margin:
        return Verdict.SAME
    return Verdict.AMBIGUOUS


def autocorrelation_time(scores: npt.NDArray[np.float64]) -> float:
    """By what factor neighbouring samples repeat each other: 1 for independent ones, at most a quarter of their number.

    The sum over lags ends where Geyer's initial positive sequence does (Statistical Science 7, 1992, section 3.3).

    Args:
        scores: what the estimate averages, with mean 0: signs for a median, ranks for signed ranks. So outliers can
            neither feign nor hide a correlation.
    """
    count = len(scores)
    variance = float(scores @ scores) / count
    if count < 8 or variance == 0:
        return 1.0
    time = 1.0
    for lag in range(1, count // 2, 2):
        pair = float(scores[lag:] @ scores[:-lag]) + float(scores[lag + 1 :] @ scores[: -lag - 1])
        if pair <= 0:
            break
        time += 2 * pair / count / variance
    return min(time, count / 4)


def percentile(samples: Samples, percent: int) -> float | None:
    """The percentile, or None where fewer samples than 100 / (100 - percent) leave it to a single value at best."""
    if len(samples) * (100 - percent) < 100:
        return None
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))


def _over_places(
    logs: npt.NDArray[np.float64],
    places: Places,
    typical: Callable[[npt.NDArray[np.float64]], float],
    ranks: Callable[[npt.NDArray[np.float64], float, float], Interval],
    confidence: float,
    share: float,
) -> tuple[float, Interval]:
    """A typical logarithm and its interval, where all rounds in one place share an unknown shift.

    Places are then the independent units: each counts as its typical value. Their ranks give the interval where there
    are enough for the asked confidence, else Student's t, for which shifts are held to be normal. Fewer places than
    `fewest_places` show too little of how places differ: the interval is that of the rounds within their places, and
    goes beyond it by `PLACE_MARGIN`.
    """
    at = np.unique(np.asarray(places), return_inverse=True)[1]
    values = np.array([typical(logs[at == place]) for place in range(at.max() + 1)])
    count = len(values)
    if count < fewest_places(confidence):
        middle, more = typical(values), log1p(PLACE_MARGIN)
        found = ranks(logs - values[at] + middle, confidence, share)
        return middle, Interval(found.low - more, found.high + more, found.confidence, count)
    found = ranks(values, confidence, share)
    if found.confidence < confidence:
        found = _students(values, confidence, share)
    return typical(values), Interval(found.low, found.high, found.confidence, count)


def _students(values: npt.NDArray[np.float64], confidence: float, share: float) -> Interval:
    """Student's interval of the mean of as many independent values as the given ones are worth."""
    from scipy.special import stdtrit

    worth = len(values) / autocorrelation_time(_ranks(values))
    reach = -stdtrit(worth - 1, (1 - confidence) * share / 2) * values.std(ddof=1) / sqrt(worth)
    return Interval(float(values.mean() - reach), float(values.mean() + reach), confidence)


def _median_ranks(values: npt.NDArray[np.float64], confidence: float, share: float) -> Interval:
    worth = max(1, int(len(values) / autocorrelation_time(_signs(values))))
    return _between(values, worth, _binomial_tail(worth), confidence, share)


def _signed_ranks(logs: npt.NDArray[np.float64], confidence: float, share: float) -> Interval:
    worth = max(1, int(len(logs) / autocorrelation_time(_ranks(logs))))
    return _between(_pair_means(logs), worth * (worth + 1) // 2, _signed_rank_tail(worth), confidence, share)


def _hodges_lehmann(logs: npt.NDArray[np.float64]) -> float:
    return float(np.median(_pair_means(logs)))


def _pair_means(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The means of all pairs, each value with itself included."""
    first, second = np.triu_indices(len(logs))
    return (logs[first] + logs[second]) / 2


def _exp(logs: Interval) -> Interval:
    return Interval(exp(logs.low), exp(logs.high), logs.confidence, logs.places)


def _signs(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    deviations = values - np.median(values)
    return np.where(np.abs(deviations) <= 1e-9 * np.abs(values).max(), 0.0, np.sign(deviations))


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks around 0, equal values with equal ranks."""
    ordered = np.sort(values)
    ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return ranks - ranks.mean()


def _between(
    values: npt.NDArray[np.float64],
    worth: int,
    tail: npt.NDArray[np.float64],
    confidence: float,
    share: float,
) -> Interval:
    """The interval that leaves as many of the ordered values out at either end as the tail allows.

    Args:
        values: in any order.
        worth: how many values the tail is about.
        tail: at k, the probability that at most k of them lie on one given side of the truth.
    """
    ordered = np.sort(values)
    rank = max(1, int(np.searchsorted(tail, (1 - confidence) * share / 2, side="right")))
    below = (rank - 1) * len(ordered) // worth
    reached = max(0.0, 1 - 2 * float(tail[rank - 1]) / share)
    return Interval(float(ordered[below]), float(ordered[-1 - below]), reached)


@cache
def _binomial_tail(count: int) -> npt.NDArray[np.float64]:
    """P(X <= k) for k = 0 … count / 2, where X is the number of heads of so many coins."""
    chances = np.zeros(count + 1)
    chances[0] = 1
    for _ in range(count):
        chances[1:] = (chances[1:] + chances[:-1]) / 2
        chances[0] /= 2
    return np.cumsum(chances)[: count // 2 + 1]


@cache
def _signed_rank_tail(count: int) -> npt.NDArray[np.float64]:
    """P(T <= k) for k up to the middle, where T is Wilcoxon's signed-rank statistic; above 100 by its normal limit."""
    largest = count * (count + 1) // 2
    if count > 100:
        deviation = sqrt(count * (count + 1) * (2 * count + 1) / 24)
        lowest = max(0, int(largest / 2 - 6 * deviation))
        limit = NormalDist(largest / 2, deviation)
        upper = [limit.cdf(at + 0.5) for at in range(lowest, largest // 2 + 1)]
        return np.concatenate([np.zeros(lowest), upper])
    chances = np.zeros(largest + 1)
    chances[0] = 1
    for rank in range(1, count + 1):
        chances[rank:] = (chances[rank:] + chances[:-rank]) / 2
        chances[:rank] /= 2
    return np.cumsum(chances)[: largest // 2 + 1]
