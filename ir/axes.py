"""Axis terms: the length of one axis as a constant, the batch, a width, an ordered product or an ordered sum.

Order carries meaning. A product is row-major (`$a*4` is a flattened `[$a, 4]`), a sum is a concatenation (`$a+$b` is
first all of `$a`, then all of `$b`), so a term says which index of a flattened axis belongs to which width.

Terms are built by `product` and `total`, which keep them in one normal form, so that equal readings are equal values:
nested products and sums are flattened, factors 1 and summands 0 dropped, adjacent constants merged, and a sum is
multiplied out to the right, `($a+$b)*c` = `$a*c + $b*c`, never to the left (`c*($a+$b)` stays: its order differs).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Const:
    """A fixed length; `origin` may say what fixed it, and takes no part in comparison."""

    value: int
    origin: object = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Batch:
    """The length of the batch, `N`: known when the network runs, never resized."""

    def __str__(self) -> str:
        return "N"


@dataclass(frozen=True, slots=True)
class Width:
    """A length that the graph's header names and a pass may change, `$name`."""

    name: str

    def __str__(self) -> str:
        return f"${self.name}"


@dataclass(frozen=True, slots=True)
class Product:
    """Two or more axes flattened into one, row-major. Build it with `product`."""

    terms: tuple[Axis, ...]

    def __str__(self) -> str:
        return "*".join(f"({t})" if isinstance(t, Sum) else str(t) for t in self.terms)


@dataclass(frozen=True, slots=True)
class Sum:
    """Two or more axes laid end to end. Build it with `total`."""

    terms: tuple[Axis, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.terms))


Axis: TypeAlias = Const | Batch | Width | Product | Sum
Axes: TypeAlias = tuple[Axis, ...]

N = Batch()
ONE = Const(1)


def product(terms: Iterable[Axis]) -> Axis:
    """The row-major flattening of `terms`, in normal form."""
    flat: list[Axis] = []
    for term in terms:
        for factor in term.terms if isinstance(term, Product) else (term,):
            if factor == ONE:
                continue
            if isinstance(factor, Const) and flat and isinstance(last := flat[-1], Const):
                flat[-1] = Const(last.value * factor.value, last.origin or factor.origin)
            else:
                flat.append(factor)
    for i, factor in enumerate(flat[:-1]):
        if isinstance(factor, Sum):
            rest = flat[i + 1 :]
            return product([*flat[:i], total(product([part, *rest]) for part in factor.terms)])
    if Const(0) in flat:
        return Const(0)
    if len(flat) <= 1:
        return flat[0] if flat else ONE
    return Product(tuple(flat))


def total(terms: Iterable[Axis]) -> Axis:
    """The concatenation of `terms`, in normal form."""
    flat: list[Axis] = []
    for term in terms:
        for part in term.terms if isinstance(term, Sum) else (term,):
            if isinstance(part, Const) and flat and isinstance(last := flat[-1], Const):
                flat[-1] = Const(last.value + part.value, last.origin or part.origin)
            elif part != Const(0):
                flat.append(part)
    if len(flat) <= 1:
        return flat[0] if flat else Const(0)
    return Sum(tuple(flat))


def factors(axis: Axis) -> tuple[Axis, ...]:
    """The factors of a product, outermost first; any other axis is its own only factor, and 1 has none."""
    if isinstance(axis, Product):
        return axis.terms
    return () if axis == ONE else (axis,)


def parts(axis: Axis) -> tuple[Axis, ...]:
    """The summands of a sum in order; any other axis is its own only part."""
    return axis.terms if isinstance(axis, Sum) else (axis,)


def widths_in(axis: Axis) -> Iterator[str]:
    """The names of the widths in `axis`, left to right, with repetitions."""
    if isinstance(axis, Width):
        yield axis.name
    elif isinstance(axis, Product | Sum):
        for term in axis.terms:
            yield from widths_in(term)


def has_batch(axis: Axis) -> bool:
    """Whether the batch stands anywhere in `axis`."""
    return isinstance(axis, Batch) or (isinstance(axis, Product | Sum) and any(map(has_batch, axis.terms)))


def polynomial(axis: Axis) -> Mapping[tuple[str, ...], int]:
    """The length of `axis` as a polynomial over widths and batch: sorted factors to coefficient, without zeros.

    Two terms have equal polynomials where their lengths are equal whatever the sizes of the widths.
    """
    match axis:
        case Const(value=value):
            return {(): value} if value else {}
        case Batch():
            return {("",): 1}
        case Width(name):
            return {(name,): 1}
        case Product(terms):
            result: dict[tuple[str, ...], int] = {(): 1}
            for term in terms:
                grown: dict[tuple[str, ...], int] = {}
                for key, count in result.items():
                    for other, times in polynomial(term).items():
                        both = tuple(sorted((*key, *other)))
                        grown[both] = grown.get(both, 0) + count * times
                result = grown
            return result
        case Sum(terms):
            result = {}
            for term in terms:
                for key, count in polynomial(term).items():
                    result[key] = result.get(key, 0) + count
            return result


def size(axis: Axis, widths: Mapping[str, int], batch: int = 1) -> int:
    """The length of `axis` when each width has the size given and the batch is `batch`.

    Raises:
        KeyError: a width of the term has no size.
    """
    match axis:
        case Const(value=value):
            return value
        case Batch():
            return batch
        case Width(name):
            return widths[name]
        case Product(terms):
            result = 1
            for term in terms:
                result *= size(term, widths, batch)
            return result
        case Sum(terms):
            return sum(size(term, widths, batch) for term in terms)


def substitute(axis: Axis, values: Mapping[str, Axis]) -> Axis:
    """`axis` with each width that `values` names replaced, in normal form."""
    match axis:
        case Width(name):
            return values.get(name, axis)
        case Product(terms):
            return product(substitute(term, values) for term in terms)
        case Sum(terms):
            return total(substitute(term, values) for term in terms)
        case _:
            return axis
