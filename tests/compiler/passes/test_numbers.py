"""What the passes do to the numbers: steps that hold their promises, biases in accumulators, halves that agree."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.compiler.network import Network
from nasc.compiler.passes import Context, PassError
from nasc.compiler.passes.calibrate import observed, thinned
from nasc.compiler.steps import affine_step, best_range, symmetric_steps
from nasc.compiler.weights import Rounded, Source, Store
from nasc.ir import Format, Graph, Step, format_named, graph_digest
from nasc.ir.formats import decode, encode
from support.drawing import integer_formats
from support.graphs import graph_of
from support.networks import difference, inputs_of, network_of, with_values
from support.zoo import ZOO
from torch import Tensor

ROWS = "%x: f32[N, 6]"
signed = integer_formats.filter(lambda f: f.signed)
numbers = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50)


def squared_error(values: Tensor, step: float, zero: int, format: Format) -> float:
    """The squared rounding error, by the exact reference."""
    exact = Fraction(step)
    total = Fraction(0)
    for value in values.tolist():
        code = encode(Fraction(value), format, exact, zero)
        total += (decode(code, exact, zero) - Fraction(value)) ** 2
    return float(total)


@given(numbers, signed, st.booleans())
def test_minmax_covers_the_largest_value(values: list[float], format: Format, power_of_two: bool) -> None:
    rows = torch.tensor([values])
    (step,) = symmetric_steps(rows, format, mse=False, power_of_two=power_of_two).tolist()
    largest = float(rows.abs().max())
    assert step * format.high >= largest * (1 - 1e-6)
    if largest > 0:
        assert step * format.high <= largest * (2 if power_of_two else 1) * (1 + 1e-6)
    if power_of_two:
        assert Step.of(step).power_of_two


@given(numbers, signed)
@settings(max_examples=30)
def test_mse_is_no_worse_than_minmax(values: list[float], format: Format) -> None:
    rows = torch.tensor([values])
    errors = [
        squared_error(rows[0], float(symmetric_steps(rows, format, mse=mse, power_of_two=False)), 0, format)
        for mse in (True, False)
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-9


def test_mse_clips_an_outlier() -> None:
    rows = torch.cat([torch.linspace(-1, 1, 2001), torch.tensor([4.0])])[None]
    i4 = format_named("i4")
    (mse,) = symmetric_steps(rows, i4, mse=True, power_of_two=False).tolist()
    (minmax,) = symmetric_steps(rows, i4, mse=False, power_of_two=False).tolist()
    assert minmax == pytest.approx(4 / 7) and mse < 0.7 * minmax
    assert squared_error(rows[0], mse, 0, i4) < 0.7 * squared_error(rows[0], minmax, 0, i4)


@given(st.floats(-100, 0), st.floats(0, 100), integer_formats, st.booleans())
def test_an_affine_step_covers_the_range_and_holds_zero(low: float, high: float, format: Format, power: bool) -> None:
    step = affine_step(low, high, format, power)
    assert step.known and step.value is not None and step.zero is not None
    assert format.low <= step.zero <= format.high
    assert (format.high - step.zero) * step.value >= high - 0.51 * step.value
    assert (format.low - step.zero) * step.value <= low + 0.51 * step.value
    assert not power or step.power_of_two


@given(numbers, integer_formats)
@settings(max_examples=20)
def test_the_best_range_is_no_worse_than_the_whole(values: list[float], format: Format) -> None:
    x = torch.tensor(values)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    whole = affine_step(low, high, format)
    best = affine_step(*best_range(x, low, high, format, False), format)
    assert best.value and whole.value and best.zero is not None and whole.zero is not None
    found = squared_error(x, best.value, best.zero, format)
    assert found <= squared_error(x, whole.value, whole.zero, format) * (1 + 1e-4) + 1e-9


def test_percentiles_leave_out_both_ends() -> None:
    graph = graph_of("%y: i8<?, ?>[N, 6] = quantize %x", ROWS)
    x = torch.cat([torch.linspace(-1, 1, 5994), torch.full((3,), 50.0), torch.full((3,), -50.0)]).reshape(-1, 6)
    found = network_of(graph).apply("calibrate{method=percentile, percentile=99.8, samples=2000}", data=x)
    step = found.graph.types["y"].step
    assert step is not None and step.value == pytest.approx(2 / 255, rel=0.01)
    wide = network_of(graph).apply("calibrate{method=percentile, percentile=100, samples=2000}", data=x)
    assert wide.graph == network_of(graph).apply("calibrate{method=minmax, samples=2000}", data=x).graph


def test_samples_are_taken_from_the_front() -> None:
    graph = graph_of("%y: i8<?>[N, 6] = quantize %x", ROWS)
    x = torch.ones(100, 6)
    x[10:] = 7.0
    for samples, largest in ((10, 1.0), (11, 7.0), (1000, 7.0)):
        for data in (x, [x[:4], x[4:40], x[40:]], lambda: ((row[None],) for row in x)):
            network = network_of(graph).apply(f"calibrate{{method=minmax, samples={samples}}}", data=data)
            step = network.graph.types["y"].step
            assert step is not None and step.value == pytest.approx(largest / 127)


def test_data_is_asked_for_where_it_is_missing() -> None:
    network = network_of(graph_of("%y: i8<?>[N, 6] = quantize %x", ROWS))
    with pytest.raises(PassError, match=r"calibrate needs data and there is none\n  Give the model file"):
        network.apply("calibrate")
    with pytest.raises(PassError, match="calibrate needs data and the data is empty"):
        network.apply("calibrate", data=[])
    weights_only = network_of(graph_of("%w: i4<per 0 ?>[3, 6] = weight\n%y: f32[N, 3] = linear %x, %w", ROWS))
    assert "?" not in str(weights_only.apply("calibrate").graph)


def test_more_values_than_can_be_kept_are_thinned_out_evenly() -> None:
    x, ends = torch.arange(1000.0), torch.tensor([0.0, 999.0])
    assert torch.equal(thinned(x, ends, 1000, 0), x)
    few = thinned(x, ends, 10, 0)
    assert len(few) <= 12 and float(few.min()) == 0 and float(few.max()) == 999
    assert [int(v) // 100 for v in few[:-2]] == list(range(10)), "one out of each stretch"
    assert torch.equal(few, thinned(x, ends, 10, 0)) and not torch.equal(few, thinned(x, ends, 10, 1))
    assert len(thinned(x, ends, 1, 0)) <= 3
    assert thinned(x, ends, 0, 0) is ends
    graph = graph_of("%y: i8<?>[N, 6] = quantize %x", ROWS)
    batches = [torch.full((1, 6), 1.0)] * 20
    for kept in (0, 10):  # fewer than there are batches: each keeps its ends
        _, seen = observed(network_of(graph), {"x"}, 512, Context.of(batches), kept=kept)
        assert len(seen["x"].values) == 40


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_kept_of_maps_does_not_favour_places(layout: torch.memory_format) -> None:
    """Maps of 8 x 8 pixels that are dark but for a column or row, or all but one of 8 channels: an eighth is lit."""
    dark = torch.zeros(512, 8, 8, 8)
    for lit in (dark[:, :, :, 3], dark[:, :, 5], dark[:, 2]):
        lit.fill_(1.0)
        values = dark.contiguous(memory_format=layout)
        kept = thinned(values, torch.tensor([0.0, 1.0]), 1 << 13, 0)
        assert float(kept.mean()) == pytest.approx(1 / 8, abs=0.02)
        lit.fill_(0.0)


def test_more_samples_do_not_make_calibration_worse() -> None:
    """Smooth maps with dark borders: the step that suits the kept values suits all."""
    graph = graph_of("%y: u4<?>[N, 16, 8, 8] = quantize %x", "%x: f32[N, 16, 8, 8]")
    x = torch.nn.functional.pad(torch.rand(512, 16, 6, 6, generator=torch.Generator().manual_seed(0)) + 1, (1, 1, 1, 1))

    def error(step: float) -> float:
        return float(((x / step).round().clamp(0, 15) * step - x).square().mean())

    best = min(error(2.0 / 15 * k / 100) for k in range(50, 121))
    for samples in (32, 64, 512):
        step = network_of(graph).apply(f"calibrate{{samples={samples}}}", data=x).graph.types["y"].step
        assert step is not None and step.value is not None
        assert error(step.value) < 1.1 * best


def test_observed_values_are_those_of_the_real_network() -> None:
    """Quantizers and rounded weights that are there already do not disturb what calibration sees."""
    graph = ZOO["mlp"]
    (x,) = inputs_of(graph, batch=64)
    half = network_of(graph).apply("quantize{layers=fc1, weights=i2, activations=u2} | calibrate", data=x)
    _, seen = observed(half, {"relu2"}, 512, Context.of(x))
    _, real = observed(network_of(graph), {"relu2"}, 512, Context.of(x))
    assert torch.equal(seen["relu2"].values, real["relu2"].values)


def test_the_memory_of_calibration_tells_wirings_apart() -> None:
    """Two graphs of the same ops under the same names, wired otherwise, share no observed values."""
    lines = "%a: f32[N, 6] = exp %x\n%b: f32[N, 6] = neg %x\n%c: f32[N, 6] = sub {}\n%y: i8<?>[N, 6] = quantize %c"
    left, right = (network_of(graph_of(lines.format(o), ROWS)) for o in ("%a, %b", "%b, %a"))
    (x,) = inputs_of(left.graph, batch=16)
    context = Context.of(x)
    from nasc.compiler.pipeline import parse_pipeline

    asymmetric = parse_pipeline("calibrate{method=minmax}")
    _, seen = observed(left, {"c"}, 512, context)
    _, other = observed(right, {"c"}, 512, context)
    assert torch.equal(seen["c"].values, -other["c"].values)
    assert asymmetric.run(left, context).graph == left.apply(asymmetric, data=x).graph


def test_candidates_share_what_calibration_has_seen() -> None:
    runs: list[int] = []

    def data() -> list[Tensor]:
        runs.append(1)
        return [inputs_of(ZOO["mlp"], batch=32)[0]]

    from nasc.compiler.pipeline import parse_pipeline

    context = Context.of(data)
    network = network_of(ZOO["mlp"])
    graphs: list[Graph] = []
    for bits in (4, 8):
        pipeline = parse_pipeline(f"quantize{{weights=i{bits}, activations=u{bits}}} | calibrate")
        graphs.append(pipeline.run(network, context).graph)
        assert graphs[-1] == network.apply(pipeline, data=inputs_of(ZOO["mlp"], batch=32)[0]).graph
    assert sum(1 for key in context.memo if key[0] == "observed") == 1
    assert graph_digest(graphs[0]) != graph_digest(graphs[1])


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("bits", [8, 16])
def test_more_bits_come_nearer_to_the_real_network(name: str, bits: int) -> None:
    graph = ZOO[name]
    network, x = network_of(graph), inputs_of(graph, batch=64)
    errors = [
        difference(
            network, network.apply(f"quantize{{weights=i{b}, activations=u{b}, biases=i{b}}} | calibrate", data=[x]), x
        )
        for b in (bits // 2, bits)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < (0.1 if bits == 8 else 2e-3)


def test_rounding_before_a_pool_is_rounding_after_it() -> None:
    """Why `quantize` may put the rounding before ops that move: the codes are the same."""
    before = graph_of(
        "%q: u4<0.3, 7>[N, 4, 8, 8] = quantize %x\n"
        "%p: u4<0.3, 7>[N, 4, 4, 4] = max_pool2d %q {kernel_size=[2, 2], stride=[2, 2]}",
        "%x: f32[N, 4, 8, 8]",
    )
    after = graph_of(
        "%p: f32[N, 4, 4, 4] = max_pool2d %x {kernel_size=[2, 2], stride=[2, 2]}\n"
        "%q: u4<0.3, 7>[N, 4, 4, 4] = quantize %p",
        "%x: f32[N, 4, 8, 8]",
    )
    (x,) = inputs_of(before, batch=8)
    assert torch.equal(network_of(before)(x), network_of(after)(x))


@pytest.mark.parametrize("name", ["mlp", "residual", "concat", "depthwise"])
def test_legalizing_changes_no_more_than_the_rounding_of_biases(name: str) -> None:
    """Of one layer the bias moves by half an accumulator's step; behind it a code of the next layer may flip."""
    graph = ZOO[name]
    network, x = network_of(graph), inputs_of(graph, batch=64)
    folded = network.apply("fold-batch-norm")
    last = [op.name for op in folded.graph.ops if op.kind in ("linear", "conv2d")][-1]
    for layers, bound in ((last, 1e-4), ("*", 2e-2)):
        real = folded.apply(f"quantize{{layers={layers}, weights=i8, activations=u8}} | place | calibrate", data=[x])
        assert difference(real, real.apply("legalize"), x) < bound


def test_a_legalized_bias_counts_products_of_steps() -> None:
    graph = graph_of(
        """
        %x.q: u8<0.02, 113>[N, 6] = quantize %x
        %w: i8<per 0>[3, 6] = weight
        %b: i4<0.25>[3] = weight
        %y: f32[N, 3] = linear %x.q, %w, %b
        """,
        ROWS,
    )
    network = network_of(graph)
    steps = torch.tensor([0.01, 0.02, 0.5])
    weight = Rounded(Source(torch.randn(3, 6)), format_named("i8"), steps, 0)
    bias = Rounded(Source(torch.tensor([0.3, -1.7, 0.9])), format_named("i4"), torch.tensor(0.25), None)
    legal = Network(graph, Store({"w": weight, "b": bias})).apply("legalize")
    assert str(legal.graph.types["b"]) == "i32<per 0>[3]"
    assert torch.equal(torch.tensor(legal.weights.steps("b")), torch.tensor(0.02) * steps)
    codes = legal.weights.array("b")
    rounded_first = [0.25, -1.75, 1.0]
    assert codes.dtype.name == "int32"
    assert codes.tolist() == [round(r / (0.02 * float(s))) for r, s in zip(rounded_first, steps, strict=True)]
    assert network.graph == graph


@pytest.mark.parametrize("dead", [0.0, 1e-12, 1e-30])
def test_the_bias_of_a_channel_without_weights_survives(dead: float) -> None:
    """A channel whose weights are zero, or next to it, still has its bias: it must not wrap around in 32 bits."""
    graph = graph_of("%w: f32[3, 6] = weight\n%b: f32[3] = weight\n%y: f32[N, 3] = linear %x, %w, %b", ROWS)
    network, x = network_of(graph), inputs_of(graph, batch=32)
    weight = network.values["w"].clone()
    weight[1] *= dead
    network = with_values(network, {"w": weight, "b": torch.tensor([0.5, 2.0, -1.0])})
    for method in ("minmax", "mse"):
        pipeline = f"quantize{{weights=i8, activations=u8}} | calibrate{{method={method}}} | legalize"
        legal = network.apply(pipeline, data=[x])
        assert str(legal.graph.types["b"]) == "i32<per 0>[3]"
        assert torch.allclose(legal(*x)[:, 1], torch.tensor(2.0), atol=1e-5)
        assert difference(network, legal, x) < 0.02


def test_a_bias_that_fits_no_accumulator_stays_real() -> None:
    """One step for the whole weight cannot be made larger for one channel."""
    graph = graph_of(
        """
        %x.q: u8<2^-20>[N, 6] = quantize %x
        %w: i8<2^-20>[3, 6] = weight
        %b: f32[3] = weight
        %y: f32[N, 3] = linear %x.q, %w, %b
        """,
        ROWS,
    )
    assert network_of(graph).apply("legalize").graph == graph


def test_an_input_that_is_always_zero_gets_a_step_that_breaks_nothing() -> None:
    graph = graph_of("%w: f32[3, 6] = weight\n%b: f32[3] = weight\n%y: f32[N, 3] = linear %x, %w, %b", ROWS)
    network = network_of(graph)
    silent = torch.zeros(8, 6)
    for activations in ("u8", "i8", "u8<2^?>", "i8<?, ?>"):
        for method in ("minmax", "mse", "percentile"):
            pipeline = f"quantize{{weights=i8, activations={activations}}} | calibrate{{method={method}}} | legalize"
            legal = network.apply(pipeline, data=silent)
            assert torch.allclose(legal(silent), network(silent), atol=1e-3)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_half_precision_is_near_and_really_half(name: str, to: str) -> None:
    graph = ZOO[name]
    network, x = network_of(graph), inputs_of(graph)
    half = network.apply(f"convert{{to={to}}}")
    error = difference(network, half, x)
    assert 0 < error < (5e-3 if to == "f16" else 6e-2)
    assert all(op.type.format.name == to for op in half.graph.stored)
    assert half.graph.inputs == graph.inputs
    assert [half.graph.types[n].format for n in half.graph.outputs] == [graph.types[n].format for n in graph.outputs]


@pytest.mark.parametrize(
    "pipeline",
    [
        "convert{to=f16} | quantize{weights=i8, activations=u8, biases=i16} | calibrate",
        "quantize{weights=i8, activations=u8} | calibrate | convert{to=f16}",
        "convert{to=bf16} | quantize{weights=i8, activations=u8} | calibrate | legalize",
        "convert{to=f16} | convert{to=f32}",
    ],
)
@pytest.mark.parametrize("name", ["mlp", "flatten", "concat", "residual"])
def test_halves_and_integers_go_together(name: str, pipeline: str) -> None:
    graph = ZOO[name]
    network, x = network_of(graph), inputs_of(graph, batch=32)
    result = network.apply(pipeline, data=[x])
    assert difference(network, result, x) < 0.1
    for new, old in zip(result.graph.outputs, graph.outputs, strict=True):
        assert result.graph.types[new].format == graph.types[old].format


def test_ops_without_a_rule_compute_as_before_between_halves() -> None:
    graph = graph_of(
        """
        %w: f32[6, 6] = weight
        %a: f32[N, 6] = linear %x, %w
        %s, %i: f32[N, 6], i64[N, 6] = aten.sort.default %a {args=["%0", 1]}
        %b: f32[N, 6] = linear %s, %w
        return %b, %i
        """,
        ROWS,
    )
    network, x = network_of(graph), inputs_of(graph, batch=16)
    half = network.apply("convert{to=f16}")
    assert difference(network, half, x) < 1e-2
    assert half(*x)[0].dtype == torch.float32


def test_what_is_folded_and_merged_keeps_its_format() -> None:
    network = network_of(ZOO["mlp"]).apply("convert{to=f16} | fold-batch-norm")
    assert {op.type.format.name for op in network.graph.stored} == {"f16"}
    assert all(network.weights.recipe(op.name).tensor.dtype == torch.float16 for op in network.graph.stored)


def test_folding_whatever_the_order_of_passes() -> None:
    """Resizing before folding and after it give the same function when nothing is chosen by importance."""
    graph = ZOO["mlp"]
    network, x = network_of(graph, dtype=torch.float64), inputs_of(graph, dtype=torch.float64)
    one = network.apply("resize{fc1=24, fc2=20} | fold-batch-norm")
    other = network.apply("fold-batch-norm | resize{fc1=24, fc2=20}")
    assert one.graph == other.graph
    assert difference(one, other, x) < 1e-10 and difference(network, one, x) < 1e-10
