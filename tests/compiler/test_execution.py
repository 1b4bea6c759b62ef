"""Torch execution: rounding is the exact reference's, every kernel is PyTorch's, and misuse is explained."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.compiler.elements import container
from nasc.compiler.execution import KERNELS, ExecutionError, last_uses, rounded, run
from nasc.compiler.network import Network
from nasc.compiler.weights import Rounded, Source, Store
from nasc.ir import SPECS, STORED, Format, Step, Type, format_named
from nasc.ir.axes import N
from nasc.ir.formats import decode, encode
from support.drawing import integer_formats
from support.graphs import graph_of
from support.networks import inputs_of, network_of
from torch import Tensor

steps = st.floats(2.0**-20, 2.0**10, width=32)
reals = st.lists(st.floats(-(2.0**24), 2.0**24, width=32), min_size=1, max_size=40)


def near_a_tie(value: float, step: float) -> bool:
    """Whether binary32 division may round the quotient onto or across the middle between two integers."""
    quotient = Fraction(value) / Fraction(step)
    distance = abs(quotient - (quotient.__floor__() + Fraction(1, 2)))
    return distance <= abs(quotient) * Fraction(1, 2**23)


@given(reals, integer_formats, steps, st.data())
def test_quantize_rounds_as_the_exact_reference(
    values: list[float], format: Format, step: float, data: st.DataObject
) -> None:
    """`clamp(round_half_even(x / step) + zero)`, the quotient in binary32 as a runtime computes it: equal to the exact
    reference on that quotient always, and on the exact quotient wherever binary32 can tell the sides of a tie."""
    zero = data.draw(st.integers(format.low, format.high))
    type = Type(format, (N,), Step.of(step, zero))
    found = rounded(torch.tensor(values), type).tolist()
    for value, real in zip(values, found, strict=True):
        quotient = Fraction(float(np.float32(value) / np.float32(step)))
        code = encode(quotient, format, Fraction(1), zero)
        assert real == float(np.float32(code - zero) * np.float32(step))
        exact = encode(Fraction(value), format, Fraction(step), zero)
        assert exact == code or near_a_tie(value, step)
        if code == exact and abs(code - zero) < 2**24:
            assert abs(Fraction(real) - decode(code, Fraction(step), zero)) <= abs(Fraction(real)) / 2**24


@given(reals, integer_formats.filter(lambda f: f.signed), steps)
def test_stored_codes_are_those_of_the_reference(values: list[float], format: Format, step: float) -> None:
    recipe = Rounded(Source(torch.tensor(values)), format, torch.tensor(step), None)
    assert recipe.tensor.dtype == container(format)
    for value, code, real in zip(values, recipe.tensor.tolist(), recipe.real.tolist(), strict=True):
        quotient = Fraction(float(np.float32(value) / np.float32(step)))
        assert code == encode(quotient, format, Fraction(1))
        assert code == encode(Fraction(value), format, Fraction(step)) or near_a_tie(value, step)
        assert real == float(np.float32(code) * np.float32(step))


def test_codes_run_along_their_axis() -> None:
    values, scale = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), torch.tensor([1.0, 0.5])
    i4 = format_named("i4")
    assert Rounded(Source(values), i4, scale, 0).tensor.tolist() == [[1, 2, 3], [2, 4, 6]]
    per_column = Rounded(Source(values), i4, torch.tensor([1.0, 0.5, 0.25]), 1)
    assert per_column.tensor.tolist() == [[1, 4, 7], [1, 4, 7]]
    assert per_column.real.tolist() == [[1.0, 2.0, 1.75], [1.0, 2.0, 1.75]]


def test_accumulators_do_not_wrap_around() -> None:
    i32 = format_named("i32")
    codes = Rounded(Source(torch.tensor([1.0, -1.0, 1e-3])), i32, torch.tensor([1e-30, 1e-30, 1e-9]), 0)
    assert codes.tensor.tolist() == [2**31 - 1, -(2**31), 1_000_000]
    assert codes.real.tolist()[2] == pytest.approx(1e-3, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_in_binary32(dtype: torch.dtype) -> None:
    x = torch.linspace(-3, 3, 97).to(dtype)
    type = Type(format_named("u8"), (N,), Step.of(0.01, 128))
    assert torch.equal(rounded(x, type), rounded(x.float(), type))
    assert rounded(x, type).dtype == torch.float32
    tiny = Rounded(Source(x), format_named("i8"), torch.tensor(1e-9), None)
    assert set(tiny.tensor.tolist()) == {-128, 0, 127}


IMAGE, ROWS = "%x: f32[N, 4, 8, 8]", "%x: f32[N, 6]"
CALLS: list[tuple[str, str, str, Callable[..., Tensor]]] = [
    (IMAGE, "%c: f32[N, 4, 8, 8] = relu %x", "", F.relu),
    (IMAGE, "%c: f32[N, 4, 8, 8] = leaky_relu %x {negative_slope=0.3}", "", lambda x: F.leaky_relu(x, 0.3)),
    (IMAGE, "%c: f32[N, 4, 8, 8] = hardtanh %x {min_val=-0.5, max_val=2.0}", "", lambda x: F.hardtanh(x, -0.5, 2.0)),
    (IMAGE, "%c: f32[N, 4, 8, 8] = clamp %x {min=-0.5}", "", lambda x: x.clamp(min=-0.5)),
    (IMAGE, '%c: f32[N, 4, 8, 8] = gelu %x {approximate="tanh"}', "", lambda x: F.gelu(x, approximate="tanh")),
    (ROWS, "%c: f32[N, 6] = sub %x {input=1.5}", "", lambda x: 1.5 - x),
    (ROWS, "%c: f32[N, 6] = pow %x {input=2.0}", "", lambda x: 2.0**x),
    (ROWS, "%c: f32[N, 6] = div %x {other=3.0}", "", lambda x: x / 3.0),
    (ROWS, "%c: f32[N, 6] = maximum %x {other=0.25}", "", lambda x: x.clamp(min=0.25)),
    (ROWS, "%c: f32[N, 6] = minimum %x {input=0.25}", "", lambda x: x.clamp(max=0.25)),
    (ROWS, "%c: bool[N, 6] = ge %x {other=0}", "", lambda x: x >= 0),
    (ROWS, "%c: f32[N, 6] = log_softmax %x {dim=-1}", "", lambda x: F.log_softmax(x, -1)),
    (ROWS, "%c: f32[N] = sum %x {dim=[1]}", "", lambda x: x.sum(1)),
    (IMAGE, "%c: f32[] = mean %x", "", lambda x: x.mean()),
    (IMAGE, "%c: f32[N, 1, 1, 8] = amin %x {dim=[1, 2], keepdim=true}", "", lambda x: x.amin((1, 2), keepdim=True)),
    (IMAGE, "%c: f32[N*4, 64] = reshape %x {shape=[N*4, 64]}", "", lambda x: x.reshape(-1, 64)),
    (IMAGE, "%c: f32[8, N, 4, 8] = permute %x {dims=[3, 0, 1, 2]}", "", lambda x: x.permute(3, 0, 1, 2)),
    (ROWS, "%c: f32[N, 12] = cat %x, %x {dim=1}", "", lambda x: torch.cat([x, x], 1)),
    (
        IMAGE,
        "%c: f32[N, 4, 5, 3] = max_pool2d %x {kernel_size=[3, 2], stride=[2, 3], padding=[1, 0], ceil_mode=true}",
        "",
        lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 0), ceil_mode=True),
    ),
    (
        IMAGE,
        "%c: f32[N, 4, 5, 8] = avg_pool2d %x {kernel_size=[2, 1], stride=[2, 1], padding=[1, 0], "
        "count_include_pad=false}",
        "",
        lambda x: F.avg_pool2d(x, (2, 1), (2, 1), (1, 0), count_include_pad=False),
    ),
    (
        IMAGE,
        "%c: f32[N, 4, 3, 2] = adaptive_avg_pool2d %x {output_size=[3, 2]}",
        "",
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    ),
    (
        IMAGE,
        "%c: f32[N, 6, 3, 6] = conv2d %x, %w, %b {stride=[2, 1], padding=[0, 0], dilation=[1, 1], groups=2}",
        "%w: f32[6, 2, 3, 3] = weight\n%b: f32[6] = weight",
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), groups=2),
    ),
    (
        "%x: f32[N, 4, 8]",
        "%c: f32[N, 5, 6] = conv1d %x, %w",
        "%w: f32[5, 4, 3] = weight",
        lambda x, w: F.conv1d(x, w),
    ),
    (
        "%x: f32[N, 2, 4, 4, 4]",
        "%c: f32[N, 5, 3, 4, 2] = conv3d %x, %w",
        "%w: f32[5, 2, 2, 1, 3] = weight",
        lambda x, w: F.conv3d(x, w),
    ),
    (IMAGE, "%c: f32[N, 4, 8, 8] = prelu %x, %w", "%w: f32[4] = weight", lambda x, w: F.prelu(x, w)),
    (
        ROWS,
        "%c: f32[N, 6] = layer_norm %x, %w, %b {normalized_shape=[6], eps=0.01}",
        "%w: f32[6] = weight\n%b: f32[6] = weight",
        lambda x, w, b: F.layer_norm(x, (6,), w, b, 0.01),
    ),
    (
        ROWS,
        "%c: f32[N, 6] = batch_norm %x, %m, %v, %w {eps=0.01}",
        "%m: f32[6] = buffer\n%v: f32[6] = buffer\n%w: f32[6] = weight",
        lambda x, m, v, w: F.batch_norm(x, m, v, w, None, eps=0.01),
    ),
    (ROWS, "%c: f16[N, 6] = cast %x", "", lambda x: x.half()),
    (
        ROWS,
        '%c: i64[N, 6] = aten._to_copy.default %x {args=["%0"], kwargs=[["dtype", "torch.int64"]]}',
        "",
        lambda x: x.long(),
    ),
    (ROWS, "%c: f32[6, N] = aten.full.default {args=[[6, N], 2.5]}", "", lambda x: torch.full((6, len(x)), 2.5)),
]


@pytest.mark.parametrize(
    ("inputs", "call", "stored", "expected"), CALLS, ids=[c[1].split(" = ")[1][:50] for c in CALLS]
)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_kernel_is_what_pytorch_computes(
    inputs: str, call: str, stored: str, expected: Callable[..., Tensor], batch: int
) -> None:
    from nasc.ir import verify

    graph = graph_of(stored + "\n" + call if stored else call, inputs)
    verify(graph)
    network = network_of(graph)
    x = inputs_of(graph, batch)
    found = network(*x)
    want = expected(*x, *(network.values[op.name] for op in graph.stored))
    assert torch.equal(found, want)
    assert tuple(found.shape) == tuple(_length(a, graph.sizes, batch) for a in graph.types[graph.outputs[0]].axes), (
        "the rule's shape is what runs"
    )


def _length(axis: Any, sizes: Any, batch: int) -> int:
    from nasc.ir.axes import size

    return size(axis, sizes, batch)


def test_every_op_of_the_ir_runs() -> None:
    assert set(SPECS) | set(STORED) == set(KERNELS) | set(STORED)


def test_operands_of_mixed_formats_compute_in_the_widest() -> None:
    graph = graph_of("%w: f16[3, 6] = weight\n%y: f32[N, 3] = linear %x, %w", ROWS)
    network, (x,) = network_of(graph), inputs_of(graph)
    assert torch.equal(network(x), F.linear(x, network.values["w"].float()))


def test_values_are_forgotten_after_their_last_reader() -> None:
    graph = graph_of(
        """
        %a: f32[N, 6] = exp %x
        %b: f32[N, 6] = exp %a
        %c: f32[N, 6] = add %a, %b
        %d: f32[N, 6] = neg %x
        return %c, %a
        """,
        ROWS,
    )
    assert last_uses(graph) == {"c": ("b",), "d": ("x", "d")}


def test_observers_see_every_value() -> None:
    graph = graph_of(
        '%a: f32[N, 6] = exp %x\n%b, %c: f32[N, 3], f32[N, 3] = aten.split.Tensor %a {args=["%0", 3, 1]}\nreturn %c',
        ROWS,
    )
    seen: dict[str, Tensor] = {}
    (x,) = inputs_of(graph)
    run(graph, {}, (x,), observe=lambda n, t: seen.update({n: t}))
    assert list(seen) == ["x", "a", "b", "c"]
    assert torch.equal(torch.cat([seen["b"], seen["c"]], 1), x.exp())


WRONG_INPUTS = [
    ((), "the graph takes 1 inputs, found 0"),
    ((torch.zeros(2, 7),), r"input %x has shape \[2, 7\], the graph takes \[N, 6\]"),
    ((torch.zeros(6),), r"input %x has shape \[6\], the graph takes \[N, 6\]"),
    ((torch.zeros(2, 6), torch.zeros(2, 6)), "the graph takes 1 inputs, found 2"),
]


@pytest.mark.parametrize(("inputs", "message"), WRONG_INPUTS)
def test_inputs_of_other_shapes_are_refused(inputs: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        network_of(graph_of("%y: f32[N, 6] = relu %x", ROWS))(*inputs)


def test_inputs_must_agree_on_the_batch() -> None:
    graph = graph_of("%z: f32[N, 6] = add %x, %y", "%x: f32[N, 6], %y: f32[N, 6]")
    with pytest.raises(ExecutionError, match=r"input %y has shape \[3, 6\], the graph takes \[N, 6\]"):
        network_of(graph)(torch.zeros(2, 6), torch.zeros(3, 6))
    folded = graph_of("%z: f32[N*3] = relu %x", "%x: f32[N*3]")
    assert network_of(folded)(torch.zeros(12)).shape == (12,)
    with pytest.raises(ExecutionError, match=r"\[11\], the graph takes \[N\*3\]"):
        network_of(folded)(torch.zeros(11))


def test_a_fixed_batch_says_that_it_is() -> None:
    network = network_of(graph_of("%y: f32[4, 6] = relu %x", "%x: f32[4, 6]"))
    with pytest.raises(ExecutionError, match=r"the graph takes \[4, 6\]\n  No axis of this network is the batch"):
        network(torch.zeros(2, 6))


def test_torch_faults_name_the_users_line() -> None:
    graph = graph_of('%y: f32[N, 6] = aten.view.default %x {args=["%0", [7]]} at "net.py":12', ROWS)
    with pytest.raises(ExecutionError, match=r"^net.py:12: error: aten.view.default %y: "):
        network_of(graph)(torch.zeros(2, 6))


@pytest.mark.parametrize("kind", ["aten.no_such_op.default", "aten.relu.no_such_overload", "aten.relu", "aten"])
def test_ops_that_this_torch_does_not_have(kind: str) -> None:
    with pytest.raises(ExecutionError, match=f"{kind} %y: this torch has no op of that name"):
        network_of(graph_of(f"%y: f32[N, 6] = {kind} %x", ROWS))(torch.zeros(2, 6))


UNKNOWN = [
    "%x.q: u8<?, ?>[N, 6] = quantize %x\n%y: f32[N, 6] = relu %x.q",
    "%w: i4<per 0 ?>[3, 6] = weight\n%y: f32[N, 3] = linear %x, %w",
]


@pytest.mark.parametrize("lines", UNKNOWN)
def test_steps_that_are_not_known_do_not_run(lines: str) -> None:
    network = network_of(graph_of(lines, ROWS))
    with pytest.raises(ExecutionError, match=r"has no step yet\n  Add `calibrate` to the pipeline."):
        network(torch.zeros(2, 6))
    with pytest.raises(ExecutionError, match="has no step yet"):
        network.module()


def test_running_leaves_no_gradients_and_changes_nothing() -> None:
    graph = graph_of("%w: f32[3, 6] = weight\n%y: f32[N, 3] = linear %x, %w", ROWS)
    weight = torch.randn(3, 6, requires_grad=True)
    network = Network(graph, Store({"w": Source(weight)}))
    assert not network(torch.randn(2, 6, requires_grad=True)).requires_grad


@settings(max_examples=20)
@given(st.integers(1, 9))
def test_any_batch_runs(batch: int) -> None:
    graph = graph_of("%w: f32[3, 6] = weight\n%y: f32[N, 3] = linear %x, %w", ROWS)
    assert network_of(graph)(*inputs_of(graph, batch)).shape == (batch, 3)
