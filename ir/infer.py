"""Width inference: from a graph with numbers for lengths to one whose widths are free, with the reasons for the rest.

Every axis of every stored tensor starts as a width of its own; inputs and outputs of the graph are constants; the ops'
rules unify what must agree. What remains is named after the first layer that carries it and stands in the header.

Where channels are permuted the two readings of the rules differ (see `solver`); then the reading by size is taken if it
leaves more parameters free. `is_ordered` tells which of the two a graph's terms are, and `ordered_graph` gives the
exact reading that weights are gathered by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from .axes import Axes, Axis, Const, Product, Sum, Width, size, substitute, widths_in
from .errors import NascError
from .graph import STORED, Attribute, Graph, Op, canonical, fresh_name, is_axis
from .rules import SPECS, Fault, Site, attributes, encodings
from .solver import Reason, Solver
from .types import Type


@dataclass(frozen=True, slots=True)
class Frozen:
    """An axis of a stored tensor that cannot change.

    Args:
        value: the tensor's name.
        axis: which of its axes.
        size: its length.
        reason: what fixes it.
    """

    value: str
    axis: int
    size: int
    reason: Reason


@dataclass(frozen=True)
class Inference:
    """A graph over a free basis of widths, and what is fixed and why."""

    graph: Graph
    frozen: tuple[Frozen, ...]


def apply_rule(op: Op, types: Sequence[Type], solver: Solver, *, infer: bool) -> tuple[tuple[Type, ...], Op]:
    """The types of an op's results by its rule, and the op with its width-dependent attributes as terms.

    Raises:
        Fault: the operands or attributes break the rule.
    """
    spec = SPECS[op.kind]
    site = Site(op, spec, types, solver, infer=infer)
    axes = spec.rule(site)
    if len(axes) != len(op.results):
        raise Fault(f"it gives {len(axes)} results, found {len(op.results)}")
    stored = encodings(site, len(axes))
    results = tuple(Type(e.format, tuple(map(solver.resolve, a)), e.step) for a, e in zip(axes, stored, strict=True))
    if site.solved:
        solved = tuple((k, site.solved.get(k, v)) for k, v in op.attributes)
        solved = solved if infer else tuple((k, canonical(v)) for k, v in solved)
        op = op if solved == op.attributes else replace(op, attributes=solved)
    return results, op


def infer(graph: Graph, *, ordered: bool | None = None) -> Inference:
    """Find the free widths of a graph anew, whatever widths it had.

    Args:
        graph: a graph with all types.
        ordered: which reading of the rules to take; by default the one that leaves more parameters free, and the
            ordered one where both are alike.

    Raises:
        NascError: a rule gives other lengths than the graph has, which is a fault of the graph or of the rule.
    """
    exact, strained = _infer(graph, ordered=ordered is not False)
    if ordered is not None or not strained:
        return exact
    by_size, _ = _infer(graph, ordered=False)
    return by_size if _freedom(by_size) > _freedom(exact) else exact


def is_ordered(graph: Graph) -> bool:
    """Whether the graph's terms say exactly which index of an axis belongs to which width, also behind shuffles."""
    if (known := graph.__dict__.get("_ordered")) is None:
        known = _follows_order(graph)
        object.__setattr__(graph, "_ordered", known)
    return known


def ordered_graph(graph: Graph) -> Graph:
    """The graph by which weights are gathered: itself, or its ordered reading where channels are permuted."""
    if is_ordered(graph):
        return graph
    if (known := graph.__dict__.get("_ordered_graph")) is None:
        known = infer(graph, ordered=True).graph
        object.__setattr__(graph, "_ordered_graph", known)
    return known


def _follows_order(graph: Graph) -> bool:
    known, solver = graph.types, Solver(graph.sizes)
    for op in graph.ops:
        if op.kind not in STORED and op.kind in SPECS:
            try:
                types, _ = apply_rule(op, [known[n] for n in op.inputs], solver, infer=False)
            except Fault:
                return False
            if any(t.axes != known[n].axes for n, t in zip(op.results, types, strict=True)):
                return False
    return True


def _freedom(inference: Inference) -> tuple[float, int]:
    """How many parameters lie under free widths, to a percent, and how few widths there are."""
    graph = inference.graph
    counts = [(prod(size(a, graph.sizes) for a in o.type.axes), o) for o in graph.stored if o.kind == "weight"]
    free = sum(n for n, op in counts if any(True for a in op.type.axes for _ in widths_in(a)))
    return round(free / max(1, sum(n for n, _ in counts)), 2), -len(graph.widths)


def _infer(graph: Graph, *, ordered: bool) -> tuple[Inference, bool]:
    solver = Solver(ordered=ordered)
    types: dict[str, Type] = {}
    for entry in graph.inputs:
        reason = Reason(f"input %{entry.name} of the graph")
        types[entry.name] = replace(entry.type, axes=tuple(_constant(a, graph.sizes, reason) for a in entry.type.axes))
    ops: list[Op] = []
    for op in graph.ops:
        known = _concrete(op, graph.sizes)
        if op.kind in STORED:
            results = tuple(_stored(t, op, solver) for t in known.types)
        else:
            results, known = _through(known, [types[name] for name in op.inputs], solver)
        ops.append(known)
        types.update(zip(op.results, results, strict=True))
    for name in graph.outputs:
        reason = Reason(f"output %{name} of the graph")
        for axis in types[name].axes:
            solver.freeze(axis, reason)
    _freeze_unwritten(graph, types, solver)
    return _name(replace(graph, ops=tuple(ops)), types, solver), solver.strained


def _freeze_unwritten(graph: Graph, types: Mapping[str, Type], solver: Solver) -> None:
    """Fix the widths that only fixed tensors and the inputs of layers carry: nothing that is trained makes them."""
    reading: dict[str, set[int]] = {}
    for op in graph.ops:
        spec = SPECS.get(op.kind)
        if spec is not None and spec.input_axis is not None:
            reading.setdefault(op.inputs[spec.index("weight")], set()).add(spec.input_axis)
    written: set[str] = set()
    carried: dict[str, Op] = {}
    for op in graph.stored:
        for i, axis in enumerate(types[op.name].axes):
            for width in widths_in(solver.resolve(axis)):
                carried.setdefault(width, op)
                if op.kind == "weight" and i not in reading.get(op.name, ()):
                    written.add(width)
    for width, op in carried.items():
        if width not in written:
            text = f"%{op.name} is not trained, and no layer computes this axis"
            solver.freeze(Width(width), Reason(text, op.name, op.location))


def _constant(axis: Axis, sizes: Mapping[str, int], reason: Reason) -> Axis:
    fixed = substitute(axis, {name: Const(size) for name, size in sizes.items()})
    return Const(fixed.value, reason) if isinstance(fixed, Const) else fixed


def _concrete(op: Op, sizes: Mapping[str, int]) -> Op:
    """The op with its widths replaced by their sizes, in types and attributes."""
    values: dict[str, Axis] = {name: Const(size) for name, size in sizes.items()}
    types = tuple(replace(t, axes=tuple(substitute(a, values) for a in t.axes)) for t in op.types)
    return replace(op, types=types, attributes=tuple((k, _fill(v, values)) for k, v in op.attributes))


def _fill(value: Attribute, values: Mapping[str, Axis]) -> Attribute:
    if isinstance(value, tuple):
        return tuple(_fill(v, values) for v in value)
    if is_axis(value):
        return canonical(substitute(value, values))  # pyright: ignore[reportArgumentType]
    return value


def _stored(type: Type, op: Op, solver: Solver) -> Type:
    """A stored tensor: every axis a width of its own, but for indices and masks, whose lengths are fixed."""
    if type.format.is_float or type.quantized:
        return replace(type, axes=tuple(solver.fresh(solver.size(a)) for a in type.axes))
    reason = Reason(f"%{op.name} holds {type.format} values", op.name, op.location)
    return replace(type, axes=tuple(Const(solver.size(a), reason) for a in type.axes))


def _through(op: Op, types: list[Type], solver: Solver) -> tuple[tuple[Type, ...], Op]:
    """One op in inference; where it has no rule, what it reads is frozen."""
    if op.kind not in SPECS:
        reason = Reason(f"{op.kind} %{op.name}: no rule for this op", op.name, op.location)
        for type in types:
            for axis in type.axes:
                solver.freeze(axis, reason)
        return tuple(replace(t, axes=tuple(_mark(a, reason) for a in t.axes)) for t in op.types), op
    try:
        results, solved = apply_rule(op, types, solver, infer=True)
    except Fault as fault:
        raise NascError(f"{op.location or op.name}: error: {op.kind} %{op.name}: {fault.message}") from fault
    for result, declared in zip(results, op.types, strict=True):
        found = [solver.size(a) for a in result.axes]
        if found != [solver.size(a) for a in declared.axes]:
            raise NascError(
                f"{op.location or op.name}: error: {op.kind} %{op.name}: its rule gives {found}, the graph {declared}"
            )
    return results, solved


def _mark(axis: Axis, reason: Reason) -> Axis:
    return Const(axis.value, reason) if isinstance(axis, Const) else axis


def _name(graph: Graph, types: Mapping[str, Type], solver: Solver) -> Inference:
    """Give the free widths names, put them into the header, and collect what is frozen."""
    names: dict[str, str] = {}
    order: list[tuple[str, int]] = []
    taken: set[str] = set()

    def take(axis: Axis, wanted: str) -> None:
        free = [w for w in dict.fromkeys(widths_in(solver.resolve(axis))) if w not in names]
        for number, width in enumerate(free):
            behind = "" if len(free) == 1 else f".{solver.hint(width) or number}"
            name = fresh_name(wanted + behind, taken)
            taken.add(name)
            names[width] = name
            order.append((name, solver.size(Width(width))))

    for op in graph.ops:
        spec = SPECS.get(op.kind)
        if spec is not None and spec.weight_axis is not None:
            take(types[op.inputs[spec.index("weight")]].axes[spec.weight_axis], op.name)
    for op in graph.ops:
        if op.kind in STORED:
            for axis in types[op.name].axes:
                take(axis, op.name)
    for name, type in types.items():
        for axis in type.axes:
            take(axis, name)

    def final(axis: Axis) -> Axis:
        resolved = solver.resolve(axis)
        return plain(substitute(resolved, {w: Width(names[w]) for w in widths_in(resolved)}))

    def final_attribute(value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(final_attribute(v) for v in value)
        return canonical(final(value)) if is_axis(value) else value  # pyright: ignore[reportArgumentType]

    def final_axes(axes: Axes) -> Axes:
        return tuple(map(final, axes))

    ops = tuple(
        replace(
            op,
            types=tuple(replace(types[r], axes=final_axes(types[r].axes)) for r in op.results),
            attributes=attributes(op.kind, {k: final_attribute(v) for k, v in op.attributes}),
        )
        for op in graph.ops
    )
    frozen = tuple(
        Frozen(op.name, i, solver.size(axis), solver.reason(axis) or _single(op))
        for op in graph.ops
        if op.kind in STORED
        for i, axis in enumerate(types[op.name].axes)
        if isinstance(solver.resolve(axis), Const)
    )
    inputs = tuple(replace(i, type=replace(i.type, axes=final_axes(types[i.name].axes))) for i in graph.inputs)
    return Inference(replace(graph, inputs=inputs, widths=tuple(order), ops=ops), frozen)


def _single(op: Op) -> Reason:
    """Why an axis of length 1 is a constant from the start."""
    return Reason(f"%{op.name} has one entry along it", op.name, op.location)


def plain(axis: Axis) -> Axis:
    """The term without the origins of its constants."""
    match axis:
        case Const(value=value):
            return Const(value)
        case Product(terms):
            return Product(tuple(map(plain, terms)))
        case Sum(terms):
            return Sum(tuple(map(plain, terms)))
        case _:
            return axis
