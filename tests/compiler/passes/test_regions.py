"""The division into real numbers and codes: it costs least, is the same every time, and runs as planned."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasc.compiler.passes import integers
from nasc.compiler.passes.regions import CODES, REAL, Links, in_real, nearest, priced
from nasc.ir import parse, text
from nasc.targets import check_placement, target_named
from nasc.targets.plan import INTEGER_KERNELS
from support.networks import inputs_of, network_of
from support.zoo import ZOO

from .test_place import WRITABLE

CPU = target_named("onnxruntime:cpu")
ASKED = "fold-batch-norm | quantize{weights=i8, activations=u8}"
FASTER = f"{ASKED} | place{{only=faster}}"
OPS = ("a", "b", "c", "d", "e")
LINKS = st.dictionaries(
    st.tuples(st.sampled_from((REAL, *OPS)), st.sampled_from((CODES, *OPS))),
    st.one_of(st.none(), st.integers(0, 9).map(float)),
    min_size=1,
)


def cost(links: Links, real: frozenset[str]) -> float:
    """What a division costs; infinite where it cannot be."""
    cut = [price for (one, other), price in links.items() if one in real and other not in real]
    return sum(float("inf") if price is None else price for price in cut)


def divisions() -> list[frozenset[str]]:
    return [
        frozenset({REAL, *(op for op, real in zip(OPS, sides, strict=True) if real)})
        for sides in product((False, True), repeat=len(OPS))
    ]


@given(LINKS)
def test_no_division_costs_less_and_equal_ones_have_more_in_real_numbers(links: Links) -> None:
    least = min(cost(links, each) for each in divisions())
    if least == float("inf"):
        return
    found = nearest(links, REAL)
    assert cost(links, found) == least
    assert all(found <= each for each in divisions() if cost(links, each) == least)


@pytest.mark.parametrize("name", WRITABLE)
def test_a_division_costs_no_more_than_all_or_nothing(name: str) -> None:
    graph = network_of(ZOO[name]).apply(ASKED).graph
    links = priced(graph)
    names = {n for pair in links for n in pair} - {REAL, CODES}
    found = cost(links, nearest(links, REAL))
    assert found < float("inf")
    assert found <= cost(links, frozenset({REAL, *names})) + len(links)


@pytest.mark.parametrize("name", WRITABLE)
def test_what_was_decided_is_decided_again(name: str) -> None:
    graph = network_of(ZOO[name]).apply(ASKED).graph
    assert in_real(parse(text(graph))) == in_real(graph)
    assert network_of(ZOO[name]).apply(FASTER).graph == network_of(ZOO[name]).apply(FASTER).graph


@pytest.mark.parametrize("name", WRITABLE)
def test_only_layers_in_integers_become_real_and_the_rest_runs_as_planned(name: str) -> None:
    network, x = network_of(ZOO[name]), inputs_of(ZOO[name], batch=16)
    made = network.apply(f"{FASTER} | calibrate{{method=minmax}} | legalize", data=[x])
    plan = CPU.plan(made.graph)
    assert plan.needs == ()
    placement = check_placement(plan, CPU.load(CPU.emit(made.graph, made.weights), placed=True).placement())
    assert placement.as_planned, placement.float_layers
    kept = {op.name for op in integers.integer_layers(made.graph)}
    assert kept <= {op.name for op in integers.integer_layers(network.apply(ASKED).graph)}
    assert {node.layer for node in placement.nodes if node.kind in INTEGER_KERNELS} == set(plan.integer) == kept


def test_a_wide_network_keeps_its_integers_and_a_narrow_one_none() -> None:
    """The decision goes both ways: three layers of 1024 pay, three of 16 do not."""
    for width, kept in ((1024, 3), (16, 0)):
        lines = ["nasc 1", f"graph @mlp(%x: f32[N, {width}]) {{"]
        value = "x"
        for i in range(3):
            lines += [
                f"  %w{i}: f32[{width}, {width}] = weight",
                f"  %y{i}: f32[N, {width}] = linear %{value}, %w{i}",
                f"  %r{i}: f32[N, {width}] = relu %y{i}",
            ]
            value = f"r{i}"
        network = network_of(parse("\n".join([*lines, f"  return %{value}", "}"])))
        assert len(integers.integer_layers(network.apply(FASTER).graph)) == kept
