"""Digests are equal for equal meaning, and for nothing else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from nasc.ir import Graph, Location, graph_digest, parse, structure_digest, text
from support.drawing import graphs
from support.graphs import graph_of

LINES = """
    %q: u8<0.1, 3>[N, 16] = quantize %x
    %w: i4<per 0>[$a, 16] = weight
    %y: f32[N, $a] = linear %q, %w
"""


def test_locations_and_the_graphs_name_do_not_matter() -> None:
    graph = graph_of(LINES, a=8)
    ops = tuple(replace(op, location=Location("net.py", 3)) for op in graph.ops)
    other = replace(graph, name="another", ops=ops)
    assert graph_digest(other) == graph_digest(graph)
    assert structure_digest(other) == structure_digest(graph)


def test_sizes_names_and_formats_matter() -> None:
    graph = graph_of(LINES, a=8)
    others = [
        graph.with_sizes({"a": 9}),
        graph_of(LINES.replace("i4", "i5"), a=8),
        graph_of(LINES.replace("%q", "%p"), a=8),
        graph_of(LINES.replace("0.1, 3", "?, ?").replace("u8", "i8"), a=8),
    ]
    for digest in (graph_digest, structure_digest):
        assert len({digest(g) for g in [graph, *others]}) == 5


def test_the_structure_ignores_steps_and_nothing_more() -> None:
    graph = graph_of(LINES, a=8)
    same = [LINES.replace("0.1, 3", step) for step in ("0.2, 7", "2^-3, 3", "?, ?", "2^?, ?")]
    same.append(LINES.replace("per 0", "per 0 ?"))
    for lines in same:
        assert graph_digest(graph_of(lines, a=8)) != graph_digest(graph)
        assert structure_digest(graph_of(lines, a=8)) == structure_digest(graph)
    assert structure_digest(graph_of(LINES.replace("0.1, 3", "0.1"), a=8)) != structure_digest(graph)


def test_steps_of_inputs_are_steps() -> None:
    known, unknown = (graph_of("%y: f32[N] = relu %x", f"%x: u8<{step}>[N]") for step in ("0.3", "?"))
    assert graph_digest(known) != graph_digest(unknown)
    assert structure_digest(known) == structure_digest(unknown)


@given(graphs())
@settings(max_examples=15)
def test_a_digest_survives_the_text(graph: Graph) -> None:
    assert graph_digest(parse(text(graph))) == graph_digest(graph)
    assert structure_digest(parse(text(graph))) == structure_digest(graph)
