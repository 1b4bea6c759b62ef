"""Static costs as polynomials in a graph's widths: what a candidate costs, in microseconds and without building it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias, cast

from ..ir import Axis, Batch, Const, Graph, Product, Sum, Type, Width
from .cost import stored_steps_of
from .counting import products

Monomial: TypeAlias = "tuple[str, ...]"
"""Widths in alphabetical order, one entry per power; empty: the constant."""

Polynomial: TypeAlias = "dict[Monomial, int]"
"""Coefficients by monomial."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals for a batch of 1, as `StaticCost` has them."""

    macs: int
    bit_operations: int
    parameters: int
    weight_bits: int


def compiled_totals(graph: Graph) -> Callable[[Mapping[str, int]], Totals]:
    """The totals of a graph as a function of its widths, by their names; formats stay those of the graph."""
    macs = [
        (reduce(product, map(length_of, found.axes), {(): 1}), found.bits)
        for op in graph.ops
        for found in products(graph, op)
    ]
    sizes = [(op, elements_of(op.type)) for op in graph.stored]
    steps = total(times(length_of(axis), bits) for axis, bits in stored_steps_of(graph))
    found = (
        total(p for p, _ in macs),
        total(times(p, bits) for p, bits in macs),
        total(p for op, p in sizes if op.kind == "weight"),
        total([*(times(p, op.type.format.bits) for op, p in sizes), steps]),
    )
    names = [name for name, _ in graph.widths]
    source = f"lambda {', '.join(f'w{i}' for i in range(len(names)))}: ({', '.join(text(p, names) for p in found)},)"
    evaluate = cast(Callable[..., tuple[int, ...]], eval(source, {"__builtins__": {}}))
    return lambda widths: Totals(*evaluate(*[widths[name] for name in names]))


def elements_of(type: Type) -> Polynomial:
    """The number of elements of a value."""
    return reduce(product, map(length_of, type.axes), {(): 1})


def length_of(axis: Axis) -> Polynomial:
    """The length of an axis, with 1 for the batch."""
    match axis:
        case Const(value=value):
            return {(): value}
        case Batch():
            return {(): 1}
        case Width(name):
            return {(name,): 1}
        case Product(terms):
            return reduce(product, map(length_of, terms), {(): 1})
        case Sum(terms):
            return total(map(length_of, terms))


def product(left: Polynomial, right: Polynomial) -> Polynomial:
    """The product of two polynomials."""
    return total({tuple(sorted(a + b)): m * n} for a, m in left.items() for b, n in right.items())


def times(polynomial: Polynomial, factor: int) -> Polynomial:
    """A polynomial times a number."""
    return {monomial: factor * count for monomial, count in polynomial.items()}


def total(polynomials: Iterable[Polynomial]) -> Polynomial:
    """The sum of polynomials."""
    found: Polynomial = {}
    for polynomial in polynomials:
        for monomial, count in polynomial.items():
            found[monomial] = found.get(monomial, 0) + count
    return found


def text(polynomial: Polynomial, names: list[str]) -> str:
    """A polynomial as Python, each width by its place among `names`."""
    parts = ["*".join([str(count), *(f"w{names.index(n)}" for n in m)]) for m, count in polynomial.items() if count]
    return "+".join(parts) or "0"
