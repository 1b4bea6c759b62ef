"""Random networks lower to what PyTorch computes, print and parse back, and narrow and grow with proof.

In CI a fixed number that repeat exactly; `pytest tests/fuzz --hypothesis-profile hunt` looks for a long time.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from fuzz.networks import IMAGE, SEQUENCE, Drawn, Spec, specs
from hypothesis import given, settings
from nasc.compiler.frontend.lower import lower_module
from nasc.compiler.network import Network
from nasc.ir import parse, text, verify
from zoo.proofs import (
    TOLERANCE,
    Proof,
    difference,
    doubled,
    growing,
    in_double,
    narrowing,
    outputs,
    permutation,
    redraw,
)

torch.set_num_threads(1)

EXACT = 1e-9
"""Largest difference to eager PyTorch in float64, relative to the largest output."""
SHARE = {"image": 6, "sequence": 8, "words": 12}
"""One in so many of the profile's examples for each start: lowering takes most of the time."""


def drawn(spec: Spec) -> tuple[Drawn, Network]:
    """A network in float64 with weights drawn so that nothing hides behind zeros, lowered."""
    torch.manual_seed(0)
    model = Drawn(spec).double().eval()
    redraw(model, model.inputs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model, lower_module(model, model.inputs())


def hold(spec: Spec) -> tuple[Network, list[Proof]]:
    """What holds for every network; returns it with its proofs."""
    model, network = drawn(spec)
    x = model.inputs(seed=1)
    with torch.no_grad():
        assert difference((model(*x),), outputs(network, x)) < EXACT, "it computes what PyTorch does"
    printed = text(network.graph)
    assert parse(printed) == network.graph
    assert text(parse(printed)) == printed
    verify(parse(printed))
    assert not [op.kind for op in network.graph.ops if op.kind.startswith("aten.")], "every op has a rule"
    double = in_double(network)
    proofs = [proof(double, doubled(x), 0) for proof in (permutation, narrowing, growing)]
    for found in proofs:
        assert found.error < TOLERANCE, str(found)
    return network, proofs


@pytest.mark.slow
@given(spec=specs("image"))
@settings(max_examples=max(1, settings.default.max_examples // SHARE["image"]))
def test_image_networks(spec: Spec) -> None:
    hold(spec)


@pytest.mark.slow
@given(spec=specs("sequence"))
@settings(max_examples=max(1, settings.default.max_examples // SHARE["sequence"]))
def test_sequence_networks(spec: Spec) -> None:
    hold(spec)


@pytest.mark.slow
@given(spec=specs("words"))
@settings(max_examples=max(1, settings.default.max_examples // SHARE["words"]))
def test_networks_of_words(spec: Spec) -> None:
    hold(spec)


ALL = (
    Spec("image", tuple((name, 2, 1, 1) for name in IMAGE), "flatten"),
    Spec("image", tuple((name, 3, 2, 2) for name in reversed(IMAGE)), "mean"),
    Spec("words", tuple((name, 3, 1, n) for n in (0, 1, 3) for name in SEQUENCE), "first"),
)
"""Networks of every stage there is."""


@pytest.mark.slow
@pytest.mark.parametrize("spec", ALL, ids=["image", "image reversed", "words"])
def test_a_network_of_every_stage_and_the_controls(spec: Spec) -> None:
    network, proofs = hold(spec)
    assert len(network.graph.widths) >= 5
    assert all(proof.holds for proof in proofs), "the control differs: channels that go wrong are seen"
    other = Drawn(spec).double().eval()
    x = doubled(other.inputs(seed=1))
    with torch.no_grad():
        assert difference((other(*x),), outputs(network, x)) > 1e-3, "the control: other weights compute something else"
