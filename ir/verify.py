"""Check a graph, and recompute its types: every pass leaves through here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .axes import widths_in
from .errors import NascError
from .graph import STORED, Graph, Op
from .infer import apply_rule
from .printer import op_text
from .rules import SPECS, Fault
from .solver import Solver
from .types import Type

TYPED = "_typed"
"""Set on a graph object whose types `retype` has just computed; it is frozen, so they stay right."""


class InvalidGraph(NascError):
    """A graph breaks a rule of the IR; holds every fault found.

    Args:
        faults: one message each.
        after: the pass that ran last, if any.
    """

    def __init__(self, faults: list[str], after: str | None = None) -> None:
        self.faults = faults
        super().__init__("\n".join(faults) + (f"\n  after {after}" if after else ""))


def verify(graph: Graph, after: str | None = None) -> None:
    """Check names, order, widths, operands, attributes and types.

    Raises:
        InvalidGraph: with all faults, each at the user's line.
    """
    faults = [*_header_faults(graph)]
    known: dict[str, Type] = {}
    for entry in graph.inputs:
        if entry.name in known:
            faults.append(f"graph @{graph.name}: error: %{entry.name} is defined twice")
        known[entry.name] = entry.type
    for op in graph.ops:
        faults += _op_faults(op, known, graph.sizes, typed=hasattr(graph, TYPED))
        known.update(zip(op.results, op.types, strict=True))
    faults += [
        f"graph @{graph.name}: error: it returns %{n}, which nothing defines" for n in graph.outputs if n not in known
    ]
    if faults:
        raise InvalidGraph(faults, after)


def retype(graph: Graph) -> Graph:
    """The graph with the result types of all ops recomputed, and without the widths that no value carries.

    Raises:
        InvalidGraph: an op breaks its rule.
    """
    known: dict[str, Type] = {i.name: i.type for i in graph.inputs}
    ops: list[Op] = []
    faults: list[str] = []
    for op in graph.ops:
        if op.kind in SPECS and op.kind not in STORED:
            try:
                types, op = apply_rule(op, [known[n] for n in op.inputs], Solver(graph.sizes, ordered=False), infer=False)
                op = replace(op, types=types)
            except Fault as fault:
                faults.append(report(op, fault))
        ops.append(op)
        known.update(zip(op.results, op.types, strict=True))
    if faults:
        raise InvalidGraph(faults)
    used = {w for t in known.values() for axis in t.axes for w in widths_in(axis)}
    typed = replace(graph, ops=tuple(ops), widths=tuple((n, s) for n, s in graph.widths if n in used))
    object.__setattr__(typed, TYPED, True)
    return typed


def report(op: Op, fault: Fault) -> str:
    """A fault at the user's line, with the op's own line and the operand to blame underlined."""
    line = op_text(replace(op, location=None))
    message = f"{op.location or '%' + op.name}: error: {op.kind} %{op.name}: {fault.message}\n  {line}"
    if fault.operand and (at := line.find("%" + fault.operand, line.find(" = "))) >= 0:
        message += f"\n  {' ' * at}{'^' * (len(fault.operand) + 1)}"
    return message


def _header_faults(graph: Graph) -> list[str]:
    faults: list[str] = []
    seen: set[str] = set()
    used = {w for t in graph.types.values() for axis in t.axes for w in widths_in(axis)}
    place = f"graph @{graph.name}: error:"
    for name, size in graph.widths:
        if name in seen:
            faults.append(f"{place} width ${name} is declared twice")
        seen.add(name)
        if size < 1:
            faults.append(f"{place} width ${name} must be at least 1, found {size}")
        if name not in used:
            faults.append(f"{place} width ${name} is declared and no value carries it")
    for name in sorted(used - seen):
        faults.append(f"{place} width ${name} is used and not declared")
    if not graph.outputs:
        faults.append(f"{place} it returns nothing")
    return faults


def _op_faults(op: Op, known: Mapping[str, Type], sizes: Mapping[str, int], *, typed: bool) -> list[str]:
    if missing := [n for n in op.inputs if n not in known]:
        return [report(op, Fault(f"it reads %{n}, which nothing before it defines", n)) for n in missing]
    faults = [report(op, Fault(f"%{n} is defined twice")) for n in op.results if n in known]
    if any(w not in sizes or sizes[w] < 1 for n in op.inputs for a in known[n].axes for w in widths_in(a)):
        return faults
    if op.kind in STORED:
        return faults + (
            [report(op, Fault(f"{op.kind} reads nothing, found {len(op.inputs)} operands"))] if op.inputs else []
        )
    faults += _step_faults(op)
    if op.kind not in SPECS:
        return faults if op.kind.startswith("aten.") else [*faults, report(op, Fault("there is no such op"))]
    if typed:
        return faults
    try:
        types, _ = apply_rule(op, [known[n] for n in op.inputs], Solver(sizes, ordered=False), infer=False)
    except Fault as fault:
        return [*faults, report(op, fault)]
    for name, found, expected in zip(op.results, op.types, types, strict=True):
        if found != expected:
            faults.append(report(op, Fault(f"%{name} is declared {found}, its operands give {expected}")))
    return faults


def _step_faults(op: Op) -> list[str]:
    if op.kind != "quantize":
        return []
    type = op.type
    if type.step is None or not type.format.is_int:
        return [report(op, Fault(f"quantize gives integers with a step, found {type.encoding}"))]
    zero = type.step.zero
    if zero is not None and not type.format.low <= zero <= type.format.high:
        return [
            report(
                op,
                Fault(f"the zero {zero} is outside of {type.format}'s codes {type.format.low} to {type.format.high}"),
            )
        ]
    return []
