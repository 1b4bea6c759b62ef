"""The front with its intervals, and the rule that names the winner."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.search.figures import METRICS, Figure, Figures
from nasc.search.front import Rule, dominates, pareto
from nasc.search.objectives import parse_objectives, parse_tolerance

OBJECTIVES = parse_objectives(["accuracy", "bit_operations"])
BASELINE = {"accuracy": Figure(0.75, "measured", difference=0.0, error=0.0), "bit_operations": Figure(1000.0)}


@dataclass(frozen=True)
class Point:
    number: int
    figures: Figures


def point(number: int, drop: float, bits: float, error: float = 0.001, ratio: float | None = None) -> Point:
    figures = {
        "accuracy": Figure(0.75 - drop, "measured", difference=-drop, error=error),
        "bit_operations": Figure(bits),
        "size": Figure(bits),
    }
    if ratio is not None:
        figures["latency"] = Figure(ratio, "measured", ratio=ratio, ratio_low=ratio * 0.99, ratio_high=ratio * 1.01)
    return Point(number, figures)


def front(*points: Point) -> list[int]:
    return [member.number for member in pareto(points, OBJECTIVES, 0.95)]


def rule(watch_latency: bool = False) -> Rule:
    tolerance = parse_tolerance("1pt", METRICS["accuracy"])
    decide = (METRICS["bit_operations"], METRICS["size"])
    return Rule(METRICS["accuracy"], tolerance, OBJECTIVES, decide, watch_latency, 0.95)


def test_what_is_clearly_worse_at_everything_is_not_on_the_front() -> None:
    assert front(point(0, 0.01, 100), point(1, 0.05, 200), point(2, 0.0, 300)) == [2, 0]


def test_an_advantage_within_noise_buys_no_place() -> None:
    better_by_chance = point(1, 0.009, 200, error=0.002)
    assert front(point(0, 0.010, 100, error=0.002), better_by_chance) == [0]
    assert front(point(0, 0.010, 100, error=0.0001), replace(better_by_chance)) == [0]
    sure = (point(0, 0.010, 100, error=0.0001), point(1, 0.009, 200, error=0.0001))
    assert front(*sure) == [1, 0]


def test_equal_candidates_are_one_member_with_ties() -> None:
    (member,) = pareto([point(3, 0.01, 100), point(5, 0.0101, 100)], OBJECTIVES, 0.95)
    assert (member.number, member.ties) == (3, (5,))


def test_a_chain_of_small_differences_does_not_swallow_the_front() -> None:
    """Each is within noise of the next, and cheaper; yet the ends are far apart and both must stay."""
    chain = [point(n, 0.001 * n, 1000 - 10 * n, error=0.001) for n in range(30)]
    numbers = front(*chain)
    assert 29 in numbers
    assert len(numbers) >= 8
    for left_out in (p for p in chain if p.number not in numbers):
        assert any(dominates(chain[n].figures, left_out.figures, OBJECTIVES, 0.95) for n in numbers)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.1), st.integers(1, 50), st.sampled_from([0.0, 0.001, 0.01])), min_size=1, max_size=25
    )
)
def test_every_candidate_is_on_the_front_or_tied_or_dominated_by_a_member(rows: list[tuple[float, int, float]]) -> None:
    points = [point(n, drop, bits, error) for n, (drop, bits, error) in enumerate(rows)]
    members = pareto(points, OBJECTIVES, 0.95)
    named = {m.number for m in members} | {tie for m in members for tie in m.ties}
    assert members
    for p in points:
        beaten = any(dominates(points[m.number].figures, p.figures, OBJECTIVES, 0.95) for m in members)
        assert p.number in named or beaten
        if not any(dominates(q.figures, p.figures, OBJECTIVES, 0.95) for q in points):
            assert p.number in named


def test_winner_has_the_fewest_bit_operations_of_those_that_surely_keep_quality() -> None:
    points = [
        point(0, 0.001, 900),
        point(1, 0.005, 500),
        point(2, 0.009, 400, error=0.002),  # within a point as estimated, not at its lower bound
        point(3, 0.020, 100),
    ]
    assert [p.number for p in rule().ranked(points, BASELINE, strict=True)] == [1, 0]
    assert [p.number for p in rule().ranked(points, BASELINE, strict=False)] == [2, 1, 0]


def test_winner_is_not_slower_than_the_fastest() -> None:
    points = [point(0, 0.001, 900, ratio=0.3), point(1, 0.001, 500, ratio=0.301), point(2, 0.001, 100, ratio=0.5)]
    assert [p.number for p in rule(True).ranked(points, BASELINE, strict=True)] == [1, 0]
    assert [p.number for p in rule(False).ranked(points, BASELINE, strict=True)] == [2, 1, 0]


def test_a_slow_network_of_poor_quality_does_not_count_as_the_fastest() -> None:
    points = [point(0, 0.001, 900, ratio=0.5), point(1, 0.2, 100, ratio=0.1)]
    assert [p.number for p in rule(True).ranked(points, BASELINE, strict=True)] == [0]


def test_where_none_keeps_the_tolerance_the_surest_quality_is_next() -> None:
    points = [point(0, 0.03, 10, error=0.001), point(1, 0.02, 10, error=0.02)]
    assert not rule().ranked(points, BASELINE, strict=True)
    assert [p.number for p in rule().best_quality(points, BASELINE)] == [0, 1]


def test_a_weighted_sum_decides_by_itself() -> None:
    objectives = parse_objectives(["accuracy:max:1", "bit_operations:min:1"])
    weighted = Rule(METRICS["accuracy"], None, objectives, (), False, 0.95)
    assert [p.number for p in weighted.ranked([point(0, 0, 900), point(1, 0.1, 10)], BASELINE, strict=True)] == [1, 0]
