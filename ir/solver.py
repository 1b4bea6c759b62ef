"""Unification of axis terms: finds which widths must change together, and which products or sums they must be.

A *flexible* width is one that inference made up; it may be bound to any term of its size. A *rigid* width is declared
by a graph that is only being checked; it equals nothing but itself. Inference makes every axis of every weight flexible
and lets the ops' rules unify; what stays unbound is a free basis: any positive sizes give a well-shaped network.

The same rules have two readings. *Ordered*, a term says which index of an axis belongs to which width, so that weights
can be gathered exactly. *By size*, factors commute, and only lengths must agree. The two differ where channels are
permuted: behind a channel shuffle the ordered reading cuts a stage into many small widths, or freezes it; by size there
is one width per stage.
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
    polynomial,
    product,
    total,
    widths_in,
)
from .axes import size as size_of
from .graph import Location

FLEXIBLE = "?"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a width cannot change: what was asked of it, at which op, on which line of the user's.

    Args:
        text: what the op asks, in words.
        op: the op's name, empty for the graph's inputs and outputs.
        location: the user's line.
        cause: why the other axis, which this one must equal, cannot change.
    """

    text: str
    op: str = ""
    location: Location | None = None
    cause: Reason | None = None

    @property
    def chain(self) -> tuple[Reason, ...]:
        """This reason, its cause, and so on to the root."""
        found: list[Reason] = []
        at: Reason | None = self
        while at is not None:
            found.append(at)
            at = at.cause
        return tuple(found)

    @property
    def root(self) -> Reason:
        """Where the chain ends: an input or output of the graph, or an op that needs a fixed length."""
        return self.chain[-1]

    def __str__(self) -> str:
        return " <- ".join(r.text + (f" at {r.location}" if r.location else "") for r in self.chain)


def unlikely(index: int) -> int:
    """A large odd number, another one for each index (multiplicative hashing, Knuth, TAOCP 3, section 6.4)."""
    return (index + 1) * 0x9E3779B97F4A7C15 % (1 << 61) | (1 << 61) | 1


class Mismatch(Exception):
    """Two axis terms that cannot be the same length or order."""

    def __init__(self, left: Axis, right: Axis) -> None:
        super().__init__(f"{left} against {right}")
        self.left = left
        self.right = right


class Solver:
    """The bindings found so far. Terms handed out earlier are brought up to date by `resolve`.

    Rigid widths are given lengths that no product or sum of others has, so that a graph that passes a check does so
    for all sizes and not by the accident of those it has.

    Args:
        rigid: widths that are declared, with their sizes.
        ordered: whether the order of factors counts; see above.
    """

    def __init__(self, rigid: Mapping[str, int] | None = None, *, ordered: bool = True) -> None:
        self.ordered = ordered
        self._declared: Mapping[str, int] = rigid or {}
        self.strained = False
        """Whether an axis was cut or fixed where reading by size would have kept it whole."""
        self._sizes: dict[str, int] = {name: unlikely(i) for i, name in enumerate(self._declared)}
        self._bindings: dict[str, Axis] = {}
        self._hints: dict[str, str] = {}
        self._count = 0

    def fresh(self, size: int) -> Axis:
        """A flexible width of this size; a length of 1 is a constant, for it may be there to be stretched."""
        if size == 1:
            return ONE
        name = f"{FLEXIBLE}{self._count}"
        self._count += 1
        self._sizes[name] = size
        return Width(name)

    def call(self, axis: Axis, hint: str) -> None:
        """Note what a width is, for its name: `heads`, `head_size`."""
        if isinstance(axis := self.resolve(axis), Width):
            self._hints.setdefault(axis.name, hint)

    def hint(self, width: str) -> str | None:
        """What a free width was called."""
        return self._hints.get(width)

    def size(self, axis: Axis) -> int:
        """The length of a term, with 1 for the batch."""
        return size_of(axis, self._sizes)

    def shown_size(self, axis: Axis) -> int:
        """The length of a term for people: by the sizes that rigid widths really have."""
        return size_of(axis, {**self._sizes, **self._declared})

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
        """Fix every width of a term at its present size, and give the term's length, with 1 for the batch.

        Raises:
            Mismatch: the term holds a rigid width.
        """
        resolved = self.resolve(axis)
        for name in widths_in(resolved):
            self._bind(name, Const(self._sizes[name]), reason)
        return self.size(resolved)

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
        elif isinstance(left, Width) and self._may_become(left, right):
            self._bind(left.name, right, reason)
        elif isinstance(right, Width) and self._may_become(right, left):
            self._bind(right.name, left, reason)
        elif not self.ordered and polynomial(left) == polynomial(right):
            return
        elif isinstance(left, Sum) or isinstance(right, Sum):
            self._unify_sums(left, right, reason)
        elif isinstance(left, Product) or isinstance(right, Product):
            self._unify_products(left, right, reason)
        else:
            raise Mismatch(left, right)

    def _flexible(self, axis: Axis) -> bool:
        return isinstance(axis, Width) and axis.name.startswith(FLEXIBLE)

    def _may_become(self, width: Width, axis: Axis) -> bool:
        return self._flexible(width) and width.name not in widths_in(axis) and not has_batch(axis)

    def _bind(self, name: str, to: Axis, reason: Reason) -> None:
        if not name.startswith(FLEXIBLE):
            raise Mismatch(Width(name), to)
        if isinstance(to, Const):
            origin = to.origin if isinstance(to.origin, Reason) else None
            told = (
                Reason(reason.text, reason.op, reason.location, origin) if origin and origin.op != reason.op else origin
            )
            to = Const(to.value, told or reason)
        elif isinstance(to, Width) and name in self._hints:
            self._hints.setdefault(to.name, self._hints[name])
        self._bindings[name] = to

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
            size_a, size_b = self.size(a), self.size(b)
            apart = has_batch(a) != has_batch(b)
            if not apart and (a == b or size_a == size_b):
                if a != b:
                    self.unify(a, b, reason)
                ours, theirs = ours[1:], theirs[1:]
            elif not self.ordered and self._partner(a, theirs):
                theirs.insert(0, theirs.pop(self._partner(a, theirs)))
            elif not self.ordered and self._partner(b, ours):
                ours.insert(0, ours.pop(self._partner(b, ours)))
            elif apart:
                return self._freeze_both(left, right, reason)
            elif size_a == 1 and ours:
                self.freeze(a, reason)
                ours = ours[1:]
            elif size_b == 1 and theirs:
                self.freeze(b, reason)
                theirs = theirs[1:]
            elif size_b and size_a % size_b == 0 and ours and theirs:
                ours[:1] = self._split(a, b, size_a // size_b, reason)
            elif size_a and size_b % size_a == 0 and ours and theirs:
                theirs[:1] = self._split(b, a, size_b // size_a, reason)
            else:
                return self._freeze_both(left, right, reason)
        return None

    def _partner(self, axis: Axis, terms: list[Axis]) -> int:
        """Where behind the head of `terms` a factor of the same length stands, 0 for nowhere."""
        alike = (axis == t or (has_batch(axis) == has_batch(t) and self.size(axis) == self.size(t)) for t in terms)
        return next((i for i, same in enumerate(alike) if same and i), 0)

    def _split(self, large: Axis, head: Axis, rest: int, reason: Reason) -> Axes:
        """`large` as `head` times a rest of the size given."""
        if isinstance(large, Const):
            return (Const(self.freeze(head, reason), large.origin), Const(rest, large.origin))
        if isinstance(large, Width) and self._may_become(large, head):
            self._bind(large.name, product([head, self.fresh(rest)]), reason)
            return factors(self.resolve(large))
        self.strained = True
        fixed = self.freeze(large, reason)
        return (Const(fixed // rest, reason), Const(rest, reason))

    def _unify_sums(self, left: Axis, right: Axis, reason: Reason) -> None:
        """Cut both at the first boundary of either, part by part."""
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
                ours[:1] = self._cut(a, b, reason)
            else:
                theirs[:1] = self._cut(b, a, reason)

    def _cut(self, large: Axis, head: Axis, reason: Reason) -> Axes:
        """`large` as several parts, of which the first is as long as `head` or nearer to it."""
        asked, whole = self.size(head), self.size(large)
        if isinstance(large, Const):
            return (Const(asked, large.origin), Const(whole - asked, large.origin))
        if isinstance(large, Width):
            if self._may_become(large, head):
                self._bind(large.name, total([head, self.fresh(whole - asked)]), reason)
                return parts(self.resolve(large))
            self.freeze(large, reason)
            return self._cut(self.resolve(large), head, reason)
        return self._cut_product(list(factors(large)), asked, reason)

    def _cut_product(self, terms: list[Axis], asked: int, reason: Reason) -> Axes:
        """A product as parts: copies of its tail, where its head counts them; a head that is a width is cut."""
        if not self.ordered:
            terms = [t for t in terms if isinstance(t, Const)] + [t for t in terms if not isinstance(t, Const)]
        first, tail = terms[0], product(terms[1:])
        count, each = self.size(first), self.size(tail)
        copies = max(1, asked // each)
        whole = asked % each == 0 and 1 not in (copies, count - copies)
        if isinstance(first, Width) and self._flexible(first) and whole:
            self.strained = True
            self._bind(first.name, total([self.fresh(copies), self.fresh(count - copies)]), reason)
            return parts(self.resolve(product([first, tail])))
        if isinstance(first, Batch) or has_batch(first):
            raise Mismatch(product(terms), Const(asked))
        if asked < each and count == 1:
            return (tail,)
        if asked < each and not isinstance(first, Const):
            self.strained = True
            fixed = self.freeze(product(terms), reason)
            return (Const(asked, reason), Const(fixed - asked, reason))
        origin = Reason(reason.text, reason.op, reason.location)
        self.freeze(first, reason)
        return tuple(
            p
            for p in (product([Const(copies, origin), tail]), product([Const(count - copies, origin), tail]))
            if p != Const(0)
        )

    def _freeze_both(self, left: Axis, right: Axis, reason: Reason) -> None:
        self.strained = True
        if self.freeze(left, reason) != self.freeze(right, reason):
            raise Mismatch(left, right)
        if polynomial(self.resolve(left)) != polynomial(self.resolve(right)):
            raise Mismatch(left, right)
