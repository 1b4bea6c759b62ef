"""Every op kind, written as ONNX and run by ONNX Runtime, against the torch execution of the same graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from math import inf
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from nasc.api import read_onnx
from nasc.compiler.network import Network
from nasc.compiler.weights import Source, Store
from nasc.ir import SPECS, STORED, Const, Graph, Input, NascError, Op, Type, attributes, parse, product, verify
from nasc.ir.axes import N, has_batch, size
from nasc.ir.infer import apply_rule
from nasc.ir.solver import Solver
from nasc.targets import target_named
from nasc.targets.onnx import EMITTERS, emit

CPU = target_named("onnxruntime:cpu")


@dataclass(frozen=True)
class Case:
    """One op: its operands as `f32[N, 4]` (an input), `w f32[4]` (stored), `i64[3] < 5` (integers below a bound)."""

    kind: str
    operands: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    declared: str = "f32[]"

    def __str__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.kind}({'; '.join(self.operands)}){{{options}}}"


def case(kind: str, *operands: str, declared: str = "f32[]", **attributes: Any) -> Case:
    return Case(kind, operands, attributes, declared)


@cache
def type_of(text: str) -> Type:
    return parse(f"nasc 1\ngraph @t(%x: {text}) {{\n  return %x\n}}\n").inputs[0].type


def graph_and_bounds(entry: Case) -> tuple[Graph, dict[str, int]]:
    """The graph of a case with the op's types by its own rule, and the bounds of its integers."""
    inputs, ops, names, bounds = [], [], [], {}
    for i, operand in enumerate(entry.operands):
        text, _, bound = operand.partition(" < ")
        stored, type = text.startswith("w "), type_of(text.removeprefix("w "))
        name = f"{'w' if stored else 'x'}{i}"
        bounds[name] = int(bound or 4)
        names.append(name)
        if stored:
            ops.append(Op("weight", (name,), (type,)))
        else:
            inputs.append(Input(name, type))
    if not inputs or not any(has_batch(a) for e in inputs for a in e.type.axes):
        inputs.append(Input("batch", type_of("f32[N, 2]")))
    known = {**{e.name: e.type for e in inputs}, **{op.name: op.type for op in ops}}
    declared = type_of(entry.declared)
    for count in range(1, 9):
        blank = Op(
            entry.kind, tuple(f"y{k}" if k else "y" for k in range(count)), (declared,) * count, tuple(names),
            attributes(entry.kind, entry.attributes),
        )  # fmt: skip
        try:
            types, op = apply_rule(blank, [known[n] for n in names], Solver(), infer=False)
        except Exception as fault:
            if "results, found" not in str(fault):
                raise
            continue
        ops.append(Op(op.kind, op.results, types, op.inputs, op.attributes))
        break
    outputs = [*ops[-1].results]
    if any(e.name == "batch" for e in inputs):
        ops.append(Op("relu", ("b",), (type_of("f32[N, 2]"),), ("batch",)))
        outputs.append("b")
    graph = Graph("t", tuple(inputs), (), tuple(ops), tuple(outputs))
    verify(graph)
    return graph, bounds


def drawn(type: Type, batch: int, bound: int, random: np.random.Generator) -> np.ndarray:
    shape = tuple(size(a, {}, batch) for a in type.axes)
    if type.format.name == "bool":
        return random.integers(0, 2, shape).astype(np.bool_)
    if type.format.is_int:
        low = min(bound, 0)
        return random.integers(low, abs(bound), shape).astype(f"int{type.format.bits}")
    return random.normal(0, 1.5, shape).astype(
        {"f32": np.float32, "f64": np.float64, "f16": np.float16}[type.format.name]
    )


def drawn_network(entry: Case, random: np.random.Generator) -> tuple[Network, dict[str, int]]:
    """The network of a case with random weights, and the bounds of its integers."""
    graph, bounds = graph_and_bounds(entry)
    stored = {op.name: drawn(op.type, 1, bounds[op.name], random) for op in graph.stored}
    if entry.kind == "batch_norm":
        stored = {n: np.abs(v) + 0.2 for n, v in stored.items()}
    return Network(graph, Store({n: Source(torch.from_numpy(np.array(v))) for n, v in stored.items()})), bounds


def agree(entry: Case, *, positive: bool = False, tolerance: float = 1e-5) -> None:
    random = np.random.default_rng(len(str(entry)))
    network, bounds = drawn_network(entry, random)
    graph = network.graph
    model = emit(graph, network.weights)
    onnx.checker.check_model(model, full_check=True)
    assert all(n.name.split("/")[0] in {*graph.types, ""} for n in model.graph.node)
    session = CPU.load(model.SerializeToString())
    back = read_onnx(model.SerializeToString())
    for batch in (1, 3):
        given = [drawn(e.type, batch, bounds.get(e.name, 4), random) for e in graph.inputs]
        given = [np.abs(g) + 0.1 if positive and g.dtype.kind == "f" else g for g in given]
        expected = outputs(network, given)
        for runs in (session.run(given), outputs(back, given)):
            for name, want, found in zip(graph.outputs, expected, runs, strict=True):
                same(name, want, found, tolerance)
    again = read_onnx(emit(back.graph, back.weights).SerializeToString())
    assert str(again.graph) == str(back.graph)


def outputs(network: Network, given: list[np.ndarray]) -> list[np.ndarray]:
    """What torch makes of a graph."""
    found = network(*map(torch.from_numpy, given))
    return [t.numpy() for t in (found if isinstance(found, tuple) else (found,))]


def same(name: str, want: np.ndarray, found: np.ndarray, tolerance: float) -> None:
    """Equal shape, element type, and numbers: exactly for integers, infinities and what is no number."""
    assert found.shape == want.shape, name
    assert found.dtype == want.dtype, name
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(found, want)
        return
    finite = np.isfinite(want)
    np.testing.assert_array_equal(np.where(finite, 0, found), np.where(finite, 0, want))
    largest = np.abs(want[finite]).max(initial=1e-3)
    assert np.abs(found[finite] - want[finite]).max(initial=0) <= tolerance * largest, name


X = "f32[N, 6]"
UNARY = [
    *(case(k, X) for k in (
        "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "logsigmoid", "tanh",
        "hardtanh", "hardswish", "hardsigmoid", "softplus", "softsign", "exp", "expm1", "square", "sin", "cos", "atan",
        "neg", "abs", "sign", "floor", "ceil", "round", "erf", "reciprocal", "isnan", "isinf", "logical_not")),
    case("gelu", X, approximate="tanh"), case("softplus", X, beta=2.5, threshold=0.5), case("clamp", X, min=-0.5),
    case("celu", X, alpha=0.4), case("elu", X, alpha=0.7), case("clamp", X, min=-1.0, max=0.5),
    case("softmax", X, dim=1), case("softmax", X, dim=0), case("log_softmax", X, dim=-1),
    *(case(k, "i64[N, 6] < -9") for k in ("relu", "neg", "abs", "sign", "floor", "round", "square", "bitwise_not")),
    case("clamp", "i64[N, 6] < -9", min=-2, max=3), case("logical_not", "bool[N, 6]"), case("exp", "i64[N, 6]"),
    case("bitwise_not", "bool[N, 6]"),
]  # fmt: skip
POSITIVE = [
    *(case(k, X) for k in ("log", "log1p", "log2", "sqrt", "rsqrt")), case("pow", X, other=0.5),
    case("pow", X, other=-1.5), case("pow", X, X), case("fmod", X, X), case("remainder", X, X),
]  # fmt: skip
INTS = "i64[N, 6] < -9"
PAIRS = [
    *(case(k, X, X) for k in ("add", "sub", "mul", "div", "maximum", "minimum", "remainder", "fmod", "atan2")),
    *(case(k, X, "f32[6]") for k in ("add", "mul", "eq", "ne", "lt", "le", "gt", "ge", "atan2")),
    *(case(k, X, other=0.7) for k in ("add", "sub", "mul", "div", "maximum", "minimum", "remainder", "fmod", "lt")),
    *(case(k, X, input=1.5) for k in ("sub", "div", "pow")), case("pow", X, other=2), case("pow", X, other=3.0),
    case("div", X, X, rounding_mode="floor"), case("div", X, other=0.1, rounding_mode="floor"),
    case("div", X, X, rounding_mode="trunc"), case("div", INTS, other=4, rounding_mode="floor"),
    case("div", INTS, other=4, rounding_mode="trunc"), case("div", INTS, other=4), case("remainder", INTS, other=4),
    case("fmod", INTS, other=4), case("add", INTS, other=3), case("mul", INTS, INTS), case("add", INTS, X),
    case("add", INTS, other=0.5), case("maximum", INTS, other=2), case("add", "bool[N, 6]", "i64[6]"),
    case("mul", "bool[N, 6]", X), case("add", "bool[N, 6]", "bool[6]"), case("mul", "bool[N, 6]", "bool[6]"),
    *(case(k, INTS, "i64[6] < -9") for k in ("eq", "ne", "lt", "ge")), case("eq", "bool[N, 6]", "bool[6]"),
    case("lt", INTS, other=0.5), case("eq", INTS, other=3), case("gt", "bool[N, 6]", "bool[6]"),
    *(case(k, "bool[N, 6]", "bool[6]") for k in ("logical_and", "logical_or", "logical_xor", "bitwise_and")),
    *(case(k, INTS, "i64[6] < 9") for k in ("bitwise_and", "bitwise_or", "bitwise_xor")),
    case("logical_and", X, "i64[N, 6] < 2"), case("bitwise_and", INTS, other=3),
]  # fmt: skip
CHOICES = [
    case("where", "bool[N, 6]", X, X), case("where", "bool[N, 6]", X, other=0.0),
    case("where", "bool[6]", X, input=-inf), case("where", "bool[N, 1]", "i64[N, 6]", "i64[6]"),
    case("where", "bool[N, 6]", input=1.0, other=0.0), case("where", "bool[N, 6]", "bool[N, 6]", "bool[6]"),
    case("masked_fill", X, "bool[N, 6]", value=-inf), case("masked_fill", X, "bool[1, 6]", value=0.0),
    case("masked_fill", "i64[N, 6]", "bool[N, 1]", value=7.0), case("tril", "f32[N, 4, 5]", diagonal=1),
    case("triu", "f32[N, 4, 5]"), case("triu", "bool[N, 4, 4]", diagonal=-1), case("tril", "i64[N, 4, 4]"),
    case("full", shape=(2, 3), value=0.5), case("full", shape=(N, 3), value=2.0, declared="i64[]"),
    case("full", shape=(product([N, Const(4)]), 3), value=1.0, declared="bool[]"),
    case("arange", end=5, declared="i64[]"), case("arange", end=N, declared="i64[]"),
    case("arange", end=product([N, Const(2)]), declared="f32[]"), case("cast", X, declared="f16[]"),
    case("cast", X, declared="i64[]"), case("cast", "bool[N, 2]", declared="f32[]"), case("cast", X, declared="bool[]"),
    case("prelu", "f32[N, 4, 3]", "w f32[4]"), case("prelu", "f32[N, 4, 3]", "f32[1]"),
]  # fmt: skip
Y = "f32[N, 4, 5]"
REDUCE = [
    *(case(k, Y, dim=d, keepdim=keep)
      for k in ("mean", "sum", "prod", "amax", "amin", "var", "std", "norm", "logsumexp")
      for d, keep in (((), False), ((1,), True), ((0, 2), False))),
    *(case("norm", Y, ord=o, dim=(2,)) for o in (0.0, 1.0, 3.0, inf, -inf)),
    case("var", Y, dim=(1, 2), correction=0), case("std", Y, dim=(1,), correction=0), case("var", Y, dim=(0, 1)),
    *(case(k, "bool[N, 4, 2]", dim=d) for k in ("any", "all") for d in ((), (1,))), case("any", Y, dim=(2,)),
    case("sum", "bool[N, 4]", dim=(1,)), case("sum", "i64[N, 4]"), case("prod", "i64[N, 4]", dim=(1,)),
    case("amax", "i64[N, 4]", dim=(1,)), case("amax", "bool[N, 4]", dim=(1,)),
    case("cumsum", Y, dim=1), case("cumsum", "bool[N, 4]", dim=1), case("cumsum", "i64[N, 4]", dim=1),
    *(case(k, Y, dim=d, keepdim=keep) for k in ("argmax", "argmin") for d, keep in ((1, True), (2, False))),
    case("argmax", "f32[3, 5]", keepdim=True), case("argmin", "f32[3, 5]"),
    case("argmax", "i64[N, 40] < 1000000", dim=1),
    *(case(k, Y, dim=1, keepdim=keep) for k in ("max", "min") for keep in (True, False)),
    case("max", "i64[N, 40] < 1000000", dim=1),
    case("topk", Y, k=3, dim=2), case("topk", Y, k=2, dim=1, largest=False), case("sort", Y, dim=2),
    case("sort", "f32[N, 4]", dim=1, descending=True, stable=True), case("sort", "i64[N, 9] < 3", dim=1, stable=True),
]  # fmt: skip
PIECES = [
    case("cat", X, X, "f32[N, 2]", dim=1), case("cat", X, X), case("stack", X, X, dim=0), case("stack", X, X, dim=2),
    case("stack", "i64[N, 2]", "i64[N, 2]", dim=1), case("cat", "bool[N, 2]", "bool[N, 3]", dim=1),
    case("split", Y, sizes=(1, 3), dim=1), case("split", Y, sizes=(2, 2, 1), dim=2), case("unbind", Y, dim=1),
    case("narrow", Y, dim=2, start=1, length=3), case("slice", Y, dim=2, start=0, end=5, step=2),
    case("select", Y, dim=1, index=2), case("select", Y, dim=0, index=0), case("select", "f32[N]", dim=0, index=0),
    case("glu", Y, dim=1), case("glu", "f32[N, 3, 6]", dim=2),
    case("pad", Y, pad=(1, 2)), case("pad", Y, pad=(0, 1, 2, 0), value=-1.5), case("pad", Y, pad=(-1, 2, 0, -2)),
    case("pad", "f32[N, 3, 5, 6]", pad=(2, 1, 1, 2), mode="reflect"), case("pad", "i64[N, 5]", pad=(1, 1), value=3.0),
    case("pad", "f32[N, 3, 5, 6]", pad=(2, 1, 1, 2), mode="replicate"),
    case("pad", "bool[N, 5]", pad=(1, 1), value=1.0),
    case("pad", "f32[N, 3, 5, 6]", pad=(2, 1, 1, 2), mode="circular"),
    case("slice_scatter", Y, "f32[N, 4, 2]", dim=2, start=1, end=3),
    case("slice_scatter", Y, "f32[N, 4, 3]", dim=2, start=0, end=5, step=2),
    case("select_scatter", Y, "f32[N, 5]", dim=1, index=2), case("select_scatter", Y, "f32[N, 5]", dim=1, index=0),
]  # fmt: skip
SHAPES = [
    case("reshape", Y, shape=(N, 20)), case("reshape", Y, shape=(product([N, Const(4)]), 5)),
    case("reshape", "f32[N*4, 6]", shape=(N, 4, 6)),
    case("reshape", "f32[2, N, 6]", shape=(2, product([N, Const(2)]), 3)),
    case("reshape", "f32[N*4, N, 2]", shape=(N, 4, product([N, Const(2)]))),
    case("permute", Y, dims=(2, 0, 1)), case("expand", "f32[N, 1, 5]", shape=(N, 4, 5)),
    case("expand", "f32[1, 1, 5]", shape=(N, 4, 5)), case("expand", "f32[5]", shape=(3, N, 5)),
    case("expand", "bool[1, 5]", shape=(N, 5)), case("expand", Y, shape=(N, 4, 5)),
    case("expand", "f32[1, 5]", shape=(product([N, Const(4)]), 5)),
    case("repeat", Y, repeats=(1, 2, 3)), case("repeat", "f32[2, 3]", repeats=(N, 1, 2)),
    case("repeat", X, repeats=(2, 1, 3)), case("repeat_interleave", Y, repeats=3, dim=1),
    case("repeat_interleave", Y, repeats=2, dim=0), case("repeat_interleave", "f32[1, 4]", repeats=N, dim=0),
    case("flip", Y, dims=(1,)), case("flip", Y, dims=(1, 2)), case("roll", Y, shifts=(1,), dims=(1,)),
    case("roll", Y, shifts=(-2, 7), dims=(1, 2)), case("roll", "f32[3, 4]", shifts=(5,)),
    case("roll", Y, shifts=(4,), dims=(1,)),
    case("pixel_shuffle", "f32[N, 12, 3, 2]", upscale_factor=2),
    case("pixel_shuffle", "f32[N, 2, 12, 3, 2]", upscale_factor=2),
    case("pixel_unshuffle", "f32[N, 3, 6, 4]", downscale_factor=2),
    case("channel_shuffle", "f32[N, 6, 3, 2]", groups=3),
]  # fmt: skip
INDEXING = [
    case("embedding", "i64[N, 5] < 7", "w f32[7, 4]"), case("embedding", "i32[N, 5] < 7", "f32[7, 4]", padding_idx=2),
    case("index", Y, "i64[3] < 4", dims=(1,)), case("index", Y, "i64[2, 3] < 5", dims=(2,)),
    case("index", Y, "i64[3] < 4", "i64[3] < 5", dims=(1, 2)),
    case("index", Y, "i64[2, 1] < 4", "i64[3] < 5", dims=(1, 2)),
    case("index", "f32[N, 4, 5, 6]", "i64[3] < 4", "i64[3] < 6", dims=(1, 3)),
    case("index", Y, "i64[3] < -4", dims=(1,)),
    case("index", Y, "i64[3] < 1", "i64[3] < -4", dims=(0, 1)), case("index", "f32[4, N, 5]", "i32[3] < 4", dims=(0,)),
    case("index", Y, "i64[N, 1] < 1", "i64[N, 2] < 4", dims=(0, 1)),
    case("index_select", Y, "i64[3] < 4", dim=1), case("gather", Y, "i64[N, 2, 5] < 4", dim=1),
    case("gather", Y, "i64[N, 4, 5] < 5", dim=2), case("index", "bool[N, 4]", "i64[3] < 4", dims=(1,)),
]  # fmt: skip
PRODUCTS = [
    case("linear", "f32[N, 4]", "w f32[3, 4]", "w f32[3]"), case("linear", "f32[N, 5, 4]", "w f32[3, 4]"),
    case("matmul", Y, "f32[N, 5, 3]"), case("matmul", Y, "f32[5, 3]"),
    case("matmul", "f32[N, 2, 4, 5]", "f32[N, 1, 5, 3]"),
    case("matmul", Y, "f32[5]"), case("matmul", "f32[5]", "f32[N, 5, 2]"), case("matmul", "f32[5]", "f32[5]"),
    case("matmul", "i64[N, 3]", "i64[3, 2]"),
    case("einsum", Y, "f32[N, 5, 3]", equation="bij,bjk->bik"), case("einsum", Y, Y, equation="bij,bkj->bik"),
    case("einsum", Y, equation="bij->bji"), case("einsum", Y, "f32[5]", equation="bij,j->b"),
    case("einsum", "f32[N, 2, 3, 4]", "f32[3, 4, 5]", equation="bhnd,ndk->bhnk"),
    case("einsum", X, X, equation="Bi,Bi->B"),
    *(case("scaled_dot_product_attention", "f32[N, 2, 5, 4]", "f32[N, 2, 6, 4]", "f32[N, 2, 6, 3]", *mask,
    scale=0.4, **more)
      for mask, more in (((), {}), (("f32[5, 6]",), {}), (("bool[N, 1, 5, 6]",), {}), (("w bool[5, 6]",), {}),
                         ((), {"is_causal": True}))),
    case("scaled_dot_product_attention", "f32[N, 4, 5, 4]", "f32[N, 2, 5, 4]", "f32[N, 2, 5, 4]",
    scale=0.5, enable_gqa=True),
    case("scaled_dot_product_attention", "f32[N, 4, 5, 4]", "f32[N, 2, 5, 4]", "f32[N, 2, 5, 4]", scale=0.5,
         enable_gqa=True, is_causal=True),
    case("scaled_dot_product_attention", Y, Y, Y, scale=0.5),
]  # fmt: skip
IMAGE = "f32[N, 3, 7, 6]"
LAYERS = [
    case("conv1d", "f32[N, 4, 9]", "w f32[6, 2, 3]", "w f32[6]", stride=(2,), padding=(1,), groups=2),
    case("conv2d", "f32[N, 4, 9, 8]", "w f32[6, 4, 3, 2]", dilation=(1, 2)),
    case("conv3d", "f32[N, 2, 5, 6, 7]", "w f32[3, 2, 1, 3, 2]", "w f32[3]", padding=(0, 1, 1)),
    case("conv2d", "f32[N, 4, 9, 8]", "f32[4, 1, 3, 3]", groups=4),
    case("conv_transpose1d", "f32[N, 4, 5]", "w f32[4, 3, 3]", "w f32[3]", stride=(2,), padding=(1,),
    output_padding=(1,)),
    case("conv_transpose2d", "f32[N, 4, 5, 4]", "w f32[4, 2, 3, 2]", stride=(2, 1), groups=2, dilation=(1, 2)),
    case("conv_transpose2d", "f32[N, 4, 5, 4]", "w f32[4, 3, 2, 2]", "w f32[3]", stride=(2, 2)),
    case("conv_transpose3d", "f32[N, 4, 3, 2, 3]", "w f32[4, 2, 2, 2, 2]", stride=(2, 2, 1)),
    case("max_pool1d", "f32[N, 4, 9]", kernel_size=(3,), stride=(2,), padding=(1,)),
    case("max_pool2d", IMAGE, kernel_size=(2, 3), stride=(2, 2), ceil_mode=True),
    case("max_pool3d", "f32[N, 2, 4, 4, 6]", kernel_size=(2, 2, 2), stride=(2, 2, 2)),
    case("avg_pool1d", "f32[N, 4, 9]", kernel_size=(3,), stride=(2,), padding=(1,)),
    case("avg_pool2d", IMAGE, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), count_include_pad=False),
    case("avg_pool3d", "f32[N, 2, 4, 4, 6]", kernel_size=(2, 2, 2), stride=(2, 2, 2)),
    case("adaptive_avg_pool1d", "f32[N, 4, 9]", output_size=(4,)),
    case("adaptive_avg_pool2d", IMAGE, output_size=(1, 1)),
    case("adaptive_avg_pool2d", IMAGE, output_size=(3, 4)),
    case("adaptive_avg_pool3d", "f32[N, 2, 4, 4, 6]", output_size=(2, 2, 3)),
    case("adaptive_avg_pool3d", "f32[N, 2, 5, 4, 7]", output_size=(3, 2, 4)),
    case("batch_norm", "f32[N, 4, 3]", "w f32[4]", "w f32[4]", "w f32[4]", "w f32[4]"),
    case("layer_norm", Y, "w f32[5]", "w f32[5]", normalized_shape=(5,)),
    case("layer_norm", Y, normalized_shape=(4, 5)),
    case("instance_norm", IMAGE, "w f32[3]", "w f32[3]"), case("instance_norm", "f32[N, 3, 8]", eps=0.01),
    case("group_norm", "f32[N, 6, 4, 3]", "w f32[6]", "w f32[6]", num_groups=3),
    case("group_norm", "f32[N, 6]", num_groups=2),
    case("group_norm", "f32[N, 6, 4]", "f32[6]", "f32[6]", num_groups=1, eps=0.01),
    case("rms_norm", Y, "w f32[5]", normalized_shape=(5,), eps=1e-6), case("rms_norm", Y, normalized_shape=(4, 5)),
    case("unfold", IMAGE, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    case("unfold", IMAGE, kernel_size=(2, 2), stride=(2, 2)),
    case("fold", "f32[N, 12, 12]", output_size=(4, 5), kernel_size=(2, 2)),
    case("fold", "f32[N, 12, 12]", output_size=(7, 5), kernel_size=(2, 2), stride=(2, 2), padding=(1, 1), dilation=(2,
    1)),
    case("tensor_unfold", Y, dim=2, size=3), case("tensor_unfold", Y, dim=1, size=2, step=2),
    *(case("interpolate", IMAGE, size=s, mode=m, align_corners=c, antialias=a, scale_factor=f) for s, m, c, a, f in (
        ((14, 12), "nearest", False, False, None), ((9, 5), "nearest", False, False, None),
        ((9, 5), "nearest-exact", False, False, None), ((14, 12), "nearest", False, False, (2.0, 2.0)),
        ((14, 12), "bilinear", False, False, None), ((14, 12), "bilinear", True, False, None),
        ((3, 4), "bilinear", False, False, None), ((1, 1), "bilinear", False, False, None),
        ((1, 1), "bilinear", True, False, None), ((9, 13), "bicubic", False, False, None),
        ((9, 13), "bicubic", True, False, None), ((4, 3), "bicubic", False, False, None),
        ((3, 4), "bilinear", False, True, None), ((3, 4), "bicubic", False, True, None),
        ((9, 8), "bilinear", False, False, (1.3, 1.4)), ((9, 8), "nearest", False, False, (1.3, 1.4)),
        ((10, 9), "bicubic", False, False, (1.5, 1.5)), ((13, 11), "bilinear", False, True, None))),
    case("interpolate", "f32[N, 3, 7]", size=(10,), mode="linear"), case("interpolate", "f32[N, 3, 7]", size=(14,)),
    case("interpolate", "f32[N, 2, 4, 3, 5]", size=(6, 6, 5), mode="trilinear"),
    case("interpolate", "f32[N, 2, 4, 3, 5]", size=(8, 3, 10)),
]  # fmt: skip
CASES = [*UNARY, *PAIRS, *CHOICES, *REDUCE, *PIECES, *SHAPES, *INDEXING, *PRODUCTS, *LAYERS]
ELSEWHERE = {"quantize"}
"""Kinds whose tests stand in tests/targets: codes."""


@pytest.mark.parametrize("entry", CASES, ids=str)
def test_onnxruntime_and_the_graph_read_back_compute_what_torch_does(entry: Case) -> None:
    agree(entry)


@pytest.mark.parametrize("entry", POSITIVE, ids=str)
def test_onnxruntime_computes_what_torch_does_for_positive_numbers(entry: Case) -> None:
    agree(entry, positive=True)


@pytest.mark.gpu
def test_a_gpu_computes_what_torch_does() -> None:
    """Within what products with ten bits of mantissa (TF32) and another order of sums make of it."""
    cuda = target_named("onnxruntime:cuda")
    if reason := cuda.unavailable():
        pytest.skip(f"no GPU: {reason}")
    faults: list[str] = []
    for entry in CASES:
        random = np.random.default_rng(len(str(entry)))
        network, bounds = drawn_network(entry, random)
        given = [drawn(e.type, 3, bounds.get(e.name, 4), random) for e in network.graph.inputs]
        try:
            found = cuda.load(cuda.emit(network.graph, network.weights)).run(given)
            for name, want, have in zip(network.graph.outputs, outputs(network, given), found, strict=True):
                same(name, want, have, 3e-3)
        except (AssertionError, NascError) as fault:
            faults.append(f"{entry}: {str(fault)[:300]}")
    assert not faults, "\n".join(faults)


def test_every_op_kind_has_an_emitter_and_a_case() -> None:
    kinds = set(SPECS) - set(STORED)
    assert kinds <= set(EMITTERS)
    assert kinds - {entry.kind for entry in (*CASES, *POSITIVE)} == ELSEWHERE
