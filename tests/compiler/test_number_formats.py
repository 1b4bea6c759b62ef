"""Networks in every number format: calibrated, stored, trained, resized."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nasc.compiler.elements import in_blocks
from nasc.compiler.network import Network
from nasc.compiler.weights import Rounded, Source
from nasc.ir import NascError, Step, parse_encoding
from support.networks import free, inputs_of, network_of

LINES = """
  %fc1.w: f32[24, 48] = weight
  %fc1.b: f32[24] = weight
  %fc1: f32[N, 24] = linear %x, %fc1.w, %fc1.b
  %relu: f32[N, 24] = relu %fc1
  %fc2.w: f32[6, 24] = weight
  %fc2: f32[N, 6] = linear %relu, %fc2.w
"""
FORMATS = ["i4", "i12", "i8<2^?>", "i4<block 8>", "i6<block 8 2^>", "mxint8", "mxfp4", "mxfp8e5m2", "f8e4m3",
           "f8e5m2<2^?>", "f4e2m1", "f5e3m1<block 8>", "f10e4m5", "l4", "l5<block 8 2^>", "ternary",
           "ternary<block 8>", "binary", "binary<2^?>"]  # fmt: skip


def network() -> Network:
    return network_of(free(LINES, inputs="%x: f32[N, 48]"))


def data(count: int = 64, seed: int = 0) -> torch.Tensor:
    return inputs_of(network().graph, count, seed=seed)[0]


def quantized(format: str, method: str = "mse") -> Network:
    passes = f"quantize{{weights={format}, activations={format}}} | calibrate{{method={method}}}"
    return network().apply(passes, data=data())


def noise(found: Network) -> float:
    """Error of the outputs relative to the numbers themselves, both squared."""
    x = data(seed=1)
    expected = network()(x)
    return float((found(x) - expected).square().sum() / expected.square().sum())


@pytest.mark.parametrize("format", FORMATS)
def test_networks_are_saved_and_read(format: str, tmp_path: Path) -> None:
    before = quantized(format)
    before.save(tmp_path / "net.nasc")
    after = Network.load(tmp_path / "net.nasc")
    assert after.graph == before.graph
    assert torch.equal(after(data()), before(data()))
    for op in before.graph.stored:
        assert torch.equal(
            after.weights.recipe(op.name).tensor.double(), before.weights.recipe(op.name).tensor.double()
        )


@pytest.mark.parametrize("format", FORMATS)
def test_training_computes_what_the_network_does(format: str) -> None:
    net = quantized(format)
    module = net.module()
    x = data(32, seed=2)
    y = module(x)
    assert torch.equal(y.detach(), net(x))
    y.square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.05 * parameter.grad  # type: ignore[operator]
    trained = net.with_trained(module)
    torch.testing.assert_close(trained(x), module(x).detach(), rtol=1e-5, atol=1e-5)
    assert not torch.equal(trained(x), net(x))
    assert trained.graph.types["fc1.w"].format == net.graph.types["fc1.w"].format


@pytest.mark.parametrize(
    ("format", "most"),
    [("i8", 1.5e-3), ("mxint8", 5e-4), ("mxfp8e4m3", 9e-3), ("f8e4m3", 7e-3), ("mxfp6e2m3", 7e-3),
     ("mxfp8e5m2", 2.6e-2), ("mxfp6e3m2", 2.6e-2), ("i4<block 8>", 5e-2), ("mxfp4", 0.13), ("l4", 0.4)],
)  # fmt: skip
def test_how_far_outputs_stray(format: str, most: float) -> None:
    """Twice what was seen is the bound; without any rounding it would be nothing."""
    assert most / 10 < noise(quantized(format)) < most


@pytest.mark.parametrize("format", ["i4", "i4<block 8>", "f4e2m1", "f5e2m2", "l4"])
def test_steps_for_the_squared_error_have_a_smaller_one(format: str) -> None:
    def error(method: str) -> float:
        net = quantized(format, method)
        return float((net.values["fc1.w"] - network().values["fc1.w"]).square().sum())

    assert error("mse") < error("minmax")


def test_steps_of_blocks_cover_their_largest_weight() -> None:
    net = quantized("i4<block 8>", "minmax")
    recipe = net.weights.recipe("fc1.w")
    assert isinstance(recipe, Rounded)
    peaks = in_blocks(recipe.source.tensor.abs(), 1, 8).amax(-1)
    torch.testing.assert_close(recipe.steps, (peaks / 7).float())


def test_smaller_blocks_have_smaller_errors() -> None:
    found = [noise(quantized(f"i4<block {length}>", "minmax")) for length in (4, 8, 24)]
    assert found == sorted(found)


@pytest.mark.parametrize("format", ["mxfp4", "i4<block 8>", "f8e4m3"])
def test_narrowing_rounds_anew(format: str) -> None:
    """Blocks that hold their exponents are there at once; other steps are asked for again."""
    direct = network().apply(f"resize{{fc1=16}} | quantize{{weights={format}}} | calibrate", data=data())
    later = network().apply(f"quantize{{weights={format}}} | calibrate | resize{{fc1=16}} | calibrate", data=data())
    assert later.graph == direct.graph
    assert torch.equal(later(data()), direct(data()))
    resized = network().apply("quantize{weights=mxfp4} | resize{fc1=16}")
    assert resized(data()).shape == (64, 6)


def test_half_precision_weights_saturate() -> None:
    net = network()
    big = net.weights.with_recipes({"fc2.w": Source(torch.full((6, 24), 1e6))})
    stored = Network(net.graph, big).apply("quantize{layers=fc2, weights=f16}")
    assert stored.graph.types["fc2.w"].step is None
    assert set(stored.weights.recipe("fc2.w").tensor.flatten().tolist()) == {65504.0}
    assert torch.equal(network().apply("quantize{weights=bf16}").values["fc1.w"], net.values["fc1.w"].bfloat16())


def test_converting_to_a_format_of_layers_is_quantizing() -> None:
    converted = network().apply("convert{to=mxfp8e4m3}")
    assert converted.key == network().apply("quantize{weights=mxfp8e4m3, activations=mxfp8e4m3}").key


def test_damaged_codes_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    quantized("l4").save(tmp_path / "net.nasc")
    tensors = load_file(tmp_path / "net.safetensors")
    tensors["fc1.w"] += 16
    save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(NascError, match=r"%fc1.w holds codes from \d+ to \d+, the graph says l4"):
        Network.load(tmp_path / "net.nasc")
    quantized("f8e4m3").save(tmp_path / "net.nasc")
    tensors = load_file(tmp_path / "net.safetensors")
    tensors["fc1.w"] = torch.full_like(tensors["fc1.w"].float(), float("nan")).to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(NascError, match="%fc1.w holds codes that are no numbers, the graph says f8e4m3"):
        Network.load(tmp_path / "net.nasc")
    quantized("i4<block 8>").save(tmp_path / "net.nasc")
    tensors = load_file(tmp_path / "net.safetensors")
    tensors["fc1.w.steps"] = tensors["fc1.w.steps"][:, :2].contiguous()
    save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(NascError, match=r"must hold 24 x 6 binary32 numbers, found \[24, 2\]"):
        Network.load(tmp_path / "net.nasc")


def test_blocks_of_activations_follow_each_input() -> None:
    """Scaling one sample by a power of two scales what is kept of it, and no other sample's."""
    net = network().apply("quantize{activations=mxfp4}")
    assert net.graph.types["x.q"].step == Step.blocks(32, 1, power_of_two=True)
    assert parse_encoding("mxfp4").format == net.graph.types["x.q"].format
    probe = Network(net.graph, net.weights)
    kept: dict[str, torch.Tensor] = {}
    from nasc.compiler.execution import run

    for factor in (1.0, 1024.0):
        x = data(2)
        x[0] *= factor
        run(probe.graph, probe.values, (x,), observe=lambda name, t, f=factor: kept.update({f"{name} {f}": t}))
    assert torch.equal(kept["x.q 1.0"][0] * 1024, kept["x.q 1024.0"][0])
    assert torch.equal(kept["x.q 1.0"][1], kept["x.q 1024.0"][1])
