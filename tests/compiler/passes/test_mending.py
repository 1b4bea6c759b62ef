"""What the passes that mend few bits gain on a real small network, and what they must never change."""

from __future__ import annotations

import math

import pytest
import torch
from nasc.compiler.analyses.accumulators import accumulators
from nasc.compiler.network import Network
from nasc.compiler.passes import PassError
from nasc.compiler.reconstruction import Moments, columns, moments_of, output_error, rounded_codes
from nasc.compiler.weights import Mended, Rounded
from nasc.ir import layers
from support.digits import accuracy, noise, rows, trained
from support.graphs import graph_of
from support.networks import difference, inputs_of, network_of, with_values
from torch import Tensor

FOLDED = "cleanup | fold-batch-norm"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def made(passes: str, network: Network | None = None) -> Network:
    return (network or trained()).apply(f"{FOLDED} | {passes}", data=rows()[0])


def test_the_network_has_learned_something() -> None:
    assert accuracy(trained()) > 0.95


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_corrected_biases_bring_outputs_nearer(bits: int) -> None:
    plain, mended = (made(f"quantize{{weights=i{bits}}} | calibrate{more}") for more in ("", " | correct-bias"))
    assert noise(mended, trained()) < 0.8 * noise(plain, trained())
    assert mended.graph == plain.graph, "every layer had a bias"


def test_after_correction_the_means_are_those_of_the_real_network() -> None:
    mended = made("quantize{weights=i3, activations=u4} | calibrate | correct-bias{samples=1200}")
    x = rows()[0]
    plain = made("quantize{weights=i3, activations=u4} | calibrate")
    wanted = trained()(x).mean(0)
    assert torch.allclose(mended(x).mean(0), wanted, atol=1e-4)
    assert not torch.allclose(plain(x).mean(0), wanted, atol=1e-2), "the control"


def test_mending_twice_is_mending_once() -> None:
    for what in ("correct-bias", "round-weights"):
        once = made(f"quantize{{weights=i3}} | calibrate | {what}")
        twice = made(f"quantize{{weights=i3}} | calibrate | {what} | {what}")
        assert difference(once, twice, (rows()[2],)) < 1e-5
    both = made("quantize{weights=i3} | calibrate | round-weights | correct-bias")
    assert difference(both, made("quantize{weights=i3} | calibrate | round-weights"), (rows()[2],)) < 1e-5


@pytest.mark.parametrize(("bits", "gain"), [(2, 0.5), (3, 0.3), (4, 0.3)])
def test_chosen_codes_bring_outputs_far_nearer_than_nearest_ones(bits: int, gain: float) -> None:
    plain, mended = (made(f"quantize{{weights=i{bits}}} | calibrate{more}") for more in ("", " | round-weights"))
    assert noise(mended, trained()) < gain * noise(plain, trained())
    assert accuracy(mended) >= accuracy(plain) - 0.01
    assert bits != 2 or accuracy(mended) > accuracy(plain) + 0.1
    for op in layers(mended.graph):
        recipe = mended.weights.recipe(op.inputs[1])
        assert isinstance(recipe, Rounded) and isinstance(recipe.source, Mended)
        assert torch.equal(recipe.steps, plain.weights.recipe(op.inputs[1]).steps)  # type: ignore[attr-defined]
        assert bool((recipe.tensor >= recipe.format.low).all() and (recipe.tensor <= recipe.format.high).all())


def test_training_starts_from_the_chosen_codes() -> None:
    mended = made("quantize{weights=i3, activations=u6} | calibrate | round-weights")
    x = rows()[2]
    with torch.no_grad():
        assert torch.equal(mended.module().eval()(x), mended(x))
    assert torch.equal(mended.with_trained(mended.module())(x), mended(x))


def test_more_bits_than_asked_stay_as_they_are() -> None:
    plain, mended = (made(f"quantize{{weights=i5}} | calibrate{more}") for more in ("", " | round-weights"))
    assert mended.key == plain.key
    assert made("quantize{weights=i5} | calibrate | round-weights{bits=5}").key != plain.key


LEFT = [
    ("quantize{weights=i4}", None),
    ("quantize{weights=ternary}", None),
    ("quantize{weights=mxfp4}", "stem, deep, point (f4e2m1<block 32 on 0 2^>), head (f4e2m1<block 32 on 1 2^>)"),
    ("quantize{weights=i4} | quantize{layers=linear, weights=i4<block 8>}", "they are: head (i4<block 8 on 1>)"),
    ("quantize{weights=i4} | quantize{layers=linear, weights=binary}", "they are: head (binary<per 0>)"),
    ("quantize{weights=i4} | quantize{layers=linear, weights=i8}", "they are: head (i8, more than bits=4)"),
    ("quantize{layers=conv2d, weights=i4}", None),
    ("cleanup", "changes nothing: no weights are in few bits"),
]


@pytest.mark.parametrize(("passes", "wanted"), LEFT)
def test_layers_that_are_left_are_told_once(passes: str, wanted: str | None) -> None:
    told: list[str] = []
    network = trained().apply(f"{FOLDED} | {passes} | calibrate", data=rows()[0])
    network.apply("round-weights", data=rows()[0], tell=told.append)
    assert len(told) == (wanted is not None)
    assert wanted is None or (told[0].startswith("round-weights ") and wanted in told[0])


def test_layers_that_are_named_are_told_where_they_are_real_and_refused_where_none_is_left() -> None:
    told: list[str] = []
    network = made("quantize{layers=conv2d, weights=i4} | calibrate")
    network.apply("round-weights{layers=[conv2d, linear]}", data=rows()[0], tell=told.append)
    assert told == ["round-weights leaves weights as they are: head (real numbers)"]
    with pytest.raises(PassError, match=r"what it is asked for: head \(real numbers\)\n  It takes integers"):
        network.apply("round-weights{layers=linear}", data=rows()[0])


IDLE = [
    ("equalize", None),
    ("quantize{weights=i8} | calibrate | equalize", "put `equalize` before `quantize`"),
    ("quantize{activations=u8} | equalize", "put `equalize` before `quantize`"),
    ("correct-bias | quantize{weights=i8} | calibrate", "put it behind `quantize` and `calibrate`"),
    ("quantize{layers=conv2d, weights=i8} | calibrate | correct-bias{layers=head}", "put it behind `quantize`"),
    ("quantize{weights=i8} | calibrate | correct-bias", None),
    ("quantize", "write quantize{weights=i8, activations=u8}"),
    ("quantize{biases=i8}", None),
    ("quantize{weights=i8} | check-accumulators", "checks nothing: no layer has integers for both"),
    ("quantize{weights=i8, activations=u8} | calibrate | check-accumulators", None),
    ("cleanup | fold-batch-norm | merge-linear", None),
    ("resize{stem=8} | quantize{weights=i8} | calibrate", None),
    ("quantize{weights=i8} | resize{stem=8}", None),
    ("quantize{weights=i8} | calibrate | resize{stem=8}", "resize forgets the 4 steps"),
    ("quantize{weights=mxint8} | resize{stem=8}", None),
]


@pytest.mark.parametrize(("passes", "wanted"), IDLE)
def test_what_does_nothing_where_it_stands_says_so_once(passes: str, wanted: str | None) -> None:
    told: list[str] = []
    made("cleanup").apply(passes, data=rows()[0], tell=told.append)
    assert len(told) == (wanted is not None)
    assert wanted is None or wanted in told[0]


def test_equalisation_says_what_stands_between_layers() -> None:
    told: list[str] = []
    trained().apply("cleanup | equalize", tell=told.append)
    assert told == [
        "equalize changes nothing: batch norms stand between layers; put `fold-batch-norm` before `equalize`"
    ]
    lines = "%a.w: f32[4, 16] = weight\n%a: f32[N, 4] = linear %x, %a.w\n%y: f32[N, 4] = sigmoid %a"
    network_of(graph_of(lines)).apply("equalize", tell=told.append)
    assert told[1].startswith("equalize changes nothing: no layer is read by one other alone")


@pytest.mark.parametrize(
    ("between", "said"),
    [
        ("relu6 %a", "the only pair stands relu6"),
        ("hardtanh %a {min_val=0.0, max_val=6.0}", "the only pair stands hardtanh"),
        ("clamp %a {min=0.0, max=6.0}", "the only pair stands clamp"),
        ("hardswish %a", "no layer is read by one other alone"),
    ],
)
def test_pairs_across_a_bound_are_left_and_told(between: str, said: str) -> None:
    lines = f"""%a.w: f32[4, 16] = weight
%a: f32[N, 4] = linear %x, %a.w
%r: f32[N, 4] = {between}
%b.w: f32[2, 4] = weight
%b: f32[N, 2] = linear %r, %b.w"""
    network, told = network_of(graph_of(lines)), list[str]()
    assert network.apply("equalize", tell=told.append) is network
    assert len(told) == 1 and said in told[0]


def test_a_clamp_at_zero_scales_along() -> None:
    lines = """%a.w: f32[4, 16] = weight
%a: f32[N, 4] = linear %x, %a.w
%r: f32[N, 4] = clamp %a {min=0.0}
%b.w: f32[2, 4] = weight
%b: f32[N, 2] = linear %r, %b.w"""
    network = network_of(graph_of(lines))
    equalized, x = network.apply("equalize"), torch.randn(64, 16)
    assert not torch.equal(equalized.values["a.w"], network.values["a.w"])
    torch.testing.assert_close(equalized(x), network(x), rtol=1e-5, atol=1e-5)


def test_pairs_across_a_bound_are_left_beside_others_that_are_equalized() -> None:
    lines = """%a.w: f32[4, 16] = weight
%a: f32[N, 4] = linear %x, %a.w
%r: f32[N, 4] = relu6 %a
%b.w: f32[4, 4] = weight
%b: f32[N, 4] = linear %r, %b.w
%s: f32[N, 4] = relu %b
%c.w: f32[2, 4] = weight
%c: f32[N, 2] = linear %s, %c.w"""
    network, told = network_of(graph_of(lines)), list[str]()
    equalized = network.apply("equalize", tell=told.append)
    changed = [n for n in ("a.w", "b.w", "c.w") if not torch.equal(equalized.values[n], network.values[n])]
    assert changed == ["b.w", "c.w"] and told == []
    x = 20 * torch.randn(64, 16)
    torch.testing.assert_close(equalized(x), network(x), rtol=1e-5, atol=1e-5)


def test_biases_that_are_asked_for_and_missing_are_told() -> None:
    told: list[str] = []
    network = network_of(graph_of("%y.w: f32[4, 16] = weight\n%y: f32[N, 4] = linear %x, %y.w"))
    assert network.apply("quantize{biases=i8}", tell=told.append) is network
    assert told == ["quantize changes nothing: none of its layers has a bias"]


def test_many_layers_of_one_reason_are_counted() -> None:
    lines = "\n".join(
        f"%l{i}.w: f32[16, 16] = weight\n%l{i}: f32[N, 16] = linear %{f'l{i - 1}' if i else 'x'}, %l{i}.w"
        for i in range(10)
    )
    told: list[str] = []
    network = network_of(graph_of(lines))
    network.apply("quantize{weights=mxint8} | round-weights", data=torch.rand(4, 16), tell=told.append)
    assert told == [
        "round-weights leaves weights as they are: l0, l1, l2, l3, l4, l5, l6, l7 and 2 more (i8<block 32 on 0 2^>)"
    ]


def test_columns_are_what_a_convolution_is_a_product_with() -> None:
    lines = """
        %w: f32[6, 2, 3] = weight
        %y: f32[N, 6, 5] = conv1d %x, %w {stride=[2], padding=[2], dilation=[2], groups=2}
    """
    graph = graph_of(lines, "%x: f32[N, 4, 9]")
    network, (x,) = network_of(graph), inputs_of(graph)
    weight = network.values["w"].double()
    found = weight.reshape(2, 3, 6) @ columns(graph.producers["y"], weight, x)
    wanted = network(x).permute(1, 0, 2).reshape(2, 3, -1).double()
    assert torch.allclose(found, wanted, atol=1e-5)


def exact_best(row: Tensor, gram: Tensor, step: float, low: int, high: int) -> float:
    """The least error of any codes, by trying them all."""
    choices = torch.cartesian_prod(*[torch.arange(low, high + 1, dtype=torch.float64)] * len(row))
    apart = choices * step - row
    return float(((apart @ gram) * apart).sum(1).min())


def test_codes_are_near_the_best_there_are() -> None:
    torch.manual_seed(0)
    nearest, chosen, best = 0.0, 0.0, 0.0
    for _ in range(20):
        x = torch.randn(6, 3).double() @ torch.randn(3, 200).double() + 0.3 * torch.randn(6, 200).double()
        gram, row, step = x @ x.T, torch.rand(6).double() * 1.8 - 1.2, 0.6
        moments = Moments(gram[None], gram[None], gram[None], x.sum(1)[None], x.sum(1)[None], 200)
        steps, low, high = (torch.full((1, 1, 1), value).double() for value in (step, -2, 1))
        codes = rounded_codes(row[None, None], gram[None], steps, low, high, 1e-4)
        for_row = row[None, None].clamp(-2 * step, step)
        codes_nearest = torch.round(for_row / step)
        chosen += float(output_error(codes * step, row[None, None], moments))
        nearest += float(output_error(codes_nearest * step, row[None, None], moments))
        best += exact_best(row, gram, step, -2, 1)
    assert best <= chosen < 0.5 * nearest and chosen < 4 * best


def test_moments_of_batches_add_up() -> None:
    graph = graph_of("%w: f32[3, 6] = weight\n%y: f32[N, 3] = linear %x, %w", "%x: f32[N, 6]")
    (x,), layer = inputs_of(graph, batch=20), graph.producers["y"]
    weight = torch.zeros(3, 6)
    whole, parts = (
        moments_of(layer, weight, [x], [2 * x]),
        moments_of(layer, weight, [x[:7], x[7:]], [2 * x[:7], 2 * x[7:]]),
    )
    for name in ("gram", "cross", "real", "rounded_sum", "real_sum"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name))
    centred = x.double() - x.double().mean(0)
    assert torch.allclose(whole.centred().gram[0], centred.T @ centred)
    assert torch.allclose(whole.centred().cross[0], 2 * centred.T @ centred)


def uneven(network: Network) -> Network:
    """The same function with channels of very different ranges between its layers."""
    torch.manual_seed(1)
    factors = {"stem": torch.exp(2 * torch.randn(16)), "deep": torch.exp(2 * torch.randn(16))}
    values = {n: network.values[n] for n in network.weights}
    for name, factor in factors.items():
        values[f"{name}.weight"] = values[f"{name}.weight"] * factor[:, None, None, None]
        values[f"{name}.bias"] = values[f"{name}.bias"] * factor
    values["deep.weight"] = values["deep.weight"] / factors["stem"][:, None, None, None]
    values["point.weight"] = values["point.weight"] / factors["deep"][None, :, None, None]
    return with_values(network, values)


def test_equalisation_mends_uneven_channels() -> None:
    network = uneven(made("cleanup"))
    assert difference(network, trained(), (rows()[2],)) < 1e-4
    options = "quantize{weights=i8, activations=u8, per=tensor} | calibrate"
    plain, mended = network.apply(options, data=rows()[0]), network.apply(f"equalize | {options}", data=rows()[0])
    assert accuracy(plain) < accuracy(trained()) - 0.02
    assert accuracy(mended) > accuracy(trained()) - 0.005
    assert noise(mended, trained()) < 0.02 * noise(plain, trained())


def test_after_equalisation_channels_have_one_range_in_both_weights() -> None:
    network = uneven(made("cleanup")).apply("equalize")
    for first, second, axis in (("stem", "deep", 0), ("deep", "point", 1)):
        left = network.values[f"{first}.weight"].abs().flatten(1).amax(1)
        right = network.values[f"{second}.weight"].transpose(0, axis).abs().flatten(1).amax(1)
        assert torch.allclose(left, right, rtol=0.01)


def test_equalisation_costs_nothing_until_something_runs() -> None:
    network = made("equalize")
    assert "tensor" not in network.weights.recipe("stem.weight").__dict__, "it is a recipe, computed once"


@pytest.mark.parametrize("before", ["resize{stem=6, point=12}", "quantize{weights=i2} | calibrate"])
def test_statistics_taken_anew_bring_back_what_was_lost(before: str) -> None:
    plain = trained().apply(f"cleanup | {before}", data=rows()[0])
    mended = trained().apply(f"cleanup | {before} | reestimate-batch-norm", data=rows()[0])
    assert accuracy(mended) > accuracy(plain) + 0.02
    folded = trained().apply(f"cleanup | {before} | reestimate-batch-norm | fold-batch-norm", data=rows()[0])
    assert "quantize" in before or difference(mended, folded, (rows()[2],)) < 1e-4


def test_statistics_are_those_of_the_data() -> None:
    network = trained().apply("reestimate-batch-norm{samples=1200}", data=rows()[0])
    seen: dict[str, Tensor] = {}
    from nasc.compiler.execution import run

    def observe(name: str, tensor: Tensor) -> None:
        seen[name] = tensor

    with torch.no_grad():
        run(network.graph, network.values, (rows()[0],), observe=observe)
    columns = seen["deep"].transpose(0, 1).flatten(1)
    assert torch.allclose(network.values["n2.running_mean"], columns.mean(1), atol=1e-5)
    assert torch.allclose(network.values["n2.running_var"], columns.var(1), rtol=1e-4)


def test_other_data_is_another_candidate() -> None:
    left, right = (trained().apply("reestimate-batch-norm", data=rows()[at]) for at in (0, 2))
    assert left.key != right.key
    assert left.key == trained().apply("reestimate-batch-norm", data=rows()[0]).key


def test_no_input_makes_an_accumulator_overflow() -> None:
    """The bound is reached by the worst input there is, and by no other."""
    network = made("quantize{weights=i4, activations=u4} | calibrate")
    for found in accumulators(network):
        layer = network.graph.producers[found.layer]
        codes = network.weights.recipe(layer.inputs[1]).tensor.long().flatten(1)
        step = network.graph.types[layer.inputs[0]].step
        assert step is not None and step.zero is not None and step.value is not None
        farthest = max(15 - step.zero, step.zero)
        steps = network.weights.recipe(layer.inputs[1]).steps.double() * step.value  # type: ignore[attr-defined]
        bias = torch.ceil((network.values[layer.inputs[2]].double() / steps).abs()).long()
        assert found.largest == int((codes.abs().sum(1) * farthest + bias).max())
        assert 2 ** (found.bits - 1) > found.largest >= 2 ** (found.bits - 2)


def test_what_does_not_fit_is_refused_and_what_fits_is_not() -> None:
    network = made("quantize{weights=i8, activations=u8} | calibrate | legalize")
    most = max(a.bits for a in accumulators(network))
    assert network.apply(f"check-accumulators{{bits={most}}}").graph == network.graph
    with pytest.raises(PassError, match=rf"takes {most} bits; the accumulator has {most - 1}"):
        network.apply(f"check-accumulators{{bits={most - 1}}}")
    assert math.log2(max(a.largest for a in accumulators(network))) < most - 1
