"""What only slows things down is not offered, and that is said."""

from __future__ import annotations

import pytest
from nasc.search.space import build_space
from nasc.search.space_rules import parse_rule
from nasc.search.space_truth import latency_counts, suspects, without_slow
from nasc.targets.truth import Row, Truth
from support.networks import free
from support.zoo import ZOO


def row(weights: str, activations: str, verdict: str) -> Row:
    return Row("linear", "s", weights, activations, 1.5, 1.4, 1.6, verdict)


TRUTH = Truth(
    "onnxruntime:cpu",
    "a device",
    "a runtime",
    (
        row("i8", "u8", "FASTER"),
        row("i4", "u4", "FASTER"),
        row("i16", "u16", "SLOWER"),
        row("i8", "u16", "SLOWER"),
        row("f8e4m3", "f8e4m3", "SLOWER"),
        row("f8e4m3", "f32", "SAME"),
    ),
)
GRAPH = ZOO["mlp"]


def test_wide_formats_are_left_out_and_named() -> None:
    space = build_space(GRAPH, [parse_rule("linear: weights=[i4, i8, i12], activations=[u8, u12, f32]")])
    assert suspects(space)
    found = without_slow(space, GRAPH, TRUTH)
    assert {k.part: k.choices for k in found.knobs} == {"weights": ("i4", "i8"), "activations": ("u8", "f32")}
    assert found.size == 4 < space.size
    assert len(found.left_out) == 2
    assert "is not offered i12: slower than f32 for linear on a device with a runtime" in found.left_out[0]
    assert found.digest != space.digest


def test_slow_inputs_of_8_bit_floats_are_left_out_and_weights_kept() -> None:
    space = build_space(GRAPH, [parse_rule("linear: weights=[i8, f8e5m2], activations=[u8, f8e4m3, f8e5m2]")])
    assert suspects(space)
    found = without_slow(space, GRAPH, TRUTH)
    assert {k.part: k.choices for k in found.knobs} == {"weights": ("f8e5m2", "i8"), "activations": ("u8",)}
    assert "is not offered f8e4m3, f8e5m2: slower than f32 for linear" in found.left_out[0]


def test_knobs_without_the_same_formats_share_a_sentence() -> None:
    rules = ["each *: weights=[i8, i12, i16], activations=[u8, u16]", "fc2: weights=[i8, i16]"]
    found = without_slow(build_space(GRAPH, list(map(parse_rule, rules))), GRAPH, TRUTH)
    why = "slower than f32 for linear on a device with a runtime (`nasc targets --probe`)"
    assert found.left_out == (
        f"fc1.weights, fc3.weights are not offered i12, i16: {why}",
        f"fc1.activations, fc2.activations, fc3.activations are not offered u16: {why}",
        f"fc2.weights is not offered i16: {why}",
    )


def test_a_sentence_names_the_first_and_counts_the_others() -> None:
    layers = "\n".join(
        f"%l{i}.w: f32[16, 16] = weight\n%l{i}: f32[N, 16] = linear %{f'l{i - 1}' if i else 'x'}, %l{i}.w"
        for i in range(9)
    )
    graph = free(layers)
    found = without_slow(build_space(graph, [parse_rule("each *: weights=[i8, i16]")]), graph, TRUTH)
    (told,) = found.left_out
    assert told.startswith("l0.weights, l1.weights, l2.weights and 6 more are not offered i16: slower than f32")
    assert {k.choices for k in found.knobs} == {("i8",)}


def test_a_knob_of_slow_formats_alone_keeps_them_for_their_size() -> None:
    space = build_space(GRAPH, [parse_rule("linear: weights=[i8], activations=[u12, u16]")])
    assert without_slow(space, GRAPH, TRUTH) is space


def test_nothing_is_asked_of_the_table_for_usual_spaces() -> None:
    assert not suspects(build_space(GRAPH))
    assert not suspects(build_space(GRAPH, [parse_rule("each *: weights=i2..i8, activations=u2..u8")]))


@pytest.mark.parametrize(
    ("objectives", "counts"),
    [((), True), (("accuracy", "latency:min"), True), (("accuracy:max", "bit_operations"), False)],
)
def test_time_matters_only_where_it_is_an_objective(objectives: tuple[str, ...], counts: bool) -> None:
    assert latency_counts(objectives) is counts
