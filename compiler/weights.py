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
from ..ir.formats import largest
from .elements import block_steps, codes_of, container, elements_of, nearest, spread


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 (hex) of a tensor's format, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().contiguous().cpu().reshape(-1)
    held: Any = flat.view(torch.uint8).numpy()
    digest.update(held)
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


class Trained(Source):
    """A tensor that was trained with rounding in place: no real-numbered network stands behind it any more."""


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
    """Real numbers as codes of a format: of integers `clamp(round(x / step) + zero, low, high)`; the numbers stay in
    reach.

    Args:
        source: the real numbers.
        format: the codes' format.
        steps: binary32: one for all (shape []), one per index of `axis`, or one per block along it (the tensor's shape
            with that axis cut down to the count of blocks). None: exponents that blocks share, from the blocks.
        axis: the axis the steps run along, or None.
        block: how many indices of the axis share a step, or None.
        zeros: the codes that mean 0, integers, one for each step; None: 0 for all.
    """

    def __init__(
        self,
        source: Recipe,
        format: Format,
        steps: Tensor | None,
        axis: int | None,
        block: int | None = None,
        zeros: Tensor | None = None,
    ) -> None:
        self.source = source
        self.format = format
        self.axis = axis
        self.block = block
        self.zeros = None if zeros is None else zeros.to(torch.int32)
        self._given = None if steps is None else steps.to(torch.float32)

    @cached_property
    def steps(self) -> Tensor:
        """The steps, see above."""
        if self._given is not None:
            return self._given
        assert self.block is not None
        return block_steps(self.source.tensor, self.format, Step.blocks(self.block, self.axis, power_of_two=True))

    @cached_property
    def key(self) -> str:
        """The digest of source, format, steps and zeros."""
        steps = "own" if self._given is None else tensor_digest(self._given)
        block = "" if self.block is None else f" block {self.block}"
        zeros = "" if self.zeros is None else f" zeros {tensor_digest(self.zeros)}"
        text = f"round {self.format} {self.axis}{block} {self.source.key} {steps}{zeros}"
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def tensor(self) -> Tensor:
        """The codes, in the smallest torch format that holds them."""
        real = self.source.tensor
        wide = real.dtype == torch.float64 or self.format.bits > 24
        real = real.to(torch.float64 if wide else torch.float32)
        scaled = real / self._spread(real)
        if self.format.family == "int":
            codes = scaled.round_()
            if self.zeros is not None:
                codes += self.spread_zeros(codes)
            return codes.clamp_(self.format.low, self.format.high).to(container(self.format))
        return codes_of(nearest(scaled, self.format), self.format)

    @property
    def real(self) -> Tensor:
        """The real numbers that the codes stand for."""
        found = elements_of(self.tensor, self.format)
        if self.zeros is not None:
            found -= self.spread_zeros(found)
        return (found * self._spread(found)).to(torch.float32)

    def _spread(self, like: Tensor) -> Tensor:
        return spread(self.steps, self.axis, self.block, like.shape).to(like.device)

    def spread_zeros(self, like: Tensor) -> Tensor | int:
        """The zeros shaped to be added to a tensor of this one's shape, in its torch format."""
        if self.zeros is None:
            return 0
        return spread(self.zeros, self.axis, self.block, like.shape).to(like)

    def replaced(self, source: Recipe, steps: Tensor | None) -> Rounded:
        """Other real numbers with these steps (None: exponents of their own), in the same format, with the same
        zeros."""
        return Rounded(source, self.format, steps, self.axis, self.block, self.zeros)

    @property
    def shared(self) -> bool:
        """Whether the steps are exponents that blocks share."""
        return self._given is None


def rounded_once(recipe: Recipe, format: Format, step: Step) -> Rounded:
    """Real numbers rounded with a known step for the whole tensor."""
    assert step.value is not None
    zeros = torch.tensor(step.zero) if step.zero else None
    return Rounded(recipe, format, torch.tensor(step.value), None, zeros=zeros)


def stored_as(recipe: Recipe, format: Format) -> Recipe:
    """The recipe of a tensor in another floating-point format; beyond its range numbers saturate."""
    most = float(largest(format))

    def function(tensor: Tensor) -> Tensor:
        held = tensor.clamp(-most, most) if most < torch.finfo(tensor.dtype).max else tensor
        return held.to(container(format))

    return Computed(f"store {format}", (recipe,), function)


def along(values: Tensor, axis: int | None, rank: int) -> Tensor:
    """A vector shaped to multiply a tensor of this rank along one axis; a scalar stays one."""
    if axis is None:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


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

    def zeros(self, name: str) -> Any:
        """See `nasc.ir.Weights.zeros`."""
        recipe = self.recipes[name]
        if not isinstance(recipe, Rounded) or recipe.axis is None or recipe.zeros is None:
            raise KeyError(name)
        return recipe.zeros.cpu().numpy()

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
