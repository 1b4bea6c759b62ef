"""Pools, convolutions and reshapes of any shape, written as ONNX, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nasc.targets import target_named
from support import graphs
from support.networks import network_of

from . import reference
from .conftest import graph_of, random_weights

CPU = target_named("onnxruntime:cpu")
SMALL = st.integers(1, 3)


def agrees(text: str, shape: tuple[int, ...], seed: int = 0) -> None:
    graph = graph_of(text)
    weights = random_weights(graph, seed)
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    found = CPU.load(CPU.emit(graph, weights)).run([x])[0]
    expected = reference.run(graph, weights, x)[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def listed(values: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, values)) + "]"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pools(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    pairs = st.tuples(*[SMALL] * rank)
    kernel, stride = data.draw(pairs), data.draw(pairs)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    size = data.draw(st.tuples(*[st.integers(3, 8)] * rank))
    ceil, maximum = data.draw(st.booleans()), data.draw(st.booleans())
    include, dilation = data.draw(st.booleans()), data.draw(pairs)
    divisor = data.draw(st.sampled_from([None, 3])) if rank > 1 else None
    x = torch.zeros(2, 2, *size)
    if maximum:
        assume(all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
        pool = getattr(F, f"max_pool{rank}d")
        out = pool(x, kernel, stride, padding, dilation, ceil).shape
        options = f"dilation={listed(dilation)}, "
    else:
        extra = {"divisor_override": divisor} if divisor else {}
        out = getattr(F, f"avg_pool{rank}d")(x, kernel, stride, padding, ceil, include, **extra).shape
        options = f"count_include_pad={str(include).lower()}, " + (f"divisor_override={divisor}, " if divisor else "")
    kind = "max" if maximum else "avg"
    text = f"""graph @t(%x: f32[N, 2, {", ".join(map(str, size))}]) {{
      %y: f32[N, {", ".join(map(str, out[1:]))}] = {kind}_pool{rank}d %x {{kernel_size={listed(kernel)}, \
stride={listed(stride)}, padding={listed(padding)}, {options}ceil_mode={str(ceil).lower()}}}
      return %y
    }}"""
    agrees(text, (2, 2, *size))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_adaptive_pools_of_any_number_of_windows(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    size, count = (data.draw(st.tuples(*[st.integers(1, 9)] * rank)) for _ in range(2))
    text = f"""graph @t(%x: f32[N, 3, {", ".join(map(str, size))}]) {{
      %y: f32[N, 3, {", ".join(map(str, count))}] = adaptive_avg_pool{rank}d %x {{output_size={listed(count)}}}
      return %y
    }}"""
    agrees(text, (2, 3, *size))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    rank, groups = data.draw(st.integers(1, 3)), data.draw(SMALL)
    pairs = st.tuples(*[SMALL] * rank)
    kernel, stride, dilation = data.draw(pairs), data.draw(pairs), data.draw(st.tuples(*[st.integers(1, 2)] * rank))
    padding = data.draw(st.tuples(*[st.integers(0, 2)] * rank))
    size = data.draw(st.tuples(*[st.integers(5, 7)] * rank))
    into, out = groups * data.draw(SMALL), groups * data.draw(SMALL)
    conv = getattr(F, f"conv{rank}d")
    w = torch.zeros(out, into // groups, *kernel)
    result = conv(torch.zeros(1, into, *size), w, None, stride, padding, dilation, groups).shape
    text = f"""graph @t(%x: f32[N, {into}, {", ".join(map(str, size))}]) {{
      %w: f32[{", ".join(map(str, w.shape))}] = weight
      %b: f32[{out}] = weight
      %y: f32[N, {", ".join(map(str, result[1:]))}] = conv{rank}d %x, %w, %b {{stride={listed(stride)}, \
padding={listed(padding)}, dilation={listed(dilation)}, groups={groups}}}
      return %y
    }}"""
    agrees(text, (2, into, *size))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_linear_layers_of_any_rank_float_and_quantized(
    batch: int, lead: list[int], quantized: bool, biased: bool
) -> None:
    into, out = 6, 5
    axes = ", ".join(map(str, ["N", *lead[1:]])) if len(lead) > 1 else "N"
    steps = "  %x.q: u8<0.03, 128>[AXES, 6] = quantize %x\n" if quantized else ""
    text = f"""graph @t(%x: f32[AXES, 6]) {{
    {steps}  %w: {"i6<per 0>" if quantized else "f32"}[{out}, {into}] = weight
      %b: {"i32<per 0>" if quantized else "f32"}[{out}] = weight
      %y: f32[AXES, {out}] = linear %x{".q" if quantized else ""}, %w{", %b" if biased else ""}
      return %y
    }}""".replace("AXES", axes)
    agrees(text, (batch, *lead[1:], into))


@pytest.mark.parametrize("kind", ["max_pool2d", "avg_pool2d"])
def test_zeros_around_an_image_win_against_negative_numbers(kind: str) -> None:
    """ONNX Runtime merges a Pad with zeros into the pool behind it, whose own padding never wins."""
    lines = (
        "  %p: f32[N, 2, 10, 10] = pad %x {pad=[1, 1, 1, 1], value=0.0}\n"
        f"  %y: f32[N, 2, 4, 4] = {kind} %p {{kernel_size=[3, 3], stride=[2, 2]}}"
    )
    network = network_of(graphs.graph_of(lines, inputs="%x: f32[N, 2, 8, 8]"))
    x = torch.randn(2, 2, 8, 8) - 3
    (found,) = CPU.load(CPU.emit(network.graph, network.weights)).run([x.numpy()])
    np.testing.assert_allclose(found, network(x).numpy(), rtol=1e-6)
