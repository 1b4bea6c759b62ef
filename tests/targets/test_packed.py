"""Weights alone in few bits: packed in the file, multiplied by `MatMulNBits`."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from nasc.api import read_onnx
from nasc.targets import target_named
from nasc.targets.onnx import emit
from nasc.targets.onnx.packed import BLOCK
from nasc.targets.onnx.style import Style
from support import graphs
from support.networks import network_of

from . import reference
from .conftest import graph_of, lengths, random_weights

CPU = target_named("onnxruntime:cpu")


def layer(weights: str, inputs: int = 544, outputs: int = 512, rows: str = "N", bias: bool = True) -> str:
    head = f"graph @t(%x: f32[{rows}, {inputs}]) {{\n  %w: {weights}[{outputs}, {inputs}] = weight\n"
    more = f"  %b: f32[{outputs}] = weight\n" if bias else ""
    reads = "%x, %w, %b" if bias else "%x, %w"
    return f"{head}{more}  %y: f32[{rows}, {outputs}] = linear {reads}\n  return %y\n}}"


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        *[(layer(f"i{b}<per 0>"), 4 if b <= 4 else 8) for b in range(2, 9)],
        (layer("i4<0.02>"), 4),
        (layer("i4<per 0>", inputs=516), 4),
        (layer("i3<per 0>", rows="N, 4", bias=False), 4),
        (layer("i8<per 0>", inputs=578, rows="N, 3"), 8),
    ],
)
def test_matmul_nbits_give_the_numbers_they_stand_for(text: str, bits: int) -> None:
    graph = graph_of(text)
    weights = random_weights(graph)
    artifact = CPU.emit(graph, weights)
    model = onnx.load_from_string(artifact.model)
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    assert (node.op_type, node.domain, node.name) == ("MatMulNBits", "com.microsoft", "y")
    outputs, inputs = lengths(graph, "w")
    blocks = -(-inputs // BLOCK)
    (packed,) = [t for t in model.graph.initializer if t.name == "w/packed"]
    assert len(packed.raw_data) == outputs * blocks * BLOCK * bits // 8
    x = np.random.default_rng(1).normal(0, 1, lengths(graph, "x", 7)).astype(np.float32)
    (expected,) = reference.run(graph, weights, x)
    (found,) = CPU.load(artifact).run([x])
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.02, "its input is rounded in blocks, and nothing else"


@pytest.mark.parametrize(("format", "kernel"), [("i4<block 32>", "MatMulNBits"), ("i8<block 64>", "MatMulNBits"),
                                                ("i4<block 24>", "Gemm")])  # fmt: skip
def test_blocks_keep_their_steps(format: str, kernel: str) -> None:
    graph = graphs.graph_of("  %w: f32[512, 520] = weight\n  %y: f32[N, 512] = linear %x, %w", inputs="%x: f32[N, 520]")
    network = network_of(graph).apply(f"quantize{{weights={format}}} | calibrate", data=torch.randn(8, 520))
    session = CPU.load(CPU.emit(network.graph, network.weights), placed=True)
    assert session.placement().kernels == {kernel: 1}
    x = np.random.default_rng(1).normal(0, 1, (7, 520)).astype(np.float32)
    expected = network(torch.from_numpy(x)).numpy()
    assert np.abs(session.run([x])[0] - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("text", [layer("i4<per 0>", inputs=96), layer("i4<per 0>", outputs=100), layer("i12<per 0>"),
                                  layer("i4<per 0>", rows="N, 5")])  # fmt: skip
def test_small_layers_many_rows_and_wide_codes_stay_exact(text: str) -> None:
    """And take no time to be read back: the runtime does that when it loads the model."""
    graph = graph_of(text)
    weights = random_weights(graph)
    x = np.random.default_rng(1).normal(0, 1, lengths(graph, "x", 7)).astype(np.float32)
    (expected,) = reference.run(graph, weights, x)
    session = CPU.load(CPU.emit(graph, weights), placed=True)
    assert set(session.placement().kernels) <= {"Gemm", "Reshape"}
    assert np.abs(session.run([x])[0] - expected).max() < 1e-4


def test_a_style_without_packing_is_exact() -> None:
    graph = graph_of(layer("i4<per 0>"))
    weights = random_weights(graph)
    x = np.random.default_rng(1).normal(0, 1, lengths(graph, "x", 7)).astype(np.float32)
    (expected,) = reference.run(graph, weights, x)
    model = emit(graph, weights, style=Style(matmul_nbits=False)).SerializeToString()
    assert np.abs(CPU.load(model).run([x])[0] - expected).max() < 1e-4


def test_quantized_inputs_keep_integer_kernels() -> None:
    """4-bit weights with quantized inputs are codes in 8 bits: `MatMulNBits` would read floats."""
    text = layer("i4<per 0>", bias=False).replace("linear %x", "linear %x.q")
    text = text.replace("  %w:", "  %x.q: u8<0.03, 128>[N, 544] = quantize %x\n  %w:")
    graph = graph_of(text)
    kernels = CPU.load(CPU.emit(graph, random_weights(graph)), placed=True).placement().kernels
    assert kernels["QGemm"] == 1
    assert "MatMulNBits" not in kernels


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("format", ["i3", "i8", "ternary", "binary", "i4<block 32>"])
def test_formats_come_back(format: str, size: int) -> None:
    """In both forms: packed for `MatMulNBits`, and as codes behind a Cast."""
    lines = f"  %w: f32[{size}, {size}] = weight\n  %y: f32[N, {size}] = linear %x, %w"
    graph = graphs.graph_of(lines, inputs=f"%x: f32[N, {size}]")
    network = network_of(graph).apply(f"quantize{{weights={format}}} | calibrate", data=torch.randn(8, size))
    back = read_onnx(CPU.emit(network.graph, network.weights).model)
    assert back.graph.types["w"].encoding == network.graph.types["w"].encoding
    np.testing.assert_array_equal(back.weights.array("w"), network.weights.array("w"))
