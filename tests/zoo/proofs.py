"""Proofs that widths mean what they say: permuting, narrowing and growing them, each with a control that must differ.

Everything runs in float64 with weights drawn at random, on the reading of the graph by which weights are gathered.

- Permutation: every width is permuted at random and all tensors follow; the outputs do not change.
- Narrowing: some channels of every width go; the outputs are those of the whole network with these channels masked,
  where the masked network is run by a separate interpreter that knows masks and no narrowing.
- Growing: channels are copied (Net2Net); the outputs do not change. Widths that meet a statistic grow by whole
  multiples, the others to any size.

A control changes one tensor otherwise than the widths say; its outputs must differ.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from nasc.compiler.execution import Frame, batch_of, compute, run
from nasc.compiler.network import Network
from nasc.compiler.resizing import Policy, axis_mask, gathered
from nasc.compiler.resizing.gather import growth_of
from nasc.compiler.weights import Computed, Recipe, Store
from nasc.ir import STORED, Graph, Op, Type, format_named, ordered_graph, retype, widths_in
from nasc.ir.axes import Axis, size
from torch import Tensor, nn

TOLERANCE = 1e-8
"""Largest difference allowed, relative to the largest output."""
DIFFERS, CLEARLY = 1e-9, 1e4
"""What a control must differ by at least, and how many times as much as what is to stay."""
BUDGET = (2.0, 16.0, 30e6)
"""How many times its parameters a network may have when it is grown for a proof: always the first, the second as long
as it stays below the third number of parameters."""

GAIN = 0.15
"""By how much the scales of batch norms are taken back. At 1 a deep random network is chaotic, PyTorch's own f32 and
f64 differ by 15 % (tf_efficientnetv2_b0) or 62 % (efficientnet_b6) of the output; here by 5e-5 and 2e-6."""
DOUBLE = format_named("f64")


@dataclass(frozen=True)
class Proof:
    """What a proof found.

    Args:
        name: `permutation`, `narrowing` or `growing`.
        error: the largest difference of the outputs, relative to the largest output.
        control: the same for the control.
        widths: how many widths it changed.
        left_out: widths that it could not change, with the op in the way.
    """

    name: str
    error: float
    control: float
    widths: int
    left_out: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the outputs stayed and the control's did not; a network without free widths proves nothing."""
        return self.widths > 0 and self.error < TOLERANCE and self.control > max(DIFFERS, CLEARLY * self.error)

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "FAILS"
        return f"{self.name} {verdict}: {self.widths} widths, error {self.error:.1e}, control {self.control:.1e}"


def redraw(model: nn.Module, inputs: tuple[Tensor, ...], seed: int = 0) -> None:
    """Draw what a fresh network has as zeros or ones anew, so that nothing hides behind it: zero-initialised scales and
    heads, biases, and the statistics of batch norms. These are near those of the inputs, so that in a deep network the
    inputs still count at the output."""
    random_ = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=random_)

    with torch.no_grad():
        for _, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.dim() > 1 and float(parameter.std(correction=0)) < 1e-3:
                parameter.copy_(normal(parameter.shape) * 0.02)
            elif parameter.dim() <= 1:
                parameter.copy_(parameter * (1 + 0.1 * normal(parameter.shape)) + 0.1 * normal(parameter.shape))
        norms = [m for m in model.modules() if isinstance(getattr(m, "running_var", None), Tensor)]
        for norm in norms:
            if isinstance(norm.weight, Tensor):
                norm.weight.mul_(GAIN)
            norm.register_forward_pre_hook(_measure)
        model.eval()(*inputs)
        for norm in norms:
            norm._forward_pre_hooks.clear()
            norm.running_mean.add_(0.1 * norm.running_var.sqrt() * normal(norm.running_mean.shape))
            norm.running_var.mul_(0.5 + torch.rand(norm.running_var.shape, generator=random_))


def _measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Take a batch norm's statistics from what it is about to read; one deviation for all channels, for a channel that
    hardly varies in a small batch would be magnified, and rounding with it."""
    channels = inputs[0].transpose(0, 1).flatten(1)
    norm.running_mean.copy_(channels.mean(1))
    norm.running_var.fill_(channels.var(1, correction=0).mean() + 1e-3)


def in_double(network: Network) -> Network:
    """The same network with every float in f64, on the terms by which weights are gathered; tensors are converted when
    they are read."""
    graph = ordered_graph(network.graph)

    def wide(type: Type) -> Type:
        return replace(type, format=DOUBLE) if type.format.is_float else type

    inputs = tuple(replace(i, type=wide(i.type)) for i in graph.inputs)
    ops = tuple(replace(op, types=tuple(map(wide, op.types))) for op in graph.ops)
    recipes: dict[str, Recipe] = {}
    for op in graph.stored:
        recipe = network.weights.recipe(op.name)
        recipes[op.name] = Computed("double", (recipe,), Tensor.double) if op.type.format.is_float else recipe
    return Network(retype(replace(graph, inputs=inputs, ops=ops)), Store(recipes))


def fresh(recipe: Recipe) -> Tensor:
    """A recipe's tensor, computed for this once and not kept: a proof reads each tensor once or twice."""
    if isinstance(recipe, Computed):
        return recipe._function(*map(fresh, recipe.inputs))
    return recipe.tensor


class Lazily(Mapping[str, Tensor]):
    """The tensors of a store, each computed when it is read."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getitem__(self, name: str) -> Tensor:
        return fresh(self.store.recipe(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.store)

    def __len__(self) -> int:
        return len(self.store.recipes)


def outputs(network: Network, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a network computes, without keeping its tensors."""
    with torch.no_grad():
        return run(network.graph, Lazily(network.weights), inputs)


def doubled(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs in float64, integers as they are."""
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


def difference(expected: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> float:
    """The largest difference relative to the largest value, of the worst output."""
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape:
            return float("inf")
        a, b = a.double(), b.double()
        finite = torch.isfinite(a)
        if not bool((finite == torch.isfinite(b)).all()):
            return float("inf")
        gap = (a - b)[finite].abs()
        scale = float(a[finite].abs().max()) if gap.numel() else 0.0
        worst = max(worst, float(gap.max()) / scale if scale else 0.0)
    return worst


def moved(network: Network, maps: Mapping[str, Tensor]) -> Network:
    """The network with every axis rewritten by index maps."""
    graph = network.graph
    recipes = gathered(network, graph, maps, Policy())
    new = retype(graph.with_sizes({w: len(m) for w, m in maps.items()}))
    return Network(new, network.weights.with_recipes(recipes))


def spoiled(network: Network, maps: Mapping[str, Tensor], seed: int) -> Network | None:
    """As `moved`, but one tensor's channels are rolled by one along an axis that moved; None where none has more than
    two channels."""
    chance = random.Random(seed)
    right = moved(network, maps)
    candidates = [
        (op, i)
        for op in network.graph.stored
        if op.kind == "weight" and op.type.rank > 1
        for i, axis in enumerate(op.type.axes)
        if any(w in maps for w in widths_in(axis)) and size(right.graph.types[op.name].axes[i], right.graph.sizes) > 2
    ]
    if not candidates:
        return None
    op, axis = chance.choice(candidates)
    wrong = Computed("roll", (right.weights.recipe(op.name),), lambda t: t.roll(1, axis))
    return Network(right.graph, right.weights.with_recipes({op.name: wrong}))


def permutation(network: Network, inputs: tuple[Tensor, ...], seed: int = 0) -> Proof:
    """Permute every width; see the head of this file."""
    chance = torch.Generator().manual_seed(seed)
    graph = network.graph
    maps = {w: torch.randperm(n, generator=chance) for w, n in graph.widths if n > 1}
    if not maps:
        return Proof("permutation", 0.0, 0.0, 0)
    expected = outputs(network, inputs)
    error = difference(expected, outputs(moved(network, maps), inputs))
    return Proof("permutation", error, control(network, inputs, expected, maps, seed), len(maps))


def control(
    network: Network, inputs: tuple[Tensor, ...], expected: tuple[Tensor, ...], maps: Mapping[str, Tensor], seed: int
) -> float:
    """How far a spoiled network is off; several tensors are tried, for some hardly reach the outputs of a batch."""
    worst = 0.0
    for attempt in range(16):
        wrong = spoiled(network, maps, seed + attempt)
        if wrong is None or worst > DIFFERS:
            break
        worst = max(worst, difference(expected, outputs(wrong, inputs)))
    return worst


def narrowing(network: Network, inputs: tuple[Tensor, ...], seed: int = 0) -> Proof:
    """Narrow every width to a random part of its channels; see the head of this file."""
    chance = random.Random(seed)
    graph = network.graph
    maps: dict[str, Tensor] = {}
    for width, n in graph.widths:
        if n > 1:
            left = chance.randint(max(1, n // 2), n - 1)
            maps[width] = torch.tensor(sorted(chance.sample(range(n), left)))
    if not maps:
        return Proof("narrowing", 0.0, 0.0, 0)
    expected = masked_outputs(network, inputs, maps)
    error = difference(expected, outputs(moved(network, maps), inputs))
    return Proof("narrowing", error, control(network, inputs, expected, maps, seed), len(maps))


def growing(network: Network, inputs: tuple[Tensor, ...], seed: int = 0) -> Proof:
    """Grow widths at random, as many as the budget of parameters allows; see the head of this file."""
    chance = random.Random(seed)
    graph = network.graph
    how = growth_of(network, graph)
    before = parameters(graph)
    limit = max(BUDGET[0] * before, min(BUDGET[1] * before, BUDGET[2]))
    order = [w for w, _ in graph.widths if w not in how.inexact]
    chance.shuffle(order)
    sizes: dict[str, int] = {}
    for width in order:
        n = graph.sizes[width]
        wanted = n * chance.choice((2, 2, 3)) if how.exactness(width) == "multiples" else n + chance.randint(1, n)
        if parameters(graph.with_sizes({**sizes, width: wanted})) <= limit:
            sizes[width] = wanted
    left_out = tuple(f"{w}: {how.inexact[w].kind} %{how.inexact[w].name}" for w in how.inexact)
    if not sizes:
        return Proof("growing", 0.0, 0.0, 0, left_out)
    maps = {w: torch.arange(n) % graph.sizes[w] for w, n in sizes.items()}
    for width, index in maps.items():
        if how.exactness(width) == "any":
            shuffled = torch.randperm(graph.sizes[width], generator=torch.Generator().manual_seed(seed))
            maps[width] = torch.cat([index[: graph.sizes[width]], shuffled[: len(index) - graph.sizes[width]]])
    expected = outputs(network, inputs)
    error = difference(expected, outputs(moved(network, maps), inputs))
    return Proof("growing", error, control(network, inputs, expected, maps, seed), len(maps), left_out)


def parameters(graph: Graph) -> int:
    """The number of elements of all stored tensors."""
    return sum(prod(size(a, graph.sizes) for a in op.type.axes) for op in graph.stored)


PROOFS: tuple[Callable[[Network, tuple[Tensor, ...], int], Proof], ...] = (permutation, narrowing, growing)


def prove(network: Network, inputs: tuple[Tensor, ...], seed: int = 0) -> list[Proof]:
    """All three proofs of a network."""
    double = in_double(network)
    return [proof(double, doubled(inputs), seed) for proof in PROOFS]


def masked_outputs(network: Network, inputs: tuple[Tensor, ...], maps: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The whole network with all channels masked that the maps leave out: every value is zero there, and statistics
    are taken over what is left."""
    graph = network.graph
    kept: dict[str, Tensor] = {}
    for width, index in maps.items():
        kept[width] = torch.zeros(graph.sizes[width], dtype=torch.bool)
        kept[width][index] = True
    batch = batch_of(graph, inputs)
    frame = Frame(graph, batch)
    masking = Masking(graph, kept, batch)
    known: dict[str, Tensor] = {i.name: t for i, t in zip(graph.inputs, inputs, strict=True)}
    last = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
    values = Lazily(network.weights)
    with torch.no_grad():
        for i, op in enumerate(graph.ops):
            if op.kind in STORED:
                known[op.name] = masking.of(op.type, values[op.name])
                continue
            result = masking.run(frame, op, [known[n] for n in op.inputs])
            results = result if isinstance(result, tuple) else (result,)
            for name, type, tensor in zip(op.results, op.types, results, strict=True):
                known[name] = masking.of(type, tensor)
            for name in op.inputs:
                if last[name] == i and name not in graph.outputs:
                    known.pop(name, None)
    return tuple(known[name] for name in graph.outputs)


class Masking:
    """What masks do to ops.

    Args:
        graph: the graph.
        kept: for each narrowed width which channels are left.
        batch: the length of the batch.
    """

    def __init__(self, graph: Graph, kept: Mapping[str, Tensor], batch: int) -> None:
        self.graph = graph
        self.kept = kept
        self.batch = batch

    def axis(self, axis: Axis) -> Tensor:
        """Which indices along an axis are left."""
        return axis_mask(axis, self.graph.sizes, self.kept, self.batch)

    def mask(self, type: Type) -> Tensor | None:
        """Which elements of a value are left; None for all."""
        found: Tensor | None = None
        for i, axis in enumerate(type.axes):
            if any(w in self.kept for w in widths_in(axis)):
                shape = [1] * type.rank
                shape[i] = -1
                along = self.axis(axis).reshape(shape)
                found = along if found is None else found & along
        return found

    def of(self, type: Type, tensor: Tensor) -> Tensor:
        """A value with zeros where it is masked."""
        mask = self.mask(type)
        return tensor if mask is None else torch.where(mask, tensor, torch.zeros((), dtype=tensor.dtype))

    def run(self, frame: Frame, op: Op, inputs: list[Tensor]) -> Any:
        """An op's results; those that look along a masked axis are written anew."""
        along = MASKED.get(op.kind)
        types = [self.graph.types[n] for n in op.inputs]
        if along is not None and any(self.mask(t) is not None for t in types):
            return along(self, frame, op, inputs, types)
        return compute(frame, op, inputs)

    def only(self, type: Type, dims: list[int]) -> Tensor:
        """Which elements are left along some axes, the others apart; broadcasts against the value."""
        found = torch.ones((1,) * type.rank, dtype=torch.bool)
        for d in dims:
            shape = [1] * type.rank
            shape[d] = -1
            found = found & self.axis(type.axes[d]).reshape(shape)
        return found


def _dims(op: Op, rank: int) -> list[int]:
    given: Any = op.attribute("dim", ())
    dims = [given] if isinstance(given, int) else list(given)
    return [d % rank for d in dims] or list(range(rank))


def _mean(m: Masking, frame: Frame, op: Op, inputs: list[Tensor], types: list[Type]) -> Tensor:
    dims = _dims(op, types[0].rank)
    keep = bool(op.attribute("keepdim", False))
    count = m.only(types[0], dims).sum()
    return inputs[0].sum(dims, keepdim=keep) / count


def _var(m: Masking, frame: Frame, op: Op, inputs: list[Tensor], types: list[Type]) -> Tensor:
    dims = _dims(op, types[0].rank)
    only = m.only(types[0], dims)
    count = only.sum()
    mean = inputs[0].sum(dims, keepdim=True) / count
    squares = torch.where(only, (inputs[0] - mean).square(), 0.0)
    correction: Any = op.attribute("correction", 1)
    found = squares.sum(dims, keepdim=bool(op.attribute("keepdim", False))) / (count - correction)
    return found.sqrt() if op.kind == "std" else found


def _filled(value: float) -> Callable[..., Any]:
    def run_filled(m: Masking, frame: Frame, op: Op, inputs: list[Tensor], types: list[Type]) -> Any:
        only = m.only(types[0], _dims(op, types[0].rank))
        return compute(frame, op, [torch.where(only, inputs[0], torch.full((), value, dtype=inputs[0].dtype))])

    return run_filled


def _standardized(x: Tensor, only: Tensor, dims: list[int], eps: float, *, centre: bool = True) -> Tensor:
    count = only.expand_as(x).sum(dims, keepdim=True)
    mean = x.sum(dims, keepdim=True) / count if centre else torch.zeros((), dtype=x.dtype)
    gap = torch.where(only, x - mean, 0.0)
    return gap / (gap.square().sum(dims, keepdim=True) / count + eps).sqrt()


def _layer_norm(m: Masking, frame: Frame, op: Op, inputs: list[Tensor], types: list[Type]) -> Tensor:
    x, *affine = inputs
    shape: Any = op.attribute("normalized_shape")
    dims = list(range(types[0].rank - len(shape), types[0].rank))
    eps: Any = op.attribute("eps", 1e-5 if op.kind == "layer_norm" else None)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    found = _standardized(x, m.only(types[0], dims), dims, eps, centre=op.kind == "layer_norm")
    for i, tensor in enumerate(affine):
        found = found + tensor if i else found * tensor
    return found


def _group_norm(m: Masking, frame: Frame, op: Op, inputs: list[Tensor], types: list[Type]) -> Tensor:
    x, *affine = inputs
    groups = 1 if op.kind == "instance_norm" else frame.resolve(op.attribute("num_groups"))
    eps: Any = op.attribute("eps", 1e-5)
    if op.kind == "instance_norm":
        dims = list(range(2, types[0].rank))
        found = _standardized(x, m.only(types[0], dims), dims, eps)
    else:
        only = m.only(types[0], list(range(1, types[0].rank))).expand_as(x)
        rows, left = (t.reshape(t.shape[0], groups, -1) for t in (x, only))
        count = left.sum(2, keepdim=True).clamp(min=1)
        gap = torch.where(left, rows - rows.sum(2, keepdim=True) / count, 0.0)
        found = (gap / (gap.square().sum(2, keepdim=True) / count + eps).sqrt()).reshape(x.shape)
    for i, tensor in enumerate(affine):
        tensor = tensor.reshape(-1, *(1,) * (x.dim() - 2))
        found = found + tensor if i else found * tensor
    return found


def _attention(m: Masking, frame: Frame, op: Op, inputs: list[Tensor], types: list[Type]) -> Tensor:
    query, key, value, *mask = inputs
    if op.attribute("enable_gqa"):
        each = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(each, -3), value.repeat_interleave(each, -3)
    scale: Any = op.attribute("scale")
    scores = query @ key.transpose(-1, -2) * scale
    if op.attribute("is_causal"):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    for found in mask:
        scores = scores.masked_fill(~found, float("-inf")) if found.dtype == torch.bool else scores + found
    rows = m.axis(types[1].axes[-2])
    return torch.softmax(scores.masked_fill(~rows, float("-inf")), -1).nan_to_num() @ value


MASKED: dict[str, Callable[..., Any]] = {
    "mean": _mean,
    "var": _var,
    "std": _var,
    "amax": _filled(float("-inf")),
    "amin": _filled(float("inf")),
    "logsumexp": _filled(float("-inf")),
    "softmax": _filled(float("-inf")),
    "log_softmax": _filled(float("-inf")),
    "prod": _filled(1.0),
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _group_norm,
    "scaled_dot_product_attention": _attention,
}
"""Ops that look along axes, with masks; written out, so that they check the kernels as well."""
