"""Networks for tests: a graph with random weights, and inputs of its shape."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from nasc.compiler.elements import container
from nasc.compiler.network import Network
from nasc.compiler.weights import Recipe, Rounded, Source, Store
from nasc.ir import Graph, Op, infer, verify
from nasc.ir.axes import size
from support.graphs import graph_of
from torch import Tensor

torch.set_num_threads(1)


def random(shape: tuple[int, ...], *what: object) -> Tensor:
    """Normal numbers in binary64 that depend on what they are for and on nothing else."""
    digest = hashlib.sha256(repr((shape, what)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def network_of(graph: Graph, seed: int = 0, dtype: torch.dtype | None = None) -> Network:
    """A graph with weights of the size of trained ones, drawn anew for each name, so that none is zero or one.

    Args:
        graph: any graph.
        seed: other weights for another seed.
        dtype: of floats; by default what the graph's types say. Proofs run in binary64 whatever the types say.
    """
    positive = {op.inputs[2] for op in graph.ops if op.kind == "batch_norm"}
    recipes: dict[str, Recipe] = {}
    for op in graph.stored:
        type = op.type
        shape = tuple(size(a, graph.sizes) for a in type.axes)
        values = random(shape, op.name, seed) / max(1.0, float(torch.tensor(shape[1:]).prod()) ** 0.5)
        if op.name in positive:
            values = values.abs() + 0.5
        if type.format.is_float and type.step is None:
            recipes[op.name] = Source(values.to(dtype or container(type.format)))
        elif type.step is None:
            recipes[op.name] = Source((values > 0).to(container(type.format)))
        elif type.step.known:
            steps = torch.full((shape[type.step.axis],) if type.step.axis is not None else (), 0.02)
            if type.step.value is not None:
                steps = torch.tensor(type.step.value)
            zeros = torch.tensor(type.step.zero) if type.step.zero else None
            if type.step.zeros:
                zeros = (type.format.low + type.format.high) // 2 + torch.arange(steps.numel()) % 3
            recipes[op.name] = Rounded(Source(values.float()), type.format, steps, type.step.axis, zeros=zeros)
        else:
            recipes[op.name] = Source(values.to(dtype or torch.float32))
    return Network(graph, Store(recipes))


def inputs_of(graph: Graph, batch: int = 4, seed: int = 0, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """Random inputs for a graph."""
    found: list[Tensor] = []
    for entry in graph.inputs:
        shape = tuple(size(a, graph.sizes, batch) for a in entry.type.axes)
        real = entry.type.format.is_float or entry.type.quantized
        values = random(shape, entry.name, seed)
        kind = torch.float32 if entry.type.quantized else container(entry.type.format)
        found.append(values.to(dtype or kind) if real else (values.abs() * 3).to(kind))
    return tuple(found)


def free(lines: str, inputs: str = "%x: f32[N, 16]", **widths: int) -> Graph:
    """The graph of these lines with all its widths found by inference, verified."""
    graph = infer(graph_of(lines, inputs, **widths)).graph
    verify(graph)
    return graph


def outputs(network: Network, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """All outputs of a network, as a tuple."""
    found = network(*inputs)
    return found if isinstance(found, tuple) else (found,)


def difference(left: Network, right: Network, inputs: tuple[Tensor, ...]) -> float:
    """The largest difference of two networks' outputs, relative to the largest output."""
    worst = 0.0
    for a, b in zip(outputs(left, inputs), outputs(right, inputs), strict=True):
        assert a.shape == b.shape
        worst = max(worst, float((a.double() - b.double()).abs().max() / a.double().abs().max().clamp(min=1e-30)))
    return worst


def with_values(network: Network, changed: Mapping[str, Tensor]) -> Network:
    """The network with other tensors for some stored values."""
    return Network(network.graph, network.weights.with_recipes({n: Source(t) for n, t in changed.items()}))


def layer_named(graph: Graph, name: str) -> Op:
    """An op by its name."""
    return graph.producers[name]
