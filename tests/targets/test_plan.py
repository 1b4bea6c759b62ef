"""What is planned for ONNX Runtime's CPU provider against what it does, read from its optimised graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nasc.ir import Graph, Op, Step, format_named, reading, rebuilt, verify
from nasc.targets import check_placement, target_named
from nasc.targets.agree import sqnr_db
from nasc.targets.plan import INTEGER_KERNELS, Need, Plan

from . import reference
from .conftest import graph_of, lengths, random_weights
from .random_graphs import random_graph

CPU = target_named("onnxruntime:cpu")
U8, STEP = format_named("u8"), Step.of(0.03, 100)
IMAGE = "[N, 8, 16, 16]"
HALF = "[N, 8, 8, 8]"
ROW = "[N, 8]"
CONV = f"""graph @t(%x: f32{IMAGE}) {{
  %x.q: u8<0.02, 113>{IMAGE} = quantize %x
  %w: i8<per 0>[8, 8, 3, 3] = weight
  %b: i32<per 0>[8] = weight
  %h: f32{IMAGE} = conv2d %x.q, %w, %b {{padding=[1, 1]}}
"""
LINEAR = f"""graph @t(%x: f32{ROW}) {{
  %x.q: u8<0.02, 113>{ROW} = quantize %x
  %w: i8<per 0>[8, 8] = weight
  %b: i32<per 0>[8] = weight
  %h: f32{ROW} = linear %x.q, %w, %b
"""


def planned(text: str) -> tuple[Plan, dict[str, bool]]:
    """The plan of a graph, and for each layer whether an integer kernel really runs it."""
    graph = graph_of(text)
    session = CPU.load(CPU.emit(graph, random_weights(graph)), placed=True)
    plan = CPU.plan(graph)
    placement = check_placement(plan, session.placement())
    integer = {node.layer for node in placement.nodes if node.kind in INTEGER_KERNELS}
    assert placement.as_planned, placement.float_layers
    return plan, {entry.layer: entry.layer in integer for entry in plan.layers}


def body(head: str, shape: str, *lines: str, output: str = "%y") -> str:
    text = "".join(f"  {line.replace('SHAPE', shape)}\n" for line in lines)
    return f"{head}{text}  return {output}\n}}"


CODES = "%h.q: u8<0.02, 100>SHAPE = quantize %h"
OUT = "%y: f32SHAPE = cast %h.q"
RELU = "%r: f32SHAPE = relu %h"

INTEGER = {
    "conv": body(CONV, IMAGE, CODES, OUT),
    "conv relu": body(CONV, IMAGE, RELU, "%h.q: u8<0.02>SHAPE = quantize %r", OUT),
    "conv relu asymmetric": body(CONV, IMAGE, RELU, "%h.q: u8<0.02, 5>SHAPE = quantize %r", OUT),
    "conv relu signed": body(CONV, IMAGE, RELU, "%h.q: i8<0.02>SHAPE = quantize %r", OUT),
    "conv relu 4 bits": body(CONV, IMAGE, RELU, "%h.q: u4<0.3>SHAPE = quantize %r", OUT),
    "conv relu6": body(CONV, IMAGE, "%r: f32SHAPE = relu6 %h", "%h.q: u8<0.05>SHAPE = quantize %r", OUT),
    "conv hardtanh": body(CONV, IMAGE, "%r: f32SHAPE = hardtanh %h", "%h.q: i8<0.02>SHAPE = quantize %r", OUT),
    "conv clamp": body(CONV, IMAGE, "%r: f32SHAPE = clamp %h {max=0.5}", "%h.q: i8<0.02>SHAPE = quantize %r", OUT),
    "conv max_pool": body(
        CONV, HALF, f"%r: f32{IMAGE} = relu %h", "%p: f32SHAPE = max_pool2d %r {kernel_size=[2, 2], stride=[2, 2]}",
        "%h.q: u8<0.02>SHAPE = quantize %p", OUT,
    ),
    "conv max_pool relu": body(
        CONV, HALF, "%p: f32SHAPE = max_pool2d %h {kernel_size=[2, 2], stride=[2, 2]}", "%r: f32SHAPE = relu %p",
        "%h.q: i4<0.2>SHAPE = quantize %r", OUT,
    ),
    "conv island": body(CONV, IMAGE, CODES, "%y: f32SHAPE = gelu %h.q"),
    "linear": body(LINEAR, ROW, CODES, OUT),
    "linear last": body(LINEAR, ROW, output="%h"),
    "linear softmax": body(LINEAR, ROW, "%y: f32SHAPE = softmax %h {dim=1}"),
    "linear gelu": body(LINEAR, ROW, "%r: f32SHAPE = gelu %h", "%h.q: u8<0.02>SHAPE = quantize %r", OUT),
    "linear relu": body(LINEAR, ROW, RELU, "%h.q: i8<0.02>SHAPE = quantize %r", OUT),
    "linear relu last": body(LINEAR, ROW, RELU, output="%r"),
    "linear 2 bits": body(LINEAR.replace("i8<per", "i2<per"), ROW, RELU, "%h.q: u2<0.5>SHAPE = quantize %r", OUT),
    "linear stacked": body(LINEAR, ROW, output="%h").replace("[N, 8]", "[N, 5, 8]"),
    "linear stacked relu": body(LINEAR, ROW, RELU, "%y: f32SHAPE = tanh %r").replace("[N, 8]", "[N, 5, 8]"),
    "linear of a signed input": body(LINEAR.replace("u8<0.02, 113>", "i8<0.02>"), ROW, output="%h"),
    "linear of unsigned weights": body(
        LINEAR.replace("i8<per 0>", "u8<2^-7>").replace("i32<per 0>", "i32<0.00015625>"), ROW, output="%h"
    ),
}  # fmt: skip

FLOAT = {
    "input not quantized": (body(LINEAR, ROW, output="%h").replace("linear %x.q", "linear %x"), "not quantized", None),
    "weight not quantized": (body(LINEAR.replace("i8<per 0>", "f32"), ROW, CODES, OUT), "%w is not quantized", None),
    "16-bit input": (body(LINEAR.replace("u8<0.02, 113>", "u16<0.001>"), ROW, output="%h"), "16 bits", None),
    "16-bit weight": (body(LINEAR.replace("i8<per 0>", "i16<per 0>"), ROW, output="%h"), "16 bits", None),
    "16-bit result": (body(LINEAR, ROW, "%h.q: u16<0.02>SHAPE = quantize %h", OUT), "more than 8 bits", None),
    "conv last": (body(CONV, IMAGE, output="%h"), "is not quantized", ("quantize-result", "h")),
    "conv leaky_relu": (
        body(CONV, IMAGE, "%r: f32SHAPE = leaky_relu %h", "%h.q: u8<0.02>SHAPE = quantize %r", OUT),
        "is not quantized", ("quantize-result", "h"),
    ),
    "conv read twice": (
        body(CONV, IMAGE, CODES, "%y: f32SHAPE = add %h.q, %h"), "not for all", ("quantize-result", "h"),
    ),
    "linear read twice": (body(LINEAR, ROW, CODES, "%y: f32SHAPE = add %h.q, %h"), "both", ("quantize-result", "h")),
    "linear with a float bias": (
        body(LINEAR.replace("i32<per 0>", "f32"), ROW, output="%h"), "%b is f32", ("bias-in-step", "b"),
    ),
    "linear with a bias of 4 bits": (
        body(LINEAR.replace("i32<per 0>", "i4<per 0>"), ROW, CODES, OUT), "%b is i4", ("bias-in-step", "b"),
    ),
    "conv with a bias of 8 bits": (
        body(CONV.replace("i32<per 0>", "i8<0.1>"), IMAGE, CODES, OUT), "%b is i8", ("bias-in-step", "b"),
    ),
    "linear relu float": (body(LINEAR, ROW, RELU, "%y: f32SHAPE = tanh %r"), "merges", ("quantize-result", "r")),
}  # fmt: skip


@pytest.mark.parametrize("name", INTEGER)
def test_these_run_on_integer_kernels(name: str) -> None:
    plan, integer = planned(INTEGER[name])
    assert [entry.integer for entry in plan.layers] == [True]
    assert integer == {"h": True}
    assert plan.needs == ()


@pytest.mark.parametrize("name", FLOAT)
def test_these_stay_float_and_say_why(name: str) -> None:
    text, why, need = FLOAT[name]
    plan, integer = planned(text)
    (entry,) = plan.layers
    assert not entry.integer
    assert why in entry.reason
    assert integer == {"h": False}
    found = {(n.mend, n.value) for n in plan.needs}
    assert (need in found) if need else not found


def test_a_float_bias_is_named_even_where_the_runtime_rounds_it_itself() -> None:
    plan, integer = planned(body(CONV.replace("i32<per 0>", "f32"), IMAGE, CODES, OUT))
    assert integer == {"h": True}
    assert [(n.mend, n.op, n.value) for n in plan.needs] == [("bias-in-step", "h", "b")]


def test_residual_additions_say_which_operand_and_result_they_lack() -> None:
    sum = ("%s: f32SHAPE = add %h.q, %x", "%s.q: u8<0.03, 100>SHAPE = quantize %s")
    plan, _ = planned(body(CONV, IMAGE, CODES, *sum, "%y: f32SHAPE = sub %s.q, %s"))
    assert {(n.mend, n.op, n.value) for n in plan.needs} == {
        ("quantize-operand", "s", "x"),
        ("quantize-result", "s", "s"),
    }
    assert planned(body(CONV, IMAGE, CODES, sum[0], output="%s"))[0].needs == ()
    whole = body(
        CONV, IMAGE, CODES, "%s: f32SHAPE = add %h.q, %x.q", "%r: f32SHAPE = relu %s",
        "%r.q: u8<0.03>SHAPE = quantize %r", "%y: f32SHAPE = cast %r.q",
    )  # fmt: skip
    graph = graph_of(whole)
    session = CPU.load(CPU.emit(graph, random_weights(graph)), placed=True)
    assert CPU.plan(graph).needs == ()
    kernels = session.placement().kernels
    assert kernels["QLinearConv"] == kernels["QLinearAdd"] == 1
    assert not {"Conv", "Add", "Relu"} & set(kernels)


BLOCKS = """
graph @blocks(%image: f32[N, 3, 12, 12]) {
  %x.q: u8<0.03, 128>[N, 3, 12, 12] = quantize %image
  %a.w: i8<per 0>[8, 3, 3, 3] = weight
  %a.b: i32<per 0>[8] = weight
  %a: f32[N, 8, 12, 12] = conv2d %x.q, %a.w, %a.b {padding=[1, 1]}
  %ra: f32[N, 8, 12, 12] = relu %a
  %ra.q: u8<0.02>[N, 8, 12, 12] = quantize %ra
  %b.w: i8<per 0>[8, 8, 3, 3] = weight
  %b: f32[N, 8, 12, 12] = conv2d %ra.q, %b.w {padding=[1, 1]}
  %rb: f32[N, 8, 12, 12] = relu6 %b
  %rb.q: u8<0.02>[N, 8, 12, 12] = quantize %rb
  %c.w: i8<per 0>[8, 8, 3, 3] = weight
  %c: f32[N, 8, 12, 12] = conv2d %rb.q, %c.w {padding=[1, 1]}
  %s: f32[N, 8, 12, 12] = add %ra, %c
  %rs: f32[N, 8, 12, 12] = relu %s
  %p: f32[N, 8, 6, 6] = max_pool2d %rs {kernel_size=[2, 2], stride=[2, 2]}
  %p.q: u8<0.02>[N, 8, 6, 6] = quantize %p
  %d.w: i8<per 0>[4, 8, 1, 1] = weight
  %d: f32[N, 4, 6, 6] = conv2d %p.q, %d.w
  %e: f32[N, 4, 6, 6] = leaky_relu %d
  %j: f32[N, 12, 6, 6] = cat %e, %p.q {dim=1}
  %g: f32[N, 12, 1, 1] = adaptive_avg_pool2d %j {output_size=[1, 1]}
  %f: f32[N, 12] = reshape %g {shape=[N, 12]}
  %f.q: u8<0.01>[N, 12] = quantize %f
  %y.w: i8<per 0>[10, 12] = weight
  %y: f32[N, 10] = linear %f.q, %y.w
  return %y
}"""


def mended(graph: Graph, need: Need) -> Graph:
    """A graph in which one need for a quantize is met, with a step that suits numbers around 0."""
    base = graph.types[need.value]
    result = need.mend == "quantize-result"
    new = Op("quantize", (f"{need.value}.n{len(graph.ops)}",), (replace(base, format=U8, step=STEP),), (need.value,))
    drop = {r.name for r in graph.readers[need.value] if r.kind == "quantize"} if result else set()
    names = {**dict.fromkeys(drop, new.name), need.value: new.name}
    ops: list[Op] = []
    for op in graph.ops:
        if op.name in drop:
            continue
        reads = op.name == need.op if not result else True
        ops.append(reading(op, names) if reads else op)
        if op.name == need.value:
            ops.append(new)
    return rebuilt(graph, ops)


def test_meeting_all_needs_puts_a_whole_network_on_integer_kernels() -> None:
    graph = graph_of(BLOCKS)
    before = {entry.layer for entry in CPU.plan(graph).layers if not entry.integer}
    assert before == {"a", "c", "d"}
    for _ in range(20):
        if not (needs := CPU.plan(graph).needs):
            break
        graph = mended(graph, needs[0])
    verify(graph)
    assert CPU.plan(graph).needs == ()
    session = CPU.load(CPU.emit(graph, random_weights(graph)), placed=True)
    placement = check_placement(CPU.plan(graph), session.placement())
    assert [entry.integer for entry in CPU.plan(graph).layers] == [True] * 5
    assert placement.as_planned
    kernels = placement.kernels
    assert kernels["QLinearConv"] == 4
    assert kernels["QLinearAdd"] == kernels["QLinearLeakyRelu"] == kernels["QLinearConcat"] == kernels["QGemm"] == 1
    assert not {"Conv", "Add", "Relu", "Concat", "GlobalAveragePool", "FusedConv"} & set(kernels)


def test_a_layer_that_falls_back_is_named() -> None:
    """The check itself can fail: the plan of one graph held against the placement of another."""
    good, bad = graph_of(INTEGER["linear"]), graph_of(FLOAT["linear relu float"][0])
    placement = CPU.load(CPU.emit(bad, random_weights(bad)), placed=True).placement()
    checked = check_placement(CPU.plan(good), placement)
    assert not checked.as_planned
    assert "Gemm" in checked.float_layers["h"]
    missing = check_placement(CPU.plan(graph_of(INTEGER["conv"].replace("%h", "%other"))), placement)
    assert missing.float_layers == {"other": "no node of its name"}


@pytest.mark.parametrize("block", range(4))
def test_random_graphs_run_as_planned_and_give_the_same_numbers(block: int) -> None:
    """No layer is promised an integer kernel and denied it, and outputs differ by single codes in few places."""
    promised = kept = unpromised = 0
    for seed in range(25 * block, 25 * block + 25):
        graph = graph_of(random_graph(seed))
        weights = random_weights(graph, seed)
        session = CPU.load(CPU.emit(graph, weights), placed=True)
        plan = CPU.plan(graph)
        placement = check_placement(plan, session.placement())
        assert placement.as_planned, (seed, placement.float_layers)
        integer = {node.layer for node in placement.nodes if node.kind in INTEGER_KERNELS}
        promised += len(plan.integer)
        kept += len(integer.intersection(plan.integer))
        unpromised += len(integer.difference(plan.integer))
        x = np.random.default_rng(seed).normal(0, 1.5, lengths(graph, "x", 8)).astype(np.float32)
        for expected, found in zip(reference.run(graph, weights, x), session.run([x]), strict=True):
            assert expected.shape == found.shape
            assert sqnr_db(expected, found.astype(np.float64)) > 25, seed
    assert kept == promised > 10
    assert unpromised <= 1
