"""Unification binds flexible widths as little as it must, freezes what cannot be told apart, and says why."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasc.ir import Location, N, Width, product, total, widths_in
from nasc.ir.axes import ONE, Axis, Const
from nasc.ir.solver import Mismatch, Reason, Solver

WHY = Reason("cat %y", "y", Location("net.py", 7))


def unified(solver: Solver, left: Axis, right: Axis) -> tuple[Axis, Axis]:
    """Both terms after they have been made the same."""
    solver.unify(left, right, WHY)
    return solver.resolve(left), solver.resolve(right)


def test_two_widths_become_the_earlier() -> None:
    solver = Solver()
    a, b = solver.fresh(8), solver.fresh(8)
    assert unified(solver, b, a) == (a, a)


def test_a_chain_of_widths_resolves_to_its_root() -> None:
    solver = Solver()
    chain = [solver.fresh(4) for _ in range(6)]
    for left, right in pairwise(chain):
        solver.unify(right, left, WHY)
    assert {solver.resolve(w) for w in chain} == {chain[0]}
    solver.freeze(chain[3], WHY)
    assert {solver.resolve(w) for w in chain} == {Const(4)}


def test_a_constant_fixes_a_width_and_says_why() -> None:
    solver = Solver()
    a = solver.fresh(8)
    assert unified(solver, a, Const(8)) == (Const(8), Const(8))
    assert solver.reason(a) == WHY
    assert str(WHY) == "cat %y at net.py:7"


def test_the_origin_of_a_constant_is_the_reason_it_passes_on() -> None:
    solver = Solver()
    a, root = solver.fresh(8), Reason("output %y of the graph")
    solver.unify(a, Const(8, root), WHY)
    reason = solver.reason(a)
    assert reason is not None and reason.root == root
    assert reason.chain == (Reason(WHY.text, WHY.op, WHY.location, root), root)


def test_a_free_width_has_no_reason() -> None:
    solver = Solver()
    assert solver.reason(solver.fresh(3)) is None


def test_a_product_refines_a_width() -> None:
    """A flatten seen from behind: the 48 inputs of a layer are 3 channels of 16 pixels."""
    solver = Solver()
    flat, channels = solver.fresh(48), solver.fresh(3)
    left, right = unified(solver, flat, product([channels, Const(16)]))
    assert left == right == product([channels, Const(16)])


def test_products_of_different_cut_meet_in_a_finer_one() -> None:
    """12 = 4*3 = 2*6: the 4 is split by the 2, the 6 by the 3."""
    solver = Solver()
    four, three, two, six = (solver.fresh(n) for n in (4, 3, 2, 6))
    left, right = unified(solver, product([four, three]), product([two, six]))
    assert left == right
    outer, inner = solver.resolve(four), solver.resolve(six)
    assert outer == product([two, *widths(outer)[1:]]) and solver.size(outer) == 4
    assert inner == product([*widths(inner)[:1], three]) and solver.size(inner) == 6
    assert widths(outer)[1] == widths(inner)[0]


def widths(axis: Axis) -> list[Axis]:
    """The widths of a term, in order."""
    return [Width(n) for n in widths_in(axis)]


def test_straddling_products_are_frozen_with_the_reason() -> None:
    """4*6 against 6*4: neither head divides the other, so no index belongs to one width alone."""
    solver = Solver()
    a, b, c, d = (solver.fresh(n) for n in (4, 6, 6, 4))
    assert unified(solver, product([a, b]), product([c, d])) == (Const(24), Const(24))
    assert [solver.reason(w) for w in (a, b, c, d)] == [WHY] * 4


def test_only_the_widths_of_the_straddle_are_frozen() -> None:
    solver = Solver()
    head, a, b, other, c, d = (solver.fresh(n) for n in (5, 4, 6, 5, 6, 4))
    left, right = unified(solver, product([head, a, b]), product([other, c, d]))
    assert left == right
    assert solver.size(left) == 120
    assert solver.reason(a) == WHY


def test_sums_are_cut_at_the_first_boundary() -> None:
    """6+10 against 8+8: the 8 is 6 and 2, the 10 is that 2 and 8."""
    solver = Solver()
    a, b, c, d = (solver.fresh(n) for n in (6, 10, 8, 8))
    left, right = unified(solver, total([a, b]), total([c, d]))
    assert left == right
    first, second = solver.resolve(c), solver.resolve(b)
    assert widths(first)[0] == a and widths(first)[1] == widths(second)[0]
    assert solver.size(widths(first)[1]) == 2
    assert solver.resolve(d) == widths(second)[1]


def test_a_width_becomes_the_sum_that_reads_it() -> None:
    solver = Solver()
    joined, a, b = (solver.fresh(n) for n in (16, 6, 10))
    assert unified(solver, joined, total([a, b]))[0] == total([a, b])


def test_a_constant_cuts_a_sum_into_constants() -> None:
    solver = Solver()
    a, b = solver.fresh(6), solver.fresh(10)
    solver.unify(Const(16), total([a, b]), WHY)
    assert (solver.resolve(a), solver.resolve(b)) == (Const(6), Const(10))


def test_a_product_that_a_sum_cuts_is_copies_of_its_tail() -> None:
    """Two rows of 1+$d entries, laid end to end, are 2+$d entries and then $d."""
    solver = Solver()
    a, b, c, d = (solver.fresh(n) for n in (2, 3, 4, 2))
    solver.unify(product([a, b]), total([c, d]), WHY)
    assert solver.resolve(a) == Const(2)
    assert solver.resolve(b) == total([ONE, d])
    assert solver.resolve(c) == total([ONE, d, ONE])
    assert solver.resolve(d) == d


def test_the_rest_of_a_constant_stays_a_constant() -> None:
    solver = Solver()
    heads, each = solver.fresh(3), solver.fresh(16)
    solver.unify(Const(48), product([heads, each]), WHY)
    assert (solver.resolve(heads), solver.resolve(each)) == (Const(3), Const(16))


def test_widths_of_size_one_disappear_against_nothing() -> None:
    solver = Solver()
    one, a = solver.fresh(1), solver.fresh(8)
    solver.unify(product([one, a]), Const(8), WHY)
    assert solver.resolve(one) == ONE


def test_other_lengths_never_unify() -> None:
    solver = Solver()
    with pytest.raises(Mismatch):
        solver.unify(solver.fresh(3), Const(4), WHY)


@pytest.mark.parametrize("other", [ONE, product([ONE, Const(1)]), Const(1)])
def test_the_batch_is_no_constant(other: Axis) -> None:
    with pytest.raises(Mismatch):
        Solver().unify(N, other, WHY)


def test_the_batch_is_no_width_even_of_size_one() -> None:
    """The batch counts as 1 in sizes; a weight's axis of length 1 must not be taken for it."""
    solver = Solver()
    with pytest.raises(Mismatch):
        solver.unify(solver.fresh(1), N, WHY)
    with pytest.raises(Mismatch):
        solver.unify(product([N, solver.fresh(4)]), solver.fresh(4), WHY)


def test_the_batch_stays_in_its_place() -> None:
    solver = Solver()
    a, b = solver.fresh(4), solver.fresh(4)
    assert unified(solver, product([N, a]), product([N, b])) == (product([N, a]), product([N, a]))


def test_what_changes_places_with_the_batch_is_frozen() -> None:
    """`N*$a` and `$a*N` have one length and two orders; of numbers the order does not matter to any weight."""
    solver = Solver()
    a = solver.fresh(4)
    solver.unify(product([N, a]), product([a, N]), WHY)
    assert solver.resolve(a) == Const(4)
    with pytest.raises(Mismatch):
        Solver({"a": 4}).unify(product([N, Width("a")]), product([Width("a"), N]), WHY)


RIGID = {"a": 16, "one": 1, "c": 4, "d": 4}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Width("a"), Const(16)),
        (Width("a"), product([Width("c"), Width("d")])),
        (Width("c"), Width("d")),
        (Width("one"), ONE),
        (Width("a"), product([Width("a"), Width("one")])),
        (Width("a"), total([Width("c"), Const(12)])),
        (product([Width("c"), Width("d")]), product([Width("d"), Width("c")])),
        (total([Width("c"), Width("a")]), total([Width("a"), Width("c")])),
    ],
)
def test_rigid_widths_equal_nothing_but_themselves(left: Axis, right: Axis) -> None:
    for x, y in ((left, right), (right, left)):
        with pytest.raises(Mismatch):
            Solver(RIGID).unify(x, y, WHY)
    Solver(RIGID).unify(left, left, WHY)


def test_a_rigid_width_fills_a_flexible_one() -> None:
    solver = Solver(RIGID)
    each = solver.fresh(solver.size(Width("d")))
    assert unified(solver, product([Width("c"), each]), product([Width("c"), Width("d")]))[0] == product(
        [Width("c"), Width("d")]
    )
    assert solver.resolve(each) == Width("d")


def test_freezing_a_rigid_width_is_refused() -> None:
    for axis in (Width("a"), product([N, Width("a")])):
        with pytest.raises(Mismatch):
            Solver(RIGID).freeze(axis, WHY)


def test_freezing_gives_the_length() -> None:
    solver = Solver()
    a, b = solver.fresh(3), solver.fresh(5)
    assert solver.freeze(total([product([a, Const(2)]), b]), WHY) == 11
    assert (solver.resolve(a), solver.resolve(b)) == (Const(3), Const(5))


sizes = st.sampled_from([1, 2, 3, 4, 6, 8])


@st.composite
def equations(draw: st.DrawFn) -> tuple[list[int], list[tuple[str, list[int], str, list[int]]]]:
    """Widths by size, and pairs of products or sums of some of them that have the same length."""
    lengths = draw(st.lists(sizes, min_size=4, max_size=8))
    chosen = st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=3)
    kinds = st.sampled_from(["product", "total"])
    return lengths, draw(st.lists(st.tuples(kinds, chosen, kinds, chosen), max_size=5))


@given(equations())
def test_unification_keeps_sizes_and_what_it_found_before(
    case: tuple[list[int], list[tuple[str, list[int], str, list[int]]]],
) -> None:
    """Whatever is unified: lengths stay, all earlier equalities still hold, and equal terms unify without effect."""
    lengths, pairs = case
    solver = Solver()
    widths = [solver.fresh(n) for n in lengths]
    build = {"product": product, "total": total}
    held: list[tuple[Axis, Axis]] = []
    for kind, ours, other, theirs in pairs:
        left, right = build[kind](widths[i] for i in ours), build[other](widths[i] for i in theirs)
        if solver.size(left) != solver.size(right):
            with pytest.raises(Mismatch):
                solver.unify(left, right, WHY)
            continue
        solver.unify(left, right, WHY)
        held.append((left, right))
        assert [solver.size(solver.resolve(w)) for w in widths] == lengths
        for x, y in held:
            assert solver.resolve(x) == solver.resolve(y)
            assert solver.resolve(solver.resolve(x)) == solver.resolve(x)


@given(equations())
def test_any_sizes_of_what_stays_free_satisfy_the_equations(
    case: tuple[list[int], list[tuple[str, list[int], str, list[int]]]],
) -> None:
    """The free widths are a basis: give them other sizes, and both sides of every equation still have one length."""
    from nasc.ir.axes import size

    lengths, pairs = case
    solver = Solver()
    widths = [solver.fresh(n) for n in lengths]
    build = {"product": product, "total": total}
    held: list[tuple[Axis, Axis]] = []
    for kind, ours, other, theirs in pairs:
        left, right = build[kind](widths[i] for i in ours), build[other](widths[i] for i in theirs)
        if solver.size(left) == solver.size(right):
            solver.unify(left, right, WHY)
            held.append((left, right))
    free = dict.fromkeys(n for w in widths for n in widths_in(solver.resolve(w)))
    for new in (dict.fromkeys(free, 1), {n: 2 + i for i, n in enumerate(free)}):
        for x, y in held:
            assert size(solver.resolve(x), new) == size(solver.resolve(y), new)
