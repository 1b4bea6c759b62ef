"""A network as a trainable torch module, quantizers simulated with straight-through gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ir import Graph, NascError, Op, Step, rebuilt
from .execution import known_step, run, unknown_step
from .network import Network
from .weights import Recipe, Rounded, Source, along

SMALLEST_STEP = 1e-12
"""Steps are kept above this in training, so that dividing by them leaves gradients finite."""


class GraphModule(nn.Module):
    """A network that trains. Parameters and buffers have the names of the graph's stored values.

    A name that is taken by something else on its way gets an underscore behind it. In training mode batch norms use
    the batch's statistics. Rounding passes gradients straight through inside its range, and steps are trained with it
    (learned step size quantization: Esser et al., ICLR 2020), but for steps that must be powers of two, which stay.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        if any(op.type.quantized and op.type.format.bits > 16 for op in network.graph.stored):
            raise NascError(
                "error: a legalized network does not train: its biases have the steps of accumulators",
                mend="Train first, then apply `legalize`.",
            )
        self._network = network
        self._tensors: dict[str, tuple[str, ...]] = {}
        self._steps: dict[str, tuple[str, ...]] = {}
        for op in network.graph.stored:
            tensor, recipe = network.weights.real(op.name).clone(), network.weights.recipe(op.name)
            trains = op.kind == "weight" and tensor.is_floating_point()
            self._tensors[op.name] = _put(self, op.name, nn.Parameter(tensor) if trains else tensor)
            if isinstance(recipe, Rounded):
                self._steps[op.name] = _put(self, f"{op.name}_step", _trainable(recipe.steps.clone(), op.type.step))
            elif op.type.quantized:
                raise unknown_step(f"%{op.name}")
        for op in network.graph.ops:
            if op.kind == "quantize":
                value, _ = known_step(op.type.step, f"%{op.name}")
                step = torch.tensor(value, dtype=torch.float32)
                self._steps[op.name] = _put(self, f"{op.name}_step", _trainable(step, op.type.step))

    def forward(self, *inputs: Tensor) -> Any:
        """Run the graph; returns the output, or a tuple where there are several."""
        graph = self._network.graph
        values = {op.name: self._real(op) for op in graph.stored}
        outputs = run(graph, values, inputs, training=self.training, quantize=self._quantized)
        return outputs[0] if len(outputs) == 1 else outputs

    def source(self) -> Network:
        """The network that this module was made of."""
        return self._network

    def tensor_of(self, name: str) -> Tensor:
        """The real numbers of a stored value as training has them."""
        return _get(self, self._tensors[name])

    def step_of(self, name: str) -> Tensor:
        """The step of a quantized value as training has it, positive; one number, or one per index of its axis."""
        return _get(self, self._steps[name]).abs().clamp(min=SMALLEST_STEP)

    def _real(self, op: Op) -> Tensor:
        """The real numbers of a stored value, rounded as its type says."""
        tensor = self.tensor_of(op.name)
        recipe = self._network.weights.recipe(op.name)
        if not isinstance(recipe, Rounded):
            return tensor
        step = along(self.step_of(op.name), recipe.axis, tensor.dim())
        return fake_quantized(tensor, step, 0, recipe.format.low, recipe.format.high)

    def _quantized(self, op: Op, x: Tensor) -> Tensor:
        """What a `quantize` op does in training."""
        _, zero = known_step(op.type.step, f"%{op.name}")
        return fake_quantized(x, self.step_of(op.name), zero, op.type.format.low, op.type.format.high)


def _trainable(step: Tensor, kind: Step | None) -> Tensor:
    return step if kind is not None and kind.power_of_two else nn.Parameter(step)


def fake_quantized(x: Tensor, step: Tensor, zero: int, low: int, high: int) -> Tensor:
    """`(clamp(round(x / step) + zero, low, high) - zero) * step`, bit for bit, with gradients for `x` and `step`.

    The gradient of the step is scaled by `1 / sqrt(values per step * high)`: Esser et al., ICLR 2020, section 2.2.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    scale = 1.0 / math.sqrt(max(1, x.numel() // max(1, step.numel())) * max(1, high))
    scaled = step * scale
    step = step.detach() + (scaled - scaled.detach())
    codes = (x / step).clamp(low - zero, high - zero)
    codes = codes + (torch.round(codes) - codes).detach()
    return codes * step


def with_trained(network: Network, module: nn.Module) -> Network:
    """The network with what training has left in a module made by `Network.module`.

    Raises:
        NascError: the module came from another network.
    """
    if not isinstance(module, GraphModule) or module.source().graph != network.graph:
        raise NascError("error: with_trained takes the module that this network's module() gave")
    recipes: dict[str, Recipe] = {}
    steps: dict[str, Step] = {}
    graph: Graph = network.graph
    for op in graph.stored:
        tensor = module.tensor_of(op.name).detach().clone()
        old = network.weights.recipe(op.name)
        if isinstance(old, Rounded):
            found = module.step_of(op.name).detach().clone()
            recipes[op.name] = Rounded(Source(tensor), old.format, found, old.axis)
            steps[op.name] = _trained(cast(Step, op.type.step), found)
        else:
            recipes[op.name] = Source(tensor)
    for op in graph.ops:
        if op.kind == "quantize":
            steps[op.name] = _trained(cast(Step, op.type.step), module.step_of(op.name))
    ops = [op.with_type(replace(op.type, step=steps[op.name])) if op.name in steps else op for op in graph.ops]
    return Network(rebuilt(graph, ops), network.weights.with_recipes(recipes))


def _trained(old: Step, value: Tensor) -> Step:
    """A step with the value that training has found; what it must be, it stays."""
    if old.axis is not None:
        return old
    new = Step.of(float(value.detach()), cast(int, old.zero))
    return replace(new, power_of_two=old.power_of_two or new.power_of_two)


def _put(root: nn.Module, name: str, tensor: Tensor) -> tuple[str, ...]:
    """Register a parameter or buffer under a dotted name, making the modules on the way; gives where it lies."""
    *path, last = name.split(".")
    places: list[str] = []
    for part in path:
        while part not in root._modules and hasattr(root, part):  # pyright: ignore[reportPrivateUsage]
            part += "_"
        if part not in root._modules:  # pyright: ignore[reportPrivateUsage]
            root.add_module(part, nn.Module())
        places.append(part)
        root = cast(nn.Module, getattr(root, part))
    while hasattr(root, last):
        last += "_"
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(last, tensor)
    else:
        root.register_buffer(last, tensor)
    return (*places, last)


def _get(root: nn.Module, place: tuple[str, ...]) -> Tensor:
    found: Any = root
    for part in place:
        found = getattr(found, part)
    return cast(Tensor, found)
