"""Number formats on ONNX Runtime's CPU provider: what torch simulates is what the runtime computes, or is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
import torch
from nasc.compiler.network import Network
from nasc.ir import Encoding, NascError, Step, UsageError, parse_encoding
from nasc.targets import static_cost, target_named
from nasc.targets.onnx import EmissionError, emit
from nasc.targets.onnx.sizes import initializer_bytes
from nasc.targets.onnx.style import Style
from support.graphs import graph_of
from support.networks import inputs_of, network_of

CPU = target_named("onnxruntime:cpu")

MLP = """
  %fc1.w: f32[40, 64] = weight
  %fc1.b: f32[40] = weight
  %fc1: f32[N, 40] = linear %x, %fc1.w, %fc1.b at "mlp.py":3
  %relu: f32[N, 40] = relu %fc1
  %fc2.w: f32[10, 40] = weight
  %fc2: f32[N, 10] = linear %relu, %fc2.w at "mlp.py":5
"""
CNN = """
  %a.w: f32[24, 16, 3, 3] = weight
  %a.b: f32[24] = weight
  %a: f32[N, 24, 6, 6] = conv2d %x, %a.w, %a.b at "cnn.py":3
"""

WEIGHTS = ["i2", "i4", "i6", "i8", "i12", "i8<2^?>", "i4<block 16>", "i8<block 16>", "i3<block 24>", "i12<block 16>",
           "i4<block 16 2^>", "mxint8", "f16", "bf16", "f8e4m3", "f8e5m2", "f8e4m3<2^-6>", "mxfp8e4m3", "mxfp8e5m2",
           "f8e4m3<block 16>", "mxfp6e2m3", "mxfp6e3m2", "mxfp4", "f4e2m1<block 16>", "f4e2m1", "f5e3m1", "f11e4m6",
           "l4", "l4<block 16 2^>", "ternary", "ternary<block 16>", "binary", "binary<block 16>"]  # fmt: skip


def quantized(lines: str, inputs: str, passes: str) -> Network:
    graph = graph_of(lines, inputs=inputs)
    return network_of(graph).apply(f"{passes} | calibrate", data=inputs_of(graph, 64)[0])


def stepped(text: str) -> Encoding:
    """An encoding as it stands in a graph: with a step per output where the format has one and none is named."""
    encoding = parse_encoding(text)
    bare = encoding.step is None and encoding.format.takes_step
    return Encoding(encoding.format, Step.per(0, known=True)) if bare else encoding


def both(network: Network, batch: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """What torch and what ONNX Runtime give."""
    x = inputs_of(network.graph, batch, seed=1)[0]
    model = CPU.emit(network.graph, network.weights)
    onnx.checker.check_model(onnx.load_from_string(model.model), full_check=True)
    return network(x).numpy(), CPU.load(model).run([x.numpy()])[0]


@pytest.mark.parametrize("format", WEIGHTS)
def test_weights_of_every_format_are_emitted(format: str) -> None:
    for lines, inputs in ((MLP, "%x: f32[N, 64]"), (CNN, "%x: f32[N, 16, 8, 8]")):
        expected, found = both(quantized(lines, inputs, f"quantize{{weights={format}}}"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert CPU.supports(stepped(format), "weight").runs != "no"


@pytest.mark.parametrize("format", ["f8e4m3", "f8e5m2", "f8e4m3<2^?>", "ternary", "i8<2^?>", "u5"])
def test_activations_that_onnx_has(format: str) -> None:
    """Sums differ in their last bits, so a few values next to a tie may fall on the other side, by one element."""
    expected, found = both(quantized(MLP, "%x: f32[N, 64]", f"quantize{{activations={format}}}"), batch=64)
    wrong = np.abs(found - expected) > 1e-5 * np.abs(expected).max()
    assert wrong.mean() < 0.02
    assert CPU.supports(stepped(format), "activation").runs != "no"


@pytest.mark.parametrize("format", ["mxfp4", "f6e2m3", "l4", "binary", "i8<block 32>", "mxint8", "f8e4m3<block 8>"])
def test_activations_that_onnx_has_not_are_refused_at_the_line(format: str) -> None:
    network = quantized(MLP, "%x: f32[N, 64]", f"quantize{{layers=fc2, activations={format}}}")
    with pytest.raises(EmissionError) as caught:
        CPU.emit(network.graph, network.weights)
    message = str(caught.value)
    assert "error: quantize %relu.q: ONNX has no values of format" in message
    assert "activations to u2 to u16, i2 to i16, ternary, f8e4m3 or f8e5m2 without blocks" in message
    assert CPU.supports(stepped(format), "activation").runs == "no"


@pytest.mark.parametrize(
    ("target", "options"),
    [("onnxruntime:cpu", "weights=i8, activations=mxfp4"), ("onnxruntime:tensorrt", "weights=u4, activations=i8")],
)
def test_refusals_stand_at_the_line_of_the_layer(target: str, options: str) -> None:
    """What passes added, and weights, have no line of their own."""
    network = quantized(MLP, "%x: f32[N, 64]", f"quantize{{layers=fc2, {options}}}").apply("legalize")
    with pytest.raises(EmissionError, match="mlp.py:5: error: (quantize %relu.q|weight %fc2.w): "):
        target_named(target).emit(network.graph, network.weights)


def test_blocks_need_their_opset() -> None:
    network = quantized(MLP, "%x: f32[N, 64]", "quantize{weights=i8<block 16>}")
    with pytest.raises(UsageError, match="opset 20 has no blocks\n  Take opset 21"):
        emit(network.graph, network.weights, opset=20)


def test_inputs_of_simulated_formats_are_refused() -> None:
    graph = graph_of("  %y: f32[N, 8] = relu %x", inputs="%x: f4e2m1<0.5>[N, 8]")
    with pytest.raises(NascError, match="ONNX has no"):
        CPU.emit(graph, network_of(graph).weights)


@pytest.mark.parametrize("location", ["", "model.onnx.data"])
def test_bytes_of_a_file_are_those_of_its_formats(location: str) -> None:
    """With steps and zeros, the tables that some share, and what the files say around them."""
    lines = "  %w: f32[256, 256] = weight\n  %y: f32[N, 256] = linear %x, %w"
    for format in ("i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9", "i12", "i15", "ternary", "binary", "f16"):
        network = quantized(lines, "%x: f32[N, 256]", f"quantize{{weights={format}, activations=u8}}")
        artifact = CPU.emit(network.graph, network.weights, location=location)
        bits = parse_encoding(format).format.bits
        assert 0 <= initializer_bytes(artifact.model) - bits * 256**2 // 8 < 5000, format
        x = inputs_of(network.graph, 2)[0]
        np.testing.assert_allclose(CPU.load(artifact).run([x.numpy()])[0], network(x).numpy(), rtol=0, atol=1e-5)
        assert 0 <= artifact.size_bytes - bits * 256**2 // 8 < 7000 + 4096 * 5 * bool(location), format


@pytest.mark.parametrize("format", ["i3", "i4", "i5", "i6", "i7", "ternary"])
@pytest.mark.parametrize(("lines", "inputs", "kernel"), [
    (MLP.replace("40", "800"), "%x: f32[N, 64]", "QGemm"),
    (CNN.replace("24", "320"), "%x: f32[N, 16, 8, 8]", "QLinearConv"),
])  # fmt: skip
def test_few_bits_in_a_file_still_run_on_integer_kernels(lines: str, inputs: str, kernel: str, format: str) -> None:
    network = quantized(lines, inputs, f"quantize{{weights={format}, activations=u8}} | place").apply("legalize")
    assert {layer.integer for layer in CPU.plan(network.graph).layers} == {True}
    artifact = CPU.emit(network.graph, network.weights)
    unpacked = emit(network.graph, network.weights, style=Style(packed=False)).SerializeToString()
    assert artifact.size_bytes < len(unpacked)
    found, expected = (CPU.load(model, placed=True) for model in (artifact, unpacked))
    assert found.placement().kernels == expected.placement().kernels
    assert found.placement().kernels[kernel] == len(CPU.plan(network.graph).layers)
    x = inputs_of(network.graph, 8, seed=1)[0].numpy()
    np.testing.assert_array_equal(found.run([x])[0], expected.run([x])[0])


@pytest.mark.parametrize(
    ("format", "role", "runs"),
    [
        ("i4", "weight", "container"), ("ternary", "weight", "container"), ("binary", "weight", "container"),
        ("i4<block 32>", "weight", "float"), ("mxint8", "weight", "float"), ("mxfp4", "weight", "float"),
        ("f8e4m3<per 0>", "weight", "float"), ("f8e4m3<0.5>", "activation", "float"), ("bf16", "weight", "float"),
        ("bf16", "activation", "no"), ("ternary<0.5>", "activation", "float"), ("l4<0.5>", "activation", "no"),
    ],
)  # fmt: skip
def test_what_is_said_of_formats(format: str, role: str, runs: str) -> None:
    assert CPU.supports(stepped(format), role).runs == runs  # type: ignore[arg-type]


# What the older tool got wrong


def test_a_fraction_is_part_of_the_width() -> None:
    """8 bits of which 4 are the fraction are 8 bits (Q8.4 was counted as 12), convolutions included."""
    network = quantized(
        CNN, "%x: f32[N, 16, 8, 8]", "quantize{weights=i8<2^-4>, activations=i8<2^-4>, biases=i8<2^-4>}"
    )
    cost = static_cost(network.graph)
    assert cost.average_bits == 8
    assert (cost.layers[0].weight_bits, cost.layers[0].activation_bits) == (8, 8)
    assert cost.weight_bits == 8 * (24 * 16 * 9 + 24) + 32 * 3
    steps = network.values["a.w"] * 16
    assert torch.equal(steps, steps.round()) and float(network.values["a.w"].abs().max()) < 8


def test_the_bias_of_a_convolution_stays() -> None:
    for format in ("i8", "mxint8", "ternary", "f8e4m3"):
        network = quantized(CNN, "%x: f32[N, 16, 8, 8]", f"quantize{{weights={format}, activations=u8}}")
        expected, found = both(network)
        bias = network.weights.real("a.b").numpy()
        zeroed = found - bias[None, :, None, None]
        assert np.abs(expected - found).max() < 1e-4 * np.abs(expected).max() < np.abs(zeroed - expected).max()


@pytest.mark.parametrize(
    ("format", "bits", "steps"),
    [
        ("mxfp4", Fraction(17, 4), 0), ("mxfp6e2m3", Fraction(25, 4), 0), ("mxint8", Fraction(33, 4), 0),
        ("i4<block 32>", Fraction(5), 0), ("i4<block 16 2^>", Fraction(9, 2), 0), ("i4", Fraction(4), 256),
        ("ternary", Fraction(2), 256), ("binary", Fraction(1), 256), ("l4", Fraction(4), 256), ("f16", Fraction(16), 0),
        ("f6e3m2<0.5>", Fraction(6), 1),
    ],
)  # fmt: skip
def test_bits_per_element_include_the_steps_of_blocks(format: str, bits: Fraction, steps: int) -> None:
    lines = "  %w: f32[256, 256] = weight\n  %y: f32[N, 256] = linear %x, %w"
    graph = graph_of(lines, inputs="%x: f32[N, 256]")
    cost = static_cost(network_of(graph).apply(f"quantize{{weights={format}}}").graph)
    assert cost.average_bits == bits
    assert cost.weight_bits == bits * 256 * 256 + 32 * steps
    assert parse_encoding(format).bits == bits


def test_a_last_block_may_be_short() -> None:
    graph = graph_of("  %w: f32[3, 40] = weight\n  %y: f32[N, 3] = linear %x, %w", inputs="%x: f32[N, 40]")
    cost = static_cost(network_of(graph).apply("quantize{weights=mxfp4}").graph)
    assert cost.weight_bits == 3 * (40 * 4 + 2 * 8)


POOLED = """
  %a.w: f32[24, 16, 3, 3] = weight
  %a: f32[N, 24, 6, 6] = conv2d %x, %a.w at "cnn.py":3
  %p: f32[N, 24, 3, 3] = max_pool2d %a {kernel_size=[2, 2], stride=[2, 2]} at "cnn.py":4
  %b.w: f32[8, 24, 3, 3] = weight
  %b: f32[N, 8, 1, 1] = conv2d %p, %b.w at "cnn.py":5
"""
RELU_BEHIND = POOLED.replace("conv2d %p,", "conv2d %r,").replace(
    "  %b.w", "  %r: f32[N, 24, 3, 3] = relu %p\n  %b.w"
)  # between the pool and what reads it in codes


@pytest.mark.parametrize("weights", ["i8", "f8e4m3"])
@pytest.mark.parametrize("format", ["f8e4m3", "f8e5m2"])
@pytest.mark.parametrize("lines", [POOLED, RELU_BEHIND], ids=["plain", "relu"])
def test_activations_in_eight_bit_floats_behind_a_max_pool(lines: str, format: str, weights: str) -> None:
    network = quantized(lines, "%x: f32[N, 16, 8, 8]", f"quantize{{weights={weights}, activations={format}}}")
    expected, found = both(network, batch=32)
    wrong = np.abs(found - expected) > 1e-5 * np.abs(expected).max()
    assert wrong.mean() < 0.02


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("format", ["f8e4m3", "f8e5m2"])
def test_a_max_pool_of_eight_bit_floats_is_exact(format: str, padding: int) -> None:
    count = 3 + padding
    graph = graph_of(
        f"""
  %q: {format}<0.013>[N, 4, 6, 6] = quantize %x
  %p: {format}<0.013>[N, 4, {count}, {count}] = max_pool2d %q {{kernel_size=[2, 2], stride=[2, 2], padding=[{padding}]}}
  %y: f32[N, 4, {count}, {count}] = cast %p
""",
        inputs="%x: f32[N, 4, 6, 6]",
    )
    expected, found = both(network_of(graph))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("lines", "inputs", "place"), [
    (MLP, "%x: f32[N, 64]", "mlp.py:3: error: linear %fc1"),
    (POOLED, "%x: f32[N, 16, 8, 8]", "cnn.py:3: error: conv2d %a"),
])  # fmt: skip
def test_computing_in_bf16_is_refused_on_the_cpu_at_the_line(lines: str, inputs: str, place: str) -> None:
    network = network_of(graph_of(lines, inputs=inputs)).apply("convert{to=bf16}")
    with pytest.raises(EmissionError) as caught:
        CPU.emit(network.graph, network.weights)
    message = str(caught.value)
    assert place in message
    assert "it computes in bf16, and CPUExecutionProvider has no kernels for bf16\n  Convert to f32 or f16" in message
    assert target_named("onnxruntime:cuda").emit(network.graph, network.weights).size_bytes


def test_bf16_that_is_only_stored_or_rounded_to_is_not_refused() -> None:
    stored = quantized(MLP, "%x: f32[N, 64]", "quantize{weights=bf16}")
    passes = "convert{to=bf16} | quantize{weights=i8, activations=u8} | place"
    rounded = quantized(POOLED, "%x: f32[N, 16, 8, 8]", passes).apply("legalize")
    for network in (stored, rounded):
        CPU.load(CPU.emit(network.graph, network.weights))


@pytest.mark.parametrize(("options", "place", "remedy"), [
    ("weights=i8, activations=u8", "quantize %x.q: it is u8<", "`quantize{activations=i8}`"),
    ("weights=i8, activations=f8e4m3", "quantize %x.q: it is f8e4m3<", "place{target=onnxruntime:tensorrt}"),
    ("weights=f8e4m3, activations=i8", "weight %fc1.w: it is f8e4m3<", "`quantize{weights=i8}`"),
    ("weights=u4, activations=i8", "weight %fc1.w: it is u4<", "`quantize{weights=i8}`"),
    ("weights=i4<block 16>, activations=i8", "weight %fc1.w: it is i4<", "`quantize{weights=i8}`"),
])  # fmt: skip
def test_what_tensorrt_does_not_take_is_refused_and_not_planned(options: str, place: str, remedy: str) -> None:
    tensorrt = target_named("onnxruntime:tensorrt")
    network = quantized(MLP, "%x: f32[N, 64]", f"quantize{{{options}}}").apply("legalize")
    with pytest.raises(EmissionError) as caught:
        tensorrt.emit(network.graph, network.weights)
    assert place in str(caught.value) and remedy in str(caught.value)
    assert not any(layer.integer for layer in tensorrt.plan(network.graph).layers)


def test_tensorrt_takes_what_the_refusals_advise() -> None:
    tensorrt = target_named("onnxruntime:tensorrt")
    passes = "quantize{weights=i8, activations=u8} | place{target=onnxruntime:tensorrt}"
    for found in (passes, "quantize{weights=i8, activations=i8}"):
        network = quantized(MLP, "%x: f32[N, 64]", found).apply("legalize")
        assert tensorrt.emit(network.graph, network.weights).size_bytes
        assert all(layer.integer for layer in tensorrt.plan(network.graph).layers)


def test_quantized_inputs_that_tensorrt_does_not_take_are_refused() -> None:
    graph = graph_of("  %y: f32[N, 8] = cast %x", inputs="%x: u8<0.5, 133>[N, 8]")
    with pytest.raises(NascError, match=r"the input %x is u8<2\^-1, 133>: TensorRT takes signed integers"):
        target_named("onnxruntime:tensorrt").emit(graph, network_of(graph).weights)
