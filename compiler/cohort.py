"""Several networks that differ in bits and widths only, run and trained as one: what a step costs beside its arithmetic
is paid once for all of them.

A step of a small network is mostly calls of small operations. Networks of one structure can share these calls: their
tensors are stacked along a new first axis, and torch maps the graph over it (`torch.func.vmap`). Bits are numbers then,
the bounds of codes. Narrower networks are filled up with zeros that stay zero, so they compute what they would alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ir import STORED, Graph, NascError, Op, Type, ordered_graph
from ..ir.axes import size
from .execution import Frame, batch_of, called_with, compute, known_step, last_uses, unknown_step
from .module import SMALLEST_STEP, with_values
from .network import Network
from .resizing.gather import growth_of
from .resizing.terms import gather_index
from .weights import Rounded, along

ALONE = ("batch_norm",)
"""Kinds of ops that write to their buffers while training, which cannot be mapped over several networks."""


def cohorts(networks: Sequence[Network], limit: int) -> list[list[int]]:
    """Which networks can be trained together, as positions in the list, in order of the first of each cohort.

    Networks go together if they differ in formats, steps and the sizes of widths alone. Widths that a statistic runs
    along (layer norm, softmax, mean) must have one size, since zeros would count there.

    Args:
        networks: calibrated, not legalized.
        limit: how many go together at most.
    """
    groups: dict[object, list[int]] = {}
    for at, network in enumerate(networks):
        groups.setdefault(_likeness(network, at), []).append(at)
    parts = [group[i : i + limit] for group in groups.values() for i in range(0, len(group), limit)]
    return sorted(parts)


def _likeness(network: Network, at: int) -> object:
    """Equal for networks that can be trained together."""
    graph = network.graph
    if any(op.kind in ALONE or op.kind.startswith("aten.") or not all(map(_plain, op.types)) for op in graph.ops):
        return at
    exact = ordered_graph(graph) is graph
    how = growth_of(network, graph) if exact else None
    fixed = {w: n for w, n in graph.sizes.items() if how is None or how.exactness(w) != "any"}
    return (graph.inputs, graph.outputs, tuple(_shown(network, op) for op in graph.ops), tuple(fixed.items()))


def _plain(type: Type) -> bool:
    """Whether it is rounded to integers with steps that blocks do not have for themselves and without several zeros, or
    not at all."""
    step = type.step
    return step is None or (type.format.family == "int" and step.block is None and not step.zeros)


def _shown(network: Network, op: Op) -> object:
    """An op without its integer formats and the values of its steps."""
    steps = [None if t.step is None else (t.step.axis, t.step.power_of_two) for t in op.types]
    axes = tuple((t.axes, None if t.quantized else t.format) for t in op.types)
    rounded = op.name in network.weights and isinstance(network.weights.recipe(op.name), Rounded)
    return (op.kind, op.results, op.inputs, op.attributes, axes, tuple(steps), rounded)


class Cohort(nn.Module):
    """Networks that train as one. Its output has the networks along the first axis: [networks, …].

    Args:
        networks: of one cohort (`cohorts`).
        learn_steps: whether steps are trained; without, they stay what they are.

    Raises:
        NascError: they do not go together.
        ExecutionError: a step is not calibrated.
    """

    def __init__(self, networks: Sequence[Network], *, learn_steps: bool = True) -> None:
        super().__init__()
        if len(cohorts(networks, len(networks))) != 1:
            raise NascError(f"error: these {len(networks)} networks differ in more than bits and widths")
        self._networks, self._learn = tuple(networks), learn_steps
        first = networks[0].graph
        sizes = {w: max(n.graph.sizes[w] for n in networks) for w in first.sizes}
        self._graph: Graph = first.with_sizes(sizes)
        self._indices = {op.name: [_indices(n.graph, op.name, sizes) for n in networks] for op in first.stored}
        self._trained, self._octaves = nn.ParameterDict(), nn.ParameterDict()
        self._fixed: dict[str, Tensor] = {}
        self._same: set[str] = set()  # what is the same in all networks and never trained is held once
        self._start: dict[str, Tensor] = {}
        self._bounds: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._axes: dict[str, int | None] = {}
        for op in first.stored:
            self._hold(op)
        for op in first.ops:
            if op.kind == "quantize":
                steps = [torch.tensor(known_step(n.graph.types[op.name].step, f"%{op.name}")[0]) for n in networks]
                self._hold_steps(op, torch.stack(steps).float(), None)

    def __len__(self) -> int:
        return len(self._networks)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run all networks on the same inputs, in their order or by name; returns the output, or a tuple where there
        are several."""
        graph = self._graph
        given = called_with(inputs, named, graph)
        frame = Frame(graph, batch_of(graph, given), device=given[0].device if given else None)
        known = dict(zip((i.name for i in graph.inputs), given, strict=True))
        last = last_uses(graph)
        stacked: set[str] = set()
        for op in graph.ops:
            if op.kind in STORED:
                known[op.name] = self._real(op.name)
                results = (op.name,) if op.name not in self._same else ()
            elif op.kind == "quantize":
                (source,) = op.inputs
                known[op.name] = self._rounded(op.name, known[source], stacked=source in stacked)
                results = (op.name,)
            else:
                where = tuple(0 if n in stacked else None for n in op.inputs)
                given = _mapped(frame, op, [known[n] for n in op.inputs], where)
                known.update(zip(op.results, given, strict=True))
                results = op.results if any(axis == 0 for axis in where) else ()
            stacked.update(results)
            for name in last.get(op.name, ()):
                known.pop(name, None)
        outputs = tuple(
            known[n] if n in stacked else known[n].expand(len(self), *known[n].shape) for n in graph.outputs
        )
        return outputs[0] if len(outputs) == 1 else outputs

    def networks(self) -> tuple[Network, ...]:
        """The networks with what training has made of them, each with its own widths again."""
        return tuple(self._network(k) for k in range(len(self)))

    def finite(self) -> tuple[bool, ...]:
        """Of each network whether all of its numbers are finite."""
        held = [*self._trained.values(), *self._octaves.values()]
        return tuple(all(bool(torch.isfinite(h[k]).all()) for h in held) for k in range(len(self)))

    def _hold(self, op: Op) -> None:
        """Stack a stored tensor."""
        reals = [n.weights.real(op.name) for n in self._networks]
        filled = torch.stack([_filled(t, i, 0.0) for t, i in zip(reals, self._indices[op.name], strict=True)])
        key = _key(op.name)
        if op.kind == "weight" and filled.is_floating_point():
            parameter = nn.Parameter(filled)
            self._trained[key] = parameter
            ones = [_filled(torch.ones_like(t), i, 0.0) for t, i in zip(reals, self._indices[op.name], strict=True)]
            own = torch.stack(ones)
            if not bool(own.all()):
                parameter.register_hook(own.mul)
        elif all(torch.equal(held, reals[0]) for held in reals):
            self._fixed[op.name] = reals[0]
            self._same.add(op.name)
        else:
            self._fixed[op.name] = filled
        recipes = [n.weights.recipe(op.name) for n in self._networks]
        rounded = [r for r in recipes if isinstance(r, Rounded)]
        if not rounded and op.type.quantized:
            raise unknown_step(f"%{op.name}")
        if rounded:
            axis = rounded[0].axis
            steps = [
                r.steps if axis is None else _filled(r.steps, {0: i[axis]} if axis in i else {}, 1.0)
                for r, i in zip(rounded, self._indices[op.name], strict=True)
            ]
            self._hold_steps(op, torch.stack(steps), axis)

    def _hold_steps(self, op: Op, steps: Tensor, axis: int | None) -> None:
        """Stack the steps of a quantized value, and what rounds to them."""
        self._start[op.name], self._axes[op.name] = steps, axis
        self._octaves[_key(op.name)] = nn.Parameter(torch.zeros_like(steps), requires_grad=self._learn)
        rows: list[tuple[float, float, float]] = []
        for network in self._networks:
            type = network.graph.types[op.name]
            _, zero = (0, 0) if axis is not None or type.step is None else known_step(type.step, f"%{op.name}")
            elements = math.prod(size(a, network.graph.sizes, 1) for a in type.axes)
            share = size(type.axes[axis], network.graph.sizes) if axis is not None else 1
            scale = 1 / math.sqrt(max(1, elements // share) * max(1, type.format.high))
            rows.append((type.format.low - zero, type.format.high - zero, scale))
        low, high, scale = torch.tensor(rows).T.contiguous()
        self._bounds[op.name] = (low, high, scale)

    def _tensor(self, name: str) -> Tensor:
        return self._fixed[name] if name in self._fixed else self._trained[_key(name)]

    def _real(self, name: str) -> Tensor:
        """The real numbers of a stored value in all networks, rounded as their types say."""
        tensor = self._tensor(name)
        return self._rounded(name, tensor, stacked=True) if name in self._start else tensor

    def _rounded(self, name: str, x: Tensor, *, stacked: bool) -> Tensor:
        """A value rounded by each network's own steps and bounds; [networks, …]."""
        x = x if stacked else x[None]
        axis, rank = self._axes[name], x.dim()
        steps = self._steps(name)
        steps = (
            along(steps, 0, rank)
            if axis is None
            else steps.reshape([len(self), *along(steps[0], axis, rank - 1).shape])
        )
        return cast(Tensor, _Rounding.apply(x, steps, *(along(b, 0, rank) for b in self._bounds[name])))

    def _steps(self, name: str) -> Tensor:
        """The steps of a value in all networks, as `GraphModule.step_of` has them."""
        octaves = self._octaves[_key(name)]
        step = self._graph.types[name].step
        if step is not None and step.power_of_two:
            octaves = octaves + (torch.round(octaves) - octaves).detach()
        return (self._start[name] * torch.exp2(octaves)).clamp(min=SMALLEST_STEP)

    def _network(self, k: int) -> Network:
        def tensor_of(name: str) -> Tensor:
            held = self._tensor(name)
            return held if name in self._same else _own(held[k], self._indices[name][k])

        def step_of(name: str) -> Tensor:
            steps, axis = self._steps(name)[k], self._axes[name]
            indices = self._indices.get(name)
            return (
                steps
                if axis is None or indices is None or axis not in indices[k]
                else _own(steps, {0: indices[k][axis]})
            )

        return with_values(self._networks[k], tensor_of, step_of)


def _key(name: str) -> str:
    """A name without dots, which a ParameterDict does not take."""
    return name.replace("_", "__").replace(".", "_d")


def _indices(graph: Graph, name: str, sizes: Mapping[str, int]) -> dict[int, Tensor]:
    """For each axis of a stored tensor that grows to the sizes of a cohort the own index of each index, or -1."""
    maps = {
        w: torch.cat([torch.arange(n), torch.full((sizes[w] - n,), -1)])
        for w, n in graph.sizes.items()
        if sizes[w] != n
    }
    found = {i: gather_index(axis, graph.sizes, maps) for i, axis in enumerate(graph.types[name].axes)} if maps else {}
    return {i: index for i, index in found.items() if bool((index < 0).any())}


def _filled(tensor: Tensor, indices: Mapping[int, Tensor], value: float) -> Tensor:
    """A tensor with a value at the indices that are not its own."""
    for axis, index in indices.items():
        own = along(index >= 0, axis, tensor.dim())
        tensor = torch.where(
            own, tensor.index_select(axis, index.clamp(min=0)), torch.tensor(value, dtype=tensor.dtype)
        )
    return tensor


def _own(tensor: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    """The inverse of `_filled`."""
    for axis, index in indices.items():
        tensor = tensor.index_select(axis, torch.nonzero(index >= 0).flatten())
    return tensor


class _Rounding(torch.autograd.Function):
    """`rounding.fake_quantized` with bounds that differ from network to network."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: Tensor, high: Tensor, scale: Tensor) -> Tensor:
        """Codes times the step."""
        ratio = x / step
        codes = ratio.clamp(low, high).round_()
        ctx.save_for_backward(ratio, codes, step, low, high, scale)
        return codes * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """As in `rounding`."""
        (gradient,) = gradients
        ratio, codes, step, low, high, scale = ctx.saved_tensors
        inside = (ratio >= low) & (ratio <= high)
        of_x = gradient * inside if ctx.needs_input_grad[0] else None
        error = torch.addcmul(codes, ratio, inside.to(ratio.dtype), value=-1).mul_(gradient)
        return of_x, error.sum_to_size(step.shape) * scale, None, None, None


def _mapped(frame: Frame, op: Op, inputs: list[Tensor], where: tuple[int | None, ...]) -> tuple[Tensor, ...]:
    """An op's results; where inputs are stacked, for all networks at once."""

    def one(*tensors: Tensor) -> tuple[Tensor, ...]:
        result = compute(frame, op, list(tensors))
        return result if isinstance(result, tuple) else (result,)

    return torch.func.vmap(one, in_dims=where)(*inputs) if any(axis == 0 for axis in where) else one(*inputs)


def each(loss: Callable[..., Tensor], outputs: Tensor, *rest: Any, mapped: bool) -> Tensor:
    """The sum of a cohort's losses; one that is no longer finite counts nothing, so the others train on.

    Args:
        loss: takes one network's output and the rest.
        outputs: of all networks, [networks, …].
        rest: what is the same for all.
        mapped: whether torch can map the loss; otherwise it is called for each network.
    """
    if mapped:
        losses = torch.func.vmap(_with(loss, rest))(outputs)
    else:
        losses = torch.stack([loss(output, *rest) for output in outputs])
    return torch.where(torch.isfinite(losses), losses, 0.0).sum()


def _with(loss: Callable[..., Tensor], rest: tuple[Any, ...]) -> Callable[[Tensor], Tensor]:
    def of_one(output: Tensor) -> Tensor:
        return loss(output, *rest)

    return of_one
