"""A network as a trainable torch module: quantizers with straight-through gradients, steps that are learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ir import Graph, NascError, Op, Step, Type, rebuilt
from .elements import spread
from .execution import called_with, known_step, rounded, run, unknown_step
from .network import Network
from .rounding import fake_elements, fake_quantized
from .weights import Recipe, Rounded, Source, Trained

SMALLEST_STEP = 1e-12
"""Steps are kept above this in training, so that dividing by them leaves gradients finite."""


class GraphModule(nn.Module):
    """A network that trains. Parameters and buffers have the names of the graph's stored values.

    A name that is taken by something else on its way gets an underscore behind it. In training mode batch norms use
    the batch's statistics. Rounding passes gradients straight through inside its range.

    A step is `start * 2^octaves`: the buffer `NAME_step` holds where it started, the parameter `NAME_octaves` how far
    training has moved it. So an optimizer's learning rate means a relative change of steps, however small they are, and
    a weight decay pulls them to where calibration put them. Where the type asks for a power of two, octaves count as
    whole numbers, with a straight-through gradient. The gradient of the step is that of learned step size quantization
    (Esser et al., ICLR 2020, equation 3); the logarithmic parameter and whole octaves are those of Jain et al., MLSys
    2020 (trained quantization thresholds). Zeros stay what they are.

    Args:
        network: where training starts, calibrated.
        learn_steps: whether steps are trained; without, they stay what they are.

    Raises:
        NascError: the network is legalized.
        ExecutionError: a step is not calibrated.
    """

    def __init__(self, network: Network, *, learn_steps: bool = True) -> None:
        super().__init__()
        if any(op.type.quantized and op.type.format.bits > 16 for op in network.graph.stored):
            raise NascError(
                "error: a legalized network does not train: its biases have the steps of accumulators",
                mend="Train first, then apply `legalize`.",
            )
        self._network = network
        self._tensors: dict[str, tuple[str, ...]] = {}
        self._steps: dict[str, tuple[str, ...]] = {}
        self._octaves: dict[str, tuple[str, ...]] = {}
        self._whole = {op.name for op in network.graph.ops if op.type.step is not None and op.type.step.power_of_two}
        for op in network.graph.stored:
            tensor, recipe = network.weights.real(op.name).clone(), network.weights.recipe(op.name)
            trains = op.kind == "weight" and tensor.is_floating_point()
            self._tensors[op.name] = _put(self, op.name, nn.Parameter(tensor) if trains else tensor)
            if isinstance(recipe, Rounded):
                if recipe.shared:
                    continue
                self._hold_step(op.name, recipe.steps.clone(), learn_steps)
            elif op.type.quantized:
                raise unknown_step(f"%{op.name}")
        for op in network.graph.ops:
            if op.kind == "quantize" and not _in_blocks(op):
                value, _ = known_step(op.type.step, f"%{op.name}")
                self._hold_step(op.name, torch.tensor(value, dtype=torch.float32), learn_steps)

    def _hold_step(self, name: str, start: Tensor, learn: bool) -> None:
        self._steps[name] = _put(self, f"{name}_step", start)
        if learn:
            self._octaves[name] = _put(self, f"{name}_octaves", nn.Parameter(torch.zeros_like(start)))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the graph, on inputs in its order or by name; returns the output, or a tuple where there are several."""
        graph = self._network.graph
        given = called_with(inputs, named, graph)
        values = {op.name: self._real(op) for op in graph.stored}
        outputs = run(graph, values, given, training=self.training, quantize=self._quantized)
        return outputs[0] if len(outputs) == 1 else outputs

    def source(self) -> Network:
        """The network that this module was made of."""
        return self._network

    def tensor_of(self, name: str) -> Tensor:
        """The real numbers of a stored value as training has them."""
        return _get(self, self._tensors[name])

    def step_of(self, name: str) -> Tensor:
        """The step of a quantized value as training has it, positive; one number, or one per index of its axis."""
        start = _get(self, self._steps[name])
        if name not in self._octaves:
            return start
        octaves = _get(self, self._octaves[name])
        if name in self._whole:
            octaves = octaves + (torch.round(octaves) - octaves).detach()
        return (start * torch.exp2(octaves)).clamp(min=SMALLEST_STEP)

    def _real(self, op: Op) -> Tensor:
        """The real numbers of a stored value, rounded as its type says."""
        tensor = self.tensor_of(op.name)
        recipe = self._network.weights.recipe(op.name)
        if not isinstance(recipe, Rounded):
            return tensor
        if recipe.shared:
            return fake_blocks(tensor, op.type)
        step = self.step_of(op.name)
        if recipe.block is not None:  # as many values share a step as it says, see `fake_quantized`
            step = step.detach() + (step - step.detach()) / math.sqrt(recipe.block)
        step = spread(step, recipe.axis, recipe.block, tensor.shape)
        if recipe.format.family != "int":
            return fake_elements(tensor, step, recipe.format)
        zeros = recipe.spread_zeros(tensor)
        return fake_quantized(tensor, step, zeros, recipe.format.low, recipe.format.high)

    def _quantized(self, op: Op, x: Tensor) -> Tensor:
        """What a `quantize` op does in training."""
        if _in_blocks(op):
            return fake_blocks(x, op.type)
        _, zero = known_step(op.type.step, f"%{op.name}")
        samples = x.shape[0] if x.dim() > 1 else 1
        if op.type.format.family != "int":
            return fake_elements(x, self.step_of(op.name), op.type.format, samples=samples)
        return fake_quantized(x, self.step_of(op.name), zero, op.type.format.low, op.type.format.high, samples=samples)


def _in_blocks(op: Op) -> bool:
    return op.type.step is not None and op.type.step.block is not None


def fake_blocks(x: Tensor, type: Type) -> Tensor:
    """What a type keeps of `x` in blocks whose steps follow from themselves; all gradients pass straight through."""
    return rounded(x.detach(), type) + (x - x.detach())


def with_trained(network: Network, module: nn.Module) -> Network:
    """The network with what training has left in a module made by `Network.module`.

    Raises:
        NascError: the module came from another network.
    """
    if not isinstance(module, GraphModule) or module.source().graph != network.graph:
        raise NascError("error: with_trained takes the module that this network's module() gave")
    return with_values(network, module.tensor_of, module.step_of)


def with_values(network: Network, tensor_of: Callable[[str], Tensor], step_of: Callable[[str], Tensor]) -> Network:
    """The network with other numbers of the same shapes.

    Args:
        network: whose graph and formats stay.
        tensor_of: the real numbers of a stored value by its name, before rounding.
        step_of: the step of a quantized value by its name; one number, or one per index of its axis.
    """
    recipes: dict[str, Recipe] = {}
    steps: dict[str, Step] = {}
    graph: Graph = network.graph
    for op in graph.stored:
        kept = Trained if op.kind == "weight" and graph.quantized else Source
        tensor = tensor_of(op.name).detach().clone()
        old = network.weights.recipe(op.name)
        if isinstance(old, Rounded):
            found = None if old.shared else step_of(op.name).detach().clone()
            recipes[op.name] = old.replaced(kept(tensor), found)
            steps[op.name] = _trained(cast(Step, op.type.step), found)
        else:
            recipes[op.name] = kept(tensor)
    for op in graph.ops:
        if op.kind == "quantize" and not _in_blocks(op):
            steps[op.name] = _trained(cast(Step, op.type.step), step_of(op.name))
    ops = [op.with_type(replace(op.type, step=steps[op.name])) if op.name in steps else op for op in graph.ops]
    return Network(rebuilt(graph, ops), network.weights.with_recipes(recipes))


def _trained(old: Step, value: Tensor | None) -> Step:
    """A step with the value that training has found; what it must be, it stays."""
    if old.axis is not None or value is None:
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
