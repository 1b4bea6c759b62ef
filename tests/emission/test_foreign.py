"""Ops that the IR has no rule for: they run, and they export through PyTorch's own ONNX functions."""

from __future__ import annotations

from pathlib import Path

import nasc
import numpy as np
import onnx
import pytest
import torch
from nasc.compiler.foreign import ForeignError, onnx_of
from nasc.ir import NascError
from nasc.targets import target_named
from nasc.targets.onnx import EmissionError, emit
from support.graphs import graph_of
from support.networks import network_of
from torch import nn

CPU = target_named("onnxruntime:cpu")


class Odd(nn.Module):
    """Layers around ops that the IR does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.asinh(self.fc1(x))
        return self.fc2(torch.sinh(hidden))


class Spectrum(nn.Module):
    """An op that PyTorch itself cannot write as ONNX."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def test_a_network_with_unknown_ops_runs_exports_and_agrees_for_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Odd().eval()
    net = nasc.lower(model, torch.randn(3, 6))
    kinds = [op.kind for op in net.graph.ops if op.kind.startswith("aten.")]
    assert len(kinds) >= 2
    artifact = nasc.export(net, tmp_path / "odd.onnx")
    onnx.checker.check_model(artifact.model, full_check=True)
    named = {n.name.split("/")[0] for n in onnx.load_from_string(artifact.model).graph.node}
    assert named <= {op.name for op in net.graph.ops}
    session = CPU.load(tmp_path / "odd.onnx")
    for batch in (1, 5):
        x = torch.randn(batch, 6)
        np.testing.assert_allclose(session.run([x.numpy()])[0], model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


CASES = {
    "several results": (
        '%a, %b: f32[N, 3], f32[N, 3] = aten.split.Tensor %x {args=["%0", 3, 1]}\n'
        "%c: f32[N, 3] = add %a, %b\nreturn %c",
        lambda x: x[:, :3] + x[:, 3:],
    ),
    "the batch in an argument": (
        '%a: f32[N*2, 3] = aten.view.default %x {args=["%0", [N*2, 3]]}\nreturn %a',
        lambda x: x.view(-1, 3),
    ),
    "keyword arguments": (
        '%a: f64[N, 6] = aten._to_copy.default %x {args=["%0"], kwargs=[["dtype", "torch.float64"]]}\nreturn %a',
        lambda x: x.double(),
    ),
    "the same op twice": (
        '%a: f32[N, 6] = aten.sinh.default %x {args=["%0"]}\n'
        '%b: f32[N, 6] = aten.sinh.default %a {args=["%0"]}\nreturn %b',
        lambda x: x.sinh().sinh(),
    ),
    "a constant inside": (
        '%a: f32[N, 6] = aten.logit.default %x {args=["%0", 0.1]}\nreturn %a',
        lambda x: x.logit(0.1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_op_agrees(name: str) -> None:
    lines, expected = CASES[name]
    graph = graph_of(lines, "%x: f32[N, 6]")
    network = network_of(graph)
    artifact = CPU.emit(graph, network.weights, foreign=onnx_of)
    onnx.checker.check_model(artifact.model, full_check=True)
    for batch in (1, 4):
        x = torch.rand(batch, 6, generator=torch.Generator().manual_seed(batch))
        np.testing.assert_allclose(CPU.load(artifact).run([x.numpy()])[0], expected(x).numpy(), rtol=1e-5, atol=1e-6)


def test_without_them_the_op_is_an_error_at_the_users_line() -> None:
    graph = graph_of('%a: f32[N, 6] = aten.sinh.default %x {args=["%0"]} at "net.py":7\nreturn %a', "%x: f32[N, 6]")
    with pytest.raises(EmissionError, match=r"^net.py:7: error: aten.sinh.default %a: there is no way to write"):
        emit(graph, network_of(graph).weights)


def test_an_op_that_pytorch_cannot_write_is_an_error_that_names_it() -> None:
    net = nasc.lower(Spectrum(), torch.rand(3, 4))
    assert any("bessel" in op.kind for op in net.graph.ops)
    with pytest.raises(NascError, match="special_bessel_j0") as caught:
        CPU.emit(net.graph, net.weights, foreign=onnx_of)
    assert isinstance(caught.value, ForeignError)
    assert caught.value.mend
