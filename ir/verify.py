"""Check a graph, and recompute its types: every pass leaves through here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import cast

from .axes import Axis, has_batch, widths_in
from .errors import NascError
from .graph import CHECKED, STORED, Attribute, Graph, Op, is_axis
from .infer import apply_rule
from .layers import operand
from .printer import op_text
from .rules import SPECS, Fault
from .solver import Solver
from .types import Step, Type

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*")
"""What a value or a width may be called."""
GRAPH_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
"""What a graph may be called."""


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
    if hasattr(graph, CHECKED):
        return
    faults = _header_faults(graph)
    known: dict[str, Type] = {}
    solver = Solver(graph.sizes, ordered=False)
    for entry in graph.inputs:
        if entry.name in known:
            faults.append(f"graph @{graph.name}: error: %{entry.name} is defined twice")
        if entry.type.step is None and entry.type.format.needs_step:
            place = f"graph @{graph.name}: error: %{entry.name}"
            faults.append(f"{place}: {entry.type.format} numbers need a step, found {entry.type}")
        known[entry.name] = entry.type
    for op in graph.ops:
        faults += _op_faults(op, known, graph.sizes, solver)
        faults += [report(op, fault) for fault in _bias_faults(graph, op)]
        known.update(zip(op.results, op.types, strict=True))
    faults += [
        f"graph @{graph.name}: error: it returns %{n}, which nothing defines" for n in graph.outputs if n not in known
    ]
    if faults:
        raise InvalidGraph(faults, after)
    object.__setattr__(graph, CHECKED, True)


def retype(graph: Graph, before: Graph | None = None) -> Graph:
    """The graph with the result types of all ops recomputed, and without the widths that no value carries.

    Args:
        graph: a graph whose result types may be out of date.
        before: a valid graph that it was made from: ops that stand in both and read the same types keep theirs.

    Raises:
        InvalidGraph: an op breaks its rule.
    """
    known: dict[str, Type] = {i.name: i.type for i in graph.inputs}
    ops: list[Op] = []
    faults: list[str] = []
    solver = Solver(graph.sizes, ordered=False)
    same = before is not None and before.widths == graph.widths
    old, old_types = (before.producers, before.types) if before is not None and same else ({}, {})
    for op in graph.ops:
        held = old.get(op.results[0]) is op
        if held:
            for name in op.inputs:
                if known[name] is not old_types[name]:
                    held = False
                    break
        if not held and op.kind in SPECS and op.kind not in STORED:
            try:
                types, op = apply_rule(op, [known[n] for n in op.inputs], solver, infer=False)
                op = op if types == op.types else replace(op, types=types)
            except Fault as fault:
                faults.append(report(op, fault))
        if not held:
            faults += _op_faults(op, known, graph.sizes)
        ops.append(op)
        if len(op.results) == 1:
            known[op.results[0]] = op.types[0]
        else:
            known.update(zip(op.results, op.types, strict=True))
    if faults:
        raise InvalidGraph(faults)
    widths = graph.widths
    if before is None or before.producers.keys() - known.keys():
        used = {w for t in known.values() for axis in t.axes for w in widths_in(axis)}
        widths = tuple((n, s) for n, s in widths if n in used)
    typed = replace(graph, ops=tuple(ops), widths=widths)
    names = sum(len(op.results) for op in ops) + len(graph.inputs)
    if len(known) == names and all(name in known for name in graph.outputs):
        object.__setattr__(typed, CHECKED, True)
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
    asked = {w for op in graph.ops for _, value in op.attributes for w in _widths_asked(value)}
    place = f"graph @{graph.name}: error:"
    if not GRAPH_NAME.fullmatch(graph.name):
        faults.append(f"{place} the graph's name has characters that the text cannot hold")
    for name in [*(n for n, _ in graph.widths), *graph.types]:
        if not NAME.fullmatch(name):
            faults.append(f"{place} the name {name!r} has characters that the text cannot hold")
    for name, size in graph.widths:
        if name in seen:
            faults.append(f"{place} width ${name} is declared twice")
        seen.add(name)
        if size < 1:
            faults.append(f"{place} width ${name} must be at least 1, found {size}")
        if name not in used:
            faults.append(f"{place} width ${name} is declared and no value carries it")
    for name in sorted((used | asked) - seen):
        faults.append(f"{place} width ${name} is used and not declared")
    if not graph.outputs:
        faults.append(f"{place} it returns nothing")
    return faults


def _widths_asked(value: Attribute) -> Iterator[str]:
    """The widths in an attribute's value."""
    if isinstance(value, tuple):
        for item in value:
            yield from _widths_asked(item)
    elif is_axis(value):
        yield from widths_in(cast(Axis, value))


def _op_faults(op: Op, known: Mapping[str, Type], sizes: Mapping[str, int], solver: Solver | None = None) -> list[str]:
    """What is wrong with an op; with a solver, its types are held against its rule too."""
    if missing := [n for n in op.inputs if n not in known]:
        return [report(op, Fault(f"it reads %{n}, which nothing before it defines", n)) for n in missing]
    faults = [report(op, Fault(f"%{n} is defined twice")) for n in op.results if n in known]
    faults += [report(op, fault) for fault in _encoding_faults(op)]
    if op.kind in STORED:
        return faults
    widths = set[str]() if solver is None else {w for n in op.inputs for axis in known[n].axes for w in widths_in(axis)}
    if solver is not None:
        widths |= {w for _, value in op.attributes for w in _widths_asked(value)}
    if any(sizes.get(width, 0) < 1 for width in widths):
        return faults
    if op.kind not in SPECS:
        return faults if op.kind.startswith("aten.") else [*faults, report(op, Fault("there is no such op"))]
    if solver is None:
        return faults
    try:
        types, _ = apply_rule(op, [known[n] for n in op.inputs], solver, infer=False)
    except Fault as fault:
        return [*faults, report(op, fault)]
    for name, found, expected in zip(op.results, op.types, types, strict=True):
        if found != expected:
            faults.append(report(op, Fault(f"%{name} is declared {found}, its operands give {expected}")))
    return faults


def _encoding_faults(op: Op) -> Iterator[Fault]:
    """What is wrong with how a stored or a quantized value is written."""
    type, step = op.type, op.type.step
    if op.kind in STORED:
        if op.inputs:
            yield Fault(f"{op.kind} reads nothing, found {len(op.inputs)} operands")
        if any(map(has_batch, type.axes)):
            yield Fault(f"a stored tensor cannot have the length of the batch, found {type}")
        if step is not None and step.zero != 0:
            yield from _zero_faults(type, step)
    elif op.kind == "quantize":
        if step is None or not type.format.takes_step:
            yield Fault(f"quantize gives codes with a step, found {type.encoding}")
        elif step.axis is not None and step.block is None:
            yield Fault(f"quantize has one step for the whole tensor or one per block, found {type.encoding}")
        elif step.zero is not None and step.block is None and not _holds(type, step.zero):
            low, high = type.format.low, type.format.high
            yield Fault(f"the zero {step.zero} is outside of {type.format}'s codes {low} to {high}")
        elif step.zeros:
            yield Fault(f"only stored tensors have zeros of their own in each block, found {type.encoding}")
        elif step.block is not None and not step.known:
            yield Fault(f"the steps of an activation's blocks are taken from its values, found {type.encoding}")
    if op.kind in (*STORED, "quantize") and step is not None:
        yield from _axis_faults(type, step)
    elif op.kind != "quantize":
        for bare in (t for t in op.types if t.step is None and t.format.needs_step):
            yield Fault(f"{bare.format} numbers need a step, found {bare.encoding}")


def _holds(type: Type, zero: int) -> bool:
    """Whether a zero is a code; formats that are no integers always have the element 0."""
    return type.format.low <= zero <= type.format.high if type.format.is_int else zero == 0


def _zero_faults(type: Type, step: Step) -> Iterator[Fault]:
    """What is wrong with the zeros of stored codes that are not 0."""
    if type.format.family != "int" or type.format.bits > 16 or step.shared:
        yield Fault(f"only integers of 2 to 16 bits without shared exponents have another zero than 0, found {type}")
    elif step.several and step.zero is not None:
        yield Fault(f"each of several steps has a zero of its own, found one zero {step.zero} for {type.encoding}")
    elif step.zero is not None and not _holds(type, step.zero):
        low, high = type.format.low, type.format.high
        yield Fault(f"the zero {step.zero} is outside of {type.format}'s codes {low} to {high}")


def _bias_faults(graph: Graph, op: Op) -> Iterator[Fault]:
    """What is wrong with a stored bias that a layer reads: integer kernels add its codes as they are."""
    if op.kind not in SPECS or not SPECS[op.kind].is_layer or (name := operand(op, "bias")) is None:
        return
    made = graph.producers.get(name)
    if made is not None and made.kind in STORED and made.type.step is not None and made.type.step.zero != 0:
        yield Fault(f"biases are symmetric, their zero is 0; %{name} is {made.type.encoding}", name)


def _axis_faults(type: Type, step: Step) -> Iterator[Fault]:
    """What is wrong with the axis that steps run along."""
    if step.axis is None:
        if step.block is not None:
            yield Fault(f"blocks run along an axis, such as <block {step.block} on 1>; found {type.encoding}")
    elif step.axis >= type.rank:
        yield Fault(f"one step per index of axis {step.axis}, found {type.rank} axes")
    elif step.block is not None and has_batch(type.axes[step.axis]):
        yield Fault(f"blocks cannot run along the batch, found {type}")
