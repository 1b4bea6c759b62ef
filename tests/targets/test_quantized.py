"""Quantized networks, in all widths of 2 to 8 bits: integer kernels run, and give the integers that the IR means."""

from __future__ import annotations

import re

import numpy as np
import pytest
from nasc.ir import Graph
from nasc.targets import check_placement, target_named
from nasc.targets.onnx import emit
from nasc.targets.onnx.style import Style
from nasc.targets.plan import INTEGER_KERNELS

from . import reference
from .conftest import Array, Dictionary, calibrated, graph_of, lengths, random_weights

CPU = target_named("onnxruntime:cpu")

MLP = """
graph @jets(%features: f32[N, 16]) {
  width $fc1 = 64
  width $fc2 = 32
  width $fc3 = 32
  %mean: f32[16] = buffer
  %scale_var: f32[16] = buffer
  %centred: f32[N, 16] = sub %features, %mean
  %x: f32[N, 16] = div %centred, %scale_var
  %x.q: IN<?>[N, 16] = quantize %x
  %fc1.weight: W<per 0>[$fc1, 16] = weight
  %fc1.bias: i32<per 0>[$fc1] = weight
  %fc1: f32[N, $fc1] = linear %x.q, %fc1.weight, %fc1.bias
  %act1: f32[N, $fc1] = relu %fc1
  %act1.q: A<?>[N, $fc1] = quantize %act1
  %fc2.weight: W<per 0>[$fc2, $fc1] = weight
  %fc2.bias: i32<per 0>[$fc2] = weight
  %fc2: f32[N, $fc2] = linear %act1.q, %fc2.weight, %fc2.bias
  %act2: f32[N, $fc2] = relu %fc2
  %act2.q: A<?>[N, $fc2] = quantize %act2
  %fc3.weight: W<per 0>[$fc3, $fc2] = weight
  %fc3.bias: i32<per 0>[$fc3] = weight
  %fc3: f32[N, $fc3] = linear %act2.q, %fc3.weight, %fc3.bias
  %act3: f32[N, $fc3] = relu %fc3
  %act3.q: A<?>[N, $fc3] = quantize %act3
  %fc4.weight: W<per 0>[5, $fc3] = weight
  %fc4.bias: i32<per 0>[5] = weight
  %logits: f32[N, 5] = linear %act3.q, %fc4.weight, %fc4.bias
  return %logits
}"""

VGG = """
graph @vgg(%image: f32[N, 3, 16, 16]) {
  width $c1 = 16
  width $c2 = 24
  %x.q: IN<?>[N, 3, 16, 16] = quantize %image
  %c1.weight: W<per 0>[$c1, 3, 3, 3] = weight
  %c1.bias: i32<per 0>[$c1] = weight
  %c1: f32[N, $c1, 16, 16] = conv2d %x.q, %c1.weight, %c1.bias {padding=[1, 1]}
  %r1: f32[N, $c1, 16, 16] = relu %c1
  %r1.q: A<?>[N, $c1, 16, 16] = quantize %r1
  %c2.weight: W<per 0>[$c1, $c1, 3, 3] = weight
  %c2.bias: i32<per 0>[$c1] = weight
  %c2: f32[N, $c1, 16, 16] = conv2d %r1.q, %c2.weight, %c2.bias {padding=[1, 1]}
  %r2: f32[N, $c1, 16, 16] = relu %c2
  %p2: f32[N, $c1, 8, 8] = max_pool2d %r2 {kernel_size=[2, 2], stride=[2, 2]}
  %p2.q: A<?>[N, $c1, 8, 8] = quantize %p2
  %dw.weight: W<per 0>[$c1, 1, 3, 3] = weight
  %dw.bias: i32<per 0>[$c1] = weight
  %dw: f32[N, $c1, 8, 8] = conv2d %p2.q, %dw.weight, %dw.bias {padding=[1, 1], groups=$c1}
  %r3: f32[N, $c1, 8, 8] = relu6 %dw
  %r3.q: A<?>[N, $c1, 8, 8] = quantize %r3
  %c4.weight: W<per 0>[$c2, $c1, 1, 1] = weight
  %c4.bias: i32<per 0>[$c2] = weight
  %c4: f32[N, $c2, 8, 8] = conv2d %r3.q, %c4.weight, %c4.bias
  %r4: f32[N, $c2, 8, 8] = relu %c4
  %p4: f32[N, $c2, 2, 2] = max_pool2d %r4 {kernel_size=[4, 4], stride=[4, 4]}
  %flat: f32[N, $c2*4] = reshape %p4 {shape=[N, $c2*4]}
  %flat.q: A<?>[N, $c2*4] = quantize %flat
  %fc.weight: W<per 0>[10, $c2*4] = weight
  %fc.bias: i32<per 0>[10] = weight
  %logits: f32[N, 10] = linear %flat.q, %fc.weight, %fc.bias
  return %logits
}"""

RESIDUAL = """
graph @residual(%image: f32[N, 8, 12, 12]) {
  width $c = 8
  %x.q: IN<?>[N, 8, 12, 12] = quantize %image
  %a.weight: W<per 0>[$c, 8, 3, 3] = weight
  %a.bias: i32<per 0>[$c] = weight
  %a: f32[N, $c, 12, 12] = conv2d %x.q, %a.weight, %a.bias {padding=[1, 1]}
  %ra: f32[N, $c, 12, 12] = relu %a
  %ra.q: A<?>[N, $c, 12, 12] = quantize %ra
  %b.weight: W<per 0>[8, $c, 3, 3] = weight
  %b.bias: i32<per 0>[8] = weight
  %b: f32[N, 8, 12, 12] = conv2d %ra.q, %b.weight, %b.bias {padding=[1, 1]}
  %b.q: IN<?>[N, 8, 12, 12] = quantize %b
  %s: f32[N, 8, 12, 12] = add %b.q, %x.q
  %rs: f32[N, 8, 12, 12] = relu %s
  %rs.q: A<?>[N, 8, 12, 12] = quantize %rs
  %g: f32[N, 8, 1, 1] = adaptive_avg_pool2d %rs.q {output_size=[1, 1]}
  %flat: f32[N, 8] = reshape %g {shape=[N, 8]}
  %flat.q: A<?>[N, 8] = quantize %flat
  %fc.weight: W<per 0>[10, 8] = weight
  %fc.bias: i32<per 0>[10] = weight
  %logits: f32[N, 10] = linear %flat.q, %fc.weight, %fc.bias
  return %logits
}"""


def network(
    text: str, weights: int, activations: int, first: str = "u8", rows: int = 64
) -> tuple[Graph, Dictionary, Array]:
    """A calibrated network with these bits, its weights, and the inputs it was calibrated on."""
    text = re.sub(r"\bW<", f"i{weights}<", re.sub(r"\bA<", f"u{activations}<", re.sub(r"\bIN<", f"{first}<", text)))
    draft = graph_of(text)
    x = np.random.default_rng(7).normal(0, 1, lengths(draft, draft.inputs[0].name, rows)).astype(np.float32)
    graph, stored = calibrated(draft, x)
    return graph, stored, x


def returning_codes(graph: Graph) -> Graph:
    """The same graph, which also returns every quantized activation."""
    from dataclasses import replace

    codes = tuple(op.name for op in graph.ops if op.kind == "quantize")
    return replace(graph, outputs=(*graph.outputs, *codes))


def check(graph: Graph, weights: Dictionary, x: Array, *, same: float = 0.999) -> None:
    """All layers on integer kernels; the same codes for all but one in a thousand; the same classes."""
    session = CPU.load(CPU.emit(graph, weights), placed=True)
    plan = CPU.plan(graph)
    placement = check_placement(plan, session.placement())
    assert all(entry.integer for entry in plan.layers), plan
    assert plan.needs == ()
    assert placement.as_planned, placement.float_layers
    assert not {"Conv", "Gemm", "MatMul", "FusedConv", "FusedGemm"} & set(placement.kernels)
    assert sum(placement.kernels[k] for k in INTEGER_KERNELS) == len(plan.layers)
    logits = session.run([x])[0]
    expected = reference.run(graph, weights, x)[0]
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.98
    all_codes = returning_codes(graph)
    found = CPU.load(CPU.emit(all_codes, weights)).run([x])[1:]
    for name, a, b in zip(all_codes.outputs[1:], reference.run(all_codes, weights, x)[1:], found, strict=True):
        step = graph.types[name].step
        assert step is not None
        assert step.value is not None
        distance = np.abs(a - b) / step.value
        assert distance.max() < 1.01, name
        assert (distance > 0.5).sum() <= 2 + (1 - same) * distance.size, name
        assert len(np.unique(np.round(b / step.value))) <= 1 << graph.types[name].format.bits


@pytest.mark.parametrize("activations", range(2, 9))
@pytest.mark.parametrize("weights", range(2, 9))
def test_mlps_of_all_widths(weights: int, activations: int) -> None:
    check(*network(MLP, weights, activations))


@pytest.mark.parametrize(("weights", "activations"), [(8, 8), (4, 8), (8, 4), (4, 4), (2, 2), (5, 7)])
@pytest.mark.parametrize("text", [VGG, RESIDUAL], ids=["vgg", "residual"])
def test_convolutional_networks(text: str, weights: int, activations: int) -> None:
    check(*network(text, weights, activations, rows=16), same=0.998)


@pytest.mark.parametrize("first", ["u8", "i8", "u6", "i4", "u3"])
def test_the_first_input_may_have_any_format(first: str) -> None:
    check(*network(MLP, 8, 8, first))
    check(*network(VGG, 8, 8, first, rows=16), same=0.998)


def test_the_standardisation_runs_in_float_before_the_first_codes() -> None:
    graph, weights, x = network(MLP, 8, 8)
    kinds = [n.kind for n in CPU.load(CPU.emit(graph, weights), placed=True).placement().nodes]
    assert kinds == ["Sub", "Div", "QuantizeLinear", "QGemm", "QGemm", "QGemm", "QGemm"]
    assert np.isfinite(CPU.load(CPU.emit(graph, weights)).run([x])[0]).all()


def test_wide_integers_are_exact_and_float() -> None:
    """9 to 16 bits: exact codes in 16-bit containers, read back into floats."""
    text = MLP.replace("i32<per 0>", "f32")
    for weights, activations in ((9, 12), (16, 16), (12, 9)):
        graph, stored, x = network(text, weights, activations, first="i13")
        session = CPU.load(CPU.emit(graph, stored), placed=True)
        assert "QGemm" not in session.placement().kernels
        all_codes = returning_codes(graph)
        found = CPU.load(CPU.emit(all_codes, stored)).run([x])
        for name, a, b in zip(all_codes.outputs, reference.run(all_codes, stored, x), found, strict=True):
            step = graph.types[name].step
            unit = 1e-3 if step is None or step.value is None else 1.01 * step.value
            assert np.abs(a - b).max() <= unit, name


POOLED = """
graph @pooled(%x: f32[N, 16, 8, 8]) {
  FIRST
  %p: f32[N, 16, 4, 4] = max_pool2d %h {kernel_size=[2, 2], stride=[2, 2]}
  %p.q: u8<0.1, 100>[N, 16, 4, 4] = quantize %p
  %w: i8<per 0>[8, 16, 1, 1] = weight
  %y: f32[N, 8, 4, 4] = conv2d %p.q, %w
  %y.q: u8<0.1, 100>[N, 8, 4, 4] = quantize %y
  return %y.q
}"""
NUMBERS = "%h: f32[N, 16, 8, 8] = elu %x"
INTEGERS = """%x.q: u8<0.1, 100>[N, 16, 8, 8] = quantize %x
  %v: i8<per 0>[16, 16, 1, 1] = weight
  %h: f32[N, 16, 8, 8] = conv2d %x.q, %v"""


def test_what_pools_numbers_is_rounded_behind() -> None:
    """The runtime by itself would round before the pool and then pool codes, slowly; behind integers it should."""

    def kernels(first: str, style: Style) -> list[str]:
        graph = graph_of(POOLED.replace("FIRST", first))
        model = emit(graph, random_weights(graph), style=style).SerializeToString()
        return [node.kind for node in CPU.load(model, placed=True).placement().nodes]

    kept, moved = kernels(NUMBERS, Style()), kernels(NUMBERS, Style(round_behind_pools=False))
    assert kept.index("MaxPool") < kept.index("QuantizeLinear")
    assert moved.index("MaxPool") > moved.index("QuantizeLinear")
    assert "Max" not in kernels(INTEGERS, Style())
