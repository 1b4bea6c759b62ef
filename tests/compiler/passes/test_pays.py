"""What layers are counted to do, by which they are priced."""

from __future__ import annotations

import pytest
from nasc.compiler.passes.pays import CACHED_BYTES, LAYER_NS, amounts, keeps_weights, layer_amounts
from nasc.ir import parse

FOLLOWING = """nasc 1
graph @g(%x: f32[N, 3, 8, 8]) {
  width $a = 32
  %a.w: f32[$a, 3, 1, 1] = weight
  %a: f32[N, $a, 8, 8] = conv2d %x, %a.w
  %y.w: f32[$a, 1, 3, 3] = weight
  %y: f32[N, $a, 8, 8] = conv2d %a, %y.w {padding=[1, 1], groups=$a}
  return %y
}"""


def test_groups_that_follow_a_width_are_groups() -> None:
    graph = parse(FOLLOWING)
    counted = layer_amounts(graph, graph.producers["y"], "real", kept=False)
    assert counted == ("depthwise", (32 * 64 * 9, 32 * 64, 32 * 9, 0))
    assert keeps_weights(graph)
    assert layer_amounts(graph, graph.producers["y"], "real", kept=True) == ("depthwise", (32 * 64 * 9, 32 * 64, 0, 0))


@pytest.mark.parametrize(("how", "bytes_each"), [("real", 4), ("codes", 1)])
def test_maps_count_where_they_are_too_large_for_the_caches(how: str, bytes_each: int) -> None:
    side = int((CACHED_BYTES / bytes_each / 32) ** 0.5)
    fits, spills = ([1, 16, side, side], [1, 16, side + 1, side + 1])
    assert amounts("conv2d", [16, 16, 1, 1], fits, fits, 1, how)[1][-1] == 0
    assert amounts("conv2d", [16, 16, 1, 1], spills, spills, 1, how)[1][-1] == 32 * (side + 1) ** 2


def test_all_that_is_counted_has_a_price() -> None:
    shapes = {
        "conv2d": [
            ([16, 16, 3, 3], 1),
            ([16, 1, 3, 3], 16),
            ([24, 1, 3, 3], 24),
            ([32, 16, 3, 3], 2),
            ([16, 4, 3, 3], 4),
        ]
    }
    shapes["linear"] = [([16, 16], 1)]
    found = {
        (name, how): len(counted)
        for kind, cases in shapes.items()
        for weight, groups in cases
        for how in ("real", "codes")
        for name, counted in [amounts(kind, weight, [1, 16, 8, 8], [1, weight[0], 8, 8], groups, how)]
    }
    assert found == {key: len(prices) for key, prices in LAYER_NS.items()}
