"""Take the statistics of batch norms anew, from data, after what is before them has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ir import Graph, Op, UsageError, graph_digest
from ...ir.axes import size
from ..execution import rounded
from ..lockstep import Lockstep
from ..network import Network
from ..weights import Computed, Recipe, Rounded, Store, tensor_digest
from .base import Batch, Context, Pass, PassError, register


@register("reestimate-batch-norm")
@dataclass(frozen=True)
class ReestimateBatchNorm(Pass):
    """Give each batch norm the mean and variance of what it reads on the calibration data, one after the other.

        %y = batch_norm %x, %mean, %var, ...    with  mean, var  those of %x, per channel over samples and positions

    Channels that were cut away and weights of fewer bits shift what comes behind; a batch norm with the statistics of
    the source network passes that on, with its own it takes it out. Quantizers round as far as their steps are known.
    Put it behind `resize` or `quantize`, before `fold-batch-norm`. The statistics are computed when something runs, so
    that costs of the network are counted without them.

    Args:
        samples: how many samples of calibration data to look at.

    Raises:
        UsageError: an option makes no sense.
        PassError: there is no data, or no batch norm.

    Source: Sun et al., Hybrid 8-bit floating point training, NeurIPS 2019, section 4.2 (re-tuning of statistics); Yu
    and Huang, ICCV 2019, section 3.4 (post-statistics of slimmed networks).
    """

    samples: int = 512

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UsageError(f"reestimate-batch-norm: samples must be at least 2; found {self.samples}")

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        graph = network.graph
        norms = [op for op in graph.ops if op.kind == "batch_norm" and own_statistics(graph, op)]
        if not norms:
            raise PassError(
                "there is no batch norm to re-estimate",
                mend="Put `reestimate-batch-norm` before `fold-batch-norm`, which makes batch norms part of layers.",
            )
        batches = context.samples(self.samples, "reestimate-batch-norm")
        statistics = {name for op in norms for name in op.inputs[1:3]}
        rest = tuple(op.name for op in graph.stored if op.name not in statistics)
        data = hashlib.sha256("".join(tensor_digest(t) for batch in batches for t in batch).encode()).hexdigest()
        taken = Computed(
            f"statistics of {graph_digest(graph)} on {data}",
            tuple(network.weights.recipe(n) for n in rest),
            _Statistics(network, tuple(norms), statistics, batches),
        )
        found: dict[str, Recipe] = {}
        at = 0
        for op in norms:
            for name in op.inputs[1:3]:
                length = channels(network, op)
                found[name] = Computed(f"{at} to {at + length}", (taken,), _part(at, length))
                at += length
        return Network(graph, network.weights.with_recipes(found))


def own_statistics(graph: Graph, norm: Op) -> bool:
    """Whether a batch norm's statistics are stored, and no other op's."""
    names = norm.inputs[1:3]
    return all(n in graph.producers and graph.producers[n].kind == "buffer" for n in names) and all(
        graph.readers[n] == (norm,) for n in names
    )


def channels(network: Network, norm: Op) -> int:
    """How many channels a batch norm has."""
    return size(network.graph.types[norm.inputs[1]].axes[0], network.graph.sizes)


def _part(at: int, length: int) -> Callable[[Tensor], Tensor]:
    return lambda every: every[at : at + length].clone()


@dataclass(frozen=True, eq=False)
class _Statistics:
    """Runs the network and takes means and variances on the way; gives them one behind the other."""

    network: Network
    norms: tuple[Op, ...]
    statistics: set[str]
    batches: list[Batch]

    def __call__(self, *rest: Tensor) -> Tensor:
        graph, store = self.network.graph, self.network.weights
        values = {op.name: real(store, op.name) for op in graph.stored if op.name not in self.statistics}
        run = Lockstep(graph, values, self.batches, rounded_where_known)
        names = {op.name for op in self.norms}
        found: list[Tensor] = []
        for op in graph.ops:
            if op.name in names:
                for name, tensor in zip(op.inputs[1:3], moments(run.given(op.inputs[0])), strict=True):
                    run.set(name, tensor)
                    found.append(tensor)
            run.go(op)
        return torch.cat(found)


def real(store: Store, name: str) -> Tensor:
    """A stored value's real numbers: rounded where its steps are known."""
    recipe = store.recipe(name)
    return recipe.real if isinstance(recipe, Rounded) else recipe.tensor


def rounded_where_known(op: Op, x: Tensor) -> Tensor:
    """What a `quantize` does if its step is known, else nothing."""
    step = op.type.step
    return rounded(x, op.type) if step is not None and step.known else x


def moments(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance per channel (axis 1) over all samples and positions, as training keeps them."""
    columns = torch.cat([x.double().transpose(0, 1).reshape(x.shape[1], -1) for x in batches], dim=1)
    return columns.mean(1).to(batches[0].dtype), columns.var(1).to(batches[0].dtype)
