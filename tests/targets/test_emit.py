"""What an emitted file holds: names, lines, metadata, bytes; and what emission refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from nasc.ir import Axis, Const, Location, NascError, Op, Type, UsageError
from nasc.ir.axes import N
from nasc.ir.formats import F32
from nasc.targets import Artifact, target_named
from nasc.targets.onnx import EmissionError, External, Writer, emit, opset_for
from nasc.targets.onnx.elements import packed
from nasc.targets.onnx.style import TENSORRT
from onnx import numpy_helper

from . import reference
from .conftest import Dictionary, graph_of, random_weights

CPU = target_named("onnxruntime:cpu")

MLP = """
graph @mlp(%x: f32[N, 16]) {
  width $fc1 = 24
  %fc1.weight: f32[$fc1, 16] = weight
  %fc1.bias: f32[$fc1] = weight
  %fc1: f32[N, $fc1] = linear %x, %fc1.weight, %fc1.bias at "mlp.py":12
  %act: f32[N, $fc1] = relu %fc1 at "mlp.py":13
  %fc2.weight: f32[5, $fc1] = weight
  %fc2: f32[N, 5] = linear %act, %fc2.weight at "mlp.py":14
  return %fc2
}"""

QUANTIZED = """
graph @mlp(%x: f32[N, 16]) {
  %x.q: u8<0.02, 113>[N, 16] = quantize %x
  %w: i4<per 0>[8, 16] = weight
  %b: i32<per 0>[8] = weight
  %y: f32[N, 8] = linear %x.q, %w, %b at "mlp.py":7
  return %y
}"""


def emitted(text: str, **options: object) -> onnx.ModelProto:
    graph = graph_of(text)
    model = emit(graph, random_weights(graph), **options)  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    return model


def run(text: str, *inputs: np.ndarray) -> list[np.ndarray]:
    return CPU.load(emitted(text).SerializeToString()).run(inputs)


def test_values_keep_their_names_and_the_users_lines() -> None:
    model = emitted(MLP)
    assert [(n.name, n.op_type, list(n.output), n.doc_string) for n in model.graph.node] == [
        ("fc1", "Gemm", ["fc1"], "mlp.py:12"),
        ("act", "Relu", ["act"], "mlp.py:13"),
        ("fc2", "Gemm", ["fc2"], "mlp.py:14"),
    ]
    assert {t.name for t in model.graph.initializer} == {"fc1.weight", "fc1.bias", "fc2.weight"}
    assert model.graph.name == "mlp"


def test_the_batch_stays_open() -> None:
    model = emitted(MLP)
    (entry,), (output,) = model.graph.input, model.graph.output
    assert [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim] == ["N", 16]
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["N", 5]
    for batch in (1, 2, 7):
        assert run(MLP, np.zeros((batch, 16), np.float32))[0].shape == (batch, 5)


def test_metadata_names_what_it_is_given_and_the_version() -> None:
    model = emitted(MLP, metadata={"nasc.pipeline": "quantize{}", "nasc.digest": "abc"})
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found["nasc.pipeline"] == "quantize{}"
    assert found["nasc.digest"] == "abc"
    assert found["nasc.version"] == model.producer_version != ""
    assert model.producer_name == "nasc"
    assert CPU.load(model.SerializeToString()).metadata == found


def test_equal_graphs_and_weights_give_equal_bytes() -> None:
    for text in (MLP, QUANTIZED):
        first, second = (CPU.emit(g := graph_of(text), random_weights(g), {"a": "1"}) for _ in range(2))
        assert first.model == second.model
        assert first.digest == second.digest
        graph = graph_of(text)
        other = CPU.emit(graph, random_weights(graph, seed=1), {"a": "1"})
        assert other.digest != first.digest


def test_quantized_weights_are_written_as_their_codes() -> None:
    graph = graph_of(QUANTIZED)
    weights = random_weights(graph)
    model = emit(graph, weights)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    np.testing.assert_array_equal(tensors["w/packed"].astype(np.int8), weights.array("w"))
    np.testing.assert_array_equal(tensors["b"], weights.array("b"))
    assert tensors["b"].dtype == np.int32
    np.testing.assert_array_equal(tensors["w/step"], weights.steps("w"))
    assert float(tensors["x.q/step"]) == np.float32(0.02)
    assert int(tensors["x.q/zero"]) == 113


def test_codes_that_are_not_of_the_format_are_refused() -> None:
    graph = graph_of(QUANTIZED)
    weights = random_weights(graph)
    weights.arrays["w"] = weights.arrays["w"].astype(np.int32) + 100
    with pytest.raises(NascError, match=r"codes of w lie between \d+ and \d+, i4 holds -8 to 7"):
        emit(graph, weights)


@pytest.mark.parametrize("name", ["f16", "bf16", "f64", "f8e4m3", "f8e5m2"])
def test_stored_floats_keep_their_format(name: str) -> None:
    text = f"""graph @t(%x: f32[N, 4]) {{
      %w: {name}[4] = weight
      %c: f32[4] = cast %w
      %y: f32[N, 4] = add %x, %c
      return %y
    }}"""
    graph = graph_of(text)
    weights = random_weights(graph)
    model = emit(graph, weights)
    onnx.checker.check_model(model, full_check=True)
    (tensor,) = model.graph.initializer
    assert tensor.raw_data == weights.array("w").tobytes()
    x = np.ones((2, 4), np.float32)
    found = CPU.load(model.SerializeToString()).run([x])[0]
    np.testing.assert_allclose(found, x + weights.array("w").astype(np.float32), rtol=1e-6)


def test_half_precision_networks_agree_to_their_precision() -> None:
    text = """graph @t(%x: f32[N, 16]) {
      %x.h: f16[N, 16] = cast %x
      %w: f16[8, 16] = weight
      %b: f16[8] = weight
      %h: f16[N, 8] = linear %x.h, %w, %b
      %r: f16[N, 8] = relu %h
      %p: f16[N, 8] = celu %r {alpha=0.5}
      %m: f16[N, 8] = mul %p {other=0.5}
      %y: f32[N, 8] = cast %m
      return %y
    }"""
    graph = graph_of(text)
    weights = random_weights(graph)
    x = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    expected = reference.run(graph, weights, x)[0]
    np.testing.assert_allclose(run(text, x)[0], expected, atol=4e-3)


def test_mixed_formats_are_widened_as_the_ir_says() -> None:
    text = """graph @t(%x: f32[N, 6]) {
      %h: f16[N, 6] = cast %x
      %i: u8<0.1>[N, 6] = quantize %h
      %s: f32[N, 6] = add %h, %x
      %t: f32[N, 6] = mul %i, %h
      %c: bool[N, 6] = lt %h, %x
      %f: f32[N, 6] = cast %c
      return %s, %t, %f
    }"""
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    graph = graph_of(text)
    for a, b in zip(reference.run(graph, random_weights(graph), x), run(text, x), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_an_unknown_step_is_an_error_that_names_the_value_and_the_line() -> None:
    for old, new in (("u8<0.02, 113>", "u8<?>"), ("i4<per 0>", "i4<per 0 ?>")):
        graph = graph_of(QUANTIZED.replace(old, new))
        with pytest.raises(EmissionError, match=r"its step is not known") as error:
            emit(graph, random_weights(graph_of(QUANTIZED)))
        assert "calibrate" in str(error.value)
        assert ("%x.q" if "u8" in old else "%w") in str(error.value)


def test_an_input_without_a_step_is_named() -> None:
    graph = graph_of("graph @t(%x: u8<?>[N, 4]) {\n  %y: f32[N, 4] = relu %x\n  return %y\n}")
    with pytest.raises(NascError, match=r"the step of the input %x"):
        emit(graph, Dictionary({}))


def test_a_bias_in_another_step_is_an_error_since_kernels_would_not_see_it() -> None:
    graph = graph_of(QUANTIZED)
    weights = random_weights(graph)
    emit(graph, weights)
    weights.per_axis["b"] = weights.per_axis["b"] * np.where(np.arange(8) == 3, 1.001, 1).astype(np.float32)
    with pytest.raises(EmissionError, match=r"mlp.py:7.*at output 3") as error:
        emit(graph, weights)
    assert "legalize" in str(error.value)


def test_steps_of_another_length_are_an_error() -> None:
    graph = graph_of(QUANTIZED)
    weights = random_weights(graph)
    weights.per_axis["w"] = weights.per_axis["w"][:5]
    with pytest.raises(NascError, match=r"steps of %w have the shape \[5\].* needs \[8\]"):
        emit(graph, weights)


def test_an_op_without_an_emitter_is_named_with_its_line_and_can_be_given_one() -> None:
    row = (N, Const(4))
    op = Op("aten.roll", ("y",), (Type(F32, row),), ("x",), location=Location("net.py", 3))
    graph = replace(graph_of("graph @t(%x: f32[N, 4]) {\n  return %x\n}"), ops=(op,), outputs=("y",))
    with pytest.raises(EmissionError, match=r"net.py:3: error: aten.roll %y: there is no way"):
        emit(graph, Dictionary({}))

    def roll(writer: Writer, op: Op) -> None:
        writer.node("Neg", [writer.real(op.inputs[0])], op.name)

    model = emit(graph, Dictionary({}), custom={"aten.roll": roll})
    assert [n.op_type for n in model.graph.node] == ["Neg"]


def test_a_shape_with_several_lengths_that_depend_on_the_batch_is_computed_in_the_model() -> None:
    text = "graph @t(%x: f32[N, 4, N]) {\n  %y: f32[N*2, 2, N] = reshape %x {shape=[N*2, 2, N]}\n  return %y\n}"
    model = emitted(text)
    assert list(numpy_helper.to_array(model.graph.initializer[0])) == [-1, 2, 0]
    hard = "graph @t(%x: f32[N, 4, N]) {\n  %y: f32[N*2, 2*N] = reshape %x {shape=[N*2, 2*N]}\n  return %y\n}"
    x = np.arange(36, dtype=np.float32).reshape(3, 4, 3)
    np.testing.assert_array_equal(run(hard, x)[0], x.reshape(6, 6))
    none = "graph @t(%x: f32[4]) {\n  %y: f32[N, 4] = expand %x {shape=[N, 4]}\n  return %y\n}"
    with pytest.raises(NascError, match="no input that says how long it is"):
        emit(graph_of(none), Dictionary({}))


def test_outputs_may_be_inputs_weights_codes_or_the_same_twice() -> None:
    text = """graph @t(%x: f32[N, 4]) {
      %w: f32[4] = weight
      %y: f32[N, 4] = relu %x
      %y.q: u8<0.5>[N, 4] = quantize %y
      return %y, %y, %x, %w, %y.q
    }"""
    graph = graph_of(text)
    x = np.array([[-1, 0.26, 1, 3]], np.float32)
    found = run(text, x)
    for a, b in zip(reference.run(graph, random_weights(graph), x), found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6)
    np.testing.assert_array_equal(found[4], [[0, 0.5, 1, 3]])


def test_quantized_inputs_are_read_as_codes() -> None:
    for format, dtype in (("u8<0.5, 3>", np.uint8), ("i8<0.5>", np.int8)):
        text = f"graph @t(%x: {format}[N, 4]) {{\n  %y: f32[N, 4] = relu %x\n  return %y\n}}"
        x = np.array([[0, 3, 4, 90]], dtype)
        zero = 3 if dtype == np.uint8 else 0
        np.testing.assert_array_equal(run(text, x)[0], np.maximum((x.astype(np.float32) - zero) * 0.5, 0))


def test_the_opset_follows_the_graph() -> None:
    assert opset_for(graph_of(QUANTIZED)) == 21  # its weight has 4 bits
    assert opset_for(graph_of(QUANTIZED.replace("i4<per 0>", "i5<per 0>"))) == 20
    assert opset_for(graph_of(QUANTIZED.replace("i4<per 0>", "i8<block 8 on 1>"))) == 21
    assert opset_for(graph_of(QUANTIZED.replace("u8<0.02, 113>", "u12<0.02>"))) == 21
    for opset in (20, 21, 22, 23):
        assert emitted(QUANTIZED, opset=opset).opset_import[0].version == opset
    with pytest.raises(UsageError, match="found 13"):
        emitted(QUANTIZED, opset=13)


def test_signed_activations_and_unsigned_weights_are_recoded_exactly() -> None:
    """u8 x i8 is what ONNX Runtime fuses and runs fastest; codes and zeros move together, so nothing else changes."""
    text = QUANTIZED.replace("u8<0.02, 113>", "i5<0.2, -3>").replace("%w: i4<per 0>", "%w: u4<per 0>")
    graph = graph_of(text)
    weights = random_weights(graph)
    tensors = {t.name: numpy_helper.to_array(t) for t in emit(graph, weights).graph.initializer}
    assert tensors["x.q/zero"].dtype == np.uint8
    assert int(tensors["x.q/zero"]) == 16 - 3
    assert tensors["w/packed"].dtype.name == "int4"
    np.testing.assert_array_equal(tensors["w/packed"].astype(int) + 8, weights.array("w"))
    assert set(tensors["w/zero"]) == {-8}
    plain = {t.name: numpy_helper.to_array(t) for t in emit(graph, weights, style=TENSORRT).graph.initializer}
    assert plain["x.q/zero"].dtype == np.int8
    assert plain["w"].dtype == np.uint8


def test_without_clips_on_codes_bounds_are_put_on_numbers() -> None:
    text = """graph @t(%x: f32[N, 6]) {
      %r: f32[N, 6] = relu6 %x
      %q: i4<0.7>[N, 6] = quantize %r
      %y: f32[N, 6] = cast %q
      return %y
    }"""
    graph = graph_of(text)
    model = emit(graph, Dictionary({}), style=TENSORRT)
    assert [n.op_type for n in model.graph.node] == ["Clip", "Clip", "QuantizeLinear", "DequantizeLinear"]
    x = np.random.default_rng(0).normal(0, 5, (50, 6)).astype(np.float32)
    expected = reference.run(graph, Dictionary({}), x)[0]
    for style_model in (model, emit(graph, Dictionary({}))):
        np.testing.assert_allclose(CPU.load(style_model.SerializeToString()).run([x])[0], expected, rtol=1e-6)


def test_large_tensors_lie_beside_the_model(tmp_path: Path) -> None:
    graph = graph_of(MLP.replace("24", "200"))
    weights = random_weights(graph)
    inside = CPU.emit(graph, weights)
    beside = CPU.emit(graph, weights, location="model.onnx.data")
    assert [tensor.offset % 4096 for tensor in beside.tensors] == [0] * 2
    assert len(beside.model) < 1500 < len(inside.model)
    path = beside.save(tmp_path / "model.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(str(path), full_check=True)
    x = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    expected = CPU.load(inside).run([x])[0]
    for model in (path, beside):
        np.testing.assert_array_equal(CPU.load(model).run([x])[0], expected)
    assert beside.size_bytes == path.stat().st_size + (tmp_path / "model.onnx.data").stat().st_size
    other = CPU.emit(graph, random_weights(graph, 1), location="model.onnx.data")
    assert other.digest != beside.digest


@pytest.mark.parametrize("name", ["f16", "bf16", "f64", "f8e4m3", "i4<0.5>", "i8<per 0>", "f8e5m2<0.5>"])
def test_tensors_of_all_formats_may_lie_beside(name: str, tmp_path: Path) -> None:
    text = f"""graph @t(%x: f32[N, 2048]) {{
      %w: {name}[2048] = weight
      %c: f32[2048] = cast %w
      %y: f32[N, 2048] = add %x, %c
      return %y
    }}"""
    graph = graph_of(text)
    weights = random_weights(graph)
    artifact = CPU.emit(graph, weights, location="tensors")
    beside = {tensor.name: tensor.array for tensor in artifact.tensors}
    if name == "i4<0.5>":  # packed tensors stay inside
        assert packed(weights.array("w")).tobytes() in artifact.model
    else:
        assert beside["w"].tobytes() == weights.array("w").tobytes()
    x = np.ones((1, 2048), np.float32)
    expected = reference.run(graph, weights, x)[0]
    for model in (artifact, artifact.save(tmp_path / "model.onnx")):
        np.testing.assert_allclose(CPU.load(model).run([x])[0], expected, rtol=1e-6)


def test_files_beyond_two_gibibytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasc.targets.onnx.writer.LARGEST_FILE", 1500)
    graph = graph_of(MLP)
    with pytest.raises(NascError, match=r"more than 1500 bytes.*\n.*location"):
        CPU.emit(graph, random_weights(graph))
    assert CPU.emit(graph, random_weights(graph), location="tensors").location == "tensors"


def test_artifacts_replace_files_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    Artifact("onnxruntime:cpu", b"old").save(path)
    Artifact("onnxruntime:cpu", b"new").save(path)
    assert path.read_bytes() == b"new"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot write here"):
        Artifact("onnxruntime:cpu", b"new").save(tmp_path / "file" / "model.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "model.onnx"]


def test_external_tensors_are_padded_to_pages() -> None:
    external = External("data", least_bytes=4)
    for name in ("a", "b"):
        assert external.take(onnx.TensorProto(name=name), np.zeros(5, np.float32))
    assert not external.take(onnx.TensorProto(name="c"), np.zeros(3, np.int8))
    assert [part.offset for part in external.parts] == [0, 4096]
    assert external.size_bytes == 4096 + 20


def test_widths_in_attributes_and_shapes_become_numbers() -> None:
    text = """graph @t(%x: f32[N, 4, 6, 6]) {
      width $c = 3
      %w: f32[4*$c, 1, 3, 3] = weight
      %y: f32[N, 4*$c, 4, 4] = conv2d %x, %w {groups=4}
      %f: f32[N, 64*$c] = reshape %y {shape=[N, 64*$c]}
      return %f
    }"""
    text = text.replace("64*$c", "4*$c*16")
    model = emitted(text)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in model.graph.node[0].attribute}
    assert attributes["group"] == 4
    dims: list[Axis | int] = [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim[1:]]
    assert dims == [192]


def test_moved_codes_keep_what_they_stand_for() -> None:
    """Codes that are reshaped, permuted and pooled follow their quantize into its container; those of inputs stay."""
    text = """graph @t(%x: f32[N, 2, 4, 4], %i: i8<0.25, 3>[N, 2, 4, 4]) {
      %q: i6<0.1, -2>[N, 2, 4, 4] = quantize %x
      %p: i6<0.1, -2>[N, 2, 2, 2] = max_pool2d %q {kernel_size=[2, 2], stride=[2, 2]}
      %r: i6<0.1, -2>[N, 8] = reshape %p {shape=[N, 8]}
      %t: i8<0.25, 3>[N, 4, 4, 2] = permute %i {dims=[0, 2, 3, 1]}
      %y: f32[N, 8] = neg %r
      %z: f32[N, 4, 4, 2] = neg %t
      return %y, %z, %r, %t
    }"""
    graph = graph_of(text)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (3, 2, 4, 4)).astype(np.float32)
    codes = rng.integers(-128, 128, (3, 2, 4, 4)).astype(np.int8)
    for expected, found in zip(reference.run(graph, Dictionary({}), x, codes), run(text, x, codes), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
