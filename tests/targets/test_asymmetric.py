"""Weights with zeros on ONNX Runtime's CPU provider: the simulation's numbers, no integer kernels, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from nasc.api import read_onnx
from nasc.compiler.network import Network
from nasc.compiler.weights import Rounded, Source
from nasc.ir import NascError, format_named, parse_encoding
from nasc.targets import check_placement, target_named
from nasc.targets.onnx import emit
from nasc.targets.onnx.style import Style
from onnx import TensorProto, helper, numpy_helper
from support.graphs import graph_of
from support.networks import inputs_of, network_of

CPU = target_named("onnxruntime:cpu")

LINEAR = """
  %a.w: f32[24, 40] = weight
  %a.b: f32[24] = weight
  %a: f32[N, 24] = linear %x, %a.w, %a.b
"""
CONV = """
  %a.w: f32[12, 8, 3, 3] = weight
  %a.b: f32[12] = weight
  %a: f32[N, 12, 6, 6] = conv2d %x, %a.w, %a.b
  %r: f32[N, 12, 6, 6] = relu %a
"""
TRANSPOSED = """
  %a.w: f32[8, 6, 2, 2] = weight
  %a: f32[N, 6, 9, 9] = conv_transpose2d %x, %a.w
"""
NETS = {
    "linear": (LINEAR, "%x: f32[N, 40]"),
    "conv": (CONV, "%x: f32[N, 8, 8, 8]"),
    "transposed": (TRANSPOSED, "%x: f32[N, 8, 8, 8]"),
}
PER = {"channel": "{}, per=channel", "tensor": "{}, per=tensor", "block": "{}<block 4>", "signed": "i{0.1}<?, ?>"}


def quantized(net: str, how: str, activations: str = "") -> Network:
    """A network whose weights lie on one side of 0 for the most part."""
    lines, inputs = NETS[net]
    graph = graph_of(lines, inputs=inputs)
    network = network_of(graph)
    weight = Source(network.weights.real("a.w") * 0.5 + 0.04)
    network = Network(graph, network.weights.with_recipes({"a.w": weight}))
    more = f", activations={activations}" if activations else ""
    return network.apply(f"quantize{{weights={how}{more}}} | calibrate", data=inputs_of(graph, 64)[0])


def written(format: str, per: str) -> str:
    return f"i{format[1:]}<?, ?>" if per == "signed" else PER[per].format(format)


def agree(network: Network, model: bytes, tolerance: float = 2e-6) -> None:
    x = inputs_of(network.graph, 5, seed=1)[0]
    expected, found = network(x).numpy(), CPU.load(model).run([x.numpy()])[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("format", ["u2", "u3", "u4", "u8", "u12"])
@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("net", NETS)
def test_what_torch_simulates_the_runtime_computes(net: str, per: str, format: str) -> None:
    network = quantized(net, written(format, per))
    assert network.graph.types["a.w"].step is not None and network.graph.types["a.w"].step.zero != 0
    model = CPU.emit(network.graph, network.weights).model
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    agree(network, model)
    plain = emit(network.graph, network.weights, style=Style(fold_weights=False, matmul_nbits=False))
    onnx.checker.check_model(plain, full_check=True)
    assert "DequantizeLinear" in {node.op_type for node in plain.graph.node}
    agree(network, plain.SerializeToString())


@pytest.mark.parametrize("format", ["u2", "u3", "u4", "u8", "u12"])
@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("style", [Style(), Style(fold_weights=False)])
def test_what_is_written_is_read_back(style: Style, per: str, format: str) -> None:
    network = quantized("linear", written(format, per))
    back = read_onnx(emit(network.graph, network.weights, style=style).SerializeToString())
    name = next(op.name for op in back.graph.stored if op.type.quantized)
    assert str(back.graph.types[name].encoding) == str(network.graph.types["a.w"].encoding)
    np.testing.assert_array_equal(back.weights.array(name), network.weights.array("a.w"))
    if per != "tensor":
        np.testing.assert_array_equal(back.weights.steps(name), network.weights.steps("a.w"))
        np.testing.assert_array_equal(back.weights.zeros(name), network.weights.zeros("a.w"))
    x = torch.randn(3, 40)
    torch.testing.assert_close(back(x), network(x), rtol=0, atol=1e-6)
    again = read_onnx(emit(back.graph, back.weights, style=style).SerializeToString())
    assert str(again.graph) == str(back.graph)


@pytest.mark.parametrize("how", ["u4", "u8", "u8, per=tensor"])
def test_an_older_opset_holds_them_in_bytes(how: str) -> None:
    network = quantized("conv", how)
    model = emit(network.graph, network.weights, opset=20)
    assert {t.data_type for t in model.graph.initializer} <= {TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64}
    agree(network, model.SerializeToString())


def test_the_file_holds_the_bits_of_the_format() -> None:
    sizes = {f: CPU.emit((n := quantized("linear", f)).graph, n.weights).size_bytes for f in ("u4", "u8", "i4", "i8")}
    assert sizes["u8"] - sizes["u4"] == pytest.approx(24 * 20 + 12, abs=150)
    assert sizes["u4"] - sizes["i4"] < 24 // 2 + 400
    model = onnx.load_from_string(CPU.emit((n := quantized("linear", "u4")).graph, n.weights).model)
    held = {t.name: t for t in model.graph.initializer}
    assert held["a.w/packed"].data_type == TensorProto.UINT4 and len(held["a.w/packed"].raw_data) == 24 * 20
    assert held["a.w/zero/packed"].data_type == TensorProto.UINT4 and len(held["a.w/zero/packed"].raw_data) == 12


@pytest.mark.parametrize("net", ["linear", "conv"])
@pytest.mark.parametrize("how", ["u4", "u8", "u8, per=tensor", "i8<?, ?>"])
def test_no_integer_kernel_takes_them(net: str, how: str) -> None:
    """The layer is planned in float with the reason, and runs so, exactly."""
    network = quantized(net, how, "u8").apply("place", data=None).apply("legalize", data=torch.randn(1))
    output = network.graph.outputs[0]
    graph = network.graph
    (planned,) = CPU.plan(graph).layers
    assert not planned.integer
    assert planned.reason == "the zero of its weight %a.w is not 0, integer kernels take symmetric ones"
    session = CPU.load(CPU.emit(graph, network.weights), placed=True)
    placement = check_placement(CPU.plan(graph), session.placement())
    assert not {"QLinearConv", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"} & set(placement.kernels)
    assert placement.as_planned and output
    agree(network, CPU.emit(graph, network.weights).model)


def test_a_quantized_result_leaves_the_layer_exact() -> None:
    """With integers on both sides the runtime would round the layer's own numbers."""
    lines = CONV + "  %r.q: u8<0.02>[N, 12, 6, 6] = quantize %r\n"
    graph = graph_of(lines.replace("conv2d %x,", "conv2d %x.q,").replace(
        "  %a.w:", "  %x.q: u8<0.03, 128>[N, 8, 8, 8] = quantize %x\n  %a.w:", 1
    ), inputs="%x: f32[N, 8, 8, 8]")  # fmt: skip
    network = network_of(graph).apply("quantize{weights=u4} | calibrate", data=inputs_of(graph, 8)[0])
    x = inputs_of(graph, 5, seed=1)[0]
    expected = network(x).numpy()
    found = CPU.load(CPU.emit(network.graph, network.weights)).run([x.numpy()])[0]
    assert (np.abs(found - expected) > 1e-5).mean() < 1e-3, "ties apart"


@pytest.mark.parametrize("how", ["u2", "u4", "u4, per=tensor", "u4<block 32>", "u3<block 16>", "i4<?, ?>",
                                 "i4<block 32 ?, zeros>", "u6", "u8", "u8, per=tensor", "u8<block 64>"])  # fmt: skip
def test_matmul_nbits_takes_zeros(how: str) -> None:
    graph = graph_of(
        "  %w: f32[512, 528] = weight\n  %b: f32[512] = weight\n  %y: f32[N, 512] = linear %x, %w, %b",
        inputs="%x: f32[N, 528]",
    )
    network = network_of(graph)
    weight = Source(network.weights.real("w") + 0.02)
    network = Network(graph, network.weights.with_recipes({"w": weight}))
    network = network.apply(f"quantize{{weights={how}}} | calibrate{{weights=minmax}}", data=torch.randn(8, 528))
    artifact = CPU.emit(network.graph, network.weights)
    (node,) = onnx.load_from_string(artifact.model).graph.node
    assert node.op_type == "MatMulNBits" and node.input[3] == "w/zeros"
    x = torch.randn(7, 528)
    expected, found = network(x).numpy(), CPU.load(artifact).run([x.numpy()])[0]
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < 0.02, "its input is rounded in blocks, and nothing else"
    back = read_onnx(artifact.model)
    torch.testing.assert_close(back(x), network(x), rtol=0, atol=1e-4)
    held = back.graph.types["w"]
    if "tensor" not in how:
        assert str(held.encoding) == str(network.graph.types["w"].encoding)
        np.testing.assert_array_equal(back.weights.zeros("w"), network.weights.zeros("w"))
    np.testing.assert_array_equal(back.weights.array("w"), network.weights.array("w"))


def foreign(codes: Any, steps: Any, zeros: Any, element: int, **attributes: int) -> bytes:
    """A model of another exporter: a DequantizeLinear of a stored weight before a Gemm."""
    steps, zeros = np.asarray(steps, np.float32), np.asarray(zeros)
    tensors = [
        helper.make_tensor("w", element, codes.shape, codes.flatten()),
        numpy_helper.from_array(steps, "s"),
        helper.make_tensor("z", element, zeros.shape, zeros.flatten()),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["real"], **attributes),
        helper.make_node("Gemm", ["x", "real"], ["y"], transB=1),
    ]
    return model_of(nodes, tensors, codes.shape[1], codes.shape[0])


def test_unsigned_codes_from_zero_on_come_back() -> None:
    """The zero 0 of unsigned codes is the least of the signed ones that they are written as."""
    graph = graph_of("  %w: f32[512, 528] = weight\n  %y: f32[N, 512] = linear %x, %w", inputs="%x: f32[N, 528]")
    network = network_of(graph)
    network = Network(graph, network.weights.with_recipes({"w": Source(network.weights.real("w").abs())}))
    network = network.apply("quantize{weights=u8<2^-10>}")
    x = torch.randn(3, 528)
    for style in (Style(), Style(matmul_nbits=False), Style(matmul_nbits=False, fold_weights=False)):
        model = emit(network.graph, network.weights, style=style).SerializeToString()
        expected, (found,) = network(x).numpy(), CPU.load(model).run([x.numpy()])
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
        back = read_onnx(model)
        (held,) = (op.type.encoding for op in back.graph.stored)
        assert str(held) in ("u8<2^-10>", "u8<per 0>")
        torch.testing.assert_close(back(x), network(x), rtol=0, atol=1e-4)


def model_of(nodes: list[Any], tensors: list[Any], inputs: int, outputs: int) -> bytes:
    """A model from x to y."""
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if all(node.domain == "" for node in nodes):
        onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("element", "zeros", "block", "expected"),
    [
        (TensorProto.UINT8, [3, 200, 7, 128], 0, "u8<per 0, zeros>"),
        (TensorProto.INT8, [3, -100, 7, 0], 0, "i8<per 0, zeros>"),
        (TensorProto.UINT8, [128] * 4, 0, "i8<per 0>"),
        (TensorProto.UINT8, [0] * 4, 0, "u8<per 0>"),
        (TensorProto.UINT8, 17, 0, "u8<2^-4, 17>"),
        (TensorProto.UINT8, 128, 0, "i8<2^-4>"),
        (TensorProto.UINT4, [3, 0, 7, 15], 0, "u4<per 0, zeros>"),
        (TensorProto.INT4, [3, -8, 7, 0], 0, "i4<per 0, zeros>"),
        (TensorProto.UINT8, [[3, 4], [5, 6], [7, 8], [9, 10]], 16, "u8<block 16 on 1, zeros>"),
        (TensorProto.UINT4, [[3, 4], [5, 6], [7, 8], [9, 10]], 16, "u4<block 16 on 1, zeros>"),
        (TensorProto.INT8, [[0, 0]] * 4, 16, "i8<block 16 on 1>"),
    ],
)
def test_zeros_of_other_exporters_are_read(element: int, zeros: Any, block: int, expected: str) -> None:
    narrow, signed = element in (TensorProto.UINT4, TensorProto.INT4), element in (TensorProto.INT8, TensorProto.INT4)
    bits = 4 if narrow else 8
    low = -(1 << (bits - 1)) if signed else 0
    random = np.random.default_rng(0)
    codes = random.integers(low, low + (1 << bits), (4, 32))
    steps = 0.0625 if np.ndim(zeros) == 0 else random.uniform(0.01, 0.1, np.shape(zeros))
    attributes = {"axis": 1, "block_size": block} if block else {"axis": 0} if np.ndim(zeros) else {}
    model = foreign(codes, steps, zeros, element, **attributes)
    back = read_onnx(model)
    assert str(back.graph.types["w"].encoding) == expected
    x = torch.randn(3, 32)
    (found,) = CPU.load(model).run([x.numpy()])
    np.testing.assert_allclose(back(x).numpy(), found, rtol=0, atol=1e-5 * np.abs(found).max())


@pytest.mark.parametrize(
    ("zeros", "block", "element", "expected"),
    [
        ([3, 200, 7, 129], 0, TensorProto.UINT8, "u8<per 0, zeros>"),
        (90, 0, TensorProto.UINT8, "u8<2^-4, 90>"),
        ([3, 5, 7, 15], 0, TensorProto.UINT4, "u4<per 0, zeros>"),
        ([[3, 4], [5, 6], [7, 8], [9, 10]], 16, TensorProto.INT8, "i8<block 16 on 1, zeros>"),
    ],
)
def test_weights_that_a_file_rounds_itself_are_stored_as_codes(
    zeros: Any, block: int, element: int, expected: str
) -> None:
    random = np.random.default_rng(0)
    real = random.normal(0, 1, (4, 32)).astype(np.float32)
    steps = 0.0625 if np.ndim(zeros) == 0 else random.uniform(0.01, 0.1, np.shape(zeros))
    attributes = {"axis": 1, "block_size": block} if block else {"axis": 0} if np.ndim(zeros) else {}
    zero = np.asarray(zeros)
    tensors = [
        numpy_helper.from_array(real, "r"),
        numpy_helper.from_array(np.asarray(steps, np.float32), "s"),
        helper.make_tensor("z", element, zero.shape, zero.flatten()),
    ]
    tensors[2].doc_string = "what another exporter had to say"
    nodes = [
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["w"], **attributes),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["real"], **attributes),
        helper.make_node("Gemm", ["x", "real"], ["y"], transB=1),
    ]
    model = model_of(nodes, tensors, 32, 4)
    back = read_onnx(model)
    (held,) = (op.type.encoding for op in back.graph.stored)
    assert str(held) == expected
    x = torch.randn(3, 32)
    (found,) = CPU.load(model).run([x.numpy()])
    np.testing.assert_allclose(back(x).numpy(), found, rtol=0, atol=1e-5 * np.abs(found).max())


def test_activations_of_four_bits_are_read_as_such() -> None:
    tensors = [numpy_helper.from_array(np.float32(0.1), "s"), helper.make_tensor("z", TensorProto.UINT4, (), [7])]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    back = read_onnx(model_of(nodes, tensors, 8, 8))
    assert str(back.graph.types[back.graph.outputs[0]].encoding) == "u4<0.1, 7>"


def test_zeros_of_packed_products_of_other_exporters_are_read() -> None:
    """MatMulNBits with zeros that differ by block, and an odd number of blocks."""
    random = np.random.default_rng(0)
    codes, zeros = random.integers(0, 16, (6, 80)), random.integers(0, 16, (6, 5))
    steps = random.uniform(0.01, 0.1, (6, 5)).astype(np.float32)
    words = (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8).reshape(6, 5, 8)
    padded = np.pad(zeros, ((0, 0), (0, 1)))
    low = (padded[:, 0::2] | padded[:, 1::2] << 4).astype(np.uint8)
    tensors = [numpy_helper.from_array(a, n) for a, n in ((words, "w"), (steps, "s"), (low, "z"))]
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s", "z"], ["y"], domain="com.microsoft", K=80, N=6, bits=4, block_size=16
    )
    model = model_of([node], tensors, 80, 6)
    back = read_onnx(model)
    assert str(back.graph.types["w"].encoding) == "u4<block 16 on 1, zeros>"
    np.testing.assert_array_equal(back.weights.zeros("w"), zeros)
    x = torch.randn(3, 80)
    (found,) = CPU.load(model).run([x.numpy()])
    np.testing.assert_allclose(back(x).numpy(), found, rtol=0, atol=1e-4 * np.abs(found).max())


def test_what_is_said_of_them() -> None:
    for text in ("u4<per 0, zeros>", "u8<0.02, 127>", "i8<0.02, 3>"):
        support = CPU.supports(parse_encoding(text), "weight")
        assert support.runs == "float" and "its zero is not 0" in support.reason
        assert target_named("onnxruntime:tensorrt").supports(parse_encoding(text), "weight").runs == "no"
    assert CPU.supports(parse_encoding("u4<block 32 on 1, zeros>"), "weight").runs == "float"
    assert CPU.supports(parse_encoding("u8<per 0>"), "weight").runs == "native"


def test_steps_that_do_not_fit_are_refused() -> None:
    network = quantized("linear", "u4")
    recipe = network.weights.recipe("a.w")
    assert isinstance(recipe, Rounded) and recipe.zeros is not None
    short = Rounded(recipe.source, format_named("u4"), recipe.steps, 0, zeros=recipe.zeros[:3])
    object.__setattr__(short, "tensor", recipe.tensor)
    broken = network.weights.with_recipes({"a.w": short})
    with pytest.raises(NascError, match="zeros of %a.w have the shape"):
        CPU.emit(network.graph, broken)
