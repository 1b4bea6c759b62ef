"""Intervals cover what they say they cover, and verdicts follow from them alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from nasc.targets.statistics import (
    Interval,
    Ratio,
    Verdict,
    _ranks,
    _signed_rank_tail,
    _signs,
    autocorrelation_time,
    judge,
    median_interval,
    paired_ratio,
    percentile,
    undisturbed,
    undisturbed_ratio,
)


@pytest.mark.parametrize(
    ("count", "below"),
    # Ranks of intervals of the median: Conover, Practical Nonparametric Statistics, 3rd ed., table A3.
    [((10, 0.95), 2), ((20, 0.95), 6), ((20, 0.99), 4)],
)
def test_ranks_are_those_of_the_tables(count: tuple[int, float], below: int) -> None:
    number, confidence = count
    # Ups and downs in turns: no autocorrelation to correct for.
    samples = [rank // 2 if rank % 2 == 0 else number - 1 - rank // 2 for rank in range(number)]
    interval = median_interval(samples, confidence)
    assert (interval.low, interval.high) == (below - 1, number - below)
    assert interval.confidence >= confidence


def draw(kind: str, count: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    return random.standard_t(1.5, count) if kind == "heavy" else random.standard_normal(count)


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize("count", [16, 54, 150])
def test_intervals_cover_the_truth(count: int, kind: str) -> None:
    random = np.random.default_rng(count)
    medians = ratios = 0
    for _ in range(400):
        samples = draw(kind, count, random) / 100
        interval = median_interval(samples, 0.95)
        medians += interval.low <= 0 <= interval.high
        ratio = paired_ratio(np.exp(samples), np.ones(count), 0.95)
        ratios += ratio.interval.low <= 1 <= ratio.interval.high
    assert medians / 400 >= 0.93
    assert ratios / 400 >= 0.93


def test_the_confidence_holds_over_all_looks() -> None:
    random = np.random.default_rng(1)
    looks = [16, 24, 36, 54, 81, 121]
    wrong = {1.0: 0, 1 / len(looks): 0}
    for _ in range(500):
        samples = random.standard_normal(looks[-1])
        for share in wrong:
            intervals = [median_interval(samples[:look], 0.9, share) for look in looks]
            wrong[share] += not all(interval.low <= 0 <= interval.high for interval in intervals)
    assert wrong[1 / len(looks)] <= 50
    assert wrong[1.0] > 50  # the control: without sharing out the error the confidence is lost


def test_signed_ranks_agree_with_the_tables_and_their_limit() -> None:
    # Critical values of T at 0.005 in one tail: Hollander, Wolfe and Chicken, table A.4.
    for count, critical in ((10, 3), (15, 15), (20, 37)):
        tail = _signed_rank_tail(count)
        assert tail[critical] <= 0.005 < tail[critical + 1]
    exact, limit = _signed_rank_tail(100), _signed_rank_tail(101)
    assert exact[1773] == pytest.approx(limit[1811], rel=0.05)  # both 2.59 deviations below the middle


def test_the_ratio_needs_fewer_rounds_than_a_median_of_ratios() -> None:
    random = np.random.default_rng(4)
    samples = 1 + 0.01 * random.standard_normal(100)
    by_median = median_interval(samples, 0.99)
    by_pairs = paired_ratio(samples, np.ones(100), 0.99).interval
    assert by_pairs.high - by_pairs.low < 0.9 * (by_median.high - by_median.low)


def test_correlated_samples_count_for_less() -> None:
    random = np.random.default_rng(2)
    noise = random.standard_normal(4000)
    walk = np.zeros(4000)
    for step in range(1, 4000):
        walk[step] = 0.8 * walk[step - 1] + noise[step]
    # Of the sign of an AR(1) process with 0.8: 1 + 2 sum of (2/pi) arcsin(0.8**k) = 6.6; of its ranks 8.7.
    assert autocorrelation_time(_signs(walk)) == pytest.approx(6.6, rel=0.2)
    assert autocorrelation_time(_ranks(walk)) == pytest.approx(8.7, rel=0.2)
    assert autocorrelation_time(_ranks(noise)) == pytest.approx(1.0, abs=0.2)
    walk[::97] *= 1e6  # outliers do not hide the correlation
    assert autocorrelation_time(_signs(walk)) == pytest.approx(6.6, rel=0.25)
    wide, narrow = median_interval(walk, 0.99), median_interval(random.permutation(walk), 0.99)
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_too_few_samples_say_so() -> None:
    interval = median_interval([1.0, 2.0, 3.0], 0.99)
    assert interval == Interval(1.0, 3.0, 0.75)


def test_a_common_factor_cancels_from_the_ratio() -> None:
    random = np.random.default_rng(3)
    factor = np.exp(random.standard_normal(40))
    ratio = paired_ratio(1.1 * factor, factor, 0.99)
    assert (ratio.value, ratio.interval.low, ratio.interval.high) == pytest.approx((1.1, 1.1, 1.1))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.981, 1.019, Verdict.SAME),
        (0.90, 0.979, Verdict.FASTER),
        (1.021, 1.20, Verdict.SLOWER),
        (0.97, 0.99, Verdict.AMBIGUOUS),
        (1.01, 1.03, Verdict.AMBIGUOUS),
        (0.9, 1.1, Verdict.AMBIGUOUS),
    ],
)
def test_verdicts(low: float, high: float, verdict: Verdict) -> None:
    assert judge(Ratio((low + high) / 2, Interval(low, high, 0.99)), 0.02, 0.99) == verdict
    assert judge(Ratio((low + high) / 2, Interval(low, high, 0.98)), 0.02, 0.99) == Verdict.AMBIGUOUS


def test_a_percentile_needs_samples_beyond_it() -> None:
    assert percentile(range(99), 99) is None
    assert percentile(range(101), 99) == 99
    assert percentile([1.0, 3.0], 50) == 2.0


def test_undisturbed_rounds_are_the_fast_ones_whichever_run_was_slowed() -> None:
    runs = np.ones((2, 100))
    runs[0, 30:60] = 1.5
    runs[1, 60:70] = 1.5
    assert undisturbed(runs).tolist() == [True] * 30 + [False] * 40 + [True] * 30
    assert undisturbed(runs[::-1]).tolist() == undisturbed(runs).tolist()
    assert undisturbed(runs[:, 50:66]).all()  # sixteen rounds are few enough to need them all


def test_ratios_of_spells_are_kept_apart_only_where_they_differ() -> None:
    random = np.random.default_rng(3)
    noise = np.exp(random.normal(0, 0.01, (2, 200)))
    slow = np.arange(200) % 40 < 20
    base = noise[1] * np.where(slow, 1.2, 1)
    alike = undisturbed_ratio(0.5 * noise[0] * np.where(slow, 1.2, 1), base, 0.99)
    assert alike == paired_ratio(0.5 * noise[0] * np.where(slow, 1.2, 1), base, 0.99)
    apart = undisturbed_ratio(0.5 * noise[0] * np.where(slow, 1.5, 1), base, 0.99)
    assert apart.interval.low <= 0.5 <= apart.interval.high
    assert apart.half_width < 0.005


def test_leaving_rounds_out_leaves_intervals_of_equal_runs_sound() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        slow = random.random(100) < random.random()
        rounds = np.exp(random.standard_t(3, (2, 100)) / 100) * np.where(slow, 1.3, 1)
        ratio = undisturbed_ratio(rounds[0], rounds[1], 0.95)
        covered += ratio.interval.low <= 1 <= ratio.interval.high
    assert covered / 400 >= 0.93
