"""Rewrite the tensors of a network by index maps of its widths: narrow, grow, permute and copy are one function."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...ir import SPECS, Axis, Graph, Op, widths_in
from ..analyses.growth import Growth, copies, growth
from ..chance import generator
from ..network import Network
from ..weights import Computed, Recipe
from .terms import gather_index, owners

BLOCK = 4
"""From how many elements on a block is copied as a whole; smaller ones are faster axis by axis."""
Growing = Literal["net2net", "nearly", "initialise"]


@dataclass(frozen=True)
class Policy:
    """What to do about channels that a network did not have.

    Args:
        grow: `net2net`, `nearly`: copies are divided so that the function stays; `initialise`: new entries are drawn.
        noise: deviation of noise on copies, relative to the weight's own.
        seed: for noise and new entries.
    """

    grow: Growing = "net2net"
    noise: float = 0.0
    seed: int = 0


def gathered(network: Network, graph: Graph, maps: Mapping[str, Tensor], policy: Policy) -> dict[str, Recipe]:
    """The tensors that change when every axis is rewritten by the index maps of its widths.

    Args:
        network: where the tensors come from.
        graph: the graph whose terms say which index belongs to which width: the network's own, or its ordered reading.
        maps: for each width that changes, the old index that each new one comes from; -1 for one drawn afresh.
        policy: what to do about new channels.
    """
    copied = {w for w, m in maps.items() if bool((copies(m, graph.sizes[w]) > 1).any())}
    how = growth_of(network, graph) if copied and policy.grow != "initialise" else Growth()
    recipes: dict[str, Recipe] = {}
    known: dict[Axis, Tensor] = {}
    for op in graph.stored:
        touched = [i for i, axis in enumerate(op.type.axes) if any(w in maps for w in widths_in(axis))]
        divided = {w: m for w, m in how.divided.get(op.name, {}).items() if w in copied}
        if not touched and not divided:
            continue
        for axis in (op.type.axes[i] for i in touched):
            if axis not in known:
                known[axis] = gather_index(axis, graph.sizes, maps)
        indices = {i: known[op.type.axes[i]] for i in touched}
        source = network.weights.unrounded(op.name)
        divisor = division(op, graph, maps, divided) if divided else None
        recipes[op.name] = gathered_tensor(op, source, indices, divisor, policy)
    return recipes


def growth_of(network: Network, graph: Graph) -> Growth:
    """How the widths of a graph grow; found out once per graph."""
    if (known := graph.__dict__.get("_growth")) is None:
        known = growth(graph, network.indices)
        object.__setattr__(graph, "_growth", known)
    return known


def division(
    op: Op, graph: Graph, maps: Mapping[str, Tensor], divided: Mapping[str, Tensor | None]
) -> dict[tuple[int, ...], Tensor]:
    """What to divide a tensor by before it is gathered: factors for some of its axes, each over just these axes."""
    type = op.type
    reading = reading_axes(graph, op.name)
    found: dict[tuple[int, ...], Tensor] = {}
    for width, mask in divided.items():
        counts = copies(maps[width], graph.sizes[width]).double()
        axes = tuple(i for i, axis in enumerate(type.axes) if width in widths_in(axis))
        if mask is None and reading.intersection(axes):
            axes = tuple(i for i in axes if i in reading)  # a square weight writes the width by its other axis
        if axes:
            at = torch.full((1,) * len(axes), -1)
            for k, i in enumerate(axes):
                shape = [1] * len(axes)
                shape[k] = -1
                at = torch.maximum(at, owners(type.axes[i], width, graph.sizes).reshape(shape))
            factor = torch.where(at < 0, 1.0, counts.clamp(min=1)[at.clamp(min=0)])
        else:
            factor = counts[counts > 0].mean()
        if mask is not None:
            shape = [1] * len(type.axes)
            for k, i in enumerate(axes):
                shape[i] = factor.shape[k]
            factor = torch.where(mask, factor.reshape(shape), 1.0)
            axes = tuple(range(len(type.axes)))
        found[axes] = found[axes] * factor if axes in found else factor
    return found


def reading_axes(graph: Graph, name: str) -> set[int]:
    """The axes along which layers sum over a stored tensor, where layers alone read it as their weight."""
    found: set[int] = set()
    for reader in graph.readers.get(name, ()):
        spec = SPECS.get(reader.kind)
        if spec is None or spec.input_axis is None or reader.inputs[spec.index("weight")] != name:
            return set()
        found.add(spec.input_axis)
    return found


def gathered_tensor(
    op: Op,
    source: Recipe,
    indices: Mapping[int, Tensor],
    divisor: Mapping[tuple[int, ...], Tensor] | None,
    policy: Policy,
) -> Recipe:
    """The recipe of a stored tensor with some axes gathered.

    Args:
        op: the `weight` or `buffer` op.
        source: the tensor before.
        indices: for each axis that changes, the old index of each new one.
        divisor: what to divide the tensor by first, by axes; see `division`.
        policy: what to do about new entries.
    """
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in indices.values()))
    for axes, factor in (divisor or {}).items():
        digest.update(str(axes).encode() + factor.numpy().tobytes())
    drawn = policy.noise > 0 or any(bool((v < 0).any()) for v in indices.values())
    what = f"gather {[(axis, len(index)) for axis, index in indices.items()]} {digest.hexdigest()}"
    if drawn:
        what += f" {policy.grow} {policy.noise} {policy.seed} {op.name}"

    def function(tensor: Tensor) -> Tensor:
        result = tensor
        for axes, factor in (divisor or {}).items():
            shape = [1] * tensor.dim()
            for k, i in enumerate(axes):
                shape[i] = factor.shape[k]
            result = (result / factor.reshape(shape)).to(tensor.dtype)
        old = {axis: index.clamp(min=0) for axis, index in indices.items()} if drawn else dict(indices)
        if {0, 1} <= old.keys() and tensor.shape[2:].numel() >= BLOCK:
            result = taken_in_blocks(result, old.pop(0), old.pop(1))
        for axis, index in sorted(old.items(), key=lambda item: len(item[1]) / tensor.shape[item[0]]):
            result = taken(result, axis, index)
        return with_new(op, tensor, result, indices, policy) if drawn else result.contiguous()

    return Computed(what, (source,), function)


def taken_in_blocks(tensor: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Some indices of the first two axes, both at once: each block behind them (a kernel) is copied one time only."""
    if min(len(rows), len(columns)) == 0:
        return tensor.index_select(0, rows).index_select(1, columns)
    blocks = (rows[:, None] * tensor.shape[1] + columns).reshape(-1)
    return tensor.flatten(0, 1).index_select(0, blocks).unflatten(0, (len(rows), len(columns)))


def taken(tensor: Tensor, axis: int, index: Tensor) -> Tensor:
    """Some indices of an axis in a given order; a view where they lie next to each other."""
    first, last = (int(index[0]), int(index[-1])) if len(index) else (0, -1)
    if first >= 0 and last - first == len(index) - 1 and torch.equal(index, torch.arange(first, first + len(index))):
        return tensor.narrow(axis, first, len(index))
    return tensor.index_select(axis, index)


def with_new(op: Op, tensor: Tensor, result: Tensor, indices: Mapping[int, Tensor], policy: Policy) -> Tensor:
    """A gathered tensor with noise on its copies, and new entries drawn."""
    fresh = torch.zeros((), dtype=torch.bool)
    copied = torch.zeros((), dtype=torch.bool)
    for axis, index in indices.items():
        shape = [1] * tensor.dim()
        shape[axis] = -1
        fresh = fresh | (index < 0).reshape(shape)
        copied = copied | (copies(index, tensor.shape[axis])[index.clamp(min=0)] > 1).reshape(shape)
    random = generator(policy.seed, "resize", op.name)
    if policy.noise and op.kind == "weight" and tensor.dim() > 1:
        noise = torch.randn(result.shape, generator=random) * policy.noise * tensor.std(correction=0)
        result = torch.where(copied & ~fresh, result + noise.to(result.dtype), result)
    if bool(fresh.any()):
        result = torch.where(fresh, initial(tensor, result, random), result)
    return result.contiguous()


def initial(tensor: Tensor, result: Tensor, random: torch.Generator) -> Tensor:
    """New entries: normal with the old ones' deviation for weights, the old mean for vectors (biases, statistics)."""
    if tensor.dim() > 1:
        return (torch.randn(result.shape, generator=random) * tensor.std(correction=0)).to(result.dtype)
    return tensor.mean().expand(result.shape).to(result.dtype)
