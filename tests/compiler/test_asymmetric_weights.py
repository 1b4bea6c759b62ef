"""Weights whose codes have another zero than 0: found, rounded, kept, trained and mended as the definition says."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from pathlib import Path

import nasc
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.compiler.analyses.accumulators import accumulators
from nasc.compiler.cohort import cohorts
from nasc.compiler.network import Network
from nasc.compiler.passes.integers import integer_layers
from nasc.compiler.rounding import fake_quantized
from nasc.compiler.steps import SHRINK, affine_steps, codes_between, symmetric_steps
from nasc.compiler.weights import Rounded, Source
from nasc.ir import Encoding, Format, NascError, Step, format_named, infer, parse_encoding
from nasc.ir.formats import decode, encode
from nasc.targets import static_cost
from safetensors.torch import load_file, save_file
from support.digits import noise, rows, trained
from support.drawing import integer_formats
from support.graphs import graph_of
from support.networks import inputs_of, network_of
from torch import Tensor, nn

LAYERS = """
  %a.w: f32[6, 20] = weight
  %a: f32[N, 6] = linear %x, %a.w
  %b.w: f32[4, 6] = weight
  %b: f32[N, 4] = linear %a, %b.w
"""
FORMATS = ["u2", "u3", "u4", "u8", "u12", "u16", "i4<?, ?>", "i8<?, ?>", "u4<2^?>", "u4<block 4>", "u8<block 8>",
           "i4<block 4 ?, zeros>"]  # fmt: skip
floats = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=24)


def skewed(network: Network) -> Network:
    """The network with weights that lie on one side of 0 for the most part, as asymmetric codes suit."""
    moved = {op.name: Source(network.weights.real(op.name) + 0.2) for op in network.graph.stored}
    return Network(network.graph, network.weights.with_recipes(moved))


def made(passes: str) -> Network:
    graph = graph_of(LAYERS, inputs="%x: f32[N, 20]")
    return skewed(network_of(graph)).apply(passes, data=inputs_of(graph, 64)[0])


def spread(values: Tensor, step: Step, shape: tuple[int, ...]) -> np.ndarray:
    """Steps or zeros as many as there are codes, worked out index by index."""
    found = np.zeros(shape)
    for at in np.ndindex(shape):
        index: tuple[int, ...] = ()
        if step.block is not None and step.axis is not None:
            index = tuple(i // step.block if axis == step.axis else i for axis, i in enumerate(at))
        elif step.axis is not None:
            index = (at[step.axis],)
        found[at] = float(values[index])
    return found


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("format", FORMATS)
def test_codes_and_numbers_are_those_of_exact_arithmetic(format: str, per: str) -> None:
    if per == "tensor" and "block" in format:
        pytest.skip("steps of blocks are not one for a tensor")
    network = made(f"quantize{{layers=a, weights={format}, per={per}}} | calibrate{{weights=minmax}}")
    op, recipe = network.graph.producers["a.w"], network.weights.recipe("a.w")
    assert isinstance(recipe, Rounded) and recipe.zeros is not None and op.type.step is not None
    assert op.type.step.zero != 0
    assert int(recipe.zeros.min()) >= op.type.format.low and int(recipe.zeros.max()) <= op.type.format.high
    shape = tuple(recipe.source.tensor.shape)
    steps, zeros = (spread(v, op.type.step, shape) for v in (recipe.steps, recipe.zeros))
    for at in np.ndindex(shape):
        step, zero = Fraction(float(np.float32(steps[at]))), int(zeros[at])
        real = Fraction(float(recipe.source.tensor[at]))
        code = encode(real, op.type.format, step, zero)
        if abs(real / step - round(real / step)) < Fraction(49, 100):
            assert int(recipe.tensor[at]) == code
        found = float(decode(int(recipe.tensor[at]), step, zero))
        assert float(recipe.real[at]) == np.float32(found)
        assert float(network.values["a.w"][at]) == np.float32(found)


@given(floats, integer_formats, st.booleans())
def test_minmax_covers_the_values_and_holds_zero(values: list[float], format: Format, power: bool) -> None:
    rows = torch.tensor([values, [-v for v in values]])
    steps, zeros = affine_steps(rows, format, mse=False, power_of_two=power)
    for row, step, zero in zip(rows, steps.tolist(), zeros.tolist(), strict=True):
        assert format.low <= zero <= format.high
        low, high = min(float(row.min()), 0.0), max(float(row.max()), 0.0)
        assert (format.low - zero) * step <= low + 0.51 * step
        assert (format.high - zero) * step >= high - 0.51 * step
        if high - low > 1e-20:
            assert step * (format.high - format.low) <= (high - low) * (2 if power else 1) * (1 + 1e-6)
        assert math.frexp(step)[0] == 0.5 or not power


def squared_error(values: Tensor, step: float, zero: int, format: Format) -> float:
    """The squared rounding error, by the exact reference."""
    exact, total = Fraction(step), Fraction(0)
    for value in values.tolist():
        total += (decode(encode(Fraction(value), format, exact, zero), exact, zero) - Fraction(value)) ** 2
    return float(total)


@given(floats, st.sampled_from(["u2", "u3", "u4", "i4", "u8"]).map(format_named))
@settings(max_examples=20)
def test_mse_is_no_worse_than_minmax(values: list[float], format: Format) -> None:
    rows = torch.tensor([values])
    errors = [
        squared_error(rows[0], float(steps), int(zeros), format)
        for steps, zeros in (affine_steps(rows, format, mse=mse, power_of_two=False) for mse in (True, False))
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-9


@given(floats, st.sampled_from(["u2", "u3", "u4", "i4"]).map(format_named), st.booleans())
@settings(max_examples=30)
def test_mse_is_no_worse_than_symmetric_codes_of_as_many_bits(values: list[float], format: Format, power: bool) -> None:
    rows, signed = torch.tensor([values]), format_named(f"i{format.bits}")
    steps, zeros = affine_steps(rows, format, mse=True, power_of_two=power)
    symmetric = symmetric_steps(rows, signed, mse=True, power_of_two=power)
    found = squared_error(rows[0], float(steps), int(zeros), format)
    assert found <= squared_error(rows[0], float(symmetric), 0, signed) * (1 + 1e-5) + 1e-9
    assert math.frexp(float(steps))[0] == 0.5 or not power


@pytest.mark.parametrize("format", ["u2", "u3"])
def test_mse_finds_the_best_step_and_zero_there_are(format: str) -> None:
    """Short rows, by the exact reference: every zero beside each of 200 steps."""
    torch.manual_seed(0)
    form = format_named(format)
    rows = torch.cat([torch.randn(3, 8), torch.rand(2, 8) ** 3])
    steps, zeros = affine_steps(rows, form, mse=True, power_of_two=False)
    for row, step, zero in zip(rows, steps.tolist(), zeros.tolist(), strict=True):
        span = float(row.max().clamp(min=0) - row.min().clamp(max=0))
        tried = torch.linspace(0.1, 1.1, 200) * span / (form.high - form.low)
        best = min(squared_error(row, s, z, form) for s in tried.tolist() for z in range(form.low, form.high + 1))
        assert squared_error(row, step, zero, form) <= 1.05 * best


@pytest.mark.parametrize("format", ["u2", "u3", "u4", "i5"])
def test_mse_is_near_the_best_of_a_grid(format: str) -> None:
    """Every pair of ends out of a grid, against ends that are moved in turns."""
    torch.manual_seed(0)
    form = format_named(format)
    rows = torch.cat([torch.randn(20, 64), torch.rand(20, 64) ** 3, torch.randn(20, 64).exp() - 0.5])
    low, high = rows.amin(1).double().clamp(max=0), rows.amax(1).double().clamp(min=0)
    best = torch.full((len(rows),), math.inf)
    for left, right in product(SHRINK.tolist(), SHRINK.tolist()):
        best = torch.minimum(best, error_of(rows, *codes_between(low * left, high * right, form, False), form))
    found = error_of(rows, *affine_steps(rows, form, mse=True, power_of_two=False), form)
    whole = error_of(rows, *affine_steps(rows, form, mse=False, power_of_two=False), form)
    assert float((found / best).max()) < 1.25
    assert float((found / best).mean()) < 1.03
    assert float((found / whole).mean()) < 0.98


def error_of(rows: Tensor, steps: Tensor, zeros: Tensor, format: Format) -> Tensor:
    """The squared error of each row, by the definition."""
    codes = (torch.round(rows / steps[:, None]) + zeros[:, None]).clamp(format.low, format.high)
    return ((codes - zeros[:, None]) * steps[:, None] - rows).square().sum(1)


def test_percentile_leaves_out_half_at_each_end() -> None:
    rows = torch.arange(-20.0, 81.0)[None].repeat(3, 1)
    steps, zeros = affine_steps(rows, format_named("u8"), mse=False, power_of_two=False, share=0.05)
    assert steps.tolist() == pytest.approx([(75 - -15) / 255] * 3)
    assert zeros.tolist() == [round(15 / (90 / 255))] * 3


def test_rows_and_blocks_are_calibrated_each_for_itself() -> None:
    network = made("quantize{weights=u4<block 4>} | calibrate")
    recipe = network.weights.recipe("a.w")
    assert isinstance(recipe, Rounded) and recipe.zeros is not None
    real = network.weights.real("a.w")
    for row, block in product(range(6), range(5)):
        part = real[row : row + 1, 4 * block : 4 * block + 4]
        step, zero = affine_steps(part, format_named("u4"), mse=True, power_of_two=False)
        assert float(recipe.steps[row, block]) == float(step) and int(recipe.zeros[row, block]) == int(zero)


def test_asymmetric_codes_suit_skewed_weights() -> None:
    """Four bits with a zero lose less than four bits without, on weights that lie on one side."""
    network = made("quantize{weights=u4} | calibrate")
    symmetric = made("quantize{weights=i4} | calibrate")
    real = network.weights.real("a.w")
    errors = [float((n.values["a.w"] - real).square().sum()) for n in (network, symmetric)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("format", FORMATS)
def test_files_keep_zeros(format: str, tmp_path: Path) -> None:
    network = made(f"quantize{{weights={format}}} | calibrate")
    network.save(tmp_path / "net.nasc")
    back = Network.load(tmp_path / "net.nasc")
    assert back.graph == network.graph
    for name in ("a.w", "b.w"):
        assert np.array_equal(back.weights.array(name), network.weights.array(name))
        assert np.array_equal(back.weights.steps(name), network.weights.steps(name))
        assert np.array_equal(back.weights.zeros(name), network.weights.zeros(name))
        assert torch.equal(back.values[name], network.values[name])
    x = torch.randn(3, 20)
    assert torch.equal(back(x), network(x))


@pytest.mark.parametrize(
    ("zeros", "message"),
    [
        (None, "it has no tensor 'a.w.zeros', which the graph needs"),
        (torch.zeros(3, dtype=torch.uint8), r"'a.w.zeros' must hold 6 codes of u4, found \[3\] of torch.uint8"),
        (torch.zeros(6), r"'a.w.zeros' must hold 6 codes of u4, found \[6\] of torch.float32"),
        (torch.full((6,), 16, dtype=torch.uint8), "'a.w.zeros' holds codes from 16 to 16, the graph says u4"),
    ],
)
def test_files_with_other_zeros_are_refused(zeros: Tensor | None, message: str, tmp_path: Path) -> None:
    made("quantize{layers=a, weights=u4} | calibrate").save(tmp_path / "net.nasc")
    beside = tmp_path / "net.safetensors"
    tensors = {n: t for n, t in load_file(beside).items() if n != "a.w.zeros"}
    save_file(tensors if zeros is None else {**tensors, "a.w.zeros": zeros}, beside)
    with pytest.raises(NascError, match=message):
        Network.load(tmp_path / "net.nasc")


def test_zeros_name_a_recipe() -> None:
    source, steps = Source(torch.randn(4, 8)), torch.full((4,), 0.1)
    u4 = format_named("u4")
    keys = {Rounded(source, u4, steps, 0, zeros=z).key for z in (None, torch.full((4,), 7), torch.full((4,), 8))}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("format", "bits", "apart"),
    [("u4<block 32>", Fraction(4) + Fraction(36, 32), 0), ("u4", Fraction(4), 6 * 36), ("u8", Fraction(8), 6 * 40)],
)
def test_zeros_are_counted_among_the_bits(format: str, bits: Fraction, apart: int) -> None:
    graph = graph_of("  %w: f32[6, 64] = weight\n  %y: f32[N, 6] = linear %x, %w", inputs="%x: f32[N, 64]")
    cost = static_cost(network_of(graph).apply(f"quantize{{weights={format}}}").graph)
    assert cost.average_bits == bits
    assert cost.weight_bits == bits * 6 * 64 + apart == cost.nodes[0].weight_bits
    tensor = static_cost(network_of(graph).apply("quantize{weights=u4, per=tensor}").graph)
    assert tensor.weight_bits == 4 * 6 * 64 + 32 + 4


def test_bits_of_an_encoding_with_zeros() -> None:
    assert parse_encoding("u4<block 32 on 1, zeros>").bits == 4 + Fraction(36, 32)
    assert str(Encoding(format_named("u4"), Step.per(0, known=True, zeros=True))) == "u4<per 0, zeros>"


def test_accumulators_count_codes_from_their_zeros() -> None:
    network = made("quantize{layers=a, weights=u4, activations=u8} | calibrate")
    (found,) = accumulators(network)
    codes, zeros = network.weights.array("a.w").astype(int), network.weights.zeros("a.w")
    step = network.graph.types["x.q"].step
    assert step is not None and step.zero is not None
    most = np.abs(codes - zeros[:, None]).sum(1).max() * max(255 - step.zero, step.zero)
    assert found.largest == most


def test_no_integer_kernel_is_planned_or_placed() -> None:
    network = made("quantize{layers=a, weights=u4, activations=u8} | quantize{layers=b, weights=i4, activations=u8}")
    assert [op.name for op in integer_layers(network.graph)] == ["b"]
    faster = network.apply("place{only=faster} | calibrate", data=torch.randn(64, 20))
    assert faster.graph.types["a.w"].step is not None, "weights in few bits stay so"


@given(st.integers(0, 2**32 - 1), st.sampled_from(["u2", "u4", "i6", "u8"]).map(format_named))
def test_training_rounds_as_the_network_does(seed: int, format: Format) -> None:
    torch.manual_seed(seed)
    x, steps = torch.randn(3, 7), torch.rand(3, 1) + 0.05
    zeros = torch.randint(format.low, format.high + 1, (3, 1))
    recipe = Rounded(Source(x), format, steps.flatten(), 0, zeros=zeros.flatten())
    leaf, step = x.clone().requires_grad_(), steps.clone().requires_grad_()
    found = fake_quantized(leaf, step, zeros.float(), format.low, format.high)
    assert torch.equal(found, recipe.real)
    found.sum().backward()
    assert leaf.grad is not None and step.grad is not None
    inside = (x / steps >= format.low - zeros) & (x / steps <= format.high - zeros)
    assert torch.equal(leaf.grad, inside.float())
    bound = (x / steps).clamp(format.low - zeros, format.high - zeros)
    offsets = torch.where(inside, torch.round(bound) - bound, bound)
    scale = 1 / math.sqrt(7 * format.high)
    torch.testing.assert_close(step.grad, offsets.sum(1, keepdim=True) * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per", ["u4", "u4<block 4>", "u8<2^?>"])
def test_a_training_step_moves_weights_and_steps_and_keeps_zeros(per: str) -> None:
    network = made(f"quantize{{weights={per}, activations=u8}} | calibrate")
    module, x = network.module(), torch.randn(16, 20)
    with torch.no_grad():
        assert torch.equal(module(x), network(x))
    assert network.with_trained(module).graph == network.graph
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    module(x).square().mean().backward()
    optimizer.step()
    back = network.with_trained(module)
    for name in ("a.w", "b.w"):
        assert not torch.equal(back.weights.real(name), network.weights.real(name))
        assert np.array_equal(back.weights.zeros(name), network.weights.zeros(name))
        if per != "u8<2^?>":
            assert not np.array_equal(back.weights.steps(name), network.weights.steps(name))
    with torch.no_grad():
        assert torch.equal(module.eval()(x), back(x))


def test_one_zero_for_a_tensor_trains() -> None:
    network = made("quantize{weights=u4, per=tensor} | calibrate")
    module, x = network.module(), torch.randn(16, 20)
    module(x).square().mean().backward()
    torch.optim.SGD(module.parameters(), 0.5).step()
    back = network.with_trained(module)
    old, new = (n.graph.types["a.w"].step for n in (network, back))
    assert old is not None and new is not None
    assert old.zero == new.zero != 0 and old.value != new.value


def test_networks_with_several_zeros_train_alone() -> None:
    with_zeros = [made(f"quantize{{weights={f}}} | calibrate") for f in ("u4", "u3")]
    without = [made(f"quantize{{weights={f}}} | calibrate") for f in ("i4", "i3")]
    assert cohorts([*with_zeros, *without], 4) == [[0], [1], [2, 3]]
    whole = [made(f"quantize{{weights={f}, per=tensor}} | calibrate") for f in ("u4", "u3")]
    assert cohorts(whole, 4) == [[0, 1]]


@pytest.mark.parametrize("format", ["u2", "u3", "u4"])
def test_round_weights_improves_outputs(format: str) -> None:
    data = rows()[0]
    plain = trained().apply(f"cleanup | fold-batch-norm | quantize{{weights={format}}} | calibrate", data=data)
    mended = plain.apply("round-weights", data=data)
    assert noise(mended, trained()) < 0.6 * noise(plain, trained())
    for op in plain.graph.stored:
        if op.type.step is not None:
            assert np.array_equal(mended.weights.zeros(op.name), plain.weights.zeros(op.name))
            recipe = mended.weights.recipe(op.name)
            assert isinstance(recipe, Rounded)
            again = Rounded(Source(recipe.source.tensor), recipe.format, recipe.steps, recipe.axis, zeros=recipe.zeros)
            assert torch.equal(again.tensor, recipe.tensor), "the real numbers beside the codes round to them"


def test_two_bits_with_a_zero_shift_means_and_corrected_biases_take_that_away() -> None:
    """Weights are nearer than with symmetric codes; so are outputs, but only behind `correct-bias`."""
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    of_weights, plain, corrected = (torch.zeros(2) for _ in range(3))
    for seed in range(4):
        torch.manual_seed(seed)
        network = nasc.lower(
            nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)), x[:8]
        )
        for at, format in enumerate(("u2", "i2")):
            rounded = network.apply(f"quantize{{weights={format}}} | calibrate", data=x)
            mended = rounded.apply("correct-bias", data=x)
            for name in ("0.weight", "2.weight", "4.weight"):
                of_weights[at] += (rounded.values[name] - network.values[name]).square().sum()
            plain[at] += (rounded(x) - network(x)).square().sum()
            corrected[at] += (mended(x) - network(x)).square().sum()
    assert of_weights[0] < of_weights[1] and corrected[0] < corrected[1]
    assert plain[0] > plain[1], "the control: what the bias takes away is there"


def test_other_mending_passes_take_them() -> None:
    data = rows()[0]
    plain = trained().apply("cleanup | fold-batch-norm | quantize{weights=u3} | calibrate", data=data)
    equalized = trained().apply(
        "cleanup | fold-batch-norm | equalize | quantize{weights=u3, per=tensor} | calibrate", data=data
    )
    assert noise(equalized, trained()) < 10
    assert noise(plain.apply("correct-bias", data=data), trained()) < noise(plain, trained())


def test_smaller_widths_forget_steps_and_zeros() -> None:
    network = made("quantize{weights=u4, per=tensor} | calibrate")
    free = Network(infer(network.graph).graph, network.weights)
    width = next(iter(free.widths))
    smaller = free.apply(f"resize{{{width}=3}}")
    assert str(smaller.graph.types["a.w"].step) == "?, ?"
    positive = Network(free.graph, free.weights.with_recipes({"a.w": Source(torch.rand(6, 20))}))
    positive = positive.apply("quantize{weights=u4, per=tensor} | calibrate", data=torch.randn(8, 20))
    assert str(positive.graph.types["a.w"].encoding).count(",") == 0, "its zero is 0 by chance"
    assert str(positive.apply(f"resize{{{width}=3}}").graph.types["a.w"].step) == "?, ?"
    again = smaller.apply("calibrate", data=torch.randn(8, 20))
    assert again(torch.randn(2, 20)).shape == (2, 4)
