"""Axis terms have one normal form, and no rewriting into it changes a length or an index."""

from __future__ import annotations

from itertools import pairwise
from itertools import product as pairs

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nasc.ir import N, Product, Sum, Width, parse_axes, product, total, widths_in
from nasc.ir.axes import ONE, Axis, Const, factors, has_batch, parts, size, substitute
from support.drawing import SIZES, atoms, terms
from support.meaning import Label, labels

A, B = Width("a"), Width("b")


def atoms_of(axis: Axis) -> list[Label]:
    """The meaning of a term at the sizes of these tests."""
    return labels(axis, SIZES)


def laid_out(kind: str, operands: list[Axis]) -> list[Label]:
    """The meaning of a product or a sum of terms, without building either."""
    if kind == "total":
        return [entry for term in operands for entry in atoms_of(term)]
    result: list[Label] = [()]
    for term in operands:
        result = [a + b for a, b in pairs(result, atoms_of(term))]
    return result


@given(st.lists(terms, max_size=3))
def test_product_keeps_every_index_in_place(operands: list[Axis]) -> None:
    assert atoms_of(product(operands)) == laid_out("product", operands)


@given(st.lists(terms, max_size=4))
def test_total_keeps_every_index_in_place(operands: list[Axis]) -> None:
    assert atoms_of(total(operands)) == laid_out("total", operands)


@given(terms, terms, terms)
def test_product_and_total_are_associative(x: Axis, y: Axis, z: Axis) -> None:
    assert product([product([x, y]), z]) == product([x, product([y, z])]) == product([x, y, z])
    assert total([total([x, y]), z]) == total([x, total([y, z])]) == total([x, y, z])


@given(terms, terms, terms)
def test_sums_are_multiplied_out_to_the_right(x: Axis, y: Axis, z: Axis) -> None:
    assume(not (isinstance(parts(x)[-1], Const) and isinstance(parts(y)[0], Const)))  # those merge: (1+1)*a is 2*a
    assert product([total([x, y]), z]) == total([product([x, z]), product([y, z])])


def test_sums_are_not_multiplied_out_to_the_left() -> None:
    """`2*(a+b)` is a, b, a, b; `2*a + 2*b` would be a, a, b, b."""
    left = product([Const(2), total([A, B])])
    assert isinstance(left, Product)
    assert str(left) == "2*($a+$b)"
    assert atoms_of(left) != atoms_of(total([product([Const(2), A]), product([Const(2), B])]))


@given(terms)
def test_terms_are_in_normal_form(axis: Axis) -> None:
    check_normal(axis)
    assert product([axis]) == total([axis]) == axis == product([ONE, axis]) == total([Const(0), axis])


def check_normal(axis: Axis) -> None:
    """Nothing nested, no neutral elements, no adjacent constants, sums only at the end of a product."""
    if not isinstance(axis, Product | Sum):
        return
    assert len(axis.terms) > 1
    assert not any(isinstance(t, type(axis)) for t in axis.terms)
    assert (Const(1) if isinstance(axis, Product) else Const(0)) not in axis.terms
    assert not any(isinstance(a, Const) and isinstance(b, Const) for a, b in pairwise(axis.terms))
    if isinstance(axis, Product):
        assert not any(isinstance(t, Sum) for t in axis.terms[:-1])
    for term in axis.terms:
        check_normal(term)


def test_this_check_can_fail() -> None:
    with pytest.raises(AssertionError):
        check_normal(Product((A, Const(1))))
    with pytest.raises(AssertionError):
        check_normal(Product((Sum((A, B)), Const(2))))


@given(terms, st.integers(1, 4))
def test_size_counts_the_indices(axis: Axis, batch: int) -> None:
    assert size(axis, SIZES, batch) == len(labels(axis, SIZES, batch))


def test_size_of_an_unknown_width_is_an_error() -> None:
    with pytest.raises(KeyError):
        size(product([A, Const(2)]), {})


@given(terms)
def test_terms_print_and_parse(axis: Axis) -> None:
    assert parse_axes(str(axis)) == (axis,)


@given(terms)
def test_factors_and_parts_put_together_give_the_term(axis: Axis) -> None:
    assert product(factors(axis)) == axis
    assert total(parts(axis)) == axis
    assert not any(isinstance(f, Product) for f in factors(axis))
    assert not any(isinstance(p, Sum) for p in parts(axis))


@given(terms, atoms)
def test_substitution_keeps_the_meaning(axis: Axis, new: Axis) -> None:
    replaced = substitute(axis, {"a": new})
    check_normal(replaced)
    assert "a" not in widths_in(replaced) or "a" in widths_in(new)
    assert size(replaced, SIZES) == size(axis, {**SIZES, "a": size(new, SIZES)})


def test_what_a_term_holds() -> None:
    axis = total([product([A, Const(4), N]), B, A])
    assert list(widths_in(axis)) == ["a", "b", "a"]
    assert has_batch(axis) and not has_batch(B)


def test_zero_swallows_a_product() -> None:
    assert product([A, Const(0), B]) == Const(0)
    assert total([]) == Const(0)
    assert product([]) == ONE


def test_the_origin_of_a_constant_survives_merging_and_takes_no_part_in_equality() -> None:
    why = "an output of the graph"
    merged = product([Const(2), Const(8, why)])
    assert isinstance(merged, Const) and merged == Const(16) and merged.origin == why
    joined = total([Const(2, why), Const(8)])
    assert isinstance(joined, Const) and joined == Const(10) and joined.origin == why
