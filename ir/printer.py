"""Print a graph. Nothing is elided; one change in meaning is one line of difference."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .formats import Format
from .graph import Attribute, Graph, Op, is_axis

VERSION = 1


def text(graph: Graph) -> str:
    """The graph as text, with a final newline; `parse` gives back an equal graph."""
    return "\n".join(lines(graph)) + "\n"


def lines(graph: Graph) -> Iterator[str]:
    """The lines of the printed graph."""
    yield f"nasc {VERSION}"
    inputs = ", ".join(f"%{i.name}: {i.type}" for i in graph.inputs)
    yield f"graph @{graph.name}({inputs}) {{"
    for name, size in graph.widths:
        yield f"  width ${name} = {size}"
    for op in graph.ops:
        yield f"  {op_text(op)}"
    yield f"  return {', '.join('%' + name for name in graph.outputs)}"
    yield "}"


def op_text(op: Op) -> str:
    """One op as its line, without indentation."""
    results = ", ".join(f"%{name}" for name in op.results)
    types = ", ".join(map(str, op.types))
    inputs = ", ".join(f"%{name}" for name in op.inputs)
    line = f"{results}: {types} = {op.kind}" + (f" {inputs}" if inputs else "")
    if op.attributes:
        line += " {" + ", ".join(f"{k}={attribute_text(v)}" for k, v in op.attributes) + "}"
    if op.location:
        line += f" at {json.dumps(op.location.file, ensure_ascii=False)}:{op.location.line}"
    return line


def attribute_text(value: Attribute) -> str:
    """An attribute's value as it stands in the text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(attribute_text, value)) + "]"
    if isinstance(value, Format):
        return value.name
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return repr(value)
    if is_axis(value) or isinstance(value, int):
        return str(value)
    raise TypeError(f"no text for an attribute of type {type(value).__name__}")
