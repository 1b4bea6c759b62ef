"""Find layers and widths by the names people use: a layer's name, a pattern, an op's kind, an alias of a width."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .axes import Axis, Const, widths_in
from .errors import UsageError, did_you_mean
from .graph import Graph, Op
from .rules import SPECS


def layers(graph: Graph) -> tuple[Op, ...]:
    """The ops that multiply an input with a weight, in order."""
    return tuple(op for op in graph.ops if is_layer(op))


def is_layer(op: Op) -> bool:
    """Whether an op multiplies an input with a weight."""
    return op.kind in SPECS and SPECS[op.kind].is_layer


def chosen_layers(graph: Graph, patterns: str | tuple[str, ...]) -> tuple[Op, ...]:
    """The layers that any pattern names: a layer's name, a shell-like pattern (`fc*`), or an op's kind (`linear`).

    Raises:
        UsageError: a pattern names none; the nearest names are offered.
    """
    every = layers(graph)
    wanted = (patterns,) if isinstance(patterns, str) else patterns
    for pattern in wanted:
        if not any(matches(op, pattern) for op in every):
            names = [op.name for op in every]
            raise UsageError(
                f"no layer matches {pattern!r}", mend=did_you_mean(pattern, [*names, *{o.kind for o in every}])
            )
    return tuple(op for op in every if any(matches(op, p) for p in wanted))


def matches(op: Op, pattern: str) -> bool:
    """Whether a pattern names this layer."""
    return fnmatchcase(op.name, pattern) or op.kind == pattern


def operand(op: Op, name: str) -> str | None:
    """The value an op reads as the operand `name`, or None where that operand is left out."""
    index = SPECS[op.kind].index(name)
    return op.inputs[index] if index < len(op.inputs) else None


def output_axis(graph: Graph, layer: Op) -> Axis:
    """The axis of the layer's weight that is its output."""
    spec = SPECS[layer.kind]
    assert spec.weight_axis is not None
    return graph.types[layer.inputs[spec.index("weight")]].axes[spec.weight_axis]


def width_named(graph: Graph, name: str) -> str:
    """The width that `name` means: a width's own name, or the name of a layer whose output is one width.

    Raises:
        UsageError: there is none; the reason is given where a layer has that name.
    """
    name = name.removeprefix("$")
    if name in graph.sizes:
        return name
    layer = next((op for op in layers(graph) if op.name == name), None)
    if layer is None:
        known = list(dict.fromkeys([*graph.sizes, *(op.name for op in layers(graph))]))
        raise UsageError(f"no width or layer is called {name!r}", mend=did_you_mean(name, known))
    axis = output_axis(graph, layer)
    found = list(dict.fromkeys(widths_in(axis)))
    if len(found) == 1:
        return found[0]
    if isinstance(axis, Const):
        raise UsageError(f"the width of {name} is fixed at {axis}", mend="`nasc space` shows what fixes it.")
    raise UsageError(f"the output of {name} is {axis}", mend=f"Name one of its widths: {', '.join(found)}.")


def aliases(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For each width, the layers whose output it is, in order."""
    found: dict[str, list[str]] = {name: [] for name in graph.sizes}
    for op in layers(graph):
        for width in dict.fromkeys(widths_in(output_axis(graph, op))):
            found[width].append(op.name)
    return {name: tuple(ops) for name, ops in found.items()}
