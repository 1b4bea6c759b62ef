"""What nasc makes of one network of the zoo: lowering against eager PyTorch, free widths, and the proofs."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import torch
from nasc.compiler.frontend.export import trace
from nasc.compiler.frontend.lower import lower_program
from nasc.compiler.network import Network
from nasc.ir import Graph, widths_in
from nasc.ir.axes import size
from torch import Tensor

from .emission import emitted
from .models import ZooModel
from .proofs import PROOFS, difference, doubled, in_double, outputs, redraw

EQUAL = 1e-4
"""Largest difference between the lowered graph and eager PyTorch in f32, relative to the largest output."""


@dataclass
class Row:
    """One line of the zoo's table.

    Args:
        name: the network.
        parameters: how many it has.
        ops: ops of the lowered graph.
        export_s: seconds that torch.export took.
        lower_s: seconds from the exported program to the inferred and verified graph.
        error: largest difference from eager PyTorch, relative to the largest output.
        dynamic: whether the batch is an axis of its own.
        widths: free widths.
        share: share of the parameters that lie under a free width.
        raw: kinds of ops without a rule, with their number.
        proofs: by name, `holds` or what was found.
        proved_s: seconds of the proofs.
        emission: the ONNX file under ONNX Runtime against eager PyTorch, see `emission.Emitted`; None where not asked.
        fault: what went wrong, empty where nothing did.
    """

    name: str
    parameters: int = 0
    ops: int = 0
    export_s: float = 0.0
    lower_s: float = 0.0
    error: float = float("inf")
    dynamic: bool = False
    widths: int = 0
    share: float = 0.0
    raw: dict[str, int] = field(default_factory=dict[str, int])
    proofs: dict[str, str] = field(default_factory=dict[str, str])
    proved_s: float = 0.0
    emission: dict[str, Any] | None = None
    fault: str = ""

    @property
    def lowers(self) -> bool:
        """Whether the lowered graph computes what eager PyTorch does."""
        return not self.fault and self.error <= EQUAL

    @property
    def proved(self) -> bool:
        """Whether all proofs hold."""
        return bool(self.proofs) and all(p.startswith("holds") for p in self.proofs.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def free_share(graph: Graph) -> float:
    """The share of the parameters that lie under a free width."""
    counts = [(prod(size(a, graph.sizes) for a in o.type.axes), o) for o in graph.stored if o.kind == "weight"]
    free = sum(n for n, op in counts if any(True for a in op.type.axes for _ in widths_in(a)))
    return free / max(1, sum(n for n, _ in counts))


def eager(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What PyTorch computes, tensors only."""
    with torch.no_grad():
        found = module(*inputs)
    return tuple(_tensors(found))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, list | tuple) else []


def lowered(model: ZooModel, seed: int = 0) -> tuple[Row, Network, torch.nn.Module, tuple[Tensor, ...]]:
    """A network of the zoo with weights drawn anew, lowered and compared with eager PyTorch on a batch of 2."""
    torch.manual_seed(seed)
    module = model.make().eval()
    inputs = model.inputs(seed=seed)
    redraw(module, inputs, seed)
    row = Row(model.name, sum(p.numel() for p in module.parameters()))
    start = time.perf_counter()
    traced = trace(module, inputs, {})
    row.export_s, start = time.perf_counter() - start, time.perf_counter()
    network = lower_program(traced, "zoo")
    row.lower_s = time.perf_counter() - start
    row.dynamic = traced.dynamic
    graph = network.graph
    row.ops, row.widths, row.share = len(graph.ops) - len(graph.stored), len(graph.widths), free_share(graph)
    for op in graph.ops:
        if op.kind.startswith("aten."):
            row.raw[op.kind] = row.raw.get(op.kind, 0) + 1
    row.error = difference(eager(module, inputs), outputs(network, inputs))
    return row, network, module, inputs


def survey(model: ZooModel, *, seed: int = 0, proofs: bool = True, emission: bool = True) -> Row:
    """All that is said of a network in the zoo's table."""
    row, network, module, inputs = lowered(model, seed)
    if emission:
        found = emitted(model, module, network, (2, 3) if row.dynamic else (2,))
        row.emission = {**asdict(found), "agrees": found.agrees}
    del module
    gc.collect()
    if proofs:
        start = time.perf_counter()
        double = in_double(network)
        for proof in PROOFS:
            found = proof(double, doubled(inputs), seed)
            row.proofs[found.name] = str(found).partition(" ")[2] + (
                f", left out {len(found.left_out)}" if found.left_out else ""
            )
        row.proved_s = time.perf_counter() - start
    return row
