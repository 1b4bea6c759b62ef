"""The evidence of a result: what a check says where it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nasc.compiler.network import Network
from nasc.ir import Graph, Location
from nasc.search.comparison import Check, kernels
from nasc.targets import check_placement, target_named
from support.networks import inputs_of, network_of
from support.zoo import ZOO

CPU = target_named("onnxruntime:cpu")


def quantized(layers: str) -> Network:
    passes = f"fold-batch-norm | quantize{{layers={layers}, weights=i8, activations=u8}} | place | calibrate | legalize"
    return network_of(ZOO["mlp"]).apply(passes, data=[inputs_of(ZOO["mlp"], batch=64)])


def checked(planned: Graph, deployed: Network, path: Path) -> Check:
    """What `verify` says of the kernels of a file that was planned as one graph and holds another network."""
    CPU.emit(deployed.graph, deployed.weights).save(path)
    plan = CPU.plan(planned)
    return kernels(planned, plan, check_placement(plan, CPU.load(path, placed=True).placement()))


def test_kernels_as_planned_are_counted(tmp_path: Path) -> None:
    network = quantized("*")
    check = checked(network.graph, network, tmp_path / "model.onnx")
    assert check.holds
    assert "3 QGemm" in check.found
    assert "in float" not in check.found


def test_layers_that_run_in_float_are_named_with_their_kernels_and_lines(tmp_path: Path) -> None:
    graph = quantized("*").graph
    at = Location("net.py", 7)
    graph = replace(graph, ops=tuple(replace(op, location=at if op.name == "fc2" else None) for op in graph.ops))
    check = checked(graph, quantized("[fc1, fc3]"), tmp_path / "model.onnx")
    assert check.holds is False
    assert check.found.endswith("; in float: fc2 (Max, Gemm) at net.py:7"), check.found
    unknown = checked(graph.without_locations(), quantized("[fc1, fc3]"), tmp_path / "other.onnx")
    assert unknown.found.endswith("; in float: fc2 (Max, Gemm)")


def test_layers_that_run_in_codes_against_the_plan_are_named_and_do_no_harm(tmp_path: Path) -> None:
    network = quantized("*")
    check = checked(network_of(ZOO["mlp"]).graph, network, tmp_path / "model.onnx")
    assert check.holds
    assert check.found.endswith("; planned in float: fc1 (QGemm), fc2 (QGemm), fc3 (QGemm)"), check.found
