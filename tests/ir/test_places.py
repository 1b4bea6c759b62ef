"""The user's line of ops that have none of their own."""

from __future__ import annotations

import pytest
from nasc.ir import parse
from nasc.ir.places import place

GRAPH = parse("""nasc 1
graph @g(%x: f32[N, 4]) {
  %w: f32[4, 4] = weight
  %free: f32[4] = weight
  %q: i8<2^-4>[N, 4] = quantize %x
  %a: f32[N, 4] = linear %q, %w at "net.py":5
  %b: f32[N, 4] = relu %a
  %c: f32[N, 4] = tanh %b at "net.py":7
  %d: i8<2^-4>[N, 4] = quantize %c
  return %d
}""")


@pytest.mark.parametrize(
    ("name", "line"),
    [("a", 5), ("w", 5), ("q", 5), ("b", 7), ("c", 7), ("d", 7), ("free", None)],
    ids=["own", "a weight", "added before", "added between", "own again", "at the end", "read by nothing"],
)
def test_places(name: str, line: int | None) -> None:
    found = place(GRAPH, GRAPH.producers[name])
    assert (found.line if found else None) == line
