"""Costs as polynomials equal those counted from the resized graph, whatever the widths."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.targets import static_cost
from nasc.targets.polynomial import compiled_totals

from .conftest import graph_of

GRAPH = graph_of("""
graph @net(%image: f32[N, 3, 16, 16]) {
  width $a = 8
  width $b = 6
  width $c = 10
  %x.q: u8<0.02>[N, 3, 16, 16] = quantize %image
  %a.weight: i4<per 0>[$a, 3, 3, 3] = weight
  %a.bias: i32<per 0>[$a] = weight
  %a: f32[N, $a, 16, 16] = conv2d %x.q, %a.weight, %a.bias {padding=[1, 1]}
  %b.weight: u6<per 0, zeros>[$b, 3, 3, 3] = weight
  %b: f32[N, $b, 16, 16] = conv2d %x.q, %b.weight {padding=[1, 1]}
  %ab: f32[N, $a+$b, 16, 16] = cat %a, %b {dim=1}
  %m: f32[$a+$b] = buffer
  %v: f32[$a+$b] = buffer
  %n: f32[N, $a+$b, 16, 16] = batch_norm %ab, %m, %v
  %d.weight: f32[$a+$b, 1, 3, 3] = weight
  %d: f32[N, $a+$b, 14, 14] = conv2d %n, %d.weight {groups=$a+$b}
  %p: f32[N, $a+$b, 7, 7] = max_pool2d %d {kernel_size=[2, 2], stride=[2, 2]}
  %f: f32[N, $a*49+$b*49] = reshape %p {shape=[N, $a*49+$b*49]}
  %c.weight: f16[$c, $a*49+$b*49] = weight
  %c: f32[N, $c] = linear %f, %c.weight
  %y.weight: u5<0.1, 3>[4, $c] = weight
  %y: f32[N, 4] = linear %c, %y.weight
  return %y
}""")
TOTALS = compiled_totals(GRAPH)


@settings(max_examples=50, deadline=None)
@given(st.fixed_dictionaries({name: st.integers(1, 300) for name in ("a", "b", "c")}))
def test_polynomials_equal_the_counts(sizes: dict[str, int]) -> None:
    cost = static_cost(GRAPH.with_sizes(sizes))
    found = TOTALS(sizes)
    assert found.macs == cost.macs
    assert found.bit_operations == cost.bit_operations
    assert found.parameters == cost.parameters
    assert found.weight_bits == cost.weight_bits


def test_graphs_without_widths_or_layers_have_constants() -> None:
    still = graph_of(
        "graph @t(%x: f32[N, 4]) {\n  %w: f32[2, 4] = weight\n  %y: f32[N, 2] = linear %x, %w\n  return %y\n}"
    )
    totals = compiled_totals(still)({})
    assert (totals.macs, totals.parameters, totals.weight_bits) == (8, 8, 256)
    empty = graph_of("graph @t(%x: f32[N, 4]) {\n  %y: f32[N, 4] = relu %x\n  return %y\n}")
    assert compiled_totals(empty)({}).macs == 0


def test_products_of_activations_have_polynomials_too() -> None:
    graph = graph_of("""graph @t(%x: f32[N, 6, 8]) {
      width $h = 12
      %q.w: f32[$h, 8] = weight
      %k.w: f32[$h, 8] = weight
      %q: f32[N, 6, $h] = linear %x, %q.w
      %k: f32[N, 6, $h] = linear %x, %k.w
      %a: f32[N, 6, $h] = scaled_dot_product_attention %q, %k, %q {scale=0.3}
      %s: f32[N, 6, 6] = einsum %a, %k {equation="bid,bjd->bij"}
      return %s
    }""")
    totals = compiled_totals(graph)
    for size in (1, 12, 40):
        cost = static_cost(graph.with_sizes({"h": size}))
        assert (totals({"h": size}).macs, totals({"h": size}).bit_operations) == (cost.macs, cost.bit_operations)
