"""How much each channel of a width matters."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from ...ir import SPECS, Graph, widths_in
from ..chance import generator
from ..execution import run
from ..network import Network
from .terms import owners

if TYPE_CHECKING:
    from ..passes.base import Context

Importance = Literal["l1", "l2", "batch-norm", "taylor", "random"]
SAMPLES = 64
"""How many samples `taylor` looks at, and"""
DRAWS = 8
"""in how many draws."""


def remembered_scores(network: Network, graph: Graph, width: str, importance: Importance, context: Context) -> Tensor:
    """`channel_scores`, computed once for all candidates of one source network."""
    key = ("scores", importance, context.seed, width, weights_digest(network, graph, importance))
    if key not in context.memo:
        context.memo[key] = channel_scores(network, graph, width, importance, context)
    return cast(Tensor, context.memo[key])


def weights_digest(network: Network, graph: Graph, importance: Importance) -> str:
    """A digest of all that scores depend on: names, numbers and axes of the weights, and the widths; made once per
    network and reading of its graph."""
    known: dict[tuple[int, str], tuple[Graph, str]] = network.__dict__.setdefault("_scored", {})
    if (id(graph), importance) not in known:
        types = graph.types
        depends = [f"{n} {network.weights.recipe(n).key} {types[n].axes}" for n in scored(graph, importance)]
        digest = hashlib.sha256(f"{graph.widths}{depends}".encode()).hexdigest()
        known[id(graph), importance] = (graph, digest)
    return known[id(graph), importance][1]


def channel_scores(network: Network, graph: Graph, width: str, importance: Importance, context: Context) -> Tensor:
    """How much each channel of a width matters, summed over every layer that carries it; shape [size of the width].

    - `l1`, `l2`: the norm of the weights that write or read a channel (Li et al., ICLR 2017; `l2` squared).
    - `batch-norm`: the scales of the batch norms on it (Liu et al., ICCV 2017).
    - `taylor`: the squared change of the outputs to first order when the channel's weights go to zero, in the mean over
      samples (Molchanov et al., CVPR 2019, eq. 8, for the sum over a channel). No labels are needed: the gradient is
      that of a random signed sum of the outputs, whose square has the squared change as its mean.
    - `random`: by the seed.

    Args:
        network: where the tensors come from.
        graph: the graph whose terms say which index belongs to which width.
        width: the width.
        importance: which measure.
        context: data for `taylor`, the seed for it and for `random`.

    Raises:
        PassError: `taylor` is asked for and there is no data.
    """
    if importance == "random":
        return torch.rand(graph.sizes[width], generator=generator(context.seed, "importance", width))
    scores = torch.zeros(graph.sizes[width], dtype=torch.float64)
    gradients = output_gradients(network, context) if importance == "taylor" else []
    for name in scored(graph, importance):
        axes = [(i, a) for i, a in enumerate(graph.types[name].axes) if width in widths_in(a)]
        tensor = network.weights.real(name).double() if axes else torch.zeros(())
        for i, axis in axes:
            owner = owners(axis, width, graph.sizes)
            if importance == "taylor":
                for gradient in gradients:
                    change = along(tensor * gradient[name], i)
                    scores += torch.zeros_like(scores).index_add_(0, owner[owner >= 0], change[owner >= 0]).square()
            else:
                power = tensor.square() if importance == "l2" else tensor.abs()
                scores.index_add_(0, owner[owner >= 0], along(power, i)[owner >= 0])
    return scores


def along(tensor: Tensor, axis: int) -> Tensor:
    """Sums over all axes but one."""
    others = [d for d in range(tensor.dim()) if d != axis]
    return tensor.sum(dim=others) if others else tensor


def scored(graph: Graph, importance: Importance) -> list[str]:
    """The stored tensors whose size speaks for a channel: the layers' weights, or the batch norms' scales."""
    if importance == "batch-norm":
        norms = [op for op in graph.ops if op.kind == "batch_norm" and len(op.inputs) > 3]
        return list(dict.fromkeys(n for n in (op.inputs[3] for op in norms) if _is_weight(graph, n)))
    weights = [
        op.inputs[SPECS[op.kind].index("weight")] for op in graph.ops if op.kind in SPECS and SPECS[op.kind].is_layer
    ]
    layers = [n for n in dict.fromkeys(weights) if _is_weight(graph, n)]
    others = [op.name for op in graph.stored if op.kind == "weight" and op.type.rank > 1 and op.name not in layers]
    return [*layers, *others]


def _is_weight(graph: Graph, name: str) -> bool:
    return name in graph.producers and graph.producers[name].kind == "weight"


def output_gradients(network: Network, context: Context) -> list[dict[str, Tensor]]:
    """Gradients of randomly signed sums of the outputs by the weights, one set per draw of samples."""
    key = ("output gradients", network.key, context.seed)
    if key in context.memo:
        return cast("list[dict[str, Tensor]]", context.memo[key])
    random = generator(context.seed, "importance", "taylor")
    batches = context.samples(SAMPLES, "resize{importance=taylor}")
    found: list[dict[str, Tensor]] = []
    for batch in batches:
        length = max(1, -(-batch[0].shape[0] * len(batches) // DRAWS))
        for start in range(0, batch[0].shape[0], length):
            found.append(_gradients(network, tuple(t[start : start + length] for t in batch), random))
    context.memo[key] = found
    return found


def _gradients(network: Network, inputs: tuple[Tensor, ...], random: torch.Generator) -> dict[str, Tensor]:
    values: dict[str, Tensor] = dict(network.values)
    leaves = [op.name for op in network.graph.stored if op.kind == "weight" and values[op.name].is_floating_point()]
    for name in leaves:
        values[name] = values[name].detach().requires_grad_()
    with torch.enable_grad():
        outputs = [y for y in run(network.graph, values, inputs) if y.is_floating_point() and y.requires_grad]
        signs = [torch.randint(0, 2, y.shape, generator=random).to(y.dtype) * 2 - 1 for y in outputs]
        total: Any = sum((y * s.to(y.device)).sum() for y, s in zip(outputs, signs, strict=True))
        gradients = torch.autograd.grad(total, [values[n] for n in leaves], allow_unused=True, materialize_grads=True)
    return {n: g.detach().double() for n, g in zip(leaves, gradients, strict=True)}
