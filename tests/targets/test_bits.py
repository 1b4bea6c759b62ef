"""Codes without gaps: the bytes that they take in a file, and what runtimes make of them again."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.ir import Format, format_named
from nasc.targets.onnx import Writer
from nasc.targets.onnx.bits import Unpacking, has_gaps, pieces_of
from nasc.targets.onnx.elements import Array, element
from nasc.targets.onnx.style import Style
from onnx import helper
from onnx.reference import ReferenceEvaluator

from .conftest import graph_of

FORMATS = [
    f for f in (*(f"{s}{b}" for s in "iu" for b in range(2, 16)), "ternary", "binary") if has_gaps(format_named(f))
]


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


@settings(max_examples=150, deadline=None)
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
