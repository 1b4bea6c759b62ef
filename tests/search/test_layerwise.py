"""The integers of torch's simulation and of the deployed network, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from nasc.compiler.network import Network
from nasc.ir import Graph, Weights
from nasc.search.layerwise import layerwise
from nasc.targets import Artifact, target_named
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
