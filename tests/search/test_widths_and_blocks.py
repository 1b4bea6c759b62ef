"""Widths in groups, sizes that suit the target, blocks that may go: what the space offers and `nasc space` says."""

from __future__ import annotations

import random

import nasc
import pytest
import torch
from nasc.compiler.analyses.branches import branches
from nasc.compiler.network import Network
from nasc.ir import Graph, UsageError, parse
from nasc.search.config import configuration
from nasc.search.run import space_of
from nasc.search.sizing import Sizing
from nasc.search.space import Space, build_space
from nasc.search.space_groups import group_name, role
from nasc.search.space_rules import parse_rule
from nasc.search.survey import described_space, sizing_of
from support.networks import free, network_of
from synthetic import problem

HEADS = parse(
    """nasc 1
graph @heads(%x: f32[N, 4, 32]) {
  width $qkv.heads = 32
  width $qkv.head_size = 24
  width $few = 12
  %qkv.w: f32[$qkv.heads*$qkv.head_size, 32] = weight
  %qkv: f32[N, 4, $qkv.heads*$qkv.head_size] = linear %x, %qkv.w
  %few.w: f32[$few, $qkv.heads*$qkv.head_size] = weight
  %few: f32[N, 4, $few] = linear %qkv, %few.w
  %head.w: f32[5, $few] = weight
  %head: f32[N, 4, 5] = linear %few, %head.w
  return %head
}
"""
)


def block(name: str, before: str, size: int, inner: int) -> str:
    return f"""
    %{name}.conv1.w: f32[{inner}, {size}, 3, 3] = weight
    %{name}.conv1: f32[N, {inner}, 8, 8] = conv2d {before}, %{name}.conv1.w {{padding=[1, 1]}}
    %{name}.relu: f32[N, {inner}, 8, 8] = relu %{name}.conv1
    %{name}.conv2.w: f32[{size}, {inner}, 3, 3] = weight
    %{name}.conv2: f32[N, {size}, 8, 8] = conv2d %{name}.relu, %{name}.conv2.w {{padding=[1, 1]}}
    %{name}.add: f32[N, {size}, 8, 8] = add %{name}.conv2, {before}
    %{name}.out: f32[N, {size}, 8, 8] = relu %{name}.add
    """


def residual() -> Network:
    lines = "%stem.w: f32[32, 3, 1, 1] = weight\n%stem: f32[N, 32, 8, 8] = conv2d %x, %stem.w"
    lines += block("layer1.0", "%stem", 32, 32) + block("layer1.1", "%layer1.0.out", 32, 32)
    lines += block("layer1.2", "%layer1.1.out", 32, 64)
    lines += "%fc.w: f32[5, 32, 8, 8] = weight\n%fc: f32[N, 5, 1, 1] = conv2d %layer1.2.out, %fc.w"
    return network_of(free(lines, "%x: f32[N, 3, 8, 8]"))


@pytest.fixture(scope="module")
def network() -> Network:
    return residual()


def space(graph: Graph, *rules: str, widths: bool = True, sizing: Sizing | None = None) -> Space:
    return build_space(
        graph, [parse_rule(r) for r in rules], widths=widths, blocks=branches(graph), sizing=sizing or Sizing()
    )


# Sizes.


def test_sizes_are_shares_rounded_to_what_the_target_computes_at_once(network: Network) -> None:
    graph = network.graph
    assert Sizing().sizes(graph, "layer1.2.conv1") == (16, 32, 48, 64)
    assert Sizing(multiple=32).sizes(graph, "layer1.2.conv1") == (32, 64)
    assert Sizing(low=0.5, high=2, steps=4).sizes(graph, "layer1.2.conv1") == (32, 64, 96, 128)
    assert Sizing(low=0.3, high=0.7, steps=2, multiple=1).sizes(graph, "layer1.2.conv1") == (19, 45)
    assert Sizing(steps=1).sizes(graph, "layer1.2.conv1") == (64,)


def test_heads_count_as_many_channels_each_as_they_are_large() -> None:
    sizing = Sizing()
    assert sizing.multiple_of(HEADS, "qkv.heads") == 1
    assert sizing.multiple_of(HEADS, "qkv.head_size") == 8
    assert sizing.multiple_of(HEADS, "few") == 1, "too small to be rounded"
    assert Sizing(multiple=16).multiple_of(HEADS, "qkv.heads") == 2
    assert sizing.sizes(HEADS, "few") == (3, 6, 9, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "the bounds of widths are empty"),
        ({"low": 2.0, "high": 1.0}, "from 2 to 1 of their size"),
        ({"multiple": 0}, "a multiple of 1"),
    ],
)
def test_sizes_that_make_no_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sizing(**options)  # type: ignore[arg-type]


def test_targets_and_settings_say_the_multiple() -> None:
    assert sizing_of(configuration().settings, "onnxruntime:cpu") == Sizing(multiple=8)
    assert sizing_of(configuration().settings, "onnxruntime:tensorrt").multiple == 32
    chosen = configuration({"search.width_multiple": 4, "search.width_bounds": [0.5, 1.5], "search.width_steps": 3})
    assert sizing_of(chosen.settings, "onnxruntime:tensorrt") == Sizing(0.5, 1.5, 3, 4)


# Groups.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer1.0.conv1", "layer*.*.conv1"),
        ("fc1", "fc1"),
        ("features.3", "features.3"),
        ("encoder.layers.encoder_layer_11.mlp.0", "encoder.layers.encoder_layer_*.mlp.0"),
        ("blocks.4.attn.qkv.heads", "blocks.*.attn.qkv.heads"),
        ("blocks.4.qkv2.heads", "blocks.*.qkv2.heads"),
    ],
)
def test_roles_leave_the_numbers_of_blocks_out(name: str, expected: str) -> None:
    assert role(name) == expected


def test_groups_are_called_by_what_differs() -> None:
    assert group_name(["layer1.0.conv1", "layer1.1.conv1"]) == "layer1.*.conv1"
    assert group_name(["layer1.0.conv1", "layer2.0.conv1"]) == "layer*.0.conv1"
    assert group_name(["a.fc"]) == "a.fc"


def test_widths_of_one_role_and_stage_choose_together(network: Network) -> None:
    found = {k.name: k for k in space(network.graph).knobs if k.part == "width"}
    assert {name: knob.targets for name, knob in found.items()} == {
        "stem.width": ("stem",),
        "layer1.*.conv1.width": ("layer1.0.conv1", "layer1.1.conv1"),
        "layer1.2.conv1.width": ("layer1.2.conv1",),
    }
    assert found["layer1.*.conv1.width"].choices == ("8", "16", "24", "32")


def test_a_group_can_be_split(network: Network) -> None:
    split = space(network.graph, "grouped *: width=default", "each layer1.[01].conv1: width=[8, 32]")
    assert {k.name: (k.targets, k.choices) for k in split.knobs if k.part == "width" and len(k.choices) == 2} == {
        "layer1.0.conv1.width": (("layer1.0.conv1",), ("8", "32")),
        "layer1.1.conv1.width": (("layer1.1.conv1",), ("8", "32")),
    }
    assert [k.targets for k in split.knobs] == [
        ("stem",),
        ("layer1.0.conv1",),
        ("layer1.1.conv1",),
        ("layer1.2.conv1",),
    ]


def test_widths_of_several_sizes_share_a_share_of_their_own(network: Network) -> None:
    found = space(network.graph, "*: width=[50%, 100%]")
    (knob,) = found.knobs
    assert knob.choices == ("50%", "100%")
    assert found.pipeline({knob.name: "50%"}).startswith(
        "cleanup | resize{stem=16, layer1.0.conv1=16, layer1.1.conv1=16, layer1.2.conv1=32} |"
    )
    assert [found.assignment(found.pipeline(a)) for a in found] == list(found)
    part = space(network.graph, "*: width=[50%, 100%]", "stem: width=[24, 32]")
    assert "resize{stem=24, layer1.0.conv1=16, layer1.1.conv1=16, layer1.2.conv1=32}" in part.pipeline(part.smallest)
    with pytest.raises(UsageError, match="share either sizes or shares"):
        space(network.graph, "*: width=[16, 50%]")
    with pytest.raises(UsageError, match="'0%' is no size of a width"):
        space(network.graph, "stem: width=0%")
    assert space(network.graph, "stem: width=[25%, 24]").knobs[0].choices == ("8", "24")


def test_layers_of_one_role_choose_their_bits_together(network: Network) -> None:
    found = space(network.graph, "grouped conv2d: weights=[i4, i8]")
    assert [(k.name, k.targets) for k in found.knobs][1] == (
        "layer1.*.conv1.weights",
        ("layer1.0.conv1", "layer1.1.conv1"),
    )
    assert str(parse_rule("grouped conv2d: weights=[i4, i8]")) == "grouped conv2d: weights=[i4, i8]"
    table = {"layers": "conv2d", "grouped": True, "weights": ["i4", "i8"]}
    assert configuration({"search.space": [table]}).settings.search.space == ("grouped conv2d: weights=[i4, i8]",)


# Blocks.


def test_blocks_may_go_and_their_widths_and_layers_go_with_them(network: Network) -> None:
    found = space(network.graph)
    assert [k.name for k in found.knobs if k.part == "block"] == [f"layer1.{i}.block" for i in range(3)]
    assert found.smallest["layer1.1.block"] == "drop"
    assignment = {**found.smallest, "layer1.0.block": "keep", "layer1.2.block": "keep"}
    text = found.pipeline(assignment)
    assert text.startswith("cleanup | drop{block=layer1.1} | resize{stem=8, layer1.0.conv1=8, layer1.2.conv1=16}")
    assert "layer1.1" not in text.replace("drop{block=layer1.1}", "")
    assert found.pipeline(found.assignment(text)) == text
    every = found.pipeline(found.smallest)
    assert "drop{block=[layer1.0, layer1.1, layer1.2]} | resize{stem=8} |" in every
    assert found.pipeline(found.assignment(every)) == every


def test_blocks_by_rules(network: Network) -> None:
    found = space(network.graph, "each layer1.[12]: block=default", "each stem: weights=[i4, i8]")
    assert found.size == 8
    together = space(network.graph, "layer1.[12]: block=[drop, keep]")
    assert together.pipeline(together.smallest).startswith("cleanup | drop{block=[layer1.1, layer1.2]}")
    assert [together.assignment(together.pipeline(a)) for a in together] == list(together)
    for rule, message in (
        ("layer2.*: block=default", "no block that can be dropped matches 'layer2.*'\n  Did you mean layer1."),
        ("layer1.1: block=maybe", "a block cannot be 'maybe'"),
    ):
        with pytest.raises(UsageError) as raised:
            space(network.graph, rule)
        assert message in str(raised.value)


def test_every_candidate_of_the_space_is_a_valid_network(network: Network) -> None:
    found = space(network.graph, "grouped *: width=default", "each *: block=default", "each *: weights=[i4, i8, f32]")
    draw = random.Random(3)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for index in [0, found.size - 1, *(draw.randrange(found.size) for _ in range(10))]:
        pipeline = found.pipeline(found.at(index))
        made = network.apply(pipeline, data=x)
        assert made(x).shape == (2, 5, 1, 1), pipeline


def test_a_block_inside_another_is_not_dropped_twice() -> None:
    lines = "%a.w: f32[16, 16] = weight\n%outer.a: f32[N, 16] = linear %x, %a.w\n"
    lines += "%b.w: f32[16, 16] = weight\n%outer.inner.b: f32[N, 16] = linear %outer.a, %b.w\n"
    lines += "%c.w: f32[16, 16] = weight\n%outer.inner.c: f32[N, 16] = linear %outer.inner.b, %c.w\n"
    lines += "%inner: f32[N, 16] = add %outer.a, %outer.inner.c\n%outer: f32[N, 16] = add %x, %inner\n"
    graph = free(lines + "%fc.w: f32[5, 16] = weight\n%fc: f32[N, 5] = linear %outer, %fc.w")
    assert [b.name for b in branches(graph)] == ["outer.inner", "outer"]
    found = space(graph, "each *: block=default")
    assert found.pipeline(found.smallest).startswith("cleanup | drop{block=outer} |")


# What is printed is what is searched.


def test_the_search_and_the_survey_have_one_space() -> None:
    searched = space_of(problem(), configuration({"search.widths": True}).settings)
    again = described_space(
        problem().builder.graph, (), configuration({"search.widths": True}).settings, "onnxruntime:cpu"
    )
    assert searched.digest == again.digest
    assert any(k.part == "width" for k in searched.knobs)


def test_a_survey_says_what_is_free_what_is_frozen_and_what_the_corners_cost(network: Network) -> None:
    found = nasc.space(network, configuration({"search.widths": True, "target": "onnxruntime:cpu"}).settings)
    rows = {row.name: row for row in found.widths}
    assert rows["layer1.*.conv1"].widths == ("layer1.0.conv1", "layer1.1.conv1")
    assert rows["layer1.*.conv1"].layers == ("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2")
    assert rows["layer1.*.conv1"].parameters == 4 * 32 * 32 * 9
    assert (rows["stem"].low, rows["stem"].high, rows["stem"].multiple) == (8, 32, 8)
    assert [b.name for b in found.blocks] == ["layer1.0", "layer1.1", "layer1.2"]
    assert found.blocks[0].parameters == 2 * 32 * 32 * 9
    reasons = {row.reason: row for row in found.frozen}
    assert reasons["output %fc of the graph"].axes == ("fc.w[0]=5",)
    assert "stem.w[1]=3" in reasons["conv2d %stem <- input %x of the graph"].axes
    source, smallest, largest = found.corners
    total = sum(int(torch.tensor(network.weights.recipe(n).tensor.shape).prod()) for n in network.weights)
    assert source.parameters == largest.parameters == total
    assert smallest.parameters == 8 * 3 + 5 * 8 * 64
    assert smallest.macs == 8 * 3 * 64 + 5 * 8 * 64
    assert found.size == 4 * 4 * 4 * 2**3 * 6**8 * 3 * 6**7
    assert found.share == 1.0


def test_a_width_that_is_not_offered_is_listed_all_the_same(network: Network) -> None:
    found = nasc.space(network, configuration({"search.space": ["stem: width=[16, 32]"]}).settings)
    offered = {row.name: row.choices for row in found.widths}
    assert offered == {"stem": ("16", "32"), "layer1.*.conv1": (), "layer1.2.conv1": ()}
    assert found.size == 2


def test_kernels_are_frozen_together_by_line() -> None:
    lines = "%0.w: f32[4, 3, 3, 3] = weight\n%0: f32[N, 4, 6, 6] = conv2d %x, %0.w {padding=[1, 1]}\n"
    for i in (1, 2):
        lines += (
            f"%{i}.w: f32[4, 4, 3, 3] = weight\n%{i}: f32[N, 4, 6, 6] = conv2d %{i - 1}, %{i}.w {{padding=[1, 1]}}\n"
        )
    found = nasc.space(network_of(free(lines, "%x: f32[N, 3, 6, 6]")))
    (row,) = (row for row in found.frozen if "kernel" in row.reason)
    assert row.ops == ("0", "1", "2")
    assert row.axes == tuple(f"{i}.w[2,3]=3,3" for i in range(3))
    assert row.count == 6
