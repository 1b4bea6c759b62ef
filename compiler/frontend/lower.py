"""From an exported program to the IR: names after the user's modules, the user's line on every op, widths inferred."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...ir import infer, verify, without_dead_code
from ..network import Network
from ..weights import Store
from .export import Traced, trace
from .task import Task
from .walk import LoweringError, OtherDynamicAxis, Walk, flattened


def lower_module(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, *, name: str | None = None
) -> Network:
    """Lower a PyTorch module and check the result against it on the example inputs.

    Args:
        module: the network; its evaluation mode is lowered.
        args: example inputs, whose axis 0 is the batch.
        kwargs: example keyword inputs.
        name: the graph's name, by default the module's class.

    Raises:
        NascError: torch.export refuses the model, or the graph does not compute what the module does.
    """
    kwargs = kwargs or {}
    called = name or snake(type(module).__name__)
    traced = trace(module, args, kwargs)
    try:
        network = lower_program(traced, called)
    except OtherDynamicAxis:
        if not traced.dynamic:
            raise
        network = lower_program(trace(module, args, kwargs, dynamic=False), called)
    check(network, module, args, kwargs)
    return network


def lower_task(task: Task) -> Network:
    """The network of a task: its module lowered, or what was lowered or exported before.

    Raises:
        NascError: see `lower_module`.
    """
    if task.lowered is not None:
        return task.lowered()
    example = task.example_inputs
    with task.importing():
        return lower_module(task.model, example.args, example.kwargs, name=task.name)


def snake(name: str) -> str:
    """`TinyCNN` as `tiny_cnn`: a graph's name."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return re.sub(r"[^a-z0-9_]", "_", text) or "graph"


def lower_program(traced: Traced, name: str) -> Network:
    """The graph and weights of an exported program.

    Raises:
        LoweringError: a value has an axis that depends on the input in another way than through the batch.
    """
    walk = Walk(traced, name)
    for node in traced.program.graph_module.graph.nodes:
        walk.add(node)
    inferred = infer(without_dead_code(walk.graph())).graph
    verify(inferred, after="lowering")
    return Network(inferred, Store({op.name: walk.recipes[op.name] for op in inferred.stored}))


def check(network: Network, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Run the lowered graph and the module on the example inputs.

    Raises:
        LoweringError: outputs differ by more than 1e-4 of the largest value (1e-9 in f64).
    """
    was = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            expected = [v for v in flattened(module(*args, **kwargs)) if isinstance(v, Tensor)]
    finally:
        for part, mode in was.items():
            part.training = mode
    tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
    found = network(*tensors)
    found = found if isinstance(found, tuple) else (found,)
    for name, want, have in zip(network.graph.outputs, expected, found, strict=True):
        if not want.numel():
            continue
        tolerance = 1e-9 if want.dtype == torch.float64 else 1e-4
        bound = tolerance * max(1e-6, float(want.double().abs().nan_to_num().max()))
        if not torch.allclose(have.double(), want.double(), rtol=0, atol=bound, equal_nan=True):
            error = float((want.double() - have.double()).abs().max())
            raise LoweringError(f"error: output %{name} of the lowered graph differs from the module's by {error:.3g}")
