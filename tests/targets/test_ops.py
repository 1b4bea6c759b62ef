"""Ops of networks that are quantized, written as ONNX and run by ONNX Runtime, against torch in binary64.

Every op kind is held against torch execution in `tests/emission/test_every_op.py`.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nasc.ir import Graph
from nasc.targets import target_named
from nasc.targets.onnx import emit

from . import reference
from .conftest import Dictionary, graph_of, lengths, random_weights


def unary(line: str, shape: str = "N, 6") -> str:
    return f"graph @t(%x: f32[{shape}]) {{\n  %y: f32[{shape}] = {line}\n  return %y\n}}"


UNARY = [
    "relu %x", "relu6 %x", "leaky_relu %x", "leaky_relu %x {negative_slope=0.3}", "elu %x", "elu %x {alpha=0.7}",
    "selu %x", "celu %x", "celu %x {alpha=0.4}", "gelu %x", 'gelu %x {approximate="tanh"}', "silu %x", "mish %x",
    "sigmoid %x", "tanh %x", "hardtanh %x", "hardtanh %x {min_val=-0.25, max_val=0.5}", "hardswish %x",
    "hardsigmoid %x", "softplus %x", "softplus %x {beta=2.5}", "softplus %x {threshold=0.5}",
    "softplus %x {beta=0.5, threshold=0.1}", "clamp %x {min=-0.5}", "clamp %x {max=0.25}", "clamp %x {min=-1, max=0}",
    "exp %x", "neg %x", "abs %x", "erf %x", "reciprocal %x", "add %x {other=3}", "sub %x {other=0.5}",
    "sub %x {input=0.5}", "mul %x {other=-2.0}", "div %x {other=3.0}", "div %x {input=1.5}", "pow %x {other=2.0}",
    "pow %x {input=2.0}", "maximum %x {other=0.1}", "minimum %x {other=0.1}", "add %x, %x", "mul %x, %x",
    "softmax %x {dim=1}", "softmax %x {dim=-1}", "softmax %x {dim=0}", "log_softmax %x {dim=1}",
]  # fmt: skip
POSITIVE = ["sqrt %x", "log %x", "rsqrt %x", "pow %x {other=0.5}", "pow %x {other=-1.5}"]
COMPARE = [f"{kind} %x, %z" for kind in ("eq", "ne", "lt", "le", "gt", "ge")] + ["lt %x {other=0.5}"]
OTHERS = [
    # layers
    ("linear", "N, 4", ["%w: f32[3, 4] = weight"], "linear %x, %w", "N, 3"),
    ("linear bias", "N, 4", ["%w: f32[3, 4] = weight", "%b: f32[3] = weight"], "linear %x, %w, %b", "N, 3"),
    ("linear rank 3", "N, 5, 4", ["%w: f32[3, 4] = weight", "%b: f32[3] = weight"], "linear %x, %w, %b", "N, 5, 3"),
    ("linear rank 3 plain", "N, 5, 4", ["%w: f32[3, 4] = weight"], "linear %x, %w", "N, 5, 3"),
    ("linear computed", "N, 4", ["%v: f32[3, 4] = weight", "%w: f32[3, 4] = tanh %v"], "linear %x, %w", "N, 3"),
    ("linear computed 3", "N, 2, 4", ["%v: f32[3, 4] = weight", "%w: f32[3, 4] = tanh %v"], "linear %x, %w", "N, 2, 3"),
    ("conv1d", "N, 4, 9", ["%w: f32[6, 4, 3] = weight", "%b: f32[6] = weight"],
     "conv1d %x, %w, %b {stride=[2], padding=[1]}", "N, 6, 5"),
    ("conv2d", "N, 4, 9, 8", ["%w: f32[6, 2, 3, 2] = weight"],
     "conv2d %x, %w {stride=[2, 1], padding=[1, 0], dilation=[1, 2], groups=2}", "N, 6, 5, 6"),
    ("conv3d", "N, 2, 5, 6, 7", ["%w: f32[3, 2, 1, 3, 2] = weight", "%b: f32[3] = weight"],
     "conv3d %x, %w, %b {padding=[0, 1, 1]}", "N, 3, 5, 6, 8"),
    # norms
    ("batch_norm 2", "N, 4", ["%m: f32[4] = buffer", "%var: f32[4] = buffer"], "batch_norm %x, %m, %var", "N, 4"),
    ("batch_norm 3", "N, 4, 3", ["%m: f32[4] = buffer", "%var: f32[4] = buffer", "%g: f32[4] = weight"],
     "batch_norm %x, %m, %var, %g", "N, 4, 3"),
    ("batch_norm 4", "N, 4, 3, 2",
     ["%m: f32[4] = buffer", "%var: f32[4] = buffer", "%g: f32[4] = weight", "%b: f32[4] = weight"],
     "batch_norm %x, %m, %var, %g, %b {eps=0.01}", "N, 4, 3, 2"),
    ("layer_norm", "N, 4, 3", [], "layer_norm %x {normalized_shape=[3]}", "N, 4, 3"),
    ("layer_norm 2", "N, 4, 3", ["%g: f32[4, 3] = weight", "%b: f32[4, 3] = weight"],
     "layer_norm %x, %g, %b {normalized_shape=[4, 3], eps=0.001}", "N, 4, 3"),
    ("layer_norm scale", "N, 4, 3", ["%g: f32[3] = weight"], "layer_norm %x, %g {normalized_shape=[3]}", "N, 4, 3"),
    # slopes
    ("prelu", "N, 4, 3", ["%s: f32[4] = weight"], "prelu %x, %s", "N, 4, 3"),
    ("prelu 1", "N, 4, 3", ["%s: f32[1] = weight"], "prelu %x, %s", "N, 4, 3"),
    ("prelu rank 2", "N, 4", ["%s: f32[4] = weight"], "prelu %x, %s", "N, 4"),
    ("prelu computed", "N, 4, 3, 2", ["%r: f32[4] = weight", "%s: f32[4] = abs %r"], "prelu %x, %s", "N, 4, 3, 2"),
    # shapes
    ("reshape merge", "N, 4, 3", [], "reshape %x {shape=[N, 12]}", "N, 12"),
    ("reshape split", "N, 12", [], "reshape %x {shape=[N, 2, 6]}", "N, 2, 6"),
    ("reshape batch", "N, 4, 3", [], "reshape %x {shape=[N*4, 3]}", "N*4, 3"),
    ("reshape front", "N, 4, 3", [], "reshape %x {shape=[1, N, 12]}", "1, N, 12"),
    ("permute", "N, 4, 3, 2", [], "permute %x {dims=[0, 3, 1, 2]}", "N, 2, 4, 3"),
    ("permute batch", "N, 4, 3", [], "permute %x {dims=[2, 0, 1]}", "3, N, 4"),
    ("cat", "N, 4", ["%z: f32[N, 4] = neg %x"], "cat %x, %z, %x {dim=1}", "N, 12"),
    ("cat 3", "N, 4, 2", ["%z: f32[N, 4, 2] = neg %x"], "cat %x, %z {dim=2}", "N, 4, 4"),
    ("mean", "N, 4, 3", [], "mean %x {dim=[1]}", "N, 3"),
    ("mean keep", "N, 4, 3", [], "mean %x {dim=[1, 2], keepdim=true}", "N, 1, 1"),
    ("sum", "N, 4, 3", [], "sum %x {dim=[2]}", "N, 4"),
    ("sum all", "N, 4, 3", [], "sum %x", ""),
    ("amax", "N, 4, 3", [], "amax %x {dim=[1, 2]}", "N"),
    ("amin", "N, 4, 3", [], "amin %x {dim=[1], keepdim=true}", "N, 1, 3"),
    # broadcasting
    ("add channel", "N, 4, 3", ["%b: f32[4, 1] = weight"], "add %x, %b", "N, 4, 3"),
    ("div scalar", "N, 4", ["%b: f32[4] = buffer"], "div %x, %b", "N, 4"),
    # pools
    ("max_pool1d", "N, 4, 9", [], "max_pool1d %x {kernel_size=[3], stride=[2], padding=[1]}", "N, 4, 5"),
    ("max_pool2d ceil", "N, 2, 9, 8", [], "max_pool2d %x {kernel_size=[2, 3], stride=[2, 2], ceil_mode=true}",
     "N, 2, 5, 4"),
    ("max_pool2d dilated", "N, 2, 9, 9", [], "max_pool2d %x {kernel_size=[3, 3], dilation=[2, 2], padding=[1, 1]}",
     "N, 2, 7, 7"),
    ("max_pool2d overhang", "N, 2, 7, 7", [],
     "max_pool2d %x {kernel_size=[2, 2], stride=[3, 3], padding=[1, 1], dilation=[3, 3], ceil_mode=true}",
     "N, 2, 3, 3"),
    ("max_pool2d unbatched", "2, 8, 8", [], "max_pool2d %x {kernel_size=[2, 2], stride=[2, 2]}", "2, 4, 4"),
    ("max_pool3d", "N, 2, 4, 4, 6", [], "max_pool3d %x {kernel_size=[2, 2, 2], stride=[2, 2, 2]}", "N, 2, 2, 2, 3"),
    ("avg_pool1d", "N, 4, 9", [], "avg_pool1d %x {kernel_size=[3], stride=[2], padding=[1]}", "N, 4, 5"),
    ("avg_pool2d bare", "N, 2, 9, 9", [],
     "avg_pool2d %x {kernel_size=[3, 3], stride=[2, 2], padding=[1, 1], count_include_pad=false}", "N, 2, 5, 5"),
    ("avg_pool2d divisor", "N, 2, 9, 8", [],
     "avg_pool2d %x {kernel_size=[2, 3], stride=[2, 2], padding=[1, 1], ceil_mode=true, divisor_override=5}",
     "N, 2, 5, 5"),
    ("avg_pool3d", "N, 2, 4, 4, 6", [], "avg_pool3d %x {kernel_size=[2, 2, 2], stride=[2, 2, 2]}", "N, 2, 2, 2, 3"),
    ("adaptive 1d", "N, 4, 9", [], "adaptive_avg_pool1d %x {output_size=[3]}", "N, 4, 3"),
    ("adaptive 1d uneven", "N, 4, 9", [], "adaptive_avg_pool1d %x {output_size=[4]}", "N, 4, 4"),
    ("adaptive 2d global", "N, 4, 9, 8", [], "adaptive_avg_pool2d %x {output_size=[1, 1]}", "N, 4, 1, 1"),
    ("adaptive 2d even", "N, 4, 9, 8", [], "adaptive_avg_pool2d %x {output_size=[3, 2]}", "N, 4, 3, 2"),
    ("adaptive 2d uneven", "N, 4, 9, 8", [], "adaptive_avg_pool2d %x {output_size=[7, 7]}", "N, 4, 7, 7"),
    ("adaptive 2d larger", "N, 4, 1, 2", [], "adaptive_avg_pool2d %x {output_size=[7, 5]}", "N, 4, 7, 5"),
    ("adaptive 2d unbatched", "4, 9, 8", [], "adaptive_avg_pool2d %x {output_size=[1, 1]}", "4, 1, 1"),
    ("adaptive 3d", "N, 2, 4, 4, 6", [], "adaptive_avg_pool3d %x {output_size=[2, 2, 3]}", "N, 2, 2, 2, 3"),
]  # fmt: skip


def other(case: tuple[str, str, list[str], str, str]) -> str:
    _, shape, lines, line, output = case
    body = "".join(f"  {entry}\n" for entry in lines)
    return f"graph @t(%x: f32[{shape}]) {{\n{body}  %y: f32[{output}] = {line}\n  return %y\n}}"


def compare(line: str) -> str:
    return (
        "graph @t(%x: f32[N, 6]) {\n  %z: f32[N, 6] = relu %x\n"
        f"  %y: bool[N, 6] = {line}\n  %f: f32[N, 6] = cast %y\n  return %f, %y\n}}"
    )


def runs(graph: Graph, weights: Dictionary, *inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs of ONNX Runtime for the emitted model, which the full checker has passed."""
    model = emit(graph, weights)
    onnx.checker.check_model(model, full_check=True)
    return target_named("onnxruntime:cpu").load(model.SerializeToString()).run(inputs)


def agree(text: str, *, positive: bool = False, batch: int = 3) -> None:
    graph = graph_of(text)
    weights = random_weights(graph)
    x = np.random.default_rng(1).normal(0, 1.5, lengths(graph, graph.inputs[0].name, batch)).astype(np.float32)
    x = np.abs(x) + 0.1 if positive else x
    expected = reference.run(graph, weights, x)
    found = runs(graph, weights, x)
    for a, b in zip(expected, found, strict=True):
        assert b.shape == a.shape
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("line", UNARY)
def test_pointwise_ops_equal_torch(line: str) -> None:
    agree(unary(line))


@pytest.mark.parametrize("line", POSITIVE)
def test_ops_of_positive_numbers_equal_torch(line: str) -> None:
    agree(unary(line), positive=True)


@pytest.mark.parametrize("line", COMPARE)
def test_comparisons_equal_torch(line: str) -> None:
    agree(compare(line))


@pytest.mark.parametrize("entry", OTHERS, ids=lambda entry: entry[0])
def test_ops_with_shapes_equal_torch(entry: tuple[str, str, list[str], str, str]) -> None:
    agree(other(entry))
