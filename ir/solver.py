"""Unification of axis terms: finds which widths must change together, and which products or sums they must be.

A *flexible* width is one that inference made up; it may be bound to any term of its size. A *rigid* width is declared
by a graph that is only being checked; it equals nothing but itself. Inference makes every axis of every weight flexible
and lets the ops' rules unify; what stays unbound is a free basis: any positive sizes give a well-shaped network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .axes import (
    ONE,
    Axes,
    Axis,
    Batch,
    Const,
    Product,
    Sum,
    Width,
    factors,
    has_batch,
    parts,
    product,
    total,
    widths_in,
)
from .axes import size as size_of
from .graph import Location

FLEXIBLE = "?"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a width cannot change: what was asked of it, at which op, on which line of the user's."""

    text: str
    op: str = ""
    location: Location | None = None

    def __str__(self) -> str:
        return self.text + (f" at {self.location}" if self.location else "")


class Mismatch(Exception):
    """Two axis terms that cannot be the same length or order."""

    def __init__(self, left: Axis, right: Axis) -> None:
        super().__init__(f"{left} against {right}")
        self.left = left
        self.right = right


class Solver:
    """The bindings found so far. Terms handed out earlier are brought up to date by `resolve`."""

    def __init__(self, rigid: Mapping[str, int] | None = None) -> None:
        self._sizes: dict[str, int] = dict(rigid or {})
        self._bindings: dict[str, Axis] = {}
        self._count = 0

    def fresh(self, size: int) -> Axis:
        """A flexible width of this size."""
        name = f"{FLEXIBLE}{self._count}"
        self._count += 1
        self._sizes[name] = size
        return Width(name)

    def size(self, axis: Axis) -> int:
        """The length of a term, with 1 for the batch."""
        return size_of(axis, self._sizes)

    def reason(self, axis: Axis) -> Reason | None:
        """Why a term became a constant, or None where it did not."""
        resolved = self.resolve(axis)
        if isinstance(resolved, Const) and isinstance(resolved.origin, Reason):
            return resolved.origin
        return None

    def resolve(self, axis: Axis) -> Axis:
        """The term with all bindings applied, in normal form."""
        match axis:
            case Width(name):
                chain: list[str] = []
                while isinstance(bound := self._bindings.get(name), Width):
                    chain.append(name)
                    name = bound.name
                if bound is None:
                    result: Axis = Width(name)
                elif isinstance(bound, Const):
                    result = bound
                else:
                    result = self.resolve(bound)
                    self._bindings[name] = result
                for seen in chain[:-1]:
                    self._bindings[seen] = Width(name)
                return result
            case Product(terms):
                return product(self.resolve(t) for t in terms)
            case Sum(terms):
                return total(self.resolve(t) for t in terms)
            case _:
                return axis

    def freeze(self, axis: Axis, reason: Reason) -> int:
        """Fix every width of a term at its present size, and give the term's length.

        Raises:
            Mismatch: the term holds a rigid width, or the batch.
        """
        resolved = self.resolve(axis)
        for name in widths_in(resolved):
            self._bind(name, Const(self._sizes[name]), reason)
        fixed = self.resolve(resolved)
        if not isinstance(fixed, Const):
            raise Mismatch(fixed, Const(self.size(fixed)))
        return fixed.value

    def unify(self, left: Axis, right: Axis, reason: Reason) -> None:
        """Make two terms the same by binding flexible widths, and freeze what cannot be told apart.

        Raises:
            Mismatch: no binding can make them the same.
        """
        left, right = self.resolve(left), self.resolve(right)
        if left == right:
            return
        if self.size(left) != self.size(right) or has_batch(left) != has_batch(right):
            raise Mismatch(left, right)
        if isinstance(left, Width) and isinstance(right, Width):
            self._join(left, right, reason)
        elif isinstance(left, Width) and self._flexible(left) and not self._occurs(left, right):
            self._bind(left.name, right, reason)
        elif isinstance(right, Width) and self._flexible(right) and not self._occurs(right, left):
            self._bind(right.name, left, reason)
        elif isinstance(left, Sum) or isinstance(right, Sum):
            self._unify_sums(left, right, reason)
        elif isinstance(left, Product) or isinstance(right, Product):
            self._unify_products(left, right, reason)
        else:
            raise Mismatch(left, right)

    def _flexible(self, width: Width) -> bool:
        return width.name.startswith(FLEXIBLE)

    def _occurs(self, width: Width, axis: Axis) -> bool:
        return width.name in widths_in(axis)

    def _bind(self, name: str, to: Axis, reason: Reason) -> None:
        if not name.startswith(FLEXIBLE):
            raise Mismatch(Width(name), to)
        self._bindings[name] = Const(to.value, to.origin or reason) if isinstance(to, Const) else to

    def _join(self, left: Width, right: Width, reason: Reason) -> None:
        """Bind the later of two flexible widths to the earlier, or the flexible one to the rigid one."""
        if not self._flexible(left) and not self._flexible(right):
            raise Mismatch(left, right)
        if not self._flexible(left) or (self._flexible(right) and int(left.name[1:]) < int(right.name[1:])):
            left, right = right, left
        self._bind(left.name, right, reason)

    def _unify_products(self, left: Axis, right: Axis, reason: Reason) -> None:
        """Left to right; where one head is a multiple of the other, the larger is split."""
        ours, theirs = list(factors(left)), list(factors(right))
        while ours or theirs:
            a = self.resolve(ours[0]) if ours else ONE
            b = self.resolve(theirs[0]) if theirs else ONE
            if len(factors(a)) != 1 and ours:
                ours[:1] = factors(a)
                continue
            if len(factors(b)) != 1 and theirs:
                theirs[:1] = factors(b)
                continue
            if isinstance(a, Batch) != isinstance(b, Batch):
                return self._freeze_both(left, right, reason)
            size_a, size_b = self.size(a), self.size(b)
            if a == b or size_a == size_b:
                if a != b:
                    self.unify(a, b, reason)
                ours, theirs = ours[1:], theirs[1:]
            elif size_a == 1 and ours:
                self.freeze(a, reason)
                ours = ours[1:]
            elif size_b == 1 and theirs:
                self.freeze(b, reason)
                theirs = theirs[1:]
            elif size_b and size_a % size_b == 0 and ours and theirs:
                ours[:1] = [*self._split(a, b, size_a // size_b, reason)]
            elif size_a and size_b % size_a == 0 and ours and theirs:
                theirs[:1] = [*self._split(b, a, size_b // size_a, reason)]
            else:
                return self._freeze_both(left, right, reason)
        return None

    def _split(self, large: Axis, head: Axis, rest: int, reason: Reason) -> Axes:
        """`large` as `head` times a rest of the size given."""
        if isinstance(large, Const):
            return (Const(self.freeze(head, reason), large.origin), Const(rest, large.origin))
        if isinstance(large, Width) and self._flexible(large) and not self._occurs(large, head):
            self._bind(large.name, product([head, self.fresh(rest)]), reason)
            return factors(self.resolve(large))
        fixed = self.freeze(large, reason)
        return (Const(fixed // rest), Const(rest))

    def _unify_sums(self, left: Axis, right: Axis, reason: Reason) -> None:
        """Cut both at the first boundary of either, part by part; freeze a part that cannot be cut."""
        ours, theirs = list(parts(left)), list(parts(right))
        while ours and theirs:
            a, b = self.resolve(ours[0]), self.resolve(theirs[0])
            if isinstance(a, Sum):
                ours[:1] = a.terms
                continue
            if isinstance(b, Sum):
                theirs[:1] = b.terms
                continue
            size_a, size_b = self.size(a), self.size(b)
            if size_a == size_b:
                self.unify(a, b, reason)
                ours, theirs = ours[1:], theirs[1:]
            elif size_a > size_b:
                ours[:1] = self._cut(a, b, size_a - size_b, reason)
            else:
                theirs[:1] = self._cut(b, a, size_b - size_a, reason)

    def _cut(self, large: Axis, head: Axis, rest: int, reason: Reason) -> Axes:
        """`large` as `head` followed by a rest of the size given."""
        if isinstance(large, Width) and self._flexible(large) and not self._occurs(large, head):
            self._bind(large.name, total([head, self.fresh(rest)]), reason)
            return parts(self.resolve(large))
        fixed = self.freeze(large, reason)
        return (Const(fixed - rest), Const(rest))

    def _freeze_both(self, left: Axis, right: Axis, reason: Reason) -> None:
        if self.freeze(left, reason) != self.freeze(right, reason):
            raise Mismatch(left, right)
