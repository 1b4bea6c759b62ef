"""3 x 3 convolutions by fewer multiplications are what torch's are, but for the last bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nasc.compiler import winograd
from nasc.compiler.execution import run
from nasc.compiler.winograd import convolved, quick_kernels, transformed
from nasc.ir import parse
from support.networks import network_of

NEAR = 5e-5
"""Of the largest result."""


@given(
    samples=st.integers(1, 3),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    height=st.integers(3, 13),
    width=st.integers(3, 13),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    biased=st.booleans(),
    channels_last=st.booleans(),
)
def test_results_are_those_of_a_convolution(
    samples: int,
    inputs: int,
    outputs: int,
    height: int,
    width: int,
    padding: tuple[int, int],
    biased: bool,
    channels_last: bool,
) -> None:
    random = torch.Generator().manual_seed(height * 100 + width)
    x = torch.randn(samples, inputs, height, width, generator=random)
    weight = torch.randn(outputs, inputs, 3, 3, generator=random)
    bias = torch.randn(outputs, generator=random) if biased else None
    given_x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    expected = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=padding)
    found = convolved(given_x, transformed(weight), padding, bias)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= NEAR * expected.abs().max().clamp(min=1)


TWO = """nasc 1
graph @two(%x: f32[N, 128, 6, 9]) {
  %a.w: f32[128, 128, 3, 3] = weight
  %a: f32[N, 128, 6, 9] = conv2d %x, %a.w {padding=[1, 1]}
  %b.w: f32[128, 128, 3, 3] = weight
  %b: f32[N, 128, 2, 4] = conv2d %a, %b.w {stride=[2, 2]}
  return %a, %b
}"""


def test_only_layers_that_gain_are_run_so(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = parse(TWO)
    random = torch.Generator().manual_seed(0)
    stored = {name: torch.randn(128, 128, 3, 3, generator=random) for name in ("a.w", "b.w")}
    x = torch.randn(2, 128, 6, 9, generator=random)
    done: list[int] = []

    def noted(x: torch.Tensor, *others: object) -> torch.Tensor:
        done.append(x.shape[1])
        return convolved(x, *others)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(winograd, "convolved", noted)
    expected, found = run(graph, stored, (x,)), run(graph, stored, (x,), table=quick_kernels(graph, stored))
    assert done == [128]
    for one, other in zip(expected, found, strict=True):
        assert (one - other).abs().max() <= NEAR * one.abs().max()
    done.clear()
    doubles = {name: value.double() for name, value in stored.items()}
    run(graph, doubles, (x.double(),), table=quick_kernels(graph, doubles))
    assert done == []
    monkeypatch.setattr(winograd, "MOST_BYTES", 16 * stored["a.w"].numel() - 1)
    run(graph, stored, (x,), table=quick_kernels(graph, stored))
    assert done == []


def test_steps_are_found_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randn(8, 128, 6, 9, generator=torch.Generator().manual_seed(1))
    steps: list[dict[str, float]] = []
    for least in (winograd.LEAST_CHANNELS, 1 << 20):
        monkeypatch.setattr(winograd, "LEAST_CHANNELS", least)
        network = network_of(parse(TWO)).apply("quantize{activations=u8} | calibrate{method=minmax}", data=data)
        known = {op.name: op.type.step for op in network.graph.ops if op.kind == "quantize"}
        steps.append({name: step.value for name, step in known.items() if step is not None and step.value is not None})
    assert steps[0].keys() == steps[1].keys() and len(steps[0]) == 2
    for name, value in steps[0].items():
        assert value == pytest.approx(steps[1][name], rel=1e-4)
