"""The verifier reports every fault, each at the user's line, as docs/ir.md shows it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from nasc.ir import Graph, InvalidGraph, Location, Op, Type, rebuilt, retype, verify
from nasc.ir.axes import Const
from nasc.ir.formats import F32
from support.graphs import graph_of


def faults(graph: Graph) -> list[str]:
    """All faults of a graph."""
    with pytest.raises(InvalidGraph) as caught:
        verify(graph)
    return caught.value.faults


def test_the_format_of_a_report() -> None:
    graph = graph_of(
        """
        %body.w: f32[$stem, 16, 3, 3] = weight at "tiny_cnn.py":10
        %body: f32[N, $stem, 16, 16] = conv2d %pool, %body.w {padding=[1, 1]} at "tiny_cnn.py":24
        """,
        "%pool: f32[N, $stem, 16, 16]",
        stem=24,
    )
    with pytest.raises(InvalidGraph) as caught:
        verify(graph, after="resize{stem=24}")
    assert str(caught.value) == "\n".join(
        [
            "tiny_cnn.py:24: error: conv2d %body: input %pool has $stem = 24 channels, weight %body.w expects 16",
            "  %body: f32[N, $stem, 16, 16] = conv2d %pool, %body.w {padding=[1, 1]}",
            "                                        ^^^^^",
            "  after resize{stem=24}",
        ]
    )


def test_an_op_without_a_line_is_named() -> None:
    assert faults(graph_of("%y: f32[N, 17] = relu %x")) == [
        "%y: error: relu %y: %y is declared f32[N, 17], its operands give f32[N, 16]\n  %y: f32[N, 17] = relu %x"
    ]


def test_all_faults_are_collected() -> None:
    graph = graph_of(
        """
        %w: f32[5, 8] = weight
        %a: f32[N, 5] = linear %x, %w
        %b: f32[N, 3] = relu %a
        %a: f32[N, 16] = relu %x
        %c: f32[N, 16] = relu %nothing
        %d: f32[N, 16] = surprise %x
        return %d, %gone
        """,
        unused=4,
    )
    found = [f.split(": error: ", 1)[1].splitlines()[0] for f in faults(graph)]
    assert found == [
        "width $unused is declared and no value carries it",
        "linear %a: input %x has 16 features, weight %w expects 8",
        "relu %b: %b is declared f32[N, 3], its operands give f32[N, 5]",
        "relu %a: %a is defined twice",
        "relu %c: it reads %nothing, which nothing before it defines",
        "surprise %d: there is no such op",
        "it returns %gone, which nothing defines",
    ]


ONE_FAULT = [
    ("%y: f32[N, 16] = relu %x\nreturn", "it returns nothing"),
    ("%y: f32[N, $b] = aten.odd.default %x", "width $b is used and not declared"),
    ("%y: f32[N, 16] = reshape %x {shape=[N, $b]}", "width $b is used and not declared"),
    ("%x: f32[N, 16] = relu %x", "relu %x: %x is defined twice"),
    ("%y: f32[N, 16] = relu %y", "relu %y: it reads %y, which nothing before it defines"),
    ("%w: f32[4] = weight %x\nreturn %x", "weight %w: weight reads nothing, found 1 operands"),
    (
        "%w: f32[N, 4] = weight\nreturn %x",
        "weight %w: a stored tensor cannot have the length of the batch, found f32[N, 4]",
    ),
    ("%w: i4<0.5, 8>[4] = weight", "weight %w: the zero 8 is outside of i4's codes -8 to 7"),
    (
        "%w: f32[4, 16] = weight\n%b: u8<0.5, 3>[4] = weight\n%y: f32[N, 4] = linear %x, %w, %b",
        "linear %y: biases are symmetric, their zero is 0; %b is u8<2^-1, 3>",
    ),
    (
        "%y: u4<block 8 on 1, zeros>[N, 16] = quantize %x",
        "quantize %y: only stored tensors have zeros of their own in each block, found u4<block 8 on 1, zeros>",
    ),
    ("%w: i4<per 1>[4] = buffer", "buffer %w: one step per index of axis 1, found 1 axes"),
    ("%y: f32[N, 16] = quantize %x", "quantize %y: quantize gives codes with a step, found f32"),
    ("%y: u8[N, 16] = quantize %x", "quantize %y: quantize gives codes with a step, found u8"),
    (
        "%y: u8<per 1 ?>[N, 16] = quantize %x",
        "quantize %y: quantize has one step for the whole tensor or one per block, found u8<per 1 ?>",
    ),
    (
        "%y: i4<block 8 on 2>[N, 16] = quantize %x",
        "quantize %y: one step per index of axis 2, found 2 axes",
    ),
    (
        "%y: i4<block 8 on 0>[N, 16] = quantize %x",
        "quantize %y: blocks cannot run along the batch, found i4<block 8 on 0>[N, 16]",
    ),
    (
        "%y: i4<block 8>[N, 16] = quantize %x",
        "quantize %y: blocks run along an axis, such as <block 8 on 1>; found i4<block 8>",
    ),
    (
        "%y: i4<block 8 on 1 ?>[N, 16] = quantize %x",
        "quantize %y: the steps of an activation's blocks are taken from its values, found i4<block 8 on 1 ?>",
    ),
    ("%w: f4e2m1[4] = weight", "weight %w: f4e2m1 numbers need a step, found f4e2m1"),
    ("%y: ternary[N, 16] = cast %x", "cast %y: ternary numbers need a step, found ternary"),
    ("%y: l4[N, 16] = quantize %x", "quantize %y: quantize gives codes with a step, found l4"),
    ("%y: u8<0.5, 256>[N, 16] = quantize %x", "quantize %y: the zero 256 is outside of u8's codes 0 to 255"),
    ("%y: i4<0.5, -9>[N, 16] = quantize %x", "quantize %y: the zero -9 is outside of i4's codes -8 to 7"),
]


@pytest.mark.parametrize(("lines", "message"), ONE_FAULT)
def test_one_fault_is_one_report(lines: str, message: str) -> None:
    (found,) = faults(graph_of(lines))
    assert found.split(": error: ", 1)[1].splitlines()[0] == message


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((("a", 16), ("a", 16)), "width $a is declared twice"),
        ((("a", 0),), "width $a must be at least 1, found 0"),
        ((("a b", 16),), "the name 'a b' has characters that the text cannot hold"),
    ],
)
def test_the_header(widths: tuple[tuple[str, int], ...], message: str) -> None:
    graph = graph_of("%y: f32[N, $a] = relu %x", "%x: f32[N, $a]", a=16)
    assert any(f.endswith(f"error: {message}") for f in faults(replace(graph, widths=widths)))


@pytest.mark.parametrize("name", ["a-b", "a b", "", "é", ".a", "%a"])
def test_names_that_the_text_cannot_hold(name: str) -> None:
    graph = graph_of("%y: f32[N, 16] = relu %x")
    op = replace(graph.ops[0], results=(name,))
    assert f"the name {name!r} has characters" in faults(replace(graph, ops=(op,), outputs=(name,)))[0]


def test_a_name_of_a_graph_that_the_text_cannot_hold() -> None:
    graph = replace(graph_of("%y: f32[N, 16] = relu %x"), name="my net")
    assert faults(graph) == ["graph @my net: error: the graph's name has characters that the text cannot hold"]


def test_inputs_are_distinct() -> None:
    assert faults(graph_of("%y: f32[N] = relu %x", "%x: f32[N], %x: f32[N]")) == [
        "graph @net: error: %x is defined twice"
    ]


def test_ops_without_a_rule_are_taken_as_declared() -> None:
    verify(graph_of("%y: f32[N, 3] = aten.whatever.default %x"))


def test_only_the_operand_to_blame_is_underlined() -> None:
    graph = graph_of("%c: f32[4] = weight\n%w: f32[5, 16] = weight\n%y: f32[N, 5] = linear %x, %w, %c")
    assert faults(graph)[0].splitlines()[1:] == [
        "  %y: f32[N, 5] = linear %x, %w, %c",
        "                                 ^^",
    ]


def test_retyping_brings_types_up_to_date_and_drops_widths_that_nothing_carries() -> None:
    stale = graph_of("%y: f32[N, 4] = relu %x\n%z: f32[3] = relu %y", "%x: f32[N, $a]", a=6, b=8)
    fresh = retype(stale)
    assert [str(op.type) for op in fresh.ops] == ["f32[N, $a]"] * 2
    assert fresh.widths == (("a", 6),)
    verify(fresh)


def test_retyping_reports_all_faults() -> None:
    graph = graph_of("%w: f32[5, 8] = weight\n%a: f32[N, 5] = linear %x, %w\n%b: f32[N, 5] = linear %x, %w")
    with pytest.raises(InvalidGraph) as caught:
        retype(graph)
    assert len(caught.value.faults) == 2


def test_what_retyping_knows_does_not_outlive_a_change() -> None:
    """`verify` trusts a graph that `retype` has just typed, and no graph that was made from it."""
    graph = retype(graph_of("%w: f32[5, 16] = weight\n%y: f32[N, 5] = linear %x, %w"))
    verify(graph)
    wrong = replace(graph.ops[1], types=(Type(F32, (Const(3),)),))
    with pytest.raises(InvalidGraph):
        verify(replace(graph, ops=(graph.ops[0], wrong)))
    narrower = replace(graph.ops[0], types=(Type(F32, (Const(5), Const(8))),))
    with pytest.raises(InvalidGraph):
        verify(replace(graph, ops=(narrower, graph.ops[1])))


def test_rebuilding_drops_dead_code_and_keeps_what_did_not_change() -> None:
    graph = graph_of("%a: f32[N, 16] = relu %x\n%dead: f32[N, 16] = exp %a\n%b: f32[N, 16] = neg %a")
    new = rebuilt(graph, graph.ops)
    assert [op.name for op in new.ops] == ["a", "b"]
    assert new.ops[0] is graph.ops[0]


def test_rebuilding_types_all_that_reads_a_changed_op() -> None:
    graph = retype(graph_of("%q: u8<0.5>[N, 16] = quantize %x\n%r: u8<0.5>[N, 4, 4] = reshape %q {shape=[N, 4, 4]}"))
    q = graph.ops[0].with_type(replace(graph.ops[0].type, step=graph.ops[0].type.step.forget()))  # type: ignore[union-attr]
    assert str(rebuilt(graph, [q, graph.ops[1]]).types["r"]) == "u8<2^?>[N, 4, 4]"


def test_graphs_are_frozen_comparable_and_picklable() -> None:
    graph = retype(graph_of("%a: f32[N, 16] = relu %x"))
    with pytest.raises(AttributeError):
        graph.name = "other"  # type: ignore[misc]
    assert graph == graph_of("%a: f32[N, 16] = relu %x")
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert hash(graph) == hash(graph_of("%a: f32[N, 16] = relu %x"))


def test_locations_take_part_in_equality_and_not_in_meaning() -> None:
    graph = graph_of("%a: f32[N, 16] = relu %x")
    placed = replace(graph, ops=(replace(graph.ops[0], location=Location("a.py", 1)),))
    assert placed != graph and placed.without_locations() == graph


def test_views_of_a_graph() -> None:
    graph = graph_of("%w: f32[5, 16] = weight\n%y: f32[N, 5] = linear %x, %w\n%z: f32[N, 5] = add %y, %y")
    assert [op.name for op in graph.stored] == ["w"]
    assert set(graph.types) == {"x", "w", "y", "z"}
    assert graph.producers["y"].kind == "linear" and "x" not in graph.producers
    assert [op.name for op in graph.readers["y"]] == ["z"] and "z" not in graph.readers
    assert isinstance(graph.ops[0], Op) and graph.ops[0].attribute("none", 3) == 3
