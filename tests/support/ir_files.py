"""Tests of passes as text: a graph, the pass, and what becomes of it or how it is refused.

    // Consumers of a width follow it.
    // pass: resize{a=24}
    graph @two_convs(%x: f32[N, 3, 8, 8]) {
      …
    }
    // ---- becomes
    graph @two_convs(%x: f32[N, 3, 8, 8]) {
      …
    }

A refusal stands on the line that it blames, in place of the lower half: `// error: …`, and `// mend: …` where the error
has one. `pytest --bless` rewrites the lower half, or the refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from nasc.compiler.network import Network
from nasc.ir import Graph, NascError, parse, text, verify
from support.networks import inputs_of, network_of

PASS, BECOMES, ERROR, MEND = "// pass: ", "// ---- becomes", "// error: ", "// mend: "
VERSION = "nasc 1\n"


@dataclass(frozen=True)
class Case:
    """One file.

    Args:
        pipeline: the passes.
        upper: the text above the divider, refusals left out.
        blamed: the index of the line in `upper` that a refusal stands behind; None: no refusal.
        expected: the lower half, or the lines of the refusal.
    """

    pipeline: str
    upper: tuple[str, ...]
    blamed: int | None
    expected: str

    @property
    def graph(self) -> Graph:
        """The graph of the upper half, which must be valid."""
        graph = parse(VERSION + "\n".join(self.upper))
        verify(graph)
        return graph

    @property
    def network(self) -> Network:
        """The graph with seeded random weights."""
        return network_of(self.graph)

    def __str__(self) -> str:
        if self.blamed is None:
            return "\n".join([*self.upper, BECOMES, self.expected]) + "\n"
        lines = [*self.upper[: self.blamed + 1], self.expected, *self.upper[self.blamed + 1 :]]
        return "\n".join(lines) + "\n"


def read(content: str) -> Case:
    """The case in a file's text."""
    above, divider, below = content.partition(BECOMES + "\n")
    lines = above.splitlines()
    said = [i for i, line in enumerate(lines) if line.lstrip().startswith((ERROR, MEND))]
    assert bool(divider) != bool(said), f"expected `{BECOMES}` or `{ERROR}…`"
    upper = tuple(line for i, line in enumerate(lines) if i not in said)
    pipeline = next(line for line in upper if line.startswith(PASS)).removeprefix(PASS)
    if divider:
        return Case(pipeline, upper, None, below.rstrip("\n"))
    return Case(pipeline, upper, said[0] - 1, "\n".join(lines[i] for i in said))


def applied(case: Case) -> Network:
    """The network that the pipeline makes of the case's, on seeded random data with two classes in turns."""
    x = inputs_of(case.graph, batch=64)
    return case.network.apply(case.pipeline, data=[x], train_data=(x, torch.arange(64) % 2))


def found(case: Case) -> Case:
    """The case with what really happens in place of what it expects."""
    if case.blamed is None:
        body = text(applied(case).graph).removeprefix(VERSION)
        return replace(case, expected=body.rstrip("\n"))
    try:
        applied(case)
    except NascError as error:
        indent = " " * (len(case.upper[case.blamed]) - len(case.upper[case.blamed].lstrip()))
        message = error.message.split("error: ", 1)[-1]
        lines = [ERROR + message.splitlines()[0], *([MEND + error.mend] if error.mend else [])]
        return replace(case, expected="\n".join(indent + line for line in lines))
    raise AssertionError(f"{case.pipeline} did not refuse this graph")


def blamed_value(case: Case) -> str | None:
    """The value that the blamed line defines, if it is an op's."""
    assert case.blamed is not None
    line = case.upper[case.blamed].strip()
    return line.split(":")[0].split(",")[0].removeprefix("%") if line.startswith("%") else None


def check_files(path: Path, bless: bool) -> None:
    """Hold a file against what happens, or rewrite it.

    Raises:
        AssertionError: something else happens than the file says.
    """
    content = path.read_text(encoding="utf-8")
    case = read(content)
    happened = found(case)
    if bless and str(happened) != content:
        path.write_text(str(happened), encoding="utf-8")
        return
    assert happened.expected == case.expected
    assert str(happened) == content
