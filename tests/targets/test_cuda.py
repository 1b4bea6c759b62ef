"""The CUDA target on a real GPU: what networks give there, in which formats, and what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nasc
import numpy as np
import pytest
import torch
from nasc.compiler.network import Network
from nasc.ir.layers import layers
from nasc.targets import Artifact, check_placement
from nasc.targets.latency import LatencyMeter
from nasc.targets.measure import Conditions, measure_model
from nasc.targets.onnxruntime.target import CUDA
from nasc.targets.statistics import Verdict

from .test_number_formats import CNN, MLP, WEIGHTS, quantized

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

TF32 = 2e-3
"""Products of 10 bits of mantissa, which CUDA's f32 layers use unless told otherwise."""
F8_SUMS = 5e-2
"""Sums of f8 products keep some 13 bits; a few activations behind them move to the next of f8's few numbers."""


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if reason := CUDA.unavailable():
        pytest.skip(f"no GPU: {reason}")


@pytest.fixture(scope="module")
def resnet() -> Network:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = nasc.lower(torchvision.models.resnet18().eval(), torch.randn(2, 3, 64, 64))
    return network.apply("fold-batch-norm")


def difference(network: Network, like: Network, x: torch.Tensor) -> float:
    """The largest difference from a network in torch, over its largest output."""
    expected = like(x).numpy()
    (found,) = CUDA.load(CUDA.emit(network.graph, network.weights)).run([x.numpy()])
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("pipeline", "most"), [("", TF32), ("convert{to=f16}", 1e-2), ("convert{to=bf16}", 5e-2)])
def test_a_network_gives_what_torch_gives(resnet: Network, pipeline: str, most: float) -> None:
    network = resnet.apply(pipeline) if pipeline else resnet
    assert 0 < difference(network, resnet, torch.randn(4, 3, 64, 64)) < most


@pytest.mark.parametrize("pipeline", ["", "convert{to=f16}"])
def test_every_layer_runs_on_the_gpu(resnet: Network, pipeline: str) -> None:
    network = resnet.apply(pipeline) if pipeline else resnet
    nodes = CUDA.load(CUDA.emit(network.graph, network.weights), placed=True).placement().nodes
    assert {n.provider for n in nodes if "Conv" in n.kind or "Gemm" in n.kind} == {"CUDAExecutionProvider"}


@pytest.mark.parametrize("format", WEIGHTS)
def test_weights_of_every_format(format: str) -> None:
    for lines, inputs, shape in ((MLP, "%x: f32[N, 64]", (8, 64)), (CNN, "%x: f32[N, 16, 8, 8]", (8, 16, 8, 8))):
        network = quantized(lines, inputs, f"quantize{{weights={format}}}")
        assert difference(network, network, torch.randn(shape)) < TF32


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_alone_in_few_bits(bits: int) -> None:
    lines = "  %w: f32[512, 512] = weight\n  %y: f32[N, 512] = linear %x, %w"
    network = quantized(lines, "%x: f32[N, 512]", f"quantize{{weights=i{bits}}}")
    artifact = CUDA.emit(network.graph, network.weights)
    nodes = CUDA.load(artifact, placed=True).placement().nodes
    assert [(n.kind, n.provider) for n in nodes] == [("MatMulNBits", "CUDAExecutionProvider")]
    assert difference(network, network, torch.randn(16, 512)) < TF32


@pytest.mark.parametrize("formats", ["f8e4m3 f8e4m3", "f8e4m3 f8e5m2", "f8e5m2 f8e4m3", "f8e4m3<2^-6> f8e4m3<2^-5>"])
def test_products_of_8_bit_floats(formats: str) -> None:
    """Where the device has units for them, they run there, whatever the batch, and give what torch simulates."""
    weights, activations = formats.split()
    if why := CUDA.float8_unused(len({f[:6] for f in formats.split()}) > 1):
        pytest.skip(why)
    for rows in ("", "5, "):
        lines = f"""
            %w: f32[256, 512] = weight
            %b: f32[256] = weight
            %a: f32[N, {rows}256] = linear %x, %w, %b
            %r: f32[N, {rows}256] = relu %a
            %v: f32[16, 256] = weight
            %y: f32[N, {rows}16] = linear %r, %v
            """
        passes = f"quantize{{weights={weights}, activations={activations}}}"
        network = quantized(lines, f"%x: f32[N, {rows}512]", passes)
        session = CUDA.load(CUDA.emit(network.graph, network.weights), placed=True)
        plan = CUDA.plan(network.graph)
        placement = check_placement(plan, session.placement())
        assert plan.f8 == ("a", "y") and placement.as_planned, placement
        assert {n.provider for n in placement.nodes} == {"CUDAExecutionProvider"}
        for batch in (1, 3, 64):
            x = torch.randn(batch, *map(int, rows.split(",")[:-1]), 512)
            expected = network(x).numpy()
            (found,) = session.run([x.numpy()])
            off = np.abs(found - expected).max() / np.abs(expected).max()
            assert off < F8_SUMS, (formats, rows, batch)


def test_integers_are_planned_and_run_in_float(resnet: Network) -> None:
    data = torch.randn(8, 3, 64, 64)
    network = resnet.apply("quantize{weights=i8, activations=u8} | calibrate | legalize", data=data)
    assert {layer.integer for layer in CUDA.plan(network.graph).layers} == {False}
    weight = network.graph.types[next(iter(layers(network.graph))).inputs[1]].encoding
    assert CUDA.supports(weight, "weight").runs == "float"
    codes = difference(network, network, data)
    assert codes < 0.1, "TF32 moves a few activations to the next code"


def saved(network: Network, path: Path) -> Path:
    CUDA.emit(network.graph, network.weights).save(path)
    return path


def test_verdicts(resnet: Network) -> None:
    """Two sessions of one network are not FASTER or SLOWER; one that has more to do is."""
    artifact = CUDA.emit(resnet.graph, resnet.weights)
    x = np.random.default_rng(0).standard_normal((32, 3, 64, 64), np.float32)
    runs = [CUDA.load(artifact).bind([x[:n]]) for n in (16, 16, 32)]
    meter = LatencyMeter(clock="wall", budget_s=5)
    assert meter.measure(runs[0], runs[1]).verdict in (Verdict.SAME, Verdict.AMBIGUOUS)
    assert meter.measure(runs[2], runs[0]).verdict == Verdict.SLOWER


def test_measuring_in_a_process_of_its_own(resnet: Network, tmp_path: Path) -> None:
    model = saved(resnet, tmp_path / "resnet.onnx")
    small, large = (
        measure_model(CUDA, model, conditions=Conditions(("latency", "energy"), batch=batch, budget_s=8))
        for batch in (64, 128)
    )
    for found in (small, large):
        assert found.latency is not None and found.latency.clock == "wall" and found.latency.overhead_bound is False
        assert found.energy is not None and found.energy.grade == "counter"
        assert found.provenance["device"]["gpu"]["uuid"].startswith("GPU-")
    print(json.dumps([m.as_dict()["energy"] for m in (small, large)]))
    assert small.energy.energy_j is not None and large.energy.energy_j is not None
    assert 1.4 < large.energy.energy_j / small.energy.energy_j < 2.4


def test_a_profile_names_the_users_lines(resnet: Network) -> None:
    artifact = CUDA.emit(resnet.graph, resnet.weights)
    traced = CUDA.trace(artifact, batch=8, budget_s=1)
    on_gpu = [n for n in traced.nodes if n.provider == "CUDAExecutionProvider"]
    assert sum(n.macs for n in on_gpu) >= 0.99 * 8 * CUDA.cost(resnet.graph).macs


def command(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "nasc", *words], capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_commands(resnet: Network, tmp_path: Path) -> None:
    half = resnet.apply("convert{to=f16}")
    model, other = saved(half, tmp_path / "half.onnx"), saved(resnet, tmp_path / "whole.onnx")
    found = command(
        "measure", str(model), "--baseline", str(other), "--metric", "latency,energy", "--batch", "64",
        "--target", "onnxruntime:cuda", "--budget", "6", "--json",
    )  # fmt: skip
    print(json.dumps({k: found[k] for k in ("latency", "energy", "baseline_energy")})[:4000])
    assert found["latency"]["verdict"] in ("FASTER", "SAME", "SLOWER", "AMBIGUOUS")
    assert found["energy"]["energy_j"] > 0 and found["baseline_energy"]["energy_j"] > 0


def test_a_search_with_energy_as_an_objective(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "jets.py"
    found = command(
        "compile", "--search", "tpe", "--trials", "4", "--target", "onnxruntime:cuda", "--objective", "accuracy",
        "--objective", "energy", "--batch", "256", "--output", str(tmp_path / "out"), "--json", str(example),
    )  # fmt: skip
    print(json.dumps(found)[:3000])
    assert "energy" in json.dumps(found)


def test_artifacts_beside_their_tensors(resnet: Network) -> None:
    artifact = CUDA.emit(resnet.graph, resnet.weights, location="resnet.onnx.data")
    assert isinstance(artifact, Artifact) and artifact.tensors
    x = torch.randn(2, 3, 64, 64)
    (found,) = CUDA.load(artifact).run([x.numpy()])
    assert np.abs(found - resnet(x).numpy()).max() < TF32 * np.abs(found).max()
