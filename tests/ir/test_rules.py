"""Each op's rule: the type it gives, and the faults it finds, with the operand that is to blame."""

from __future__ import annotations

import pytest
from nasc.ir import SPECS, Fault, Graph, InvalidGraph, attributes, verify
from nasc.ir.infer import apply_rule
from nasc.ir.rules.pointwise import BINARY, COMPARE, UNARY
from nasc.ir.solver import Solver
from support.graphs import graph_of

WIDTHS = {"a": 16, "b": 8, "g": 4, "o": 1}


def declare(inputs: str, call: str, results: str = "%r: f32[]") -> Graph:
    """A graph of one op over values that are all inputs."""
    return graph_of(f"{results} = {call}", inputs, **WIDTHS)


def given(inputs: str, call: str, results: str = "%r: f32[]") -> list[str]:
    """The types that a rule gives for one call."""
    graph = declare(inputs, call, results)
    op = graph.ops[-1]
    types, _ = apply_rule(op, [graph.types[n] for n in op.inputs], Solver(graph.sizes), infer=False)
    return [str(t) for t in types]


def fault(inputs: str, call: str) -> Fault:
    """The fault that a rule finds in one call."""
    with pytest.raises(Fault) as caught:
        given(inputs, call)
    return caught.value


X, IMAGE = "%x: f32[N, $a]", "%x: f32[N, $a, 8, 8]"

RESULTS = [
    (f"{X}, %w: f32[$b, $a]", "linear %x, %w", "f32[N, $b]"),
    (f"{X}, %w: f32[$b, $a], %c: f32[$b]", "linear %x, %w, %c", "f32[N, $b]"),
    ("%x: f32[N, 7, $a], %w: f32[10, $a]", "linear %x, %w", "f32[N, 7, 10]"),
    ("%x: f32[$a], %w: f32[10, $a]", "linear %x, %w", "f32[10]"),
    ("%x: u8<2^-3>[N, 4], %w: i4<per 0>[10, 4]", "linear %x, %w", "f32[N, 10]"),
    ("%x: f16[N, 4], %w: f16[10, 4]", "linear %x, %w", "f16[N, 10]"),
    ("%x: f16[N, 4], %w: i4<per 0>[10, 4]", "linear %x, %w", "f32[N, 10]"),
    (f"{IMAGE}, %w: f32[$b, $a, 3, 3]", "conv2d %x, %w", "f32[N, $b, 6, 6]"),
    (f"{IMAGE}, %w: f32[$b, $a, 3, 3]", "conv2d %x, %w {padding=[1, 1]}", "f32[N, $b, 8, 8]"),
    (f"{IMAGE}, %w: f32[$b, $a, 3, 3]", "conv2d %x, %w {stride=[2, 1], padding=[1, 0]}", "f32[N, $b, 4, 6]"),
    (f"{IMAGE}, %w: f32[$b, $a, 3, 3]", "conv2d %x, %w {dilation=[3, 2]}", "f32[N, $b, 2, 4]"),
    (f"{IMAGE}, %w: f32[$b, $a, 1, 1], %c: f32[$b]", "conv2d %x, %w, %c", "f32[N, $b, 8, 8]"),
    (f"{IMAGE}, %w: f32[$a, 1, 3, 3]", "conv2d %x, %w {groups=$a}", "f32[N, $a, 6, 6]"),
    ("%x: f32[N, $g*4, 8], %w: f32[$g*$b, 4, 3]", "conv1d %x, %w {groups=$g}", "f32[N, $g*$b, 6]"),
    ("%x: f32[N, 4, 8, 8, 8], %w: f32[2, 4, 3, 2, 1]", "conv3d %x, %w", "f32[N, 2, 6, 7, 8]"),
    (f"{X}, %m: f32[$a], %v: f32[$a]", "batch_norm %x, %m, %v", "f32[N, $a]"),
    (
        f"{IMAGE}, %m: f32[$a], %v: f32[$a], %g: f32[$a], %b: f32[$a]",
        "batch_norm %x, %m, %v, %g, %b",
        "f32[N, $a, 8, 8]",
    ),
    (f"{X}, %g: f32[$a], %b: f32[$a]", "layer_norm %x, %g, %b {normalized_shape=[$a]}", "f32[N, $a]"),
    ("%x: f32[N, 3, $a]", "layer_norm %x {normalized_shape=[3, $a]}", "f32[N, 3, $a]"),
    (IMAGE, "max_pool2d %x {kernel_size=[2, 2], stride=[2, 2]}", "f32[N, $a, 4, 4]"),
    (IMAGE, "max_pool2d %x {kernel_size=[3, 3], stride=[3, 3]}", "f32[N, $a, 2, 2]"),
    (IMAGE, "max_pool2d %x {kernel_size=[3, 3], stride=[3, 3], ceil_mode=true}", "f32[N, $a, 3, 3]"),
    (
        "%x: f32[N, 5]",
        "max_pool1d %x {kernel_size=[2], stride=[3], padding=[1], ceil_mode=true}",
        "f32[N, 2]",
    ),  # the last window would start in the padding behind
    ("%x: u8<2^-3>[N, 4, 8]", "max_pool1d %x {kernel_size=[2]}", "u8<2^-3>[N, 4, 7]"),
    ("%x: u8<2^-3>[N, 4, 8]", "avg_pool1d %x {kernel_size=[2]}", "f32[N, 4, 7]"),
    ("%x: f32[4, 8, 8, 8]", "max_pool3d %x {kernel_size=[2, 2, 2]}", "f32[4, 7, 7, 7]"),
    (IMAGE, "adaptive_avg_pool2d %x {output_size=[1, 2]}", "f32[N, $a, 1, 2]"),
    (X, "relu %x", "f32[N, $a]"),
    ("%x: u8<2^-3>[N, 4]", "relu %x", "f32[N, 4]"),
    (f"{X}, %y: f32[N, $a]", "add %x, %y", "f32[N, $a]"),
    (f"{X}, %y: f32[$a]", "mul %x, %y", "f32[N, $a]"),
    ("%x: f32[N, $a, 8, 8], %y: f32[N, $a, 1, 1]", "mul %x, %y", "f32[N, $a, 8, 8]"),
    ("%x: f32[3, 1], %y: f32[N, 1, 5]", "sub %x, %y", "f32[N, 3, 5]"),
    ("%x: f32[1], %y: f32[1]", "sub %x, %y", "f32[1]"),
    ("%x: f32[], %y: f32[N]", "div %x, %y", "f32[N]"),
    (X, "sub %x {input=1.0}", "f32[N, $a]"),
    (X, "gt %x {other=0}", "bool[N, $a]"),
    ("%x: f16[N], %y: f32[N]", "add %x, %y", "f32[N]"),
    ("%x: u8<2^-3>[N], %y: u4<2^-2>[N]", "add %x, %y", "f32[N]"),
    (f"{IMAGE}, %w: f32[$a]", "prelu %x, %w", "f32[N, $a, 8, 8]"),
    (f"{IMAGE}, %w: f32[1]", "prelu %x, %w", "f32[N, $a, 8, 8]"),
    (X, "softmax %x {dim=1}", "f32[N, $a]"),
    (X, "log_softmax %x {dim=-1}", "f32[N, $a]"),
    (IMAGE, "reshape %x {shape=[N, $a*64]}", "f32[N, $a*64]"),
    (IMAGE, "reshape %x {shape=[N, $a, 64]}", "f32[N, $a, 64]"),
    ("%x: f32[N, $a*64]", "reshape %x {shape=[N, $a, 8, 8]}", "f32[N, $a, 8, 8]"),
    ("%x: f32[N, $a, $o, 6]", "reshape %x {shape=[N, $a*$o, 6]}", "f32[N, $a*$o, 6]"),
    ("%x: f32[N, $a, 6]", "reshape %x {shape=[N, $a, 1, 2, 3]}", "f32[N, $a, 1, 2, 3]"),
    ("%x: f32[N, $g*$b]", "reshape %x {shape=[N*$g, $b]}", "f32[N*$g, $b]"),
    ("%x: f32[N, $a, 1, 1]", "reshape %x {shape=[N, $a]}", "f32[N, $a]"),
    ("%x: f32[]", "reshape %x {shape=[1, 1]}", "f32[1, 1]"),
    ("%x: f32[1]", "reshape %x {shape=[]}", "f32[]"),
    ("%x: u8<0.1, 3>[N, 2, 3]", "reshape %x {shape=[N, 6]}", "u8<0.1, 3>[N, 6]"),
    (IMAGE, "permute %x {dims=[0, 2, 3, 1]}", "f32[N, 8, 8, $a]"),
    (f"{X}, %y: f32[N, $b]", "cat %x, %y {dim=1}", "f32[N, $a+$b]"),
    ("%x: f32[N, 3], %y: f32[N, 4], %z: f32[N, $a]", "cat %x, %y, %z {dim=1}", "f32[N, 7+$a]"),
    (IMAGE, "mean %x {dim=[2, 3]}", "f32[N, $a]"),
    (IMAGE, "sum %x {dim=[1], keepdim=true}", "f32[N, 1, 8, 8]"),
    (IMAGE, "amax %x", "f32[]"),
    (IMAGE, "amin %x {keepdim=true}", "f32[1, 1, 1, 1]"),
    (IMAGE, "avg_pool2d %x {kernel_size=[2, 2], stride=[2, 2], padding=[1, 1]}", "f32[N, $a, 5, 5]"),
    ("%x: f32[N, 4, 8, 8, 8]", "avg_pool3d %x {kernel_size=[2, 2, 4]}", "f32[N, 4, 7, 7, 5]"),
    ("%x: f32[N, $a, 8]", "adaptive_avg_pool1d %x {output_size=[3]}", "f32[N, $a, 3]"),
    ("%x: f32[N, $a, 4, 4, 4]", "adaptive_avg_pool3d %x {output_size=[1, 2, 3]}", "f32[N, $a, 1, 2, 3]"),
    ("%x: f32[N, $a, 8], %w: f32[$a, $b, 3]", "conv_transpose1d %x, %w {stride=[2]}", "f32[N, $b, 17]"),
    (
        f"{IMAGE}, %w: f32[$a, $b, 4, 4], %c: f32[$b]",
        "conv_transpose2d %x, %w, %c {stride=[2, 2], padding=[1, 1], output_padding=[1, 0]}",
        "f32[N, $b, 17, 16]",
    ),
    ("%x: f32[N, $g*$a, 8, 8], %w: f32[$g*$a, $b, 1, 1]", "conv_transpose2d %x, %w {groups=$g}", "f32[N, $g*$b, 8, 8]"),
    ("%x: f32[N, 4, 2, 2, 2], %w: f32[4, 5, 2, 2, 2]", "conv_transpose3d %x, %w", "f32[N, 5, 3, 3, 3]"),
    (f"{IMAGE}, %g: f32[$a], %b: f32[$a]", "instance_norm %x, %g, %b", "f32[N, $a, 8, 8]"),
    ("%x: f32[N, $g*$b, 8]", "group_norm %x {num_groups=$g}", "f32[N, $g*$b, 8]"),
    ("%x: f32[N, 5, $a], %w: f32[$a]", "rms_norm %x, %w {normalized_shape=[$a]}", "f32[N, 5, $a]"),
    ("%x: f32[N, 5, $a], %y: f32[N, $a, $b]", "matmul %x, %y", "f32[N, 5, $b]"),
    ("%x: f32[$a], %y: f32[$a]", "matmul %x, %y", "f32[]"),
    ("%x: f32[N, 1, 5, $a], %y: f32[$b, $a, 7]", "matmul %x, %y", "f32[N, $b, 5, 7]"),
    ("%x: f32[N, 5, $a], %y: f32[$b, $a]", 'einsum %x, %y {equation="nla,ba->nlb"}', "f32[N, 5, $b]"),
    (
        "%q: f32[N, $g, 7, $b], %k: f32[N, $g, 9, $b], %v: f32[N, $g, 9, $a], %m: f32[7, 9]",
        "scaled_dot_product_attention %q, %k, %v, %m {scale=0.5}",
        "f32[N, $g, 7, $a]",
    ),
    (
        "%q: f32[N, $g*2, 7, $b], %k: f32[N, $g, 7, $b], %v: f32[N, $g, 7, $b]",
        "scaled_dot_product_attention %q, %k, %v {scale=0.5, is_causal=true, enable_gqa=true}",
        "f32[N, $g*2, 7, $b]",
    ),
    ("%x: i64[N, 12], %w: f32[100, $a]", "embedding %x, %w", "f32[N, 12, $a]"),
    ("%x: f32[N, $a, 9], %i: i64[5]", "index %x, %i {dims=[2]}", "f32[N, $a, 5]"),
    ("%x: f32[9, $a, 9], %i: i64[N, 5], %j: i64[5]", "index %x, %i, %j {dims=[0, 2]}", "f32[N, 5, $a]"),
    ("%x: f32[N, $a, 9], %i: i64[5]", "index_select %x, %i {dim=2}", "f32[N, $a, 5]"),
    ("%x: f32[N, 9], %i: i64[N, 5]", "gather %x, %i {dim=1}", "f32[N, 5]"),
    (f"{X}, %m: bool[N, 1]", "masked_fill %x, %m {value=-1.0}", "f32[N, $a]"),
    ("%m: bool[N, 1], %x: f32[$a], %y: f32[]", "where %m, %x, %y", "f32[N, $a]"),
    ("%m: bool[N, $a]", "where %m {input=1, other=0.5}", "f32[N, $a]"),
    ("%x: bool[N, 4], %y: bool[4]", "logical_and %x, %y", "bool[N, 4]"),
    ("%x: bool[N, 4], %y: bool[4]", "logical_or %x, %y", "bool[N, 4]"),
    ("%x: bool[N, 4], %y: bool[4]", "logical_xor %x, %y", "bool[N, 4]"),
    ("%x: bool[N, 4]", "logical_not %x", "bool[N, 4]"),
    ("%x: bool[N, 4]", "bitwise_not %x", "bool[N, 4]"),
    ("%x: i32[N, 4], %y: i64[4]", "bitwise_and %x, %y", "i64[N, 4]"),
    ("%x: i64[N, 4]", "bitwise_or %x {other=1}", "i64[N, 4]"),
    ("%x: bool[N, 4], %y: bool[4]", "bitwise_xor %x, %y", "bool[N, 4]"),
    (X, "isnan %x", "bool[N, $a]"),
    (X, "isinf %x", "bool[N, $a]"),
    (IMAGE, "any %x {dim=[1]}", "bool[N, 8, 8]"),
    (IMAGE, "all %x {dim=[2, 3], keepdim=true}", "bool[N, $a, 1, 1]"),
    (IMAGE, "prod %x {dim=[3]}", "f32[N, $a, 8]"),
    (IMAGE, "var %x {dim=[1], keepdim=true}", "f32[N, 1, 8, 8]"),
    (IMAGE, "std %x {dim=[2, 3], correction=0}", "f32[N, $a]"),
    (IMAGE, "norm %x {dim=[1]}", "f32[N, 8, 8]"),
    (IMAGE, "logsumexp %x {dim=[1]}", "f32[N, 8, 8]"),
    ("%x: bool[N, 6]", "sum %x {dim=[1]}", "i64[N]"),
    ("%x: f32[N, 6]", "cumsum %x {dim=1}", "f32[N, 6]"),
    ("%x: f32[N, $a, 6]", "argmax %x {dim=2}", "i64[N, $a]"),
    ("%x: f32[4, 6]", "argmin %x", "i64[]"),
    ("%x: f32[N, $a]", "expand %x {shape=[N, $a]}", "f32[N, $a]"),
    ("%x: f32[1, $a, 1]", "expand %x {shape=[N, 5, $a, 7]}", "f32[N, 5, $a, 7]"),
    ("%x: f32[N, $a]", "repeat %x {repeats=[3, 1, 2]}", "f32[3, N, 2*$a]"),
    ("%x: f32[N, $a]", "repeat_interleave %x {repeats=4, dim=1}", "f32[N, $a*4]"),
    ("%x: f32[N, $a, 5]", "flip %x {dims=[2]}", "f32[N, $a, 5]"),
    ("%x: f32[N, $a, 5]", "roll %x {shifts=[2], dims=[2]}", "f32[N, $a, 5]"),
    ("%x: f32[N, $a*4, 3, 5]", "pixel_shuffle %x {upscale_factor=2}", "f32[N, $a, 6, 10]"),
    ("%x: f32[N, $a, 6, 10]", "pixel_unshuffle %x {downscale_factor=2}", "f32[N, $a*4, 3, 5]"),
    ("%x: f32[N, $g*$b, 5]", "channel_shuffle %x {groups=$g}", "f32[N, $b*$g, 5]"),
    (IMAGE, "interpolate %x {size=[16, 4]}", "f32[N, $a, 16, 4]"),
    (f"{X}, %y: f32[N, $a]", "stack %x, %y {dim=1}", "f32[N, 2, $a]"),
    ("%x: f32[N, 3+$a+$b]", "narrow %x {dim=1, start=3, length=$a}", "f32[N, $a]"),
    ("%x: f32[N, 9]", "slice %x {dim=1, start=1, end=8, step=3}", "f32[N, 3]"),
    ("%x: f32[N, 9, $a]", "select %x {dim=1, index=8}", "f32[N, $a]"),
    ("%x: f32[N, $a+$a, 7]", "glu %x {dim=1}", "f32[N, $a, 7]"),
    ("%x: f32[N, $a, 7]", "pad %x {pad=[1, 2, 3, 4]}", "f32[N, 3+$a+4, 10]"),
    ("%x: f32[N, 6, 7], %y: f32[N, 6, 2]", "slice_scatter %x, %y {dim=2, start=1, end=3}", "f32[N, 6, 7]"),
    ("%x: f32[N, 6, 7], %y: f32[N, 6]", "select_scatter %x, %y {dim=2, index=1}", "f32[N, 6, 7]"),
    (IMAGE, "unfold %x {kernel_size=[2, 4], stride=[2, 4]}", "f32[N, $a*8, 8]"),
    ("%x: f32[N, $a*8, 8]", "fold %x {output_size=[8, 8], kernel_size=[2, 4], stride=[2, 4]}", "f32[N, $a, 8, 8]"),
    ("%x: f32[N, $a, 9]", "tensor_unfold %x {dim=2, size=3, step=2}", "f32[N, $a, 4, 3]"),
    ("%x: f32[N, 6, 7]", "tril %x", "f32[N, 6, 7]"),
    ("%x: f32[N, 6, 7]", "triu %x {diagonal=1}", "f32[N, 6, 7]"),
]

SEVERAL = [
    ("%x: f32[N, $a+$b]", "split %x {sizes=[$a, $b], dim=1}", ["f32[N, $a]", "f32[N, $b]"]),
    ("%x: f32[N, 2, $a]", "unbind %x {dim=1}", ["f32[N, $a]", "f32[N, $a]"]),
    ("%x: f32[N, $a, 9]", "max %x {dim=2}", ["f32[N, $a]", "i64[N, $a]"]),
    ("%x: f32[N, $a, 9]", "min %x {dim=2, keepdim=true}", ["f32[N, $a, 1]", "i64[N, $a, 1]"]),
    ("%x: f32[N, 9]", "topk %x {k=3, dim=1}", ["f32[N, 3]", "i64[N, 3]"]),
    ("%x: f32[N, 9]", "sort %x {dim=1}", ["f32[N, 9]", "i64[N, 9]"]),
]
"""Ops with several results, and their types."""


@pytest.mark.parametrize(("inputs", "call", "expected"), RESULTS, ids=[r[1] + " " + r[2] for r in RESULTS])
def test_the_type_that_a_rule_gives(inputs: str, call: str, expected: str) -> None:
    assert given(inputs, call) == [expected]


@pytest.mark.parametrize(("inputs", "call", "expected"), SEVERAL, ids=[r[1] for r in SEVERAL])
def test_the_types_that_a_rule_gives(inputs: str, call: str, expected: list[str]) -> None:
    results = ", ".join(f"%r{i}" for i in range(len(expected)))
    assert given(inputs, call, f"{results}: {', '.join(['f32[]'] * len(expected))}") == expected


@pytest.mark.parametrize(("call", "type"), [("full {shape=[N, $a]}", "i64[N, $a]"), ("arange {end=N}", "i64[N]")])
def test_ops_that_make_values_from_nothing(call: str, type: str) -> None:
    assert given(X, call, f"%r: {type}") == [type]


@pytest.mark.parametrize(("call", "type"), [("quantize %x", "u4<0.1, 3>[N, $a]"), ("cast %x", "f16[N, $a]")])
def test_the_op_itself_says_how_its_result_is_stored(call: str, type: str) -> None:
    assert given(X, call, f"%r: {type}") == [type]


@pytest.mark.parametrize("kind", UNARY)
def test_functions_of_one_element_keep_the_shape(kind: str) -> None:
    assert given(IMAGE, f"{kind} %x") == ["f32[N, $a, 8, 8]"]


@pytest.mark.parametrize("kind", BINARY + COMPARE)
def test_functions_of_two_elements_take_tensors_or_a_number(kind: str) -> None:
    stored = "bool" if kind in COMPARE else "f32"
    assert given(f"{X}, %y: f32[N, $a]", f"{kind} %x, %y") == [f"{stored}[N, $a]"]
    assert given(X, f"{kind} %x {{other=2}}") == [f"{stored}[N, $a]"]


def test_every_op_has_a_result_or_is_stored() -> None:
    """No kind is declared and left out of the tables above."""
    shown = {call.split()[0] for _, call, _ in [*RESULTS, *SEVERAL]}
    assert set(SPECS) == shown | {*UNARY, *BINARY, *COMPARE, "quantize", "cast", "full", "arange"}


FAULTS = [
    (f"{X}, %w: f32[$b, 8]", "linear %x, %w", "input %x has $a = 16 features, weight %w expects 8", "x"),
    (f"{X}, %w: f32[$b, 16]", "linear %x, %w", "input %x has $a = 16 features, weight %w expects 16", "x"),
    (
        f"{X}, %w: f32[$b, $a], %c: f32[4]",
        "linear %x, %w, %c",
        "bias %c has 4 entries, the layer has $b = 8 outputs",
        "c",
    ),
    ("%x: f32[], %w: f32[2, 2]", "linear %x, %w", "the input has no axes, expected at least 1", None),
    (f"{X}, %w: f32[2]", "linear %x, %w", "weight %w has 1 axes, expected 2", "w"),
    (X, "linear %x", "it takes the operands input, weight, bias?; found 1", None),
    (f"{X}, %w: f32[2, 2, 3]", "conv1d %x, %w", "input %x has 2 axes, expected 3", "x"),
    (
        "%x: f32[N, 3, 8], %w: f32[2, 4, 3]",
        "conv1d %x, %w",
        "input %x has 3 channels, weight %w expects 4",
        "x",
    ),
    ("%x: f32[N, 4, 8], %w: f32[2, 4, 9]", "conv1d %x, %w", "a window of 9 does not fit into 8 + 2*0 values", None),
    (
        "%x: f32[N, 4, $a], %w: f32[2, 4, 3]",
        "conv1d %x, %w",
        "a window slides along it: found $a = 16, which may change",
        None,
    ),
    (
        "%x: f32[N, 4, 8], %w: f32[4, 2, 3]",
        "conv1d %x, %w {groups=3}",
        "3 groups must divide 4 and 4 channels",
        None,
    ),
    (
        "%x: f32[N, 4, 8], %w: f32[4, 4, 3]",
        "conv1d %x, %w {groups=2}",
        "input %x has 4 channels, weight %w expects 8 in 8 over all groups",
        "x",
    ),
    ("%x: f32[N, 4, 8], %w: f32[4, 4, 3]", "conv1d %x, %w {stride=[0]}", "stride must be at least 1, found [0]", None),
    (
        "%x: f32[N, 4, 8], %w: f32[4, 4, 3]",
        "conv1d %x, %w {padding=[-1]}",
        "padding must be at least 0, found [-1]",
        None,
    ),
    (
        "%x: f32[N, 4, 8], %w: f32[4, 4, 3]",
        "conv1d %x, %w {dilation=[0]}",
        "dilation must be at least 1, found [0]",
        None,
    ),
    (
        "%x: f32[N, 4, 8], %w: f32[4, 4, 3]",
        "conv1d %x, %w {stride=[1, 1]}",
        "attribute stride must have 1 entries, found 2",
        None,
    ),
    (
        "%x: f32[N, 4, 8], %w: f32[4, 4, 3]",
        "conv1d %x, %w {stride=[1.5]}",
        "attribute stride must be a list of integers, found [1.5]",
        None,
    ),
    (
        "%x: f32[N, 4, 8], %w: f32[4, 4, 3]",
        "conv1d %x, %w {groups=-1}",
        "attribute groups must hold sizes, found -1",
        None,
    ),
    ("%x: f32[N], %m: f32[4], %v: f32[4]", "batch_norm %x, %m, %v", "the input has 1 axes, expected at least 2", None),
    (
        f"{X}, %m: f32[$a], %v: f32[8]",
        "batch_norm %x, %m, %v",
        "input %x has $a = 16 channels, running_var %v has 8",
        "x",
    ),
    (X, "layer_norm %x {normalized_shape=[8]}", "input %x has $a = 16 where the norm expects 8", "x"),
    (X, "layer_norm %x {normalized_shape=[2, 2, $a]}", "the input has 2 axes, the norm is over 3", None),
    (X, "layer_norm %x {normalized_shape=[]}", "the input has 2 axes, the norm is over 0", None),
    (
        f"{X}, %w: f32[8]",
        "layer_norm %x, %w {normalized_shape=[$a]}",
        "input %x has $a = 16, weight %w has 8",
        "x",
    ),
    ("%x: f32[N]", "max_pool2d %x {kernel_size=[2, 2]}", "the input has 1 axes, expected at least 3", None),
    (
        "%x: f32[N, 4, 4]",
        "max_pool1d %x {kernel_size=[0]}",
        "kernel must be at least 1, found [0]",
        None,
    ),
    (X, "adaptive_avg_pool2d %x {output_size=[1, 1]}", "the input has 2 axes, expected at least 3", None),
    (
        "%x: f32[N, 4, $a]",
        "adaptive_avg_pool1d %x {output_size=[1]}",
        "windows are laid along it: found $a = 16, which may change",
        None,
    ),
    (f"{X}, %y: f32[N, $b]", "add %x, %y", "operands of $b = 8 and $a = 16 elements do not broadcast", None),
    (X, "add %x", "it takes two operands, or one and a number; found 1 and 0", None),
    (f"{X}, %y: f32[N, $a]", "add %x, %y {other=1}", "it takes two operands, or one and a number; found 2 and 1", None),
    (
        "%x: f32[N, $o], %y: f32[N, 5]",
        "add %x, %y",
        "operands of 5 and $o = 1 elements do not broadcast",
        None,
    ),
    ("%x: f32[N], %w: f32[4]", "prelu %x, %w", "the input has 1 axes, expected at least 2", None),
    (f"{X}, %w: f32[8]", "prelu %x, %w", "input %x has $a = 16 channels, weight %w has 8 slopes", "x"),
    (X, "softmax %x {dim=2}", "dim 2 is outside of the 2 axes of the input", None),
    (X, "softmax %x {dim=1.5}", "attribute dim must be an integer, found 1.5", None),
    (IMAGE, "reshape %x {shape=[N, $a*63]}", "the input's elements are N*$a*64, the shape asks for N*$a*63", None),
    (IMAGE, "reshape %x {shape=[$a*64]}", "the input's elements are N*$a*64, the shape asks for $a*64 = 1024", None),
    (
        IMAGE,
        "reshape %x {shape=[N, 1024]}",
        "the input's elements are N*$a*64, the shape asks for N*1024",
        None,
    ),
    (IMAGE, "reshape %x {shape=[N, -1]}", "attribute shape must hold sizes, found -1", None),
    (IMAGE, "reshape %x {shape=1024}", "attribute shape must be a list of sizes, found 1024", None),
    (IMAGE, "permute %x {dims=[0, 1, 2]}", "attribute dims must have 4 entries, found 3", None),
    (IMAGE, "permute %x {dims=[0, 1, 2, 2]}", "dims [0, 1, 2, 2] is not an order of the 4 axes", None),
    (f"{X}, %y: f32[N, 3, 3]", "cat %x, %y", "operands with 2, 3 axes cannot be joined along axis 0", None),
    (f"{X}, %y: f32[N, $b]", "cat %x, %y", "operands of $b = 8 and $a = 16 cannot be joined", None),
    (X, "mean %x {dim=[2]}", "dim [2] is outside of the 2 axes of the input", None),
    (X, "mean %x {dim=[-1]}", "dim [-1] is outside of the 2 axes of the input", None),
]


@pytest.mark.parametrize(("inputs", "call", "message", "operand"), FAULTS, ids=[f[1] for f in FAULTS])
def test_the_fault_that_a_rule_finds(inputs: str, call: str, message: str, operand: str | None) -> None:
    found = fault(inputs, call)
    assert (found.message, found.operand) == (message, operand)


def test_a_rule_with_one_result_refuses_two() -> None:
    with pytest.raises(Fault, match="it gives 1 results, found 2"):
        given(X, "relu %x", "%r, %s: f32[], f32[]")


def test_attributes_of_an_op_without_a_rule_are_kept_as_they_are() -> None:
    assert attributes("aten.some.op", {"b": 2, "a": (1, None)}) == (("b", 2), ("a", (1, None)))


def test_the_verifier_and_the_rule_say_the_same() -> None:
    with pytest.raises(InvalidGraph, match="input %x has \\$a = 16 features, weight %w expects 8"):
        verify(declare(f"{X}, %w: f32[$b, 8]", "linear %x, %w"))
