"""The numbers of layers on both sides, where no activation is quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nasc.search import comparison
from nasc.search.comparison import by_layer, compare
from nasc.search.layer_values import layer_values
from nasc.targets import target_named
from onnx import numpy_helper
from support.networks import inputs_of, network_of
from support.zoo import ZOO

CPU = target_named("onnxruntime:cpu")
WEIGHTS = "fold-batch-norm | quantize{weights=i4} | calibrate"


@pytest.mark.parametrize(("name", "passes"), [("mlp", ""), ("residual", WEIGHTS), ("depthwise", "convert{to=f16}")])
def test_every_layer_is_compared_and_agrees(name: str, passes: str, tmp_path: Path) -> None:
    network, x = network_of(ZOO[name]).apply(passes), inputs_of(ZOO[name], batch=8)
    CPU.emit(network.graph, network.weights).save(tmp_path / "net.onnx")
    found = layer_values(network, CPU, x, tmp_path / "net.onnx")
    assert found.holds and not found.hidden, str(found)
    assert [v.layer for v in found.values] == [entry.layer for entry in CPU.plan(network.graph).layers]
    assert min(v.sqnr_db for v in found.values) > (50 if "f16" in passes else 100)


def test_the_first_layer_that_differs_is_named_and_others_of_another_name_are_counted(tmp_path: Path) -> None:
    network, x = network_of(ZOO["mlp"]), inputs_of(ZOO["mlp"], batch=8)
    path = tmp_path / "net.onnx"
    CPU.emit(network.graph, network.weights).save(path)
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if t.name == "fc2.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    model.graph.node[0].output[0] = "elsewhere"
    model.graph.node[1].input[0] = "elsewhere"
    onnx.save(model, path)
    found = layer_values(network, CPU, x, path)
    assert found.holds is False
    assert "the first of 2 layers that differs is %fc2" in str(found) and "1 more have no value in the file" in str(
        found
    )


def test_a_file_with_other_names_is_compared_by_its_outputs_alone(tmp_path: Path) -> None:
    network, x = network_of(ZOO["mlp"]), inputs_of(ZOO["mlp"], batch=8)
    path = tmp_path / "net.onnx"
    CPU.emit(network.graph, network.weights).save(path)
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = [f"their.{name}" for name in node.input]
        node.output[:] = [f"their.{name}" for name in node.output]
        node.name = f"their.{node.name}"
    for entry in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        entry.name = f"their.{entry.name}"
    onnx.save(model, path)
    outputs, classes, inside, kernels = compare(network, CPU, path, x).checks
    assert outputs.holds and classes.holds and kernels.holds
    assert inside.holds is None
    assert inside.found == "the file has no value that is called like a layer"


def test_what_would_not_fit_into_one_file_is_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = network_of(ZOO["mlp"]), inputs_of(ZOO["mlp"], batch=8)
    monkeypatch.setattr(comparison, "LARGEST_BYTES", 1000)
    found = by_layer(network, CPU, x, tmp_path / "not.onnx")
    assert found.holds is None and "larger than a file of ONNX may be" in str(found)
