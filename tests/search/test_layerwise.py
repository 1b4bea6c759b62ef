"""The integers of torch's simulation and of the deployed network, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nasc.compiler.network import Network
from nasc.ir import Graph, Weights
from nasc.search.layerwise import layerwise
from nasc.targets import Artifact, target_named
from onnx import numpy_helper
from support.networks import inputs_of, network_of
from support.zoo import ZOO

CPU = target_named("onnxruntime:cpu")
ALL = "fold-batch-norm | quantize{weights=i8, activations=u8} | place | calibrate | legalize"


def legal(name: str) -> tuple[Network, Any]:
    network, x = network_of(ZOO[name]), inputs_of(ZOO[name], batch=64)
    return network.apply(ALL, data=[x]), x


@dataclass(frozen=True)
class Wrong:
    """The CPU target, with one stored tensor written wrongly."""

    broken: str

    def load(self, *args: Any, **options: Any) -> Any:
        return CPU.load(*args, **options)

    def emit(
        self, graph: Graph, weights: Weights, metadata: Mapping[str, str] | None = None, **options: Any
    ) -> Artifact:
        return CPU.emit(graph, _Changed(weights, self.broken), metadata, **options)


class _Changed:
    def __init__(self, weights: Weights, broken: str) -> None:
        self.weights, self.broken = weights, broken

    def array(self, name: str) -> Any:
        array = self.weights.array(name)
        return array // 2 if name == self.broken else array

    def steps(self, name: str) -> Any:
        return self.weights.steps(name)

    def zeros(self, name: str) -> Any:
        return self.weights.zeros(name)


@pytest.mark.parametrize("name", ["mlp", "residual", "depthwise", "concat"])
def test_both_give_the_same_integers(name: str) -> None:
    network, x = legal(name)
    found = layerwise(network, CPU, x)
    assert found.holds, str(found)
    assert found.same > 0.9995
    assert not found.kernels_differ
    assert [v.value for v in found.values] == [op.name for op in network.graph.ops if op.kind == "quantize"]


@pytest.mark.parametrize(
    ("name", "activations"),
    [*product(["mlp", "residual", "depthwise", "concat"], ["u8", "u4", "i6", "u12", "ternary"]), ("mlp", "f8e4m3")],
)
def test_a_deployed_file_is_asked_itself(name: str, activations: str, tmp_path: Path) -> None:
    network, x = network_of(ZOO[name]), inputs_of(ZOO[name], batch=64)
    network = network.apply(ALL.replace("=u8", f"={activations}"), data=[x])
    CPU.emit(network.graph, network.weights).save(tmp_path / "model.onnx")
    found = layerwise(network, CPU, x, tmp_path / "model.onnx")
    assert found.holds and found.values, str(found)
    assert found.values == layerwise(network, CPU, x).values


def test_a_deployed_file_that_was_changed_is_found_out(tmp_path: Path) -> None:
    network, x = legal("mlp")
    path = tmp_path / "model.onnx"
    CPU.emit(network.graph, network.weights).save(path)
    model = onnx.load(path)
    step = next(t for t in model.graph.initializer if t.name == "fc2.weight/step")
    step.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(step) * np.float32(1.3), step.name))
    onnx.save(model, path)
    found = layerwise(network, CPU, x, path)
    assert not found.holds and found.first_below is not None
    reads = next(op for op in network.graph.ops if op.name == found.first_below.value).inputs[0]
    assert "fc2" in (reads, *network.graph.producers[reads].inputs)


def test_a_file_of_another_network_has_not_its_activations(tmp_path: Path) -> None:
    network, x = legal("mlp")
    real = network_of(ZOO["mlp"])
    CPU.emit(real.graph, real.weights).save(tmp_path / "model.onnx")
    found = layerwise(network, CPU, x, tmp_path / "model.onnx")
    assert not found.holds
    assert "it is not this network's" in str(found)


def test_the_first_layer_that_differs_is_named_and_those_behind_it_are_not_blamed() -> None:
    network, x = legal("mlp")
    found = layerwise(network, Wrong("fc2.weight"), x)  # type: ignore[arg-type]
    assert not found.holds
    assert found.first_below is not None
    assert found.first_below.value == "relu2.q"
    assert [v.value for v in found.values if v.same < 0.99] == ["relu2.q"]
    assert "the first below 99.9% is %relu2.q" in str(found)


def test_a_real_network_has_nothing_to_compare() -> None:
    found = layerwise(network_of(ZOO["mlp"]), CPU, inputs_of(ZOO["mlp"]))
    assert found.holds
    assert str(found) == "nothing is quantized"


def test_a_last_layer_that_no_integers_show_is_named(tmp_path: Path) -> None:
    network, x = legal("mlp")
    last = network.graph.producers[network.graph.outputs[0]]
    assert last.kind == "linear"
    Wrong(last.inputs[1]).emit(network.graph, network.weights).save(tmp_path / "wrong.onnx")
    found = layerwise(network, CPU, x, tmp_path / "wrong.onnx")
    assert found.first_below is None and not found.holds
    assert f"but behind them the last layer %{last.name}" in str(found)
    CPU.emit(network.graph, network.weights).save(tmp_path / "right.onnx")
    right = layerwise(network, CPU, x, tmp_path / "right.onnx")
    assert right.holds and [r.layer for r in right.results] == [last.name]
