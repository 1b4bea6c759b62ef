"""Codes without gaps: the bytes that they take in a file, and what runtimes make of them again."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.ir import Format, format_named
from nasc.targets import static_cost
from nasc.targets.onnx import Writer, emit
from nasc.targets.onnx.bits import Unpacking, has_gaps, pieces_of
from nasc.targets.onnx.elements import Array, element
from nasc.targets.onnx.sizes import initializer_bytes
from nasc.targets.onnx.style import Style
from onnx import helper
from onnx.reference import ReferenceEvaluator
from support import graphs
from support.networks import inputs_of, network_of

from .conftest import graph_of

INTEGERS = [f"{sign}{bits}" for sign in "iu" for bits in range(2, 16)]
FORMATS = [name for name in (*INTEGERS, "ternary", "binary") if has_gaps(format_named(name))]


def unpacking(codes: Array, format: Format) -> onnx.ModelProto:
    """A model whose one output is what codes in pieces are put together to."""
    writer = Writer(graph_of("graph @t(%x: f32[1]) {\n  return %x\n}"), {}, Style(), opset=21)  # type: ignore[arg-type]
    Unpacking(writer, "w", codes, format, format).write()
    writer.proto.output.append(helper.make_tensor_value_info("w", element(format)[0], codes.shape))
    del writer.proto.input[:]
    model = onnx.ModelProto(ir_version=10, graph=writer.proto)
    model.opset_import.add(domain="", version=21)
    onnx.checker.check_model(model, full_check=True)
    return model


def computed(model: onnx.ModelProto, level: ort.GraphOptimizationLevel) -> Array:
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {})[0])


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(st.integers(1, 9), min_size=0, max_size=4), st.integers(0, 2**32 - 1))
def test_pieces_make_the_codes_again(name: str, shape: list[int], seed: int) -> None:
    """With the runtime's optimisation and without, and as ONNX's own reference computes them."""
    format = format_named(name)
    held = [-1, 1] if name == "binary" else [*range(format.low, format.high + 1)]
    codes = np.random.default_rng(seed).choice(held, shape).astype(element(format)[1]).reshape(shape)
    model = unpacking(codes, format)
    levels = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    for found in (*(computed(model, level) for level in levels), ReferenceEvaluator(model).run(None, {})[0]):
        assert found.dtype == codes.dtype
        np.testing.assert_array_equal(found, codes)


@pytest.mark.parametrize("name", FORMATS)
def test_all_codes_come_back_from_the_bits_they_have(name: str) -> None:
    format = format_named(name)
    codes = np.arange(format.low, format.high + 1).astype(element(format)[1])
    codes = codes[codes != 0] if name == "binary" else codes
    codes = np.resize(codes, -(-codes.size // 8) * 8)
    model = unpacking(codes, format)
    np.testing.assert_array_equal(computed(model, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC), codes)
    pieces = [t for t in model.graph.initializer if t.name.startswith("w/bits")]
    assert sum(len(t.raw_data) for t in pieces) == codes.size * format.bits // 8
    assert len(pieces) == len(pieces_of(format.bits)) + (format.bits > 8)
    assert {t.doc_string for t in pieces} == {name}


ENCODINGS = [*INTEGERS, "ternary", "binary", "l3", "l5", "l7", "f4e2m1", "f5e3m1", "f6e3m2", "f8e4m3", "f8e5m2",
             "f9e4m4", "f11e4m6", "i4<block 16>", "i6<block 8 2^>", "i12<block 24>", "u5<block 16>",
             "ternary<block 16>", "binary<block 32>", "mxfp4", "mxfp6e2m3", "mxfp6e3m2", "mxfp8e4m3", "mxint8",
             "l4<block 16 2^>", "f5e2m2<block 8>"]  # fmt: skip


def ran(model: bytes, x: Array, *, optimized: bool) -> list[Array]:
    """Its results and the weight's numbers: as they are without optimisation, since then kernels that know a weight
    beforehand add up in another order."""
    shown = onnx.load_from_string(model)
    names = [output.name for output in shown.graph.output] if optimized else ["w/real"]
    if not optimized:
        shown.graph.output.append(helper.make_tensor_value_info("w/real", onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(names, {"x": x})]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(ENCODINGS), st.sampled_from(["", ", activations=u8"]), st.integers(1, 130), st.integers(1, 130),
    st.booleans(),
)  # fmt: skip
def test_a_file_holds_the_bytes_that_are_counted(
    weights: str, activations: str, outputs: int, inputs: int, convolution: bool
) -> None:
    """And its results are those of the file that holds whole containers and numbers, optimised or not."""
    if convolution:
        lines = f"  %w: f32[{outputs}, {inputs}, 3, 1] = weight\n  %y: f32[N, {outputs}, 2, 2] = conv2d %x, %w"
        graph = graphs.graph_of(lines, inputs=f"%x: f32[N, {inputs}, 4, 2]")
    else:
        lines = f"  %w: f32[{outputs}, {inputs}] = weight\n  %y: f32[N, {outputs}] = linear %x, %w"
        graph = graphs.graph_of(lines, inputs=f"%x: f32[N, {inputs}]")
    x = inputs_of(graph, 3)[0]
    network = network_of(graph).apply(f"quantize{{weights={weights}{activations}}} | calibrate", data=x)
    model = emit(network.graph, network.weights).SerializeToString()
    whole = emit(network.graph, network.weights, style=Style(packed=False)).SerializeToString()
    counted = static_cost(network.graph).weight_bytes
    format = network.graph.types["w"].format
    elements = 0 if format.is_int else 4 << format.bits  # a table that pays from so many bytes on
    assert initializer_bytes(model) <= 1.05 * counted + 3 * outputs + 4500 + elements
    assert len(model) <= len(whole) + 200
    for optimized in (False, True):
        found, expected = (ran(m, x.numpy(), optimized=optimized) for m in (model, whole))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_integer_layers_store_beside_what_is_counted() -> None:
    """Of docs/formats.md: zeros of weights and activations, and the steps of biases in the format of sums."""
    lines = "%w: f32[24, 16] = weight\n%b: f32[24] = weight\n%y: f32[N, 24] = linear %x, %w, %b"
    network = network_of(graphs.graph_of(lines, inputs="%x: f32[N, 16]"))
    passes = "quantize{weights=i8, activations=u8} | place | calibrate | legalize"
    network = network.apply(passes, data=inputs_of(network.graph, 32)[0])
    stored = initializer_bytes(emit(network.graph, network.weights).SerializeToString())
    zeros, steps, activations = 24, 4 * 24, 1
    assert stored == static_cost(network.graph).weight_bytes + zeros + steps + activations
