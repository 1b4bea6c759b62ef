"""A network as a trainable torch module, quantizers simulated with straight-through gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ir import Graph, NascError, Op, Step, rebuilt
from .execution import known_step, run
from .network import Network
from .weights import Recipe, Rounded, Source, along, step_of


class GraphModule(nn.Module):
    """A network that trains. Parameters and buffers have the names of the graph's stored values.

    In training mode batch norms use the batch's statistics. Rounding passes gradients straight through inside its
    range, and steps are trained with it (learned step size quantization: Esser et al., ICLR 2020), but for steps that
    must be powers of two, which stay.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        if any(op.type.quantized and op.type.format.bits > 16 for op in network.graph.stored):
            raise NascError(
                "error: a legalized network does not train: its biases have the steps of accumulators",
                mend="Train first, then apply `legalize`.",
            )
        self.network = network
        for op in network.graph.stored:
            tensor = network.weights.real(op.name).clone()
            recipe = network.weights.recipe(op.name)
            if op.kind == "weight" and tensor.is_floating_point():
                _put(self, op.name, nn.Parameter(tensor))
            else:
                _put(self, op.name, tensor)
            if isinstance(recipe, Rounded):
                _put(self, op.name + "_step", _trainable(recipe.steps.clone(), op.type.step))
        for op in network.graph.ops:
            if op.kind == "quantize":
                value, _ = known_step(op.type.step, f"%{op.name}")
                _put(self, op.name + "_step", _trainable(torch.tensor(value), op.type.step))

    def forward(self, *inputs: Tensor) -> Any:
        """Run the graph; returns the output, or a tuple where there are several."""
        graph = self.network.graph
        values = {op.name: self.stored(op) for op in graph.stored}
        outputs = run(graph, values, inputs, training=self.training, quantize=self.quantize)
        return outputs[0] if len(outputs) == 1 else outputs

    def stored(self, op: Op) -> Tensor:
        """The real numbers of a stored value, rounded as its type says."""
        tensor = cast(Tensor, _get(self, op.name))
        recipe = self.network.weights.recipe(op.name)
        if not isinstance(recipe, Rounded):
            return tensor
        step = along(cast(Tensor, _get(self, op.name + "_step")), recipe.axis, tensor.dim())
        return fake_quantized(tensor, step, 0, recipe.format.low, recipe.format.high)

    def quantize(self, op: Op, x: Tensor) -> Tensor:
        """What a `quantize` op does in training."""
        _, zero = known_step(op.type.step, f"%{op.name}")
        step = cast(Tensor, _get(self, op.name + "_step"))
        return fake_quantized(x, step, zero, op.type.format.low, op.type.format.high)


def _trainable(step: Tensor, kind: Step | None) -> Tensor:
    return step if kind is not None and kind.power_of_two else nn.Parameter(step)


def fake_quantized(x: Tensor, step: Tensor, zero: int, low: int, high: int) -> Tensor:
    """`(clamp(round(x / step) + zero, low, high) - zero) * step` with gradients for `x` and `step`.

    The gradient of the step is scaled by `1 / sqrt(values per step * high)`: Esser et al., ICLR 2020, section 2.2.
    """
    scale = 1.0 / math.sqrt(max(1, x.numel() // max(1, step.numel())) * max(1, high))
    step = step.abs().clamp(min=1e-12)
    step = (step - step * scale).detach() + step * scale
    codes = x / step
    codes = codes + (torch.round(codes) - codes).detach()
    return (codes + zero).clamp(low, high).sub(zero) * step


def with_trained(network: Network, module: nn.Module) -> Network:
    """The network with what training has left in a module made by `Network.module`.

    Raises:
        NascError: the module came from another network.
    """
    if not isinstance(module, GraphModule) or module.network.graph.stored != network.graph.stored:
        raise NascError("error: with_trained takes the module that this network's module() gave")
    recipes: dict[str, Recipe] = {}
    steps: dict[str, Step] = {}
    graph: Graph = network.graph
    for op in graph.stored:
        tensor = cast(Tensor, _get(module, op.name)).detach().clone()
        old = network.weights.recipe(op.name)
        if isinstance(old, Rounded):
            found = cast(Tensor, _get(module, op.name + "_step")).detach().abs().clamp(min=1e-12).clone()
            recipes[op.name] = new = Rounded(Source(tensor), old.format, found, old.axis)
            steps[op.name] = replace(step_of(new), power_of_two=bool(op.type.step and op.type.step.power_of_two))
        else:
            recipes[op.name] = Source(tensor)
    for op in graph.ops:
        if op.kind == "quantize":
            value = float(cast(Tensor, _get(module, op.name + "_step")).detach().abs())
            old_step = cast(Step, op.type.step)
            steps[op.name] = replace(Step.of(value, cast(int, old_step.zero)), power_of_two=old_step.power_of_two)
    ops = [op.with_type(replace(op.type, step=steps[op.name])) if op.name in steps else op for op in graph.ops]
    return Network(rebuilt(graph, ops), network.weights.with_recipes(recipes))


def _put(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a parameter or buffer under a dotted name, making the modules on the way."""
    *path, last = name.split(".")
    for part in path:
        if not isinstance(getattr(root, part, None), nn.Module):
            root.add_module(part, nn.Module())
        root = cast(nn.Module, getattr(root, part))
    last = _safe(root, last)
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(last, tensor)
    else:
        root.register_buffer(last, tensor)


def _get(root: nn.Module, name: str) -> Any:
    *path, last = name.split(".")
    for part in path:
        root = cast(nn.Module, getattr(root, part))
    held = {**dict(root.named_parameters(recurse=False)), **dict(root.named_buffers(recurse=False))}
    return held[last] if last in held else held[last + "_"]


def _safe(root: nn.Module, name: str) -> str:
    """A name that does not hide one of the module's own."""
    return name + "_" if hasattr(root, name) else name
