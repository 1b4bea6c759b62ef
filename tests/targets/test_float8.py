"""Products of 8-bit floats: what is written as `GemmFloat8`, read from it, and what stays in float."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from nasc.api import read_onnx
from nasc.compiler.network import Network
from nasc.ir import Graph, NascError, verify
from nasc.targets import TargetError, target_named
from nasc.targets.onnx import emit
from nasc.targets.onnx.float8 import unfit
from nasc.targets.onnx.style import CUDA, Style
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from support.graphs import graph_of
from support.networks import inputs_of, network_of

CPU = target_named("onnxruntime:cpu")
F8 = replace(CUDA, gemm_float8=True)


class GemmFloat8(OpRun):
    """The op as its documentation says, in binary32: a stand-in for the kernel, which needs a GPU."""

    op_domain = "com.microsoft"

    def _run(self, a: Any, b: Any, c: Any = None, scale_a: Any = None, scale_b: Any = None, scale_y: Any = None,
             **given: Any) -> tuple[np.ndarray]:  # fmt: skip
        assert a.dtype.name in ("float8_e4m3fn", "float8_e5m2") and b.dtype.name in ("float8_e4m3fn", "float8_e5m2")
        assert "float8_e4m3fn" in (a.dtype.name, b.dtype.name)
        assert (c, a.ndim, b.ndim, scale_a.shape, scale_b.shape, scale_y) == (None, 2, 2, (), (), None)
        assert all(n % 16 == 0 for n in b.shape)
        assert given == {"transB": 1, "dtype": onnx.TensorProto.FLOAT}
        return ((scale_a * scale_b) * (a.astype(np.float32) @ b.astype(np.float32).T),)


def layer(inputs: int = 64, outputs: int = 48, rows: str = "N", bias: bool = True) -> Graph:
    lines = f"""
      %w: f32[{outputs}, {inputs}] = weight
      {f"%b: f32[{outputs}] = weight" if bias else ""}
      %y: f32[{rows}, {outputs}] = linear %x, %w{", %b" if bias else ""}
    """
    return graph_of("\n".join(l for l in lines.splitlines() if l.strip()), inputs=f"%x: f32[{rows}, {inputs}]")


def quantized(graph: Graph, weights: str = "f8e4m3", activations: str = "f8e4m3") -> Network:
    passes = f"quantize{{weights={weights}, activations={activations}}} | calibrate"
    return network_of(graph).apply(passes, data=inputs_of(graph, 16)[0])


def written(network: Network, style: Style = F8) -> onnx.ModelProto:
    model = emit(network.graph, network.weights, style=style)
    onnx.checker.check_model(model, full_check=True)
    return model


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def computed(model: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    names = [entry.name for entry in model.graph.input]
    return ReferenceEvaluator(model, new_ops=[GemmFloat8]).run(None, dict(zip(names, inputs, strict=True)))


def difference(network: Network, batch: int) -> float:
    """The largest difference of the written network, with the stand-in, from torch's, over the largest output."""
    x = inputs_of(network.graph, batch, seed=1)[0]
    expected = network(x).numpy()
    (found,) = computed(written(network), x.numpy())
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


PAIRS = [("f8e4m3", "f8e4m3"), ("f8e4m3", "f8e5m2"), ("f8e5m2", "f8e4m3"), ("f8e4m3<2^-6>", "f8e4m3<2^-4>")]


@pytest.mark.parametrize(("weights", "activations"), PAIRS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("inputs", "outputs", "rows"),
    [(64, 48, "N"), (16, 16, "N"), (128, 32, "N, 5"), (32, 64, "N, 2, 3"), (64, 16, "4, N"), (48, 16, "7")],
)
def test_products_give_what_torch_simulates(
    weights: str, activations: str, bias: bool, inputs: int, outputs: int, rows: str
) -> None:
    network = quantized(layer(inputs, outputs, rows, bias), weights, activations)
    assert unfit(network.graph, network.graph.producers["y"]) == ""
    for batch in (1, 3) if "N" in rows else (1,):
        assert difference(network, batch) < 1e-6


@pytest.mark.parametrize(
    ("weights", "bias", "rows", "expected"),
    [
        ("f8e4m3<2^-6>", False, "N", ["QuantizeLinear", "GemmFloat8"]),
        ("f8e4m3<2^-6>", True, "N", ["QuantizeLinear", "GemmFloat8", "Add"]),
        ("f8e4m3", False, "N", ["QuantizeLinear", "GemmFloat8", "Mul"]),
        ("f8e4m3", True, "N, 5", ["QuantizeLinear", "Reshape", "GemmFloat8", "Mul", "Add", "Reshape"]),
    ],
)
def test_the_nodes_of_a_layer(weights: str, bias: bool, rows: str, expected: list[str]) -> None:
    network = quantized(layer(bias=bias, rows=rows), weights)
    model = written(network)
    assert kinds(model) == expected
    assert model.graph.node[-1].name == "y"
    (product,) = [node for node in model.graph.node if node.op_type == "GemmFloat8"]
    assert product.domain == "com.microsoft" and product.name.split("/")[0] == "y"
    assert {a.name: a.i for a in product.attribute} == {"transB": 1, "dtype": onnx.TensorProto.FLOAT}
    held = {t.name: t for t in model.graph.initializer}
    assert product.input[1:3] == ["w", ""] and held["w"].data_type == onnx.TensorProto.FLOAT8E4M3FN
    assert list(held["w"].dims) == [48, 64]
    first, second = (onnx.numpy_helper.to_array(held[name]) for name in product.input[3:])
    assert first == network.graph.types["x.q"].step.value
    assert second == (1 if weights == "f8e4m3" else 2.0**-6)


def test_the_runtime_knows_the_op_and_lacks_it_on_the_cpu() -> None:
    """Its schema is checked, and the types of all that is read, before a kernel is looked for."""
    model = written(quantized(layer()))
    with pytest.raises(TargetError, match="Could not find an implementation for GemmFloat8"):
        CPU.load(model.SerializeToString())


def test_layers_in_a_row_and_what_reads_beside_them() -> None:
    """Shared inputs and weights: some layers read them as codes, others as numbers."""
    graph = graph_of(
        """
        %x.q: f8e4m3<0.02>[N, 64] = quantize %x
        %w: f8e4m3<per 0>[64, 64] = weight
        %a: f32[N, 64] = linear %x.q, %w
        %r: f32[N, 64] = relu %a
        %r.q: f8e5m2<0.5>[N, 64] = quantize %r
        %v: f8e4m3<0.25>[32, 64] = weight
        %b: f32[N, 32] = linear %r.q, %v
        %c: f32[N, 64] = linear %x, %w
        %d: f32[N, 64] = add %x.q, %c
        %e: f32[N, 32] = linear %d, %v
        %y: f32[N, 32] = add %b, %e
        """,
        inputs="%x: f32[N, 64]",
    )
    network = network_of(graph)
    assert kinds(written(network)).count("GemmFloat8") == 2
    assert difference(network, 3) < 1e-6
    back = read_onnx(written(network).SerializeToString())
    x = inputs_of(graph, 3)[0]
    torch.testing.assert_close(back(x), network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("weights", "activations"), PAIRS)
@pytest.mark.parametrize(("rows", "bias"), [("N", True), ("N", False), ("N, 5", True), ("N, 2, 3", False)])
def test_products_are_read_back(weights: str, activations: str, rows: str, bias: bool) -> None:
    network = quantized(layer(rows=rows, bias=bias), weights, activations)
    back = read_onnx(written(network).SerializeToString())
    assert str(back.graph) == str(network.graph)
    np.testing.assert_array_equal(back.weights.array("w"), network.weights.array("w"))
    if network.graph.types["w"].step.axis is not None:
        np.testing.assert_array_equal(back.weights.steps("w"), network.weights.steps("w"))


def test_a_scale_of_the_users_own_stays() -> None:
    """A Mul behind a layer with one step is no step of outputs, and one that others read beside the layer neither."""
    lines = """
        %x.q: f8e4m3<0.02>[N, 16] = quantize %x
        %w: f8e4m3<0.25>[16, 16] = weight
        %a: f32[N, 16] = linear %x.q, %w
        %s: f32[16] = weight
        %y: f32[N, 16] = mul %a, %s
        """
    graph = graph_of(lines)
    back = read_onnx(written(network_of(graph)).SerializeToString())
    assert [op.kind for op in back.graph.ops if op.kind != "weight"] == ["quantize", "linear", "mul"]
    assert str(back.graph.types["w"].encoding) == "f8e4m3<2^-2>"
    once = graph_of(lines.replace("<0.25>", "<1>").replace("mul %a, %s", "mul %a, %s\n%z: f32[N, 16] = add %y, %a"))
    back = read_onnx(written(network_of(once)).SerializeToString())
    assert str(back.graph.types["w"].encoding) == "f8e4m3<2^0>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transB": 0}, "constant codes"), ({"transA": 1}, "constant codes"), ({"alpha": 2.0}, "constant codes"),
        ({"activation": "RELU"}, "constant codes"), ({"dtype": onnx.TensorProto.FLOAT16}, "constant codes"),
        ({"scale": 0.5}, "its scales must be constants"),
    ],
)  # fmt: skip
def test_other_products_cannot_be_read(change: dict[str, Any], message: str) -> None:
    model = written(quantized(layer(), "f8e4m3<2^-6>"))
    (product,) = [node for node in model.graph.node if node.op_type == "GemmFloat8"]
    if "scale" in change:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(change["scale"]), "other"))
        product.input[3] = "other"
    else:
        kept = [a for a in product.attribute if a.name not in change]
        del product.attribute[:]
        product.attribute.extend([*kept, *(onnx.helper.make_attribute(n, v) for n, v in change.items())])
    with pytest.raises(NascError, match=f"y/product.*GemmFloat8.*{message}"):
        read_onnx(model.SerializeToString())


HEAD = "%x.q: f8e4m3<0.02>[N, 64] = quantize %x\n%w: f8e4m3<per 0>[48, 64] = weight\n"
LINEAR = HEAD + "%y: f32[N, 48] = linear %x.q, %w"
UNFIT = {
    "a real input": (LINEAR.replace("linear %x.q", "linear %x"), "its input %x is f32"),
    "a real weight": (LINEAR.replace("f8e4m3<per 0>", "f32"), "its weight %w is f32"),
    "integers": (LINEAR.replace("f8e4m3<0.02>", "u8<0.02>"), "its input %x.q is u8<0.02>"),
    "weights in blocks": (LINEAR.replace("<per 0>", "<block 32 on 1>"), "its weight %w is in blocks"),
    "steps of inputs": (LINEAR.replace("<per 0>", "<per 1>"), "steps along axis 1"),
    "two of wide range": (LINEAR.replace("f8e4m3", "f8e5m2"), "one of them must be f8e4m3"),
    "odd outputs": (LINEAR.replace("48", "40"), "its outputs and inputs are 40 and 64"),
    "odd inputs": (LINEAR.replace("64", "72"), "its outputs and inputs are 48 and 72"),
    "a computed weight": (
        LINEAR.replace("%w: f8e4m3<per 0>[48, 64] = weight", "%v: f32[48, 64] = weight\n"
                       "%w: f8e4m3<0.02>[48, 64] = quantize %v"), "its weight %w is computed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_stays_in_float_and_why(name: str) -> None:
    lines, why = UNFIT[name]
    graph = graph_of(lines, inputs=f"%x: f32[N, {72 if '72' in lines else 64}]")
    network = quantized(layer(), "f8e4m3<block 32>") if "block" in lines else network_of(graph)
    graph = network.graph
    verify(graph)
    assert why in unfit(graph, graph.producers["y"])
    model = emit(graph, network.weights, style=F8)
    assert model.SerializeToString() == emit(graph, network.weights, style=CUDA).SerializeToString()
    assert "GemmFloat8" not in kinds(model)


def test_convolutions_and_other_results_stay_in_float() -> None:
    conv = graph_of(
        """
        %x.q: f8e4m3<0.02>[N, 16, 4, 4] = quantize %x
        %w: f8e4m3<per 0>[16, 16, 3, 3] = weight
        %y: f32[N, 16, 2, 2] = conv2d %x.q, %w
        """,
        inputs="%x: f32[N, 16, 4, 4]",
    )
    assert unfit(conv, conv.producers["y"]) == "the op takes linear layers, found conv2d"
    two = graph_of(LINEAR.replace("[N, ", "[N, N*2, "), inputs="%x: f32[N, N*2, 64]")
    assert "two axes of its result" in unfit(two, two.producers["y"])
    assert "GemmFloat8" not in kinds(emit(conv, network_of(conv).weights, style=F8))


def test_two_formats_may_be_left_out() -> None:
    style = replace(F8, mixed_float8=False)
    assert "GemmFloat8" in kinds(written(quantized(layer()), style))
    assert "GemmFloat8" not in kinds(written(quantized(layer(), "f8e5m2"), style))
