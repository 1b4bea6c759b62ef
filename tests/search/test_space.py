"""Search spaces: their language, their size, and the pipelines that assignments stand for."""

from __future__ import annotations

import random

import pytest
from nasc.compiler.pipeline import parse_pipeline
from nasc.ir import Graph, UsageError, parse
from nasc.search.space import Space, build_space
from nasc.search.space_rules import choices, first_layers, parse_rule
from synthetic import small

EIGHTEEN = "linear: weights=[i2,i4,i8], activations=[u4,u8], biases=[i2,i4,i8]"

CONV = """nasc 1
graph @conv(%x: f32[N, 3, 8, 8]) {
  width $stem = 16
  %stem.w: f32[$stem, 3, 3, 3] = weight
  %stem: f32[N, $stem, 6, 6] = conv2d %x, %stem.w
  %flat: f32[N, $stem*36] = reshape %stem {shape=[N, $stem*36]}
  %fc.w: f32[10, $stem*36] = weight
  %fc: f32[N, 10] = linear %flat, %fc.w
  return %fc
}
"""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small().graph


def space(graph: Graph, *rules: str, widths: bool = False) -> Space:
    return build_space(graph, [parse_rule(rule) for rule in rules], widths=widths)


def test_default_space_offers_bits_per_layer_and_more_for_raw_features(graph: Graph) -> None:
    found = space(graph)
    assert [k.name for k in found.knobs] == [
        f"fc{n}.{part}" for n in (1, 2, 3, 4) for part in ("weights", "activations")
    ]
    assert found.knobs[0].choices == ("i2", "i3", "i4", "i5", "i6", "i8")
    assert found.knobs[1].choices == ("u6", "u7", "u8")
    assert found.knobs[3].choices == ("u3", "u4", "u5", "u6", "u7", "u8")
    assert found.size == 6**4 * 3 * 6**3


def test_the_older_tools_eighteen_configurations_are_one_flag(graph: Graph) -> None:
    found = space(graph, EIGHTEEN)
    assert found.size == 18
    texts = {found.pipeline(a) for a in found}
    assert len(texts) == 18
    assert (
        "cleanup | fold-batch-norm | merge-linear | "
        "quantize{layers=[fc1, fc2, fc3, fc4], weights=i4, activations=u8, biases=i2} | place | calibrate | legalize"
    ) in texts


def test_the_same_eighteen_as_a_table(graph: Graph) -> None:
    from nasc.search.config import configuration

    table = {
        "layers": "linear",
        "weights": ["i2", "i4", "i8"],
        "activations": ["u4", "u8"],
        "biases": ["i2", "i4", "i8"],
    }
    settings = configuration({"search.space": [table]}).settings
    assert space(graph, *settings.search.space).digest == space(graph, EIGHTEEN).digest


def test_each_gives_every_layer_its_own_choice(graph: Graph) -> None:
    assert space(graph, "each fc[23]: weights=[i4, i8]").size == 4
    assert space(graph, "fc[23]: weights=[i4, i8]").size == 2


def test_layers_that_no_rule_names_stay_as_they_are(graph: Graph) -> None:
    found = space(graph, "fc2: weights=[i4, i8]")
    assert "fc1" not in found.pipeline(found.largest)


def test_a_later_rule_overrides_an_earlier_one(graph: Graph) -> None:
    found = space(graph, "linear: weights=[i4, i8]", "fc4: weights=i8")
    assert {k.name: k.targets for k in found.knobs} == {
        "linear.weights": ("fc1", "fc2", "fc3"),
        "fc4.weights": ("fc4",),
    }
    assert found.size == 2
    assert all(
        "quantize{layers=[fc1, fc2, fc3, fc4], weights=i8}" in found.pipeline(a)
        or "fc4, weights=i8" in found.pipeline(a)
        for a in found
    )


def test_f32_leaves_a_layer_alone(graph: Graph) -> None:
    found = space(graph, "fc1: weights=[i8, f32]")
    assert found.pipeline({"fc1.weights": "f32"}) == "cleanup | fold-batch-norm | merge-linear"
    assert found.assignment(found.pipeline({"fc1.weights": "f32"})) == {"fc1.weights": "f32"}


def test_widths_by_default_only_where_asked_for(graph: Graph) -> None:
    assert not any(k.part == "width" for k in space(graph).knobs)
    offered = {k.name: k.choices for k in space(graph, widths=True).knobs if k.part == "width"}
    assert offered == {
        "fc1.width": ("16", "32", "48", "64"),
        "fc2.width": ("8", "16", "24", "32"),
        "fc3.width": ("8", "16", "24", "32"),
    }


def test_asked_for_sizes_and_joint_widths(graph: Graph) -> None:
    found = space(graph, "[fc2, fc3]: width=16..32/8")
    assert found.size == 3
    assert found.pipeline(found.at(0)).startswith("cleanup | resize{fc2=16, fc3=16}")
    assert found.pipeline(found.at(2)) == "cleanup | fold-batch-norm | merge-linear"


def test_a_width_of_the_source_is_not_written(graph: Graph) -> None:
    found = space(graph, "[fc1, fc2]: width=[32, 64]")
    assert "resize{fc2=64, grow=nearly}" in found.pipeline(found.largest)
    assert found.assignment(found.pipeline(found.largest)) == found.largest


def test_patterns_meet_op_kinds(graph: Graph) -> None:
    conv = parse(CONV)
    assert [k.targets for k in space(conv, "conv2d: weights=[i4, i8]").knobs] == [("stem",)]
    assert first_layers(conv) == {"stem"}


def test_biases_only_where_there_are_any() -> None:
    assert [k.name for k in space(parse(CONV), "each *: weights=[i4, i8], biases=[i4, i8]").knobs] == [
        "stem.weights",
        "fc.weights",
    ]


@pytest.mark.parametrize("rules", [(), (EIGHTEEN,), ("each *: weights=i2..i8, activations=u4..u8, width=default",)])
def test_assignments_numbers_and_pipelines_stand_for_each_other(graph: Graph, rules: tuple[str, ...]) -> None:
    found = space(graph, *rules)
    draw = random.Random(1)
    for index in {0, found.size - 1, *(draw.randrange(found.size) for _ in range(12))}:
        assignment = found.at(index)
        assert found.index(assignment) == index
        assert found.assignment(found.pipeline(assignment)) == assignment
    assert found.at(0) == found.smallest
    assert found.at(found.size - 1) == found.largest
    with pytest.raises(IndexError):
        found.at(found.size)


def test_a_pipeline_of_another_space_is_refused(graph: Graph) -> None:
    with pytest.raises(UsageError, match="not one of this search space"):
        space(graph, EIGHTEEN).assignment("quantize{layers=fc1, weights=i4}")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("fc9: weights=i4", "no layer matches 'fc9'\n  Did you mean fc"),
        ("fc1", "cannot be read"),
        ("fc1: weigths=i4", "Did you mean weights"),
        ("fc1: weights=i17", r"weights: 'i17' is no format\n  weights may be any format .* Formats are f64, .* mxfp4"),
        ("fc1: activations=mxfp5", "'mxfp5' is no format\n  activations may be integers .* or u4..u8.$"),
        ("fc1: weights=f64", "any format of 16 bits or fewer or f32"),
        ("fc1: activations=f16", "without blocks, or f32"),
        ("fc1: weights=[]", "an empty list of choices in 'fc1: weights=[]'\n  Write [i4, i8]"),
        ("fc1: weights=i8..i2", "is empty or mixed"),
        ("fc1: weights=i4, weights=i8", "given twice"),
        ("fc1: width=wide", "'wide' is no size of a width"),
        ("fc4: width=8", "the width of fc4 is fixed at 5"),
        ("fc1: ", "expected PART=CHOICES"),
    ],
)
def test_a_rule_that_is_none_is_refused_with_what_to_write(graph: Graph, rule: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        space(graph, rule)


def test_rules_print_as_they_are_read() -> None:
    for text in ("each fc*: weights=[i4, i8], activations=default", "[a, b]: biases=[i8], width=[16, 24]"):
        assert str(parse_rule(text)) == text


def test_ranges() -> None:
    assert choices("u4..u6, 16..64/16, i8") == ("u4", "u5", "u6", "16", "32", "48", "64", "i8")


def test_other_number_formats_may_be_offered(graph: Graph) -> None:
    found = space(graph, "linear: weights=[f8e4m3, mxfp4, i4<block 32>, ternary, bf16], activations=[f8e5m2, u6]")
    assert found.knobs[0].choices == ("ternary", "f4e2m1<block 32 2^>", "i4<block 32>", "f8e4m3", "bf16")
    for assignment in found:
        assert found.assignment(found.pipeline(assignment)) == assignment
    for rule in (
        "linear: activations=[mxint8]",
        "linear: activations=[l4]",
        "linear: biases=[f8e4m3]",
        "linear: weights=[f64]",
    ):
        with pytest.raises(UsageError, match="search space: (activations|biases|weights) may be .* or f32; found"):
            space(graph, rule)


def test_asymmetric_weights_may_be_offered(graph: Graph) -> None:
    found = space(graph, "each *: weights=[u4, i4, u8<block 8>]")
    assert {k.choices for k in found.knobs} == {("i4", "u4", "u8<block 8>")}
    for index in range(0, found.size, 7):
        pipeline = parse_pipeline(found.pipeline(found.at(index)))
        assert found.assignment(str(pipeline)) == found.at(index)
