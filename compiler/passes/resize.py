"""Give widths other sizes; all that is coupled follows, because its shape is written in terms of the width."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor

from ...ir import SPECS, Axis, Graph, Op, Spec, UsageError, retype, width_named, widths_in
from ...ir.axes import Const, Product, Sum, Width, size
from ..network import Network
from ..weights import Computed, Recipe, Store
from .base import Context, Pass, PassError, generator, read_option, register
from .copies import spoilers

Importance = Literal["l1", "l2", "batch-norm", "random"]
Growth = Literal["net2net", "initialise"]


@register("resize")
@dataclass(frozen=True)
class Resize(Pass):
    """Change the sizes of widths: `resize{stem=24, layer1.0.conv1=48}`.

    Narrowing keeps the most important channels of a width, in their order, summed over every layer that carries it.
    Growing duplicates channels and divides what reads them by the number of copies, so that the network's function
    stays (Net2WiderNet), and is refused where it could not; `grow=initialise` draws new channels afresh instead.

    Args:
        sizes: the new sizes, by the name of a width or of a layer whose output it is.
        importance: `l1` or `l2` norm of the weights that write or read a channel, `batch-norm` scale, or `random`.
        grow: `net2net`, or `initialise` (new weights from a normal distribution with the old ones' deviation).
        noise: with `net2net`, the deviation of noise on copies, relative to the weight's own; breaks their symmetry.

    Raises:
        UsageError: no width or layer has that name, or it is frozen.
        PassError: the network is legalized, integer weights would have to grow, batch-norm importance is asked for and
            none is left, or an op sees the copies (a sum or softmax over the channels, a weight that is computed).

    Source: Chen, Goodfellow, Shlens, Net2Net, ICLR 2016; Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    """

    sizes: tuple[tuple[str, int], ...] = field(default=())
    importance: Importance = "l2"
    grow: Growth = "net2net"
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise UsageError(f"resize: noise must be at least 0; found {self.noise:g}")

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """See `Pass.of`; every option that is none of the pass's own is a width."""
        own = {k: options[k] for k in ("importance", "grow", "noise") if k in options}
        sizes: list[tuple[str, int]] = []
        for name, text in options.items():
            if name in own:
                continue
            wanted = read_option("resize", name, text, int)
            if wanted < 1:
                raise UsageError(f"resize: {name} must be at least 1; found {wanted}")
            sizes.append((name, wanted))
        return replace(super().of(own), sizes=tuple(sizes))

    def options(self, *, complete: bool = False) -> dict[str, str]:
        """See `Pass.options`."""
        rest = super().options(complete=complete)
        rest.pop("sizes", None)
        return {**{name: str(n) for name, n in self.sizes}, **rest}

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        graph = network.graph
        wanted: dict[str, int] = {}
        for name, n in self.sizes:
            width = width_named(graph, name)
            if wanted.setdefault(width, n) != n:
                raise UsageError(f"resize: ${width} cannot be both {wanted[width]} and {n}")
        wanted = {w: n for w, n in wanted.items() if n != graph.sizes[w]}
        if not wanted:
            return network
        for op in graph.stored:
            if op.type.quantized and op.type.format.bits > 16:
                raise PassError("it counts in an accumulator's step", op=op, mend="Put `resize` before `legalize`.")
        for width, n in wanted.items():
            old = graph.sizes[width]
            if n > old and self.grow == "net2net":
                for op, why in spoilers(graph, width, uniform=n % old == 0):
                    helps = next(spoilers(graph, width, uniform=True), None) is None
                    raise PassError(
                        f"copies of the channels of ${width} would change the network's function: {why}",
                        op=op,
                        mend=f"Grow it by whole multiples of {old}, or say grow=initialise."
                        if helps
                        else "Leave the width as it is, or say grow=initialise.",
                    )
        maps = {w: self.index_map(network, w, n, context) for w, n in wanted.items()}
        return gathered(network, maps, self, context)

    def index_map(self, network: Network, width: str, wanted: int, context: Context) -> Tensor:
        """For each new index of a width the old index it comes from, -1 for one that is drawn afresh."""
        old = network.graph.sizes[width]
        if wanted <= old:
            scores = remembered_scores(network, width, self.importance, context)
            return torch.topk(scores, wanted).indices.sort().values
        if self.grow == "initialise":
            return torch.cat([torch.arange(old), torch.full((wanted - old,), -1)])
        return torch.arange(wanted) % old


def gathered(network: Network, maps: Mapping[str, Tensor], how: Resize, context: Context) -> Network:
    """The network with every axis rewritten by the index maps of its widths.

    Raises:
        PassError: integer weights would have to grow.
    """
    graph = network.graph
    new = graph.with_sizes({w: len(m) for w, m in maps.items()})
    divided = {op.inputs[spec.index("weight")]: axis for op, spec, axis in _reading_layers(graph)}
    recipes: dict[str, Recipe] = {}
    ops: list[Op] = []
    for op in new.ops:
        touched = [i for i, axis in enumerate(op.type.axes) if any(w in maps for w in widths_in(axis))]
        if op.name in network.weights and touched:
            indices = {i: gather_index(op.type.axes[i], graph.sizes, maps) for i in touched}
            if op.type.quantized and any(len(set(v.tolist())) < len(v) or -1 in v.tolist() for v in indices.values()):
                raise PassError("integer weights cannot grow", op=op, mend="Put `resize` before `quantize`.")
            source = network.weights.unrounded(op.name)
            recipes[op.name] = resized(op, source, indices, divided.get(op.name), how, context.seed)
        ops.append(_forgetting(op))
    store = network.weights.with_recipes(recipes)
    unrounded = {op.name: store.unrounded(op.name) for op in graph.stored if op.type.quantized}
    return Network(retype(replace(new, ops=tuple(ops))), Store({**store.recipes, **unrounded}))


def _forgetting(op: Op) -> Op:
    """The op with its steps unknown."""
    if not any(t.quantized for t in op.types):
        return op
    return replace(op, types=tuple(replace(t, step=t.step.forget() if t.step else None) for t in op.types))


def _reading_layers(graph: Graph) -> list[tuple[Op, Spec, int]]:
    return [
        (op, SPECS[op.kind], axis)
        for op in graph.ops
        if op.kind in SPECS and (axis := SPECS[op.kind].input_axis) is not None
    ]  # fmt: skip


def gather_index(axis: Axis, sizes: Mapping[str, int], maps: Mapping[str, Tensor]) -> Tensor:
    """For each new index along an axis term the old index it comes from, or -1: row-major for products, laid end to
    end for sums, by the maps of its widths."""
    match axis:
        case Width(name) if name in maps:
            return maps[name]
        case Product(terms):
            index = torch.zeros(1, dtype=torch.long)
            for term in terms:
                inner, length = gather_index(term, sizes, maps), size(term, sizes)
                joined = index[:, None] * length + inner[None, :]
                index = torch.where((index[:, None] < 0) | (inner[None, :] < 0), -1, joined).reshape(-1)
            return index
        case Sum(terms):
            pieces: list[Tensor] = []
            offset = 0
            for term in terms:
                inner = gather_index(term, sizes, maps)
                pieces.append(torch.where(inner < 0, -1, inner + offset))
                offset += size(term, sizes)
            return torch.cat(pieces)
        case _:
            return torch.arange(size(axis, sizes))


def resized(
    op: Op, source: Recipe, indices: Mapping[int, Tensor], input_axis: int | None, how: Resize, seed: int
) -> Recipe:
    """The recipe of a stored tensor with some axes gathered.

    Args:
        op: the `weight` or `buffer` op.
        source: the tensor before.
        indices: for each axis that changes, the old index of each new one.
        input_axis: the axis along which a layer reads its input; copies there are divided by their number.
        how: what to do about new entries.
        seed: for noise and new entries.
    """
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in indices.values())).hexdigest()
    lengths = [(axis, len(index)) for axis, index in indices.items()]
    drawn = how.noise > 0 or how.grow == "initialise"
    what = f"gather {lengths} {digest} {input_axis}" + (f" {how.grow} {how.noise} {seed} {op.name}" if drawn else "")

    def function(tensor: Tensor) -> Tensor:
        result = tensor
        fresh = copied = torch.zeros((), dtype=torch.bool) if drawn else None
        for axis, index in indices.items():
            if not drawn and _distinct(index):
                result = result.index_select(axis, index)
                continue
            shape = [1] * tensor.dim()
            shape[axis] = -1
            kept = index.clamp(min=0)
            result = result.index_select(axis, kept)
            counts = torch.bincount(index[index >= 0], minlength=tensor.shape[axis])[kept]
            if fresh is not None and copied is not None:
                fresh, copied = fresh | (index < 0).reshape(shape), copied | (counts > 1).reshape(shape)
            if axis == input_axis and how.grow == "net2net":
                result = result / counts.to(result.dtype).reshape(shape)
        if fresh is None or copied is None:
            return result.contiguous()
        random = generator(seed, "resize", op.name)
        if how.noise and op.kind == "weight" and tensor.dim() > 1:
            noise = torch.randn(result.shape, generator=random) * how.noise * tensor.std(correction=0)
            result = torch.where(copied & ~fresh, result + noise.to(result.dtype), result)
        if bool(fresh.any()):
            result = torch.where(fresh, initial(op, tensor, result, random), result)
        return result.contiguous()

    return Computed(what, (source,), function)


def _distinct(index: Tensor) -> bool:
    """Whether no old index is taken twice, and none is new."""
    values = index.tolist()
    return len(set(values)) == len(values) and min(values) >= 0


def initial(op: Op, tensor: Tensor, result: Tensor, random: torch.Generator) -> Tensor:
    """New entries: normal with the old ones' deviation for weights, the old mean for vectors (biases, statistics)."""
    if tensor.dim() > 1:
        return (torch.randn(result.shape, generator=random) * tensor.std(correction=0)).to(result.dtype)
    return tensor.mean().expand(result.shape).to(result.dtype)


def owners(axis: Axis, width: str, sizes: Mapping[str, int]) -> Tensor:
    """For each index along an axis term the index of `width` it belongs to, or -1."""
    match axis:
        case Width(name) if name == width:
            return torch.arange(sizes[name])
        case Product(terms):
            lengths = [size(t, sizes) for t in terms]
            result = torch.full((1,), -1)
            for term, length in zip(terms, lengths, strict=True):
                inner = owners(term, width, sizes)
                result = torch.maximum(result[:, None].expand(-1, length), inner[None, :]).reshape(-1)
            return result
        case Sum(terms):
            return torch.cat([owners(t, width, sizes) for t in terms])
        case Const(value=value):
            return torch.full((value,), -1)
        case _:
            return torch.full((size(axis, sizes),), -1)


def remembered_scores(network: Network, width: str, importance: Importance, context: Context) -> Tensor:
    """`channel_scores`, computed once for all candidates of one source network."""
    names = _scored(network.graph, importance)
    depends = [(n, network.weights.recipe(n).key, network.graph.types[n].axes) for n in names]
    key = ("scores", importance, context.seed, width, network.graph.widths, tuple(depends))
    if key not in context.memo:
        context.memo[key] = channel_scores(network, width, importance, context)
    return context.memo[key]


def channel_scores(network: Network, width: str, importance: Importance, context: Context) -> Tensor:
    """How much each channel of a width matters, summed over every layer that carries it; shape [size of the width].

    Raises:
        PassError: batch-norm importance is asked for and no batch norm carries the width.
    """
    graph = network.graph
    scores = torch.zeros(graph.sizes[width], dtype=torch.float64)
    if importance == "random":
        return torch.rand(graph.sizes[width], generator=generator(context.seed, "importance", width))
    names = _scored(graph, importance)
    found = False
    for name in names:
        tensor = network.weights.real(name).double()
        for i, axis in enumerate(graph.types[name].axes):
            if width not in widths_in(axis):
                continue
            found = True
            power = tensor.abs() if importance in ("l1", "batch-norm") else tensor.square()
            others = [d for d in range(tensor.dim()) if d != i]
            along = power.sum(dim=others) if others else power
            owner = owners(axis, width, graph.sizes)
            scores.index_add_(0, owner[owner >= 0], along[owner >= 0])
    if importance == "batch-norm" and not found:
        raise PassError(
            f"no batch norm carries ${width}, so its scale cannot say which channels matter",
            mend="Resize before `fold-batch-norm`, or choose another importance.",
        )
    return scores


def _scored(graph: Graph, importance: Importance) -> list[str]:
    """The stored tensors whose size speaks for a channel: the layers' weights, or the batch norms' scales."""
    if importance == "batch-norm":
        norms = [op for op in graph.ops if op.kind == "batch_norm" and len(op.inputs) > 3]
        return list(dict.fromkeys(op.inputs[3] for op in norms if _is_weight(graph, op.inputs[3])))
    weights = [
        op.inputs[SPECS[op.kind].index("weight")] for op in graph.ops if op.kind in SPECS and SPECS[op.kind].is_layer
    ]
    return [name for name in dict.fromkeys(weights) if _is_weight(graph, name)]


def _is_weight(graph: Graph, name: str) -> bool:
    return name in graph.producers and graph.producers[name].kind == "weight"
