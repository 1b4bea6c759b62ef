"""What lies beside a model: large tensors, by themselves and past the 2 GiB of one file."""

from __future__ import annotations

from pathlib import Path

import nasc
import numpy as np
import onnx
import pytest
import torch
from nasc.search import artifacts
from nasc.targets import TargetError, target_named
from support.graphs import graph_of
from support.networks import network_of

CPU = target_named("onnxruntime:cpu")
LAYER = "%w: f32[64, 64] = weight\n%b: f32[64] = weight\n%y: f32[N, 64] = linear %x, %w, %b"


def test_large_tensors_lie_beside_the_model_and_small_ones_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network_of(graph_of(LAYER, "%x: f32[N, 64]"))
    assert artifacts.tensor_bytes(net) == 4 * (64 * 64 + 64)
    nasc.export(net, tmp_path / "small.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]
    monkeypatch.setattr(artifacts, "LARGE_BYTES", 4 * (64 * 64 + 64))
    artifact = nasc.export(net, tmp_path / "large.onnx")
    assert artifact.location == "large.onnx.data"
    assert (tmp_path / "large.onnx.data").stat().st_size == 64 * 64 * 4
    onnx.checker.check_model(tmp_path / "large.onnx", full_check=True)
    x = torch.randn(3, 64)
    for name in ("small", "large"):
        found = CPU.load(tmp_path / f"{name}.onnx").run([x.numpy()])[0]
        np.testing.assert_allclose(found, net(x).numpy(), rtol=1e-4, atol=1e-5)
    from nasc.search.output import file_digest

    files = [tmp_path / "large.onnx", tmp_path / "large.onnx.data"]
    assert artifact.digests("large.onnx") == {p.name: file_digest(p) for p in files}
    assert file_digest(*files) == artifact.digest
    assert artifact.size_bytes == sum(p.stat().st_size for p in files)


def test_tensors_that_nothing_refers_to_any_more_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, big = (network_of(graph_of(LAYER.replace("64", n), f"%x: f32[N, {n}]")) for n in ("8", "64"))
    monkeypatch.setattr(artifacts, "LARGE_BYTES", 4 * (64 * 64 + 64))
    path, beside = tmp_path / "net.onnx", tmp_path / "net.onnx.data"
    nasc.export(big, path)
    assert beside.exists()
    nasc.export(big, path)
    assert beside.exists()
    nasc.export(small, path)
    assert not beside.exists()
    beside.write_bytes(b"of somebody else")
    nasc.export(small, path)
    assert beside.read_bytes() == b"of somebody else", "the model before had nothing beside it"
    beside.unlink()
    nasc.export(big, path)
    beside.write_bytes(b"another file by now")
    nasc.export(small, path)
    assert beside.read_bytes() == b"another file by now", "it is not what nasc wrote"


def test_a_format_without_a_kernel_is_an_error_that_says_what_to_do() -> None:
    net = network_of(graph_of("%w: f64[4, 3, 1] = weight\n%y: f64[N, 4, 5] = conv1d %x, %w", "%x: f64[N, 3, 5]"))
    with pytest.raises(TargetError, match="implementation for Conv.*'y'") as caught:
        CPU.load(CPU.emit(net.graph, net.weights))
    assert "convert them to f32" in str(caught.value)
