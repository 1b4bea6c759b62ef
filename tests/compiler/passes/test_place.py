"""`place` and `legalize` against the targets: what they complete lacks nothing, and runs as planned."""

from __future__ import annotations

import pytest
import torch
from nasc.compiler.network import Network
from nasc.compiler.passes import PassError, integers
from nasc.ir import Graph
from nasc.targets import check_placement, target_named
from nasc.targets.agree import agree
from nasc.targets.onnx.clamps import CLAMPS, MOVES
from nasc.targets.onnxruntime.rules import ISLANDS
from nasc.targets.plan import INTEGER_KERNELS
from support.networks import inputs_of, network_of
from support.zoo import ZOO

CPU = target_named("onnxruntime:cpu")
ALL = "fold-batch-norm | quantize{weights=i8, activations=u8}"


def with_emitters(graph: Graph) -> bool:
    """Whether every op of a graph can be written as ONNX."""
    from nasc.targets.onnx.emit import EMITTERS

    return all(op.kind in EMITTERS or op.kind in ("weight", "buffer") for op in graph.ops)


WRITABLE = [name for name, graph in ZOO.items() if with_emitters(graph)]


def test_the_pass_and_the_target_speak_of_the_same_ops() -> None:
    assert set(integers.CLAMPS) == set(CLAMPS)
    assert set(integers.MOVERS) == set(MOVES)
    assert set(integers.CARRIERS) == set(ISLANDS)


@pytest.mark.parametrize("name", WRITABLE)
def test_a_placed_network_lacks_nothing_and_runs_as_planned(name: str) -> None:
    network, x = network_of(ZOO[name]), inputs_of(ZOO[name], batch=16)
    made = network.apply(f"{ALL} | place | calibrate{{method=minmax}} | legalize", data=[x])
    plan = CPU.plan(made.graph)
    assert plan.needs == ()
    session = CPU.load(CPU.emit(made.graph, made.weights), placed=True)
    placement = check_placement(plan, session.placement())
    assert placement.as_planned, placement.float_layers
    asked = {op.name for op in integers.integer_layers(made.graph)}
    assert {node.layer for node in placement.nodes if node.kind in INTEGER_KERNELS} == set(plan.integer) == asked


@pytest.mark.parametrize("name", WRITABLE)
def test_place_is_done_once(name: str) -> None:
    placed = network_of(ZOO[name]).apply(f"{ALL} | place")
    assert placed.apply("place").graph is placed.graph


def test_legalize_places_and_calibrates_what_was_left_out() -> None:
    """The same graph as with `place` before; steps from the same data."""
    network, x = network_of(ZOO["residual"]), inputs_of(ZOO["residual"], batch=16)
    early = network.apply(f"{ALL} | place | calibrate | legalize", data=[x])
    late = network.apply(f"{ALL} | calibrate | legalize", data=[x])
    assert late.graph == early.graph
    assert torch.equal(late(*x), early(*x))


def test_legalize_without_data_says_what_it_would_round() -> None:
    network, x = network_of(ZOO["residual"]), inputs_of(ZOO["residual"], batch=16)
    calibrated = network.apply(f"{ALL} | calibrate", data=[x])
    with pytest.raises(PassError, match=r"need %\S+ rounded, and there is no data.*\n.*Put `place` before"):
        calibrated.apply("legalize")


def test_a_residual_network_without_place_has_layers_in_float() -> None:
    """The control: what `place` adds is what the integer kernels needed."""
    network, x = network_of(ZOO["residual"]), inputs_of(ZOO["residual"], batch=16)
    calibrated = network.apply(f"{ALL} | calibrate", data=[x])
    assert CPU.plan(calibrated.graph).needs
    assert len(CPU.plan(calibrated.graph).integer) < len(CPU.plan(placed(calibrated, x).graph).integer)


def placed(network: Network, x: tuple[torch.Tensor, ...]) -> Network:
    return network.apply("place | calibrate | legalize", data=[x])


@pytest.mark.parametrize("name", WRITABLE)
def test_rounding_what_lies_between_layers_costs_little(name: str) -> None:
    network, x = network_of(ZOO[name]), inputs_of(ZOO[name], batch=16)
    made = network.apply(f"{ALL} | place | calibrate{{method=minmax}} | legalize", data=[x])
    assert agree(network, made, x).sqnr_db > 25
