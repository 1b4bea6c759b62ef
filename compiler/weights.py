"""Tensors beside a graph, as immutable recipes over the source network: `source → gather → fold → round`.

A recipe says how a tensor comes about, so that making one costs nothing: it is named by a hash of what goes into it,
computed when something must run, and then once. Ten thousand candidates share one store of source tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..ir import Format, NascError, Step
from ..ir.axes import Axes, size


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 (hex) of a tensor's format, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().contiguous().cpu().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Recipe:
    """How one tensor comes about. `key` names it; `tensor` computes it once and is not to be written to."""

    @cached_property
    def key(self) -> str:
        """Equal keys give equal tensors."""
        raise NotImplementedError

    @cached_property
    def tensor(self) -> Tensor:
        """The tensor itself."""
        raise NotImplementedError


class Source(Recipe):
    """A tensor of the network that was lowered, read, or trained."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()

    @cached_property
    def key(self) -> str:
        """The digest of the tensor."""
        return tensor_digest(self.tensor)


class Computed(Recipe):
    """A function of other recipes.

    Args:
        what: names the function and all that it depends on beside the inputs; part of the key.
        inputs: what it reads.
        function: takes the inputs' tensors.
    """

    def __init__(self, what: str, inputs: tuple[Recipe, ...], function: Callable[..., Tensor]) -> None:
        self.what = what
        self.inputs = inputs
        self._function = function

    @cached_property
    def key(self) -> str:
        """The digest of the function's name and its inputs' keys."""
        return hashlib.sha256("\n".join([self.what, *(i.key for i in self.inputs)]).encode()).hexdigest()

    @cached_property
    def tensor(self) -> Tensor:
        """The function's value."""
        with torch.no_grad():
            return self._function(*(i.tensor for i in self.inputs))


class Mended(Recipe):
    """Numbers that make up for rounding, with those of the real-numbered network still within reach.

    Args:
        original: what the real-numbered network has in this place.
        mended: what makes up for it.
    """

    def __init__(self, original: Recipe, mended: Tensor) -> None:
        self.original = original
        self.tensor = mended.detach()

    @cached_property
    def key(self) -> str:
        """The digest of both."""
        return hashlib.sha256(f"mended {self.original.key} {tensor_digest(self.tensor)}".encode()).hexdigest()


class Rounded(Recipe):
    """Real numbers as integer codes, `clamp(round(x / step) + zero, low, high)`; the real numbers stay within reach.

    Args:
        source: the real numbers.
        format: the codes' format.
        steps: binary32, one for all (shape []) or one per index of `axis`.
        axis: the axis the steps run along, or None.
    """

    def __init__(self, source: Recipe, format: Format, steps: Tensor, axis: int | None) -> None:
        self.source = source
        self.format = format
        self.steps = steps.to(torch.float32)
        self.axis = axis

    @cached_property
    def key(self) -> str:
        """The digest of source, format and steps."""
        text = f"round {self.format} {self.axis} {self.source.key} {tensor_digest(self.steps)}"
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def tensor(self) -> Tensor:
        """The integer codes, in the smallest torch format that holds them."""
        real = self.source.tensor
        wide = real.dtype == torch.float64 or self.format.bits > 24
        real = real.to(torch.float64 if wide else torch.float32)
        steps = along(self.steps, self.axis, real.dim()).to(real.device)
        codes = (real / steps).round_().clamp_(self.format.low, self.format.high)
        return codes.to(container(self.format))

    @property
    def real(self) -> Tensor:
        """The real numbers that the codes stand for."""
        codes = self.tensor.to(torch.float64 if self.format.bits > 24 else torch.float32)
        return (codes * along(self.steps, self.axis, codes.dim()).to(codes.device)).to(torch.float32)


def along(values: Tensor, axis: int | None, rank: int) -> Tensor:
    """A vector shaped to multiply a tensor of this rank along one axis; a scalar stays one."""
    if axis is None:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def container(format: Format) -> torch.dtype:
    """The torch format that holds values of an IR format."""
    named = {
        "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "bool": torch.bool,
        "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2, "i32": torch.int32, "i64": torch.int64,
    }  # fmt: skip
    if format.name in named:
        return named[format.name]
    if format.bits <= 8:
        return torch.int8 if format.signed else torch.uint8
    return torch.int16 if format.signed else torch.uint16


@dataclass(frozen=True)
class Store:
    """The recipes of a network's stored values, by name. Implements `nasc.ir.Weights`."""

    recipes: Mapping[str, Recipe]

    def __contains__(self, name: str) -> bool:
        return name in self.recipes

    def __iter__(self) -> Iterator[str]:
        return iter(self.recipes)

    def recipe(self, name: str) -> Recipe:
        """How a value comes about.

        Raises:
            KeyError: there is no such value.
        """
        return self.recipes[name]

    def real(self, name: str) -> Tensor:
        """The real numbers before any rounding: what training starts from, and what a step is chosen for."""
        recipe = self.recipes[name]
        return recipe.source.tensor if isinstance(recipe, Rounded) else recipe.tensor

    def unrounded(self, name: str) -> Recipe:
        """The recipe of the real numbers before any rounding."""
        recipe = self.recipes[name]
        return recipe.source if isinstance(recipe, Rounded) else recipe

    def original(self, name: str) -> Recipe:
        """The recipe in the real-numbered network: before any rounding, and before what makes up for it."""
        recipe = self.unrounded(name)
        while isinstance(recipe, Mended):
            recipe = recipe.original
        return recipe

    def array(self, name: str) -> Any:
        """See `nasc.ir.Weights.array`."""
        tensor = self.recipes[name].tensor.detach().cpu()
        if tensor.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
            import ml_dtypes

            same = {
                torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
                torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
                torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
            }
            bits, dtype = same[tensor.dtype]
            return tensor.contiguous().view(bits).numpy().view(dtype)
        return tensor.numpy()

    def steps(self, name: str) -> Any:
        """See `nasc.ir.Weights.steps`."""
        recipe = self.recipes[name]
        if not isinstance(recipe, Rounded) or recipe.axis is None:
            raise KeyError(name)
        return recipe.steps.cpu().numpy()

    def with_recipes(self, changed: Mapping[str, Recipe]) -> Store:
        """The store with some recipes added or replaced."""
        return Store({**self.recipes, **changed})

    def keep(self, names: set[str]) -> Store:
        """The store with these values only."""
        return Store({name: recipe for name, recipe in self.recipes.items() if name in names})


def check_shape(name: str, tensor: Tensor, axes: Axes, widths: Mapping[str, int]) -> None:
    """Hold a tensor against the type its graph gives it.

    Raises:
        NascError: the shapes differ.
    """
    expected = tuple(size(axis, widths) for axis in axes)
    if tuple(tensor.shape) != expected:
        raise NascError(
            f"error: the tensor of %{name} has shape {tuple(tensor.shape)}, the graph says {expected}",
            mend="Graph and weights must come from the same network: write both anew with `nasc lower -o`.",
        )


def step_of(recipe: Rounded) -> Step:
    """The step as the IR's type has it."""
    if recipe.axis is not None:
        return Step.per(recipe.axis, known=True)
    return Step.of(float(recipe.steps))
