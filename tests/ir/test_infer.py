"""Width inference on hand-written graphs: what stays free, what couples, what is frozen and why."""

from __future__ import annotations

import pytest
from nasc.ir import Graph, NascError, infer, text, verify
from support.graphs import graph_of

IMAGE = "%x: f32[N, 3, 8, 8]"


def typed(lines: str, inputs: str = IMAGE) -> Graph:
    """The inferred graph, verified, and inferred again to the same."""
    graph = infer(graph_of(lines, inputs)).graph
    verify(graph)
    assert infer(graph).graph == graph
    return graph


def types(graph: Graph, *names: str) -> list[str]:
    """The shapes of some values, as text."""
    return [str(graph.types[n]).removeprefix("f32") for n in names]


MLP = """
    %fc1.weight: f32[64, 3] = weight
    %fc1.bias: f32[64] = weight
    %fc1: f32[N, 64] = linear %x, %fc1.weight, %fc1.bias
    %bn.mean: f32[64] = buffer
    %bn.var: f32[64] = buffer
    %bn: f32[N, 64] = batch_norm %fc1, %bn.mean, %bn.var
    %fc2.weight: f32[5, 64] = weight
    %fc2: f32[N, 5] = linear %bn, %fc2.weight
"""


def test_one_width_couples_layer_bias_norm_and_reader() -> None:
    graph = typed(MLP, "%x: f32[N, 3]")
    assert graph.widths == (("fc1", 64),)
    assert types(graph, "fc1.weight", "fc1.bias", "bn.mean", "bn.var", "bn", "fc2.weight", "fc2") == [
        "[$fc1, 3]",
        "[$fc1]",
        "[$fc1]",
        "[$fc1]",
        "[N, $fc1]",
        "[5, $fc1]",
        "[N, 5]",
    ]


def test_inputs_and_outputs_are_frozen_and_say_so() -> None:
    found = infer(graph_of(MLP, "%x: f32[N, 3]")).frozen
    assert [(f.value, f.axis, f.size, str(f.reason)) for f in found] == [
        ("fc1.weight", 1, 3, "linear %fc1 <- input %x of the graph"),
        ("fc2.weight", 0, 5, "output %fc2 of the graph"),
    ]


def test_a_flatten_multiplies_the_width_by_the_pixels() -> None:
    graph = typed("""
        %c.w: f32[8, 3, 3, 3] = weight
        %c: f32[N, 8, 6, 6] = conv2d %x, %c.w
        %p: f32[N, 8, 3, 3] = max_pool2d %c {kernel_size=[2, 2], stride=[2, 2]}
        %flat: f32[N, 72] = reshape %p {shape=[N, 72]}
        %fc.w: f32[5, 72] = weight
        %fc: f32[N, 5] = linear %flat, %fc.w
    """)
    assert types(graph, "flat", "fc.w") == ["[N, $c*9]", "[5, $c*9]"]
    assert graph.producers["flat"].attributes == (("shape", graph.types["flat"].axes),)


def test_a_flatten_of_pixels_first_keeps_the_order() -> None:
    graph = typed("""
        %c.w: f32[8, 3, 3, 3] = weight
        %c: f32[N, 8, 6, 6] = conv2d %x, %c.w
        %last: f32[N, 6, 6, 8] = permute %c {dims=[0, 2, 3, 1]}
        %flat: f32[N, 288] = reshape %last {shape=[N, 288]}
        %fc.w: f32[5, 288] = weight
        %fc: f32[N, 5] = linear %flat, %fc.w
    """)
    assert types(graph, "fc.w") == ["[5, 36*$c]"]


def test_a_concat_adds_widths() -> None:
    graph = typed("""
        %a.w: f32[8, 3, 1, 1] = weight
        %a: f32[N, 8, 8, 8] = conv2d %x, %a.w
        %b.w: f32[4, 3, 1, 1] = weight
        %b: f32[N, 4, 8, 8] = conv2d %x, %b.w
        %both: f32[N, 15, 8, 8] = cat %a, %x, %b {dim=1}
        %flat: f32[N, 960] = reshape %both {shape=[N, 960]}
        %fc.w: f32[5, 960] = weight
        %fc: f32[N, 5] = linear %flat, %fc.w
    """)
    assert graph.widths == (("a", 8), ("b", 4))
    assert types(graph, "both", "fc.w") == ["[N, $a+3+$b, 8, 8]", "[5, $a*64+192+$b*64]"]


def test_a_residual_ties_its_ends() -> None:
    graph = typed("""
        %a.w: f32[8, 3, 1, 1] = weight
        %a: f32[N, 8, 8, 8] = conv2d %x, %a.w
        %b.w: f32[4, 8, 1, 1] = weight
        %b: f32[N, 4, 8, 8] = conv2d %a, %b.w
        %c.w: f32[8, 4, 1, 1] = weight
        %c: f32[N, 8, 8, 8] = conv2d %b, %c.w
        %sum: f32[N, 8, 8, 8] = add %a, %c
        %d.w: f32[5, 8, 1, 1] = weight
        %d: f32[N, 5, 8, 8] = conv2d %sum, %d.w
    """)
    assert graph.widths == (("a", 8), ("b", 4))
    assert types(graph, "c.w", "d.w") == ["[$a, $b, 1, 1]", "[5, $a, 1, 1]"]


def test_a_residual_to_the_input_freezes_and_names_the_op() -> None:
    lines = """
        %a.w: f32[3, 3, 1, 1] = weight
        %a: f32[N, 3, 8, 8] = conv2d %x, %a.w
        %sum: f32[N, 3, 8, 8] = add %a, %x
        %d.w: f32[5, 3, 1, 1] = weight
        %d: f32[N, 5, 8, 8] = conv2d %sum, %d.w
    """
    assert typed(lines).widths == ()
    reasons = {(f.value, f.axis): str(f.reason) for f in infer(graph_of(lines, IMAGE)).frozen}
    assert reasons["a.w", 0] == "add %sum <- input %x of the graph"
    assert reasons["a.w", 2] == "%a.w has one entry along it"


def test_a_depthwise_convolution_follows_its_input() -> None:
    graph = typed("""
        %a.w: f32[8, 3, 1, 1] = weight
        %a: f32[N, 8, 8, 8] = conv2d %x, %a.w
        %dw.w: f32[8, 1, 3, 3] = weight
        %dw.b: f32[8] = weight
        %dw: f32[N, 8, 8, 8] = conv2d %a, %dw.w, %dw.b {padding=[1, 1], groups=8}
        %c.w: f32[5, 8, 1, 1] = weight
        %c: f32[N, 5, 8, 8] = conv2d %dw, %c.w
    """)
    assert graph.widths == (("a", 8),)
    assert types(graph, "dw.w", "dw.b", "c.w") == ["[$a, 1, 3, 3]", "[$a]", "[5, $a, 1, 1]"]
    assert str(graph.producers["dw"].attribute("groups")) == "$a"


def test_a_grouped_convolution_has_groups_and_channels_per_group() -> None:
    graph = typed("""
        %a.w: f32[8, 3, 1, 1] = weight
        %a: f32[N, 8, 8, 8] = conv2d %x, %a.w
        %g.w: f32[12, 2, 3, 3] = weight
        %g: f32[N, 12, 8, 8] = conv2d %a, %g.w {padding=[1, 1], groups=4}
        %c.w: f32[5, 12, 1, 1] = weight
        %c: f32[N, 5, 8, 8] = conv2d %g, %c.w
    """)
    assert dict(graph.widths) == {"a.0": 4, "a.1": 2, "g": 3}
    assert types(graph, "a.w", "g.w", "c.w") == ["[$a.0*$a.1, 3, 1, 1]", "[$a.0*$g, $a.1, 3, 3]", "[5, $a.0*$g, 1, 1]"]


def test_a_split_by_reshape_gives_heads_their_widths() -> None:
    """q, k and v from one layer: 48 = 3 * 4 heads * 4, mixed and joined again."""
    graph = typed(
        """
        %qkv.w: f32[48, 16] = weight
        %qkv: f32[N, 48] = linear %x, %qkv.w
        %split: f32[N, 3, 4, 4] = reshape %qkv {shape=[N, 3, 4, 4]}
        %heads: f32[N, 4, 3, 4] = permute %split {dims=[0, 2, 1, 3]}
        %joined: f32[N, 4, 12] = reshape %heads {shape=[N, 4, 12]}
        %each.w: f32[7, 12] = weight
        %each: f32[N, 4, 7] = linear %joined, %each.w
        %out: f32[N, 28] = reshape %each {shape=[N, 28]}
        %fc.w: f32[5, 28] = weight
        %fc: f32[N, 5] = linear %out, %fc.w
    """,
        "%x: f32[N, 16]",
    )
    three, heads, size = (n for n, _ in graph.widths[:3])
    assert dict(graph.widths) == {three: 3, heads: 4, size: 4, "each": 7}
    assert types(graph, "qkv.w", "each.w", "fc.w") == [
        f"[${three}*${heads}*${size}, 16]",
        f"[$each, ${three}*${size}]",
        f"[5, ${heads}*$each]",
    ]


def test_a_channel_shuffle_keeps_the_index_of_every_channel() -> None:
    graph = typed("""
        %a.w: f32[8, 3, 1, 1] = weight
        %a: f32[N, 8, 8, 8] = conv2d %x, %a.w
        %r: f32[N, 2, 4, 8, 8] = reshape %a {shape=[N, 2, 4, 8, 8]}
        %p: f32[N, 4, 2, 8, 8] = permute %r {dims=[0, 2, 1, 3, 4]}
        %q: f32[N, 8, 8, 8] = reshape %p {shape=[N, 8, 8, 8]}
        %b.w: f32[5, 8, 1, 1] = weight
        %b: f32[N, 5, 8, 8] = conv2d %q, %b.w
    """)
    (outer, _), (inner, _) = graph.widths
    assert types(graph, "a.w", "b.w") == [f"[${outer}*${inner}, 3, 1, 1]", f"[5, ${inner}*${outer}, 1, 1]"]


def test_reshapes_that_straddle_freeze_and_say_where() -> None:
    lines = """
        %a.w: f32[12, 16] = weight
        %a: f32[N, 12] = linear %x, %a.w
        %r: f32[N, 2, 6] = reshape %a {shape=[N, 2, 6]}
        %b.w: f32[9, 6] = weight
        %b: f32[N, 2, 9] = linear %r, %b.w
        %s: f32[N, 6, 3] = reshape %b {shape=[N, 6, 3]} at "net.py":8
        %c.w: f32[5, 3] = weight
        %c: f32[N, 6, 5] = linear %s, %c.w
    """
    graph = typed(lines, "%x: f32[N, 16]")
    assert types(graph, "b.w") == ["[3*$b, 6]"] or types(graph, "b.w")[0].endswith(f", {graph.types['b.w'].axes[1]}]")
    found = {(f.value, f.axis): str(f.reason) for f in infer(graph_of(lines, "%x: f32[N, 16]")).frozen}
    assert ("c.w", 0) in found


def test_an_op_without_a_rule_costs_freedom_and_is_the_reason() -> None:
    lines = """
        %a.w: f32[8, 16] = weight
        %a: f32[N, 8] = linear %x, %a.w
        %sorted, %index: f32[N, 8], i64[N, 8] = aten.sort.default %a {args=["%0", 1]} at "net.py":5
        %b.w: f32[6, 8] = weight
        %b: f32[N, 6] = linear %sorted, %b.w
        %c.w: f32[5, 6] = weight
        %c: f32[N, 5] = linear %b, %c.w
    """
    graph = typed(lines, "%x: f32[N, 16]")
    assert graph.widths == (("b", 6),)
    found = {(f.value, f.axis): str(f.reason) for f in infer(graph_of(lines, "%x: f32[N, 16]")).frozen}
    assert found["a.w", 0] == "aten.sort.default %sorted: no rule for this op at net.py:5"
    assert found["b.w", 1] == f"linear %b <- {found['a.w', 0]}"


def test_a_tied_weight_ties_both_its_uses() -> None:
    graph = typed(
        """
        %in.w: f32[8, 16] = weight
        %in: f32[N, 8] = linear %x, %in.w
        %w: f32[8, 8] = weight
        %a: f32[N, 8] = linear %in, %w
        %b: f32[N, 8] = linear %a, %w
        %out.w: f32[5, 8] = weight
        %out: f32[N, 5] = linear %b, %out.w
    """,
        "%x: f32[N, 16]",
    )
    assert graph.widths == (("in", 8),)
    assert types(graph, "w") == ["[$in, $in]"]


def test_indices_and_masks_are_fixed() -> None:
    lines = """
        %a.w: f32[8, 16] = weight
        %a: f32[N, 8] = linear %x, %a.w
        %mask: bool[8] = buffer at "net.py":3
        %m: f32[N, 8] = mul %a, %mask
        %b.w: f32[5, 8] = weight
        %b: f32[N, 5] = linear %m, %b.w
    """
    assert typed(lines, "%x: f32[N, 16]").widths == ()
    found = {(f.value, f.axis): str(f.reason) for f in infer(graph_of(lines, "%x: f32[N, 16]")).frozen}
    assert found["a.w", 0] == "mul %m <- %mask holds bool values at net.py:3"


def test_a_stretched_axis_is_fixed() -> None:
    lines = """
        %s: f32[1, 16] = weight
        %m: f32[N, 16] = mul %x, %s
    """
    found = {(f.value, f.axis): str(f.reason) for f in infer(graph_of(lines, "%x: f32[N, 16]")).frozen}
    assert found["s", 0] == "%s has one entry along it"


def test_quantized_weights_have_widths_too() -> None:
    graph = typed(
        """
        %q: u8<2^-4, 3>[N, 16] = quantize %x
        %a.w: i4<per 0>[8, 16] = weight
        %a: f32[N, 8] = linear %q, %a.w
        %b.w: i4<per 0 ?>[5, 8] = weight
        %b: f32[N, 5] = linear %a, %b.w
    """,
        "%x: f32[N, 16]",
    )
    assert [str(graph.types[n]) for n in ("q", "a.w", "b.w")] == [
        "u8<2^-4, 3>[N, 16]",
        "i4<per 0>[$a, 16]",
        "i4<per 0 ?>[5, $a]",
    ]


def test_old_widths_are_forgotten_and_sizes_kept() -> None:
    graph = typed(MLP, "%x: f32[N, 3]")
    renamed = text(graph.with_sizes({"fc1": 48})).replace("$fc1", "$other")
    from nasc.ir import parse

    assert infer(parse(renamed)).graph == graph.with_sizes({"fc1": 48})


def test_a_graph_whose_lengths_break_a_rule_is_refused_at_the_users_line() -> None:
    with pytest.raises(NascError, match=r"^net.py:9: error: linear %y: input %x has 16 features, weight %w expects"):
        infer(graph_of('%w: f32[5, 8] = weight\n%y: f32[N, 5] = linear %x, %w at "net.py":9'))
    with pytest.raises(NascError, match=r"^y: error: relu %y: its rule gives \[1, 16\], the graph f32\[N, 17\]"):
        infer(graph_of("%y: f32[N, 17] = relu %x"))


def test_a_weight_does_not_take_the_length_of_the_batch() -> None:
    with pytest.raises(NascError, match="input %p has N features, weight %w expects"):
        infer(
            graph_of(
                "%w: f32[5, 1] = weight\n%p: f32[16, N] = permute %x {dims=[1, 0]}\n%y: f32[16, 5] = linear %p, %w"
            )
        )


def test_names_of_widths_never_clash() -> None:
    graph = typed(
        """
        %a: f32[8, 16] = weight
        %b: f32[N, 8] = linear %x, %a
        %c: f32[8, 8] = weight
        %d: f32[N, 8] = linear %b, %c
        %e: f32[N, 2, 4] = reshape %d {shape=[N, 2, 4]}
        %f: f32[N, 4, 2] = permute %e {dims=[0, 2, 1]}
        %g: f32[N, 8] = reshape %f {shape=[N, 8]}
        %h: f32[5, 8] = weight
        %i: f32[N, 5] = linear %g, %h
    """,
        "%x: f32[N, 16]",
    )
    assert len({n for n, _ in graph.widths}) == len(graph.widths) == 3
