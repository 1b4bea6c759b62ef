"""Clamps done on codes give the codes of clamped numbers, whatever the bounds, the step, the zero and the format."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.targets import target_named
from nasc.targets.onnx.clamps import code_bounds, folded

from . import reference
from .conftest import Dictionary, graph_of

CPU = target_named("onnxruntime:cpu")
NUMBERS = st.floats(-8, 8, allow_nan=False, allow_subnormal=False, width=32)


@st.composite
def clamps(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["relu", "relu6", "hardtanh", "clamp"]))
    if kind in ("relu", "relu6"):
        return f"{kind} %SOURCE"
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    if kind == "hardtanh":
        return f"hardtanh %SOURCE {{min_val={low!r}, max_val={high!r}}}"
    bounds = draw(st.sampled_from([[f"min={low!r}"], [f"max={high!r}"], [f"min={low!r}", f"max={high!r}"]]))
    return f"clamp %SOURCE {{{', '.join(bounds)}}}"


@st.composite
def chains(draw: st.DrawFn) -> str:
    """One to three clamps, a pool among them now and then, and a quantize of 2 to 8 bits."""
    bits, signed = draw(st.integers(2, 8)), draw(st.booleans())
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    step, zero = draw(st.floats(0.015625, 3, width=32)), draw(st.integers(low, high))
    lines, shape, source = [], "N, 1, 8, 8", "x"
    for i, line in enumerate(draw(st.lists(clamps(), min_size=1, max_size=3))):
        lines.append(f"%c{i}: f32[{shape}] = {line.replace('SOURCE', source)}")
        source = f"c{i}"
        if draw(st.booleans()) and shape != "N, 1, 4, 4":
            shape = "N, 1, 4, 4"
            lines.append(f"%p: f32[{shape}] = max_pool2d %{source} {{kernel_size=[2, 2], stride=[2, 2]}}")
            source = "p"
    encoding = f"{'i' if signed else 'u'}{bits}<{step!r}{f', {zero}' if zero else ''}>"
    lines += [f"%q: {encoding}[{shape}] = quantize %{source}", f"%y: f32[{shape}] = cast %q"]
    body = "\n  ".join(lines)
    return f"graph @t(%x: f32[N, 1, 8, 8]) {{\n  {body}\n  return %y\n}}"


@settings(max_examples=60, deadline=None)
@given(chains(), st.integers(0, 2**16))
def test_codes_equal_those_of_the_clamped_numbers(text: str, seed: int) -> None:
    graph = graph_of(text)
    x = np.random.default_rng(seed).uniform(-10, 10, (2, 1, 8, 8)).astype(np.float32)
    session = CPU.load(CPU.emit(graph, Dictionary({})), placed=True)
    assert not {"Relu", "LeakyRelu"} & set(session.placement().kernels)
    np.testing.assert_allclose(session.run([x])[0], reference.run(graph, Dictionary({}), x)[0], rtol=1e-6)


def test_bounds_are_composed_from_the_inside_out() -> None:
    graph = graph_of("""graph @t(%x: f32[N, 4]) {
      %a: f32[N, 4] = clamp %x {min=-2.0, max=1.0}
      %b: f32[N, 4] = relu %a
      %q: u8<0.5, 2>[N, 4] = quantize %b
      %y: f32[N, 4] = cast %q
      return %y
    }""")
    names = folded(graph)
    assert names == {"a", "b"}
    assert code_bounds(graph, graph.producers["q"], names) == (2, 4)


def test_clamps_that_others_read_stay() -> None:
    head = "graph @t(%x: f32[N, 4]) {\n  %a: f32[N, 4] = relu %x\n  %q: u8<0.5>[N, 4] = quantize %a\n"
    for tail in ("  %y: f32[N, 4] = add %q, %a\n  return %y\n}", "  return %q, %a\n}"):
        assert folded(graph_of(head + tail)) == frozenset()
    assert folded(graph_of(head.replace("u8<0.5>", "u16<0.5>") + "  return %q\n}")) == frozenset()
    crossed = head.replace("relu %x", "clamp %x {min=2.0, max=1.0}")
    assert folded(graph_of(crossed + "  return %q\n}")) == frozenset()


def test_unbounded_sides_leave_the_formats_own_range() -> None:
    graph = graph_of("""graph @t(%x: f32[N, 4]) {
      %a: f32[N, 4] = relu %x
      %q: i4<0.5>[N, 4] = quantize %a
      %y: f32[N, 4] = cast %q
      return %y
    }""")
    assert code_bounds(graph, graph.producers["q"], folded(graph)) == (0, 7)
