"""What is said never to be negative is not, for every op kind; and what may be is not said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emission.test_every_op import CASES, POSITIVE, Case, drawn, drawn_network
from nasc.compiler.analyses.signs import FIRST, KEEPING, NEVER, RULES, needs, never_negative
from nasc.compiler.network import Network
from nasc.compiler.weights import Source
from nasc.ir import SPECS, Graph
from support.graphs import graph_of
from support.networks import outputs
from torch import Tensor

EVERY = (*CASES, *POSITIVE)


def least(entry: Case, *, claimed: bool) -> float | None:
    """The smallest number of a case's results over a few draws, where the operands that must not be negative are not
    (`claimed`) or where all may be; None where nothing is said of this op."""
    found: list[float] = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        network, bounds = drawn_network(entry, random)
        op = next(op for op in network.graph.ops if op.name == "y")
        if (needed := needs(op)) is None:
            return None
        kept = needed if claimed else ()
        inputs = [
            magnitude(torch.from_numpy(drawn(e.type, 3, bounds.get(e.name, 4), random)), e.name in kept)
            for e in network.graph.inputs
        ]
        stored = {n: Source(magnitude(network.values[n], n in kept)) for n in network.weights}
        network = Network(network.graph, network.weights.with_recipes(stored))
        for name, result in zip(network.graph.outputs, outputs(network, tuple(inputs)), strict=True):
            if name != "b" and result.dtype != torch.bool and not bool(result.isnan().all()):
                found.append(float(result[~result.isnan()].double().min()))
    return min(found, default=0.0)


def magnitude(x: Tensor, wanted: bool) -> Tensor:
    return x.abs() if wanted and x.dtype != torch.bool else x


@pytest.mark.parametrize("entry", EVERY, ids=str)
def test_what_is_said_never_to_be_negative_is_not(entry: Case) -> None:
    found = least(entry, claimed=True)
    assert found is None or found >= 0


def test_every_claim_has_a_case_and_no_op_two() -> None:
    assert {entry.kind for entry in EVERY if least(entry, claimed=True) is not None} >= KEEPING | NEVER | set(RULES)
    assert set(SPECS) >= {*NEVER, *KEEPING, *FIRST, *RULES}
    assert len({*NEVER, *KEEPING, *FIRST, *RULES}) == len(NEVER) + len(KEEPING) + len(FIRST) + len(RULES)


def test_operands_count() -> None:
    """The check above can fail: the same ops give negative numbers where their operands may be negative."""
    negative = {entry.kind for entry in EVERY if (found := least(entry, claimed=False)) is not None and found < 0}
    assert negative >= {"reshape", "tanh", "cat", "avg_pool2d", "matmul", "gather", "add", "mul", "clamp", "pad"}
    assert not negative & NEVER


CHAINS = [
    ("%y: f32[N, 16] = relu %x", True),
    ("%y: f32[N, 16] = tanh %x", False),
    ("%a: f32[N, 16] = relu %x\n%y: f32[N, 16] = tanh %a", True),
    ("%a: f32[N, 16] = relu %x\n%b: f32[N, 16] = sigmoid %x\n%y: f32[N, 16] = add %a, %b", True),
    ("%a: f32[N, 16] = relu %x\n%y: f32[N, 16] = add %a, %x", False),
    ("%a: f32[N, 16] = relu %x\n%y: f32[N, 16] = add %a {other=-0.5}", False),
    ("%a: f32[N, 16] = relu %x\n%y: f32[N, 16] = sub %a {other=0.5}", False),
    ("%y: f32[N, 16] = mul %x, %x", True),
    ("%y: f32[N, 16] = pow %x {other=2.0}", True),
    ("%y: f32[N, 16] = pow %x {other=3.0}", False),
    ("%y: f32[N, 16] = clamp %x {min=0.0}", True),
    ("%y: f32[N, 16] = clamp %x {min=0.0, max=-1.0}", False),
    ("%y: f32[N, 16] = clamp %x {max=1.0}", False),
    ("%y: f32[N, 16] = hardtanh %x", False),
    ("%y: f32[N, 16] = maximum %x {other=0.0}", True),
    ("%w: f32[16] = buffer\n%a: f32[N, 16] = abs %x\n%y: f32[N, 16] = mul %a, %w", False),
    ("%a: f32[N, 16] = relu %x\n%y: u8<0.1, 3>[N, 16] = quantize %a", True),
    ("%w: f32[16, 16] = weight\n%a: f32[N, 16] = relu %x\n%y: f32[N, 16] = linear %a, %w", False),
]


@pytest.mark.parametrize(("lines", "never"), CHAINS)
def test_through_chains_of_ops(lines: str, never: bool) -> None:
    graph: Graph = graph_of(lines)
    assert never_negative(graph, "y") is never
    assert not never_negative(graph, "x")


def test_a_long_chain_is_no_recursion() -> None:
    lines = "\n".join(f"%y{i}: f32[N, 16] = add %{f'y{i - 1}' if i else 'a'}, %a" for i in range(3000))
    graph = graph_of("%a: f32[N, 16] = relu %x\n" + lines)
    assert never_negative(graph, "y2999")
