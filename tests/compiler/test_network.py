"""Networks: what their keys mean, how they lie on disk, and what is said of damaged files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nasc.compiler.files import load_graph
from nasc.compiler.network import Network
from nasc.compiler.weights import Computed, Source, Store, tensor_digest
from nasc.ir import Location, NascError, UsageError, Weights, parse, text
from safetensors.torch import load_file, save_file
from support.graphs import graph_of
from support.networks import difference, inputs_of, network_of
from support.zoo import ZOO

NAMES = list(ZOO)
PIPELINES = [
    "cleanup",
    "quantize{weights=i4, activations=u8, biases=i8}",
    "quantize{weights=i4, activations=u8, biases=i8} | calibrate{method=minmax}",
    "quantize{weights=i6<2^?>, activations=i12} | calibrate{method=minmax}",
    "quantize{weights=i8<2^-6>, activations=u8} | calibrate{method=minmax} | legalize",
    "quantize{weights=i8, activations=u8} | calibrate{method=minmax} | legalize",
    "convert{to=f16}",
    "convert{to=bf16}",
]


def made(name: str, pipeline: str) -> Network:
    return network_of(ZOO[name]).apply(pipeline, data=inputs_of(ZOO[name], batch=16)[0])


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", ["mlp", "concat"])
def test_save_and_load(name: str, pipeline: str, tmp_path: Path) -> None:
    network = made(name, pipeline)
    network.save(tmp_path / "deep" / "net.nasc")
    back = Network.load(tmp_path / "deep" / "net.nasc")
    assert back.graph == network.graph
    for op in network.graph.stored:
        assert torch.equal(back.weights.recipe(op.name).tensor, network.weights.recipe(op.name).tensor), op.name
        if op.type.step is not None and op.type.step.known and op.type.step.axis is not None:
            assert np.array_equal(back.weights.steps(op.name), network.weights.steps(op.name))
    if "?" not in str(network.graph):
        assert difference(network, back, inputs_of(ZOO[name])) == 0.0
    back.save(tmp_path / "again.nasc")
    assert (tmp_path / "again.nasc").read_text() == (tmp_path / "deep" / "net.nasc").read_text()
    assert Network.load(tmp_path / "again.nasc").key == back.key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.nasc", "again.safetensors", "deep"]


def test_a_loaded_network_goes_on(tmp_path: Path) -> None:
    """What was read trains, quantizes and resizes as what was made."""
    network = made("mlp", "quantize{weights=i8, activations=u8, biases=i8} | calibrate{method=minmax}")
    network.save(tmp_path / "net.nasc")
    back = Network.load(tmp_path / "net.nasc")
    x = inputs_of(ZOO["mlp"], batch=16)[0]
    module = back.module().train()
    module(x).square().mean().backward()
    assert torch.equal(back.with_trained(module.eval())(x), module(x).detach())
    narrow = back.apply("resize{fc1=8} | calibrate{method=minmax}", data=x)
    assert narrow(x).shape == (16, 5) and narrow.widths["fc1"] == 8
    assert torch.equal(back.apply("legalize")(x), network.apply("legalize")(x))


def test_the_arrays_are_what_weights_promise() -> None:
    network: Network = made("mlp", "quantize{weights=i4, activations=u8, biases=i8} | calibrate{method=minmax}")
    weights: Weights = network.weights
    assert weights.array("fc1.weight").dtype == np.int8
    assert weights.steps("fc1.weight").shape == (16,) and weights.steps("fc1.weight").dtype == np.float32
    assert weights.array("bn1.mean").dtype == np.float32
    for name in ("fc1.bias", "bn1.mean"):
        with pytest.raises(KeyError):
            weights.steps(name)
    with pytest.raises(KeyError):
        weights.array("nothing")
    assert made("mlp", "convert{to=bf16}").weights.array("fc1.weight").dtype.name == "bfloat16"


def test_two_names_for_equal_numbers_are_saved_apart(tmp_path: Path) -> None:
    """Zero biases of one size share one recipe once they are rounded; the file holds both."""
    graph = graph_of(
        """
        %a.w: f32[4, 4] = weight
        %a.b: f32[4] = weight
        %a: f32[N, 4] = linear %x, %a.w, %a.b
        %b.w: f32[4, 4] = weight
        %b.b: f32[4] = weight
        %b: f32[N, 4] = linear %a, %b.w, %b.b
        """,
        "%x: f32[N, 4]",
    )
    zeros = {n: Source(torch.zeros(4)) for n in ("a.b", "b.b")}
    eyes = {n: Source(torch.eye(4)) for n in ("a.w", "b.w")}
    network = Network(graph, Store({**zeros, **eyes})).apply("quantize{weights=i8, biases=i8} | calibrate")
    network.save(tmp_path / "net.nasc")
    x = torch.randn(3, 4)
    assert torch.equal(Network.load(tmp_path / "net.nasc")(x), network(x))


def test_networks_are_files_of_one_suffix(tmp_path: Path) -> None:
    for name in ("net.safetensors", "net.txt", "net", "net.v2"):
        with pytest.raises(UsageError, match=r"a network's file is called NAME.nasc"):
            made("mlp", "cleanup").save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.nasc"
    made("mlp", "quantize{weights=i4, activations=u8} | calibrate{method=minmax}").save(path)
    return path


def changed(path: Path, **tensors: torch.Tensor | None) -> None:
    """Replace or remove tensors of a saved network."""
    beside = path.with_suffix(".safetensors")
    held = load_file(beside)
    for name, tensor in tensors.items():
        real = name.replace("__", ".")
        held.pop(real)
        if tensor is not None:
            held[real] = tensor
    save_file(held, beside)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no.nasc: error: there is no such file"):
        Network.load(tmp_path / "no.nasc")
    path = saved(tmp_path)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(
        UsageError, match=r"net.safetensors: error: there is no such file\n  The weights must lie beside"
    ):
        Network.load(path)
    assert load_graph(path).name == "net"


def test_tensors_that_no_network_wrote_stay(tmp_path: Path) -> None:
    checkpoint, path = tmp_path / "net.safetensors", tmp_path / "net.nasc"
    save_file({"fc1.weight": torch.ones(2, 2)}, checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(UsageError, match=r"its tensors would replace .*net\.safetensors, which is no network's"):
        made("mlp", "cleanup").save(path)
    assert checkpoint.read_bytes() == before
    assert not path.exists()
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(UsageError, match="which is no network's"):
        made("mlp", "cleanup").save(path)
    checkpoint.unlink()
    made("mlp", "cleanup").save(path)
    made("mlp", "cleanup").save(path)
    assert Network.load(path).graph == made("mlp", "cleanup").graph


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write here: .*\n  Choose another output path"):
        made("mlp", "cleanup").save(tmp_path / "file" / "net.nasc")


DAMAGES = [
    (lambda t: t[: len(t) // 2], r"net\.nasc:\d+:\d+: error: expected"),
    (
        lambda t: t.replace("nasc 1", "nasc 2"),
        r"net\.nasc:1:6: error: the text is of version 2; this nasc reads version 1",
    ),
    (lambda t: t.replace("linear", "lineal"), r"error: lineal %fc1: there is no such op"),
    (
        lambda t: t.replace("width $fc1 = 16", "width $fc1 = 17"),
        r"the tensor of %fc1.weight has shape \(16, 16\), the graph says \(17, 16\)",
    ),
    (
        lambda t: t.replace("i4<per 0>[$fc1", "i9<per 0>[$fc1"),
        r"%fc1.weight holds torch.int8, the graph says i9<per 0>",
    ),
    (
        lambda t: t.replace("i4<per 0>[$fc1", "i3<per 0>[$fc1"),
        r"%fc1.weight holds codes from -?\d+ to \d+, the graph says i3",
    ),
    (lambda t: t.replace("i4<per 0>[$fc1", "f32[$fc1"), r"%fc1.weight holds torch.int8, the graph says f32"),
    (
        lambda t: t.replace("i4<per 0>[$fc1", "i4<per 0 ?>[$fc1"),
        r"it has no tensor 'fc1.weight.real', which the graph needs",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_text(tmp_path: Path, damage: object, message: str) -> None:
    path = saved(tmp_path)
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(NascError, match=message):
        Network.load(path)


def test_text_that_is_none(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NascError, match="cannot be read as text"):
        Network.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(NascError, match="cannot be read as text"):
        Network.load(path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_damaged_tensors(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path)
    beside = path.with_suffix(".safetensors")
    beside.write_bytes(beside.read_bytes()[:keep])
    with pytest.raises(NascError, match=r"net.safetensors: error: is not a readable safetensors file"):
        Network.load(path)


TENSORS = [
    ({"fc1__weight": None}, "it has no tensor 'fc1.weight', which the graph needs"),
    ({"fc1__weight__steps": None}, "it has no tensor 'fc1.weight.steps', which the graph needs"),
    ({"fc1__weight__steps": torch.ones(3)}, r"'fc1.weight.steps' must hold 16 binary32 numbers, found \[3\]"),
    ({"fc1__weight__steps": torch.zeros(16)}, "'fc1.weight.steps' must hold positive numbers"),
    ({"fc1__weight__steps": torch.full((16,), float("nan"))}, "'fc1.weight.steps' must hold positive numbers"),
    ({"bn1__mean": torch.zeros(16, dtype=torch.float64)}, "%bn1.mean holds torch.float64, the graph says f32"),
    ({"bn1__mean": torch.zeros(15)}, r"the tensor of %bn1.mean has shape \(15,\), the graph says \(16,\)"),
]


@pytest.mark.parametrize(("tensors", "message"), TENSORS)
def test_tensors_that_do_not_belong(tmp_path: Path, tensors: dict[str, torch.Tensor | None], message: str) -> None:
    path = saved(tmp_path)
    changed(path, **tensors)
    with pytest.raises(NascError, match=message):
        Network.load(path)


def test_equal_networks_have_equal_keys() -> None:
    a, b = network_of(ZOO["mlp"]), network_of(ZOO["mlp"])
    assert a.key == b.key
    ops = tuple(replace(op, location=Location("elsewhere.py", 1)) for op in a.graph.ops)
    assert Network(replace(a.graph, name="other", ops=ops), a.weights).key == a.key
    assert network_of(ZOO["mlp"], seed=1).key != a.key
    assert network_of(ZOO["mlp"], dtype=torch.float64).key != a.key


def test_keys_are_of_the_result_and_not_of_the_way() -> None:
    network, x = network_of(ZOO["mlp"]), inputs_of(ZOO["mlp"], batch=16)[0]

    def key(pipeline: str, seed: int = 0) -> str:
        return network.apply(pipeline, data=x, seed=seed).key

    assert key("cleanup") == network.key == key("resize{fc1=16}") == key("convert{to=f32}")
    assert key("resize{fc1=8}") == key("resize{fc1=8}", seed=1) == key("resize{fc1=8} | cleanup")
    assert key("resize{fc1=8, fc2=4}") == key("resize{fc2=4, fc1=8}")
    assert key("quantize{weights=i8} | quantize{weights=i4}") == key("quantize{weights=i4}")
    different = [
        "cleanup",
        "resize{fc1=8}",
        "resize{fc2=8}",
        "resize{fc1=8, importance=random}",
        "resize{fc1=24, grow=initialise}",
        "resize{fc1=24, noise=0.1}",
        "resize{fc1=24}",
        "fold-batch-norm",
        "quantize{weights=i4}",
        "quantize{weights=i4<2^?>}",
        "quantize{weights=i4} | calibrate{method=minmax}",
        "quantize{weights=i4} | calibrate{method=mse}",
        "quantize{weights=i4, activations=u8} | calibrate{method=minmax}",
        "quantize{weights=i4, activations=u8} | calibrate{method=minmax, samples=3}",
        "convert{to=f16}",
    ]
    assert len({key(p) for p in different}) == len(different)
    assert key("resize{fc1=24, noise=0.1}", seed=1) != key("resize{fc1=24, noise=0.1}")
    assert key("resize{fc1=8, importance=random}", seed=1) != key("resize{fc1=8, importance=random}")


def test_keys_cost_no_tensors() -> None:
    """A candidate is named before any of its tensors is computed."""
    computed: list[str] = []

    def note(*tensors: torch.Tensor) -> torch.Tensor:
        computed.append("now")
        return tensors[0]

    network = network_of(ZOO["mlp"])
    lazy = Network(
        network.graph,
        network.weights.with_recipes({"fc1.weight": Computed("same", (network.weights.recipe("fc1.weight"),), note)}),
    )
    small = lazy.apply("resize{fc1=16, fc2=8, importance=random}")
    assert small.key and computed == []
    assert small.values["fc1.weight"].shape == (16, 16) and computed == ["now"]
    assert small.values is small.values and computed == ["now"]


def test_resized_tensors_with_the_same_indices_in_other_axes_are_told_apart() -> None:
    """`[0] and [1, 2]` are not `[0, 1] and [2]`, though written one after the other they look alike."""
    from nasc.compiler.resizing import Policy
    from nasc.compiler.resizing.gather import gathered_tensor

    op = graph_of("%w: f32[4, 4] = weight").ops[0]
    source = Source(torch.arange(16.0).reshape(4, 4))
    a, b = torch.tensor([0]), torch.tensor([1, 2])
    c, d = torch.tensor([0, 1]), torch.tensor([2])
    keys = {gathered_tensor(op, source, {0: x, 1: y}, None, Policy()).key for x, y in ((a, b), (c, d))}
    assert len(keys) == 2


def test_digests_of_tensors_see_format_shape_and_bytes() -> None:
    x = torch.arange(6.0)
    others = [x.double(), x.reshape(2, 3), x + 1, x.to(torch.int32), torch.zeros(6)]
    assert len({tensor_digest(t) for t in [x, *others]}) == 6
    assert tensor_digest(x.reshape(2, 3).t().contiguous().t()) == tensor_digest(x.reshape(2, 3))
    assert tensor_digest(x.half()) != tensor_digest(x.bfloat16())
    assert tensor_digest(torch.zeros(0)) and tensor_digest(torch.tensor(True))


def test_what_is_free_and_what_is_frozen() -> None:
    network = network_of(ZOO["mlp"])
    assert dict(network.widths) == {"fc1": 16, "fc2": 16}
    assert [(f.value, f.axis) for f in network.frozen] == [("fc1.weight", 1), ("fc3.weight", 0), ("fc3.bias", 0)]
    assert dict(network.apply("resize{fc1=4}").widths) == {"fc1": 4, "fc2": 16}


def test_the_text_of_a_network_is_its_graph(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert parse(path.read_text()) == load_graph(path)
    assert text(load_graph(path)) == path.read_text()
