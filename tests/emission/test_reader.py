"""ONNX files of other exporters, of quantized networks, and files that cannot be read."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import nasc
import numpy as np
import onnx
import pytest
import torch
from nasc.api import read_onnx
from nasc.compiler.network import Network
from nasc.compiler.weights import Rounded, Source
from nasc.ir import NascError, UsageError, format_named
from nasc.targets import target_named
from nasc.targets.onnx import emit
from onnx import TensorProto, helper, numpy_helper
from support.graphs import graph_of
from support.networks import network_of
from torch import Tensor, nn
from typer.testing import CliRunner

CPU = target_named("onnxruntime:cpu")


class Small(nn.Module):
    """A residual network with what vision networks have: convolutions, norms, pools, gates, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.expand = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1)
        y = nn.functional.hardswish(self.deep(x))
        gate = self.expand(torch.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(y, 1))))
        x = x + y * nn.functional.hardsigmoid(gate)
        return self.head(torch.flatten(nn.functional.relu6(x).mean((2, 3)), 1))


class Attention(nn.Module):
    """A transformer block over tokens, with its shapes computed from the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        batch, length, size = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, size)
        return nn.functional.gelu(x + self.out(y)).mean(1)


def exported(model: nn.Module, inputs: Tensor, *, dynamo: bool, dynamic: bool = True) -> bytes:
    """What PyTorch's own exporter writes."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
            program = torch.onnx.export(model, (inputs,), dynamo=True, dynamic_shapes=shapes, verbose=False)
            assert program is not None
            return program.model_proto.SerializeToString()
        axes = {"x": {0: "batch"}} if dynamic else None
        torch.onnx.export(model, (inputs,), stream, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return stream.getvalue()


def weakened(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.eval()


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize(
    ("make", "inputs"),
    [(Small, lambda n: torch.randn(n, 3, 32, 32)), (Attention, lambda n: torch.randint(0, 20, (n, 6)))],
)
def test_what_pytorch_exports_is_read(make: type[nn.Module], inputs: Callable[[int], Tensor], dynamo: bool) -> None:
    model = weakened(make())
    net = read_onnx(exported(model, inputs(3), dynamo=dynamo))
    lowered = nasc.lower(model, inputs(3))
    assert sorted(net.widths.values()) == sorted(lowered.widths.values())
    for batch in (1, 4):
        x = inputs(batch)
        torch.testing.assert_close(net(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    width = next(iter(net.widths))
    smaller = net.apply(f"resize{{{width}={net.widths[width] // 2}}}")
    assert smaller(inputs(2)).shape == net(inputs(2)).shape


def test_a_fixed_batch_stays_fixed() -> None:
    net = read_onnx(exported(weakened(Small()), torch.randn(2, 3, 32, 32), dynamo=False, dynamic=False))
    assert str(net.graph.inputs[0].type) == "f32[2, 3, 32, 32]"


QUANTIZED = {
    "linear": """
        %x.q: u8<0.02, 113>[N, 16] = quantize %x
        %a.w: i4<per 0>[8, 16] = weight
        %a.b: i32<per 0>[8] = weight
        %a: f32[N, 8] = linear %x.q, %a.w, %a.b
        %act: f32[N, 8] = relu %a
        %act.q: u6<0.03>[N, 8] = quantize %act
        %b.w: i8<0.01>[4, 8] = weight
        %b: f32[N, 4] = linear %act.q, %b.w
        """,
    "bounds": """
        %x.q: i5<0.1>[N, 16] = quantize %x
        %low: f32[N, 16] = clamp %x.q {min=-0.5, max=0.8}
        %low.q: u8<0.01, 60>[N, 16] = quantize %low
        %y: f32[N, 16] = sigmoid %low.q
        """,
    "unsigned weights": """
        %w: u8<0.01, 128>[4, 16] = weight
        %y: f32[N, 4] = linear %x, %w
        """,
    "wide": """
        %x.q: i12<0.001>[N, 16] = quantize %x
        %w: i16<per 0>[4, 16] = weight
        %y: f32[N, 4] = linear %x.q, %w
        """,
    "floats": """
        %x.h: f16[N, 16] = cast %x
        %w: f16[4, 16] = weight
        %y: f16[N, 4] = linear %x.h, %w
        """,
}


def quantized(name: str) -> Network:
    """A quantized network whose bias counts in the step of its products."""
    network = network_of(graph_of(QUANTIZED[name]))
    if "a.b" not in network.weights:
        return network
    steps = torch.full((8,), float(np.float32(0.02) * np.float32(0.02)))
    bias = Rounded(Source(torch.linspace(-0.1, 0.1, 8)), format_named("i32"), steps, 0)
    return Network(network.graph, network.weights.with_recipes({"a.b": bias}))


@pytest.mark.parametrize("name", QUANTIZED)
def test_codes_and_steps_come_back(name: str) -> None:
    network = quantized(name)
    model = emit(network.graph, network.weights)
    back = read_onnx(model.SerializeToString())
    again = emit(back.graph, back.weights)
    repeated = read_onnx(again.SerializeToString())
    assert str(repeated.graph) == str(back.graph)
    for op in back.graph.stored:
        np.testing.assert_array_equal(repeated.weights.array(op.name), back.weights.array(op.name))
    x = np.random.default_rng(0).normal(0, 1, (3, 16)).astype(np.float32)
    expected = CPU.load(model.SerializeToString()).run([x])[0]
    np.testing.assert_array_equal(CPU.load(again.SerializeToString()).run([x])[0], expected)
    loose = 2e-3 if name == "floats" else 1e-5
    np.testing.assert_allclose(back(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=loose)


def test_the_formats_of_codes_come_back() -> None:
    network = quantized("linear")
    back = read_onnx(emit(network.graph, network.weights).SerializeToString()).graph
    formats = {name: str(type.encoding) for name, type in back.types.items() if type.step is not None}
    assert formats == {
        "x.q": "u8<0.02, 113>", "a.w": "i4<per 0>", "a.b": "i32<per 0>", "act.q": "u6<0.03>", "b.w": "i8<0.01>",
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9", "i12", "i15", "ternary", "binary",
                                      "i5<block 16>", "i4<block 24>", "i12<block 8>", "f8e4m3"])  # fmt: skip
@pytest.mark.parametrize("inputs", [72, 576])
def test_weights_alone_come_back_as_codes(encoding: str, inputs: int) -> None:
    """Put together from their bits, through a Cast and a Mul; large ones of few bits through `MatMulNBits`."""
    lines = f"  %w: f32[512, {inputs}] = weight\n  %b: f32[512] = weight\n  %y: f32[N, 512] = linear %x, %w, %b"
    graph = graph_of(lines, inputs=f"%x: f32[N, {inputs}]")
    network = network_of(graph).apply(f"quantize{{weights={encoding}}} | calibrate", data=torch.randn(8, inputs))
    back = read_onnx(emit(network.graph, network.weights).SerializeToString())
    assert back.graph.types["w"].encoding == network.graph.types["w"].encoding
    for held in ("array", "steps"):
        if held == "array" or back.graph.types["w"].step.axis is not None:
            want, found = (np.asarray(getattr(n.weights, held)("w")) for n in (network, back))
            np.testing.assert_array_equal(want.astype(np.float32), found.astype(np.float32))


@pytest.mark.parametrize("encoding", ["mxfp4", "f6e2m3", "l5", "f5e2m2<block 8>", "i6<block 8 2^>", "mxint8"])
def test_elements_and_shared_exponents_come_back_as_the_numbers_they_are(encoding: str) -> None:
    lines = "  %w: f32[512, 72] = weight\n  %y: f32[N, 512] = linear %x, %w"
    graph, x = graph_of(lines, inputs="%x: f32[N, 72]"), torch.randn(8, 72)
    network = network_of(graph).apply(f"quantize{{weights={encoding}}} | calibrate", data=x)
    back = read_onnx(emit(network.graph, network.weights).SerializeToString())
    torch.testing.assert_close(back(x), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("encoding", ["i8", "f8e4m3", "i4<block 16>"])
def test_a_layer_over_rows_reads_all_axes(encoding: str) -> None:
    """A layer that is written between two reshapes comes back as one; reshapes that do something else stay."""
    lines = "  %w: f32[8, 16] = weight\n  %b: f32[8] = weight\n  %y: f32[N, 5, 8] = linear %x, %w, %b"
    graph = graph_of(lines, inputs="%x: f32[N, 5, 16]")
    network = network_of(graph).apply(f"quantize{{weights={encoding}}} | calibrate", data=torch.randn(8, 5, 16))
    back = read_onnx(emit(network.graph, network.weights).SerializeToString())
    assert str(back.graph) == str(network.graph)
    turned = graph_of(
        """
        %rows: f32[N*5, 16] = reshape %x {shape=[N*5, 16]}
        %w: f32[10, 16] = weight
        %y: f32[N*5, 10] = linear %rows, %w
        %z: f32[N, 10, 5] = reshape %y {shape=[N, 10, 5]}
        """,
        inputs="%x: f32[N, 5, 16]",
    )
    kinds = [op.kind for op in read_onnx(emit(turned, network_of(turned).weights).SerializeToString()).graph.ops]
    assert kinds == ["reshape", "weight", "linear", "reshape"]


def model_of(
    *nodes: onnx.NodeProto, shape: tuple[object, ...] = ("N", 4), opset: int = 20, **tensors: np.ndarray
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()


ERRORS = {
    "an unknown op": (
        model_of(helper.make_node("StringNormalizer", ["x"], ["y"], name="odd")),
        r"node 'odd' \(StringNormalizer\): nasc knows no op StringNormalizer",
    ),
    "another domain": (
        model_of(helper.make_node("FusedGemm", ["x"], ["y"], name="fused", domain="com.microsoft")),
        "knows no op com.microsoft.FusedGemm",
    ),
    "an old opset": (model_of(helper.make_node("Relu", ["x"], ["y"]), opset=11), "opset 11; nasc reads 13 and later"),
    "several open lengths": (
        model_of(helper.make_node("Relu", ["x"], ["y"]), shape=("N", "length")),
        r"several lengths are open: N \(axis 0 of input 'x'\), length",
    ),
    "a computed shape": (
        model_of(
            helper.make_node("Cast", ["x"], ["s"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["x", "s"], ["y"], name="view"),
        ),
        r"node 'view' \(Reshape\): its operand 's' must be a constant",
    ),
    "operands that do not fit": (
        model_of(helper.make_node("MatMul", ["x", "w"], ["y"], name="product"), w=np.zeros((5, 2), np.float32)),
        r"node 'product' \(MatMul\): .*4 features.*expects 5",
    ),
    "nothing gives it": (model_of(helper.make_node("Relu", ["z"], ["y"], name="act")), "nothing gives its operand 'z'"),
    "a way of padding": (
        model_of(
            helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="DCR", name="up"), shape=("N", 4, 2, 2)
        ),
        "in the order DCR",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_read_is_an_error_that_names_the_node(name: str) -> None:
    model, message = ERRORS[name]
    with pytest.raises(NascError, match=message) as caught:
        read_onnx(model)
    assert str(caught.value).startswith("model: error: ")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        read_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UsageError, match="no ONNX model that can be read"):
        read_onnx(tmp_path / "text.onnx")


def test_other_ways_of_writing_the_same() -> None:
    """Nodes that nasc does not write itself, each with its meaning in PyTorch."""
    w = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    x = torch.randn(2, 4)
    cases: list[tuple[bytes, Tensor]] = [
        (model_of(helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5), w=w), 0.5 * x @ torch.from_numpy(w)),
        (model_of(helper.make_node("Flatten", ["x"], ["y"], axis=0)), x.reshape(1, -1)),
        (model_of(helper.make_node("Sum", ["x", "x", "x"], ["y"])), 3 * x),
        (model_of(helper.make_node("Max", ["x", "b", "c"], ["y"]), b=w[:1, :1], c=w[:, 0]),
         torch.maximum(torch.maximum(x, torch.from_numpy(w[:1, :1])), torch.from_numpy(w[:, 0]))),
        (model_of(helper.make_node("ReduceSumSquare", ["x"], ["y"], keepdims=0)), x.square().sum()),
        (model_of(helper.make_node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2)), x[:, :2]),
        (model_of(helper.make_node("HardSigmoid", ["x"], ["y"], alpha=0.3)), (0.3 * x + 0.5).clamp(0, 1)),
        (model_of(helper.make_node("Constant", [], ["c"], value_float=2.0), helper.make_node("Mul", ["c", "x"], ["y"])),
         2 * x),
        (model_of(helper.make_node("PRelu", ["x", "s"], ["y"]), s=np.array([0.5], np.float32)),
         torch.where(x > 0, x, x / 2)),
        (model_of(helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Size", ["x"], ["n"]),
                  helper.make_node("Cast", ["n"], ["f"], to=1), helper.make_node("Div", ["x", "f"], ["y"])), x / 8),
    ]  # fmt: skip
    for model, expected in cases:
        torch.testing.assert_close(read_onnx(model)(x), expected, rtol=1e-5, atol=1e-6)


def test_the_command_line_takes_onnx_files(tmp_path: Path) -> None:
    from nasc.cli.app import app

    net = network_of(graph_of("%w: f32[8, 16] = weight\n%y: f32[N, 8] = linear %x, %w\n%z: f32[N, 8] = relu %y"))
    nasc.export(net, tmp_path / "net.onnx")
    assert str(nasc.lower(tmp_path / "net.onnx").graph) == str(nasc.lower(str(tmp_path / "net.onnx")).graph)
    result = CliRunner().invoke(app, ["lower", str(tmp_path / "net.onnx")])
    assert result.exit_code == 0
    assert "%y: f32[N, 8] = linear %x, %w" in result.stdout
