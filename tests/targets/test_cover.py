"""Running nodes find the nodes of the file that they compute: merged, renamed, laid out anew."""

from __future__ import annotations

import pytest
from nasc.targets import target_named
from nasc.targets.cover import Cover, FileNode, cover, undressed
from nasc.targets.trace import Trace

from .conftest import graph_of, random_weights

CPU = target_named("onnxruntime:cpu")


def node(name: str, kind: str, *inputs: str, output: str = "", activation: str = "") -> FileNode:
    return FileNode(name, kind, inputs, (output or name,), activation)


def test_a_merged_node_bears_its_last_parts_name() -> None:
    written = [node("a", "Conv", "x", "w"), node("b", "Relu", "a"), node("c", "Softmax", "b")]
    ran = [node("a", "FusedConv", "x", "w", output="b"), node("c", "Softmax", "b")]
    assert cover(written, ran, ["x", "w"]) == [Cover(("a", "b")), Cover(("c",))]


def test_where_values_were_renamed_names_and_operands_tell() -> None:
    """Blocked layouts: a merged sum is called by its convolution, a merged ReLU by the ReLU."""
    written = [
        node("a", "Conv", "x", "wa"), node("r", "Relu", "a"), node("b", "Conv", "r", "wb"), node("s", "Add", "b", "r"),
        node("t", "Relu", "s"), node("c", "Conv", "t", "wc"), node("u", "Relu", "c"),
    ]  # fmt: skip
    ran = [
        node("r_nchwc", "Conv", "x", "v0", output="t0", activation="Relu"),
        node("b_nchwc", "Conv", "t0", "v1", "bias", "t0", output="t1", activation="Relu"),
        node("u_nchwc", "Conv", "t1", "v2", output="t2", activation="Relu"),
        node("ReorderOutput", "ReorderOutput", "t2", output="u"),
    ]
    found = cover(written, ran, ["x", "wa", "wb", "wc"])
    assert [c.nodes for c in found] == [("a", "r"), ("b", "s", "t"), ("c", "u"), ()]
    assert found[-1].value == "u"


def test_nodes_that_are_called_otherwise_than_their_values_are_found_by_the_values() -> None:
    """Other exporters do so; a runtime names the nodes that it makes after values."""
    written = [
        node("conv", "Conv", "x", "wa", output="a"), node("relu", "Relu", "a", output="r"),
        node("side", "Conv", "r", "wb", output="b"), node("add", "Add", "b", "r", output="s"),
    ]  # fmt: skip
    ran = [
        node("r_nchwc", "Conv", "x", "v0", output="t0", activation="Relu"),
        node("b_nchwc", "Conv", "t0", "v1", "bias", "t0", output="t1"),
        node("ReorderOutput", "ReorderOutput", "t1", output="s"),
    ]
    found = cover(written, ran, ["x", "wa", "wb"])
    assert [c.nodes for c in found] == [("conv", "relu"), ("side", "add"), ()]


def test_layouts_are_seen_through() -> None:
    """An integer kernel between two transposes gives what stands behind the second."""
    written = [
        node("x.q", "QuantizeLinear", "x"), node("x.q/real", "DequantizeLinear", "x.q"),
        node("a", "Conv", "x.q/real", "w"), node("a.q", "QuantizeLinear", "a"), node("m", "MaxPool", "a.q"),
    ]  # fmt: skip
    ran = [
        node("x.q", "QuantizeLinear", "x"),
        node("Transpose", "Transpose", "x.q", output="t0"),
        node("a_token_3", "QLinearConv", "t0", "w", output="a_token_2"),
        node("Transpose_token_4", "Transpose", "a_token_2", output="a.q"),
        node("m", "MaxPool", "a.q"),
    ]
    found = cover(written, ran, ["x", "w"])
    assert [c.nodes for c in found] == [("x.q",), (), ("x.q/real", "a", "a.q"), (), ("m",)]
    assert [found[1].value, found[3].value] == ["x.q", "a.q"]


def test_a_node_that_runs_itself_is_not_taken_for_merged() -> None:
    written = [node("a", "Conv", "x", "w"), node("r", "Relu", "a"), node("q", "QuantizeLinear", "r")]
    ran = [
        node("a_token_1", "QLinearConv", "x", output="t"),
        node("r", "Relu", "t"),
        node("q", "QuantizeLinear", "r"),
    ]
    assert [c.nodes for c in cover(written, ran, ["x", "w"])] == [("a",), ("r",), ("q",)]


def test_what_nothing_runs_is_part_of_what_gives_its_operands() -> None:
    written = [node("a", "Gemm", "x", "w"), node("b", "Identity", "a"), node("k", "Shape", "w"), node("c", "Relu", "b")]
    ran = [node("a", "Gemm", "x", "w"), node("c", "Relu", "a")]
    found = cover(written, ran, ["x", "w"])
    assert [c.nodes for c in found] == [("a",), ("b", "c")]  # k depends on nothing that runs: it was folded away


def test_unknown_nodes_cover_nothing() -> None:
    assert cover([node("a", "Relu", "x")], [node("z", "Magic", "y", output="v")], ["x"]) == [Cover()]


@pytest.mark.parametrize(
    ("name", "plain"),
    [("fused a", "a"), ("a_nchwc", "a"), ("a_token_12", "a"), ("fused a_token_3_nchwc", "a"), ("a/duplicated", "a"),
     ("a", "a"), ("b_nchwc", None), ("a_other", None)],
)  # fmt: skip
def test_names_are_found_in_what_a_runtime_makes_of_them(name: str, plain: str | None) -> None:
    assert undressed(name, {"a": 0}) == plain


RESIDUAL = """
graph @residual(%image: f32[N, 3, 16, 16]) {
  %a.w: f32[16, 3, 3, 3] = weight
  %a: f32[N, 16, 16, 16] = conv2d %image, %a.w {padding=[1, 1]}
  %ar: f32[N, 16, 16, 16] = relu %a
  %b.w: f32[16, 16, 3, 3] = weight
  %b: f32[N, 16, 16, 16] = conv2d %ar, %b.w {padding=[1, 1]}
  %s: f32[N, 16, 16, 16] = add %b, %ar
  %sr: f32[N, 16, 16, 16] = relu %s
  %q: u8<2^-5>[N, 16, 16, 16] = quantize %sr
  %c.w: i8<per 0>[24, 16, 3, 3] = weight
  %c: f32[N, 24, 16, 16] = conv2d %q, %c.w {padding=[1, 1]}
  %cr: f32[N, 24, 16, 16] = relu %c
  %cq: u7<2^-5>[N, 24, 16, 16] = quantize %cr
  %p: u7<2^-5>[N, 24, 8, 8] = max_pool2d %cq {kernel_size=[2, 2], stride=[2, 2]}
  %f: u7<2^-5>[N, 1536] = reshape %p {shape=[N, 1536]}
  %y.w: i8<per 0>[10, 1536] = weight
  %y: f32[N, 10] = linear %f, %y.w
  %t: f32[N, 10] = tanh %y
  return %t
}"""


@pytest.fixture(scope="module")
def residual() -> Trace:
    graph = graph_of(RESIDUAL)
    return CPU.trace(CPU.emit(graph, random_weights(graph)), budget_s=0.05)


def test_the_installed_runtime_merges_and_every_node_is_found(residual: Trace) -> None:
    covered = [name for n in residual.nodes for name in n.cover.nodes]
    assert sorted(covered) == sorted({n.name for n in residual.written})  # each once, none forgotten
    assert all(n.cover.nodes or n.cover.value for n in residual.nodes)


def test_the_installed_runtimes_kernels_belong_to_their_layers(residual: Trace) -> None:
    found = {name: n for n in residual.nodes for name in n.cover.nodes}
    assert found["a"] is found["ar"]
    assert found["b"] is found["s"]  # the ReLU behind them is done on codes
    assert (found["c"].kind, found["y"].kind) == ("QLinearConv", "QGemm")
    assert found["t"].kind == "Tanh"


def test_work_is_known_although_kernels_pack_their_weights(residual: Trace) -> None:
    found = {name: n for n in residual.nodes for name in n.cover.nodes}
    assert found["c"].macs == 24 * 16 * 9 * 256
    assert (found["c"].format, found["b"].format) == ("i8", "f32")
    assert found["b"].macs == 16 * 16 * 9 * 256
    assert found["y"].macs == 15360
    assert sum(t.bytes for t in found["y"].stored.values()) >= 15360
    assert all(len(n.times_s) == len(residual.calls_s) for n in residual.nodes)
