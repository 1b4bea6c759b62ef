"""Layers and widths by the names people use."""

from __future__ import annotations

import pytest
from nasc.ir import UsageError, aliases, chosen_layers, infer, layers, operand, output_axis, width_named
from support.graphs import graph_of

GRAPH = infer(
    graph_of(
        """
        %body.0.w: f32[8, 3, 1, 1] = weight
        %body.0: f32[N, 8, 4, 4] = conv2d %x, %body.0.w
        %body.1.w: f32[8, 8, 1, 1] = weight
        %body.1: f32[N, 8, 4, 4] = conv2d %body.0, %body.1.w
        %sum: f32[N, 8, 4, 4] = add %body.0, %body.1
        %g.w: f32[12, 2, 1, 1] = weight
        %g: f32[N, 12, 4, 4] = conv2d %sum, %g.w {groups=4}
        %flat: f32[N, 192] = reshape %g {shape=[N, 192]}
        %head.w: f32[5, 192] = weight
        %head.b: f32[5] = weight
        %head: f32[N, 5] = linear %flat, %head.w, %head.b
        """,
        "%x: f32[N, 3, 4, 4]",
    )
).graph


def names(*patterns: str) -> list[str]:
    return [op.name for op in chosen_layers(GRAPH, patterns)]


def test_layers_are_the_ops_with_weights_in_order() -> None:
    assert [op.name for op in layers(GRAPH)] == ["body.0", "body.1", "g", "head"]


def test_layers_by_name_pattern_and_kind() -> None:
    assert names("head") == ["head"]
    assert names("body.*", "head") == ["body.0", "body.1", "head"]
    assert names("conv2d") == ["body.0", "body.1", "g"]
    assert names("*") == ["body.0", "body.1", "g", "head"]
    assert names("head", "body.[1]") == ["body.1", "head"]


@pytest.mark.parametrize(
    ("pattern", "mend"),
    [
        ("haed", "Did you mean head?"),
        ("linera", "Did you mean linear?"),
        ("zzz", "Known here: body.0, body.1, g, head, "),
    ],
)
def test_a_pattern_that_names_no_layer(pattern: str, mend: str) -> None:
    with pytest.raises(UsageError) as caught:
        names("head", pattern)
    assert caught.value.message == f"no layer matches {pattern!r}"
    assert (caught.value.mend or "").startswith(mend)


def test_a_width_answers_to_its_own_name_and_to_the_layers_that_carry_it() -> None:
    graph = infer(
        graph_of(
            """
            %w: f32[8, 16] = weight
            %a: f32[N, 8] = linear %x, %w
            %v: f32[8, 8] = weight
            %b: f32[N, 8] = linear %a, %v
            %sum: f32[N, 8] = add %a, %b
            %u: f32[5, 8] = weight
            %c: f32[N, 5] = linear %sum, %u
            """
        )
    ).graph
    assert graph.widths == (("a", 8),)
    assert width_named(graph, "a") == width_named(graph, "$a") == width_named(graph, "b") == "a"
    assert aliases(graph) == {"a": ("a", "b")}


@pytest.mark.parametrize(
    ("name", "message", "mend"),
    [
        ("head", "the width of head is fixed at 5", "`nasc space` shows what fixes it."),
        ("body", "no width or layer is called 'body'", "Did you mean body."),
    ],
)
def test_names_that_are_no_width(name: str, message: str, mend: str) -> None:
    with pytest.raises(UsageError) as caught:
        width_named(GRAPH, name)
    assert caught.value.message == message
    assert (caught.value.mend or "").startswith(mend)


def test_a_layer_with_two_widths_asks_for_one_of_them() -> None:
    graph = graph_of(
        """
        %w: f32[$groups*$each, 2, 1, 1] = weight
        %layer: f32[N, $groups*$each, 4, 4] = conv2d %x, %w {groups=$groups}
        """,
        "%x: f32[N, $groups*2, 4, 4]",
        groups=4,
        each=3,
    )
    with pytest.raises(UsageError) as caught:
        width_named(graph, "layer")
    assert caught.value.message == "the output of layer is $groups*$each"
    assert caught.value.mend == "Name one of its widths: groups, each."


def test_aliases_list_the_layers_of_each_width() -> None:
    found = aliases(GRAPH)
    assert set(found) == set(GRAPH.sizes)
    assert all(layer in {op.name for op in layers(GRAPH)} for named in found.values() for layer in named)
    assert "g" in found["g"]


def test_operands_by_name() -> None:
    head = GRAPH.producers["head"]
    assert operand(head, "weight") == "head.w" and operand(head, "bias") == "head.b"
    assert operand(GRAPH.producers["g"], "bias") is None
    assert str(output_axis(GRAPH, head)) == "5"
