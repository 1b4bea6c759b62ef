"""Give widths other sizes; all that is coupled follows, because its shape is written in terms of the width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from ...ir import STORED, Graph, Op, Type, UsageError, ordered_graph, retype, width_named, widths_in
from ..network import Network
from ..resizing import Importance, Policy, gathered, ordered_sizes, remembered_scores
from ..resizing.gather import Growing, growth_of
from ..resizing.importance import scored
from ..weights import Recipe, Rounded, Store
from .base import Context, Pass, PassError, read_option, register


@register("resize")
@dataclass(frozen=True)
class Resize(Pass):
    """Change the sizes of widths: `resize{stem=24, layer1.0.conv1=48}`.

    Narrowing keeps the most important channels of a width, in their order, summed over every layer that carries it.
    Growing copies channels and divides what sums over them by the number of copies, so that the network's function
    stays (Net2WiderNet). Where a statistic runs along the width (layer norm, softmax, mean) it stays for whole
    multiples; other sizes are refused, for the function would stay only nearly. `grow=nearly` makes copies all the
    same, and `grow=initialise` draws new channels afresh.

    Steps are forgotten, for other channels take other values; it is told. Put it before `quantize` and `calibrate`.

    Args:
        sizes: the new sizes, by the name of a width or of a layer whose output it is.
        importance: see `resizing.importance.channel_scores`; `taylor` needs data.
        grow: `net2net`, `nearly`, or `initialise` (a normal distribution with the old weights' deviation).
        noise: the deviation of noise on copies, relative to the weight's own; breaks their symmetry.
        multiple: sizes are rounded to the nearest multiple of this, at least one of it.

    Raises:
        UsageError: no width or layer has that name, or it is frozen.
        PassError: the network is legalized, integer weights would have to grow, copies of channels would show,
            batch-norm importance is asked for and none is left, or Taylor importance and there is no data.

    Source: Chen, Goodfellow, Shlens, Net2Net, ICLR 2016; Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    """

    sizes: tuple[tuple[str, int], ...] = field(default=())
    importance: Importance = "l2"
    grow: Growing = "net2net"
    noise: float = 0.0
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise UsageError(f"resize: noise must be at least 0; found {self.noise:g}")
        if self.multiple < 1:
            raise UsageError(f"resize: multiple must be at least 1; found {self.multiple}")

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """See `Pass.of`; every option that is none of the pass's own is a width."""
        own = {k: options[k] for k in ("importance", "grow", "noise", "multiple") if k in options}
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

    @property
    def needs_data(self) -> bool:
        """See `Pass.needs_data`."""
        return self.importance == "taylor"

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        wanted = self.wanted(network.graph)
        if not wanted:
            return network
        graph, sizes = network.graph, wanted
        if (ordered := ordered_graph(graph)) is not graph:
            exact = ordered_sizes(graph, ordered, wanted)
            if exact is not None:
                graph, sizes = ordered, {w: n for w, n in exact.items() if n != ordered.sizes[w]}
        for op in graph.stored:
            if op.type.quantized and op.type.format.bits > 16:
                raise PassError("it counts in an accumulator's step", op=op, mend="Put `resize` before `legalize`.")
            grows = any(sizes.get(w, 0) > graph.sizes[w] for a in op.type.axes for w in widths_in(a))
            if op.type.quantized and grows:
                raise PassError("integer weights cannot grow", op=op, mend="Put `resize` before `quantize`.")
        if self.grow == "net2net":
            refuse_visible_copies(network, graph, sizes)
        maps = {w: self.index_map(network, graph, w, n, context) for w, n in sizes.items()}
        recipes = gathered(network, graph, maps, Policy(self.grow, self.noise, context.seed))
        store = network.weights.with_recipes(recipes)
        unrounded = {
            op.name: shared_again(store.unrounded(op.name), op.type) for op in network.graph.stored if op.type.quantized
        }
        resized = without_steps(network.graph.with_sizes(wanted))
        if forgotten := known_steps(network.graph) - known_steps(resized):
            context.say(
                f"resize forgets the {forgotten} steps that were found or given: put `resize` before `quantize` and"
                " `calibrate`, or `calibrate` again behind it"
            )
        return Network(resized, Store({**store.recipes, **unrounded}))

    def wanted(self, graph: Graph) -> dict[str, int]:
        """The sizes asked for by width, without those that a width has already.

        Raises:
            UsageError: an unknown name, or two sizes for one width.
        """
        found: dict[str, int] = {}
        for name, n in self.sizes:
            width = width_named(graph, name)
            rounded = max(1, round(n / self.multiple)) * self.multiple
            if found.setdefault(width, rounded) != rounded:
                raise UsageError(f"resize: ${width} cannot be both {found[width]} and {rounded}")
        return {w: n for w, n in found.items() if n != graph.sizes[w]}

    def index_map(self, network: Network, graph: Graph, width: str, wanted: int, context: Context) -> Tensor:
        """For each new index of a width the old index it comes from, -1 for one that is drawn afresh."""
        old = graph.sizes[width]
        if wanted <= old:
            if self.importance == "batch-norm" and not carried(graph, width):
                raise PassError(
                    f"no batch norm carries ${width}, so its scale cannot say which channels matter",
                    mend="Resize before `fold-batch-norm`, or choose another importance.",
                )
            scores = remembered_scores(network, graph, width, self.importance, context)
            return torch.topk(scores, wanted).indices.sort().values
        if self.grow == "initialise":
            return torch.cat([torch.arange(old), torch.full((wanted - old,), -1)])
        return torch.arange(wanted) % old


def refuse_visible_copies(network: Network, graph: Graph, sizes: Mapping[str, int]) -> None:
    """Stop where copies of channels would change the network's function, however they are divided.

    Raises:
        PassError: at the op that sees them.
    """
    for width, n in sizes.items():
        old = graph.sizes[width]
        if n <= old:
            continue
        exactness = growth_of(network, graph).exactness(width)
        if exactness == "any" or (exactness == "multiples" and n % old == 0):
            continue
        helps = exactness == "multiples"
        raise PassError(
            f"copies of the channels of ${width} would change the network's function"
            + (
                ": it sees channels that are not copied equally often"
                if helps
                else ": it sees how many copies there are"
            ),
            op=growth_of(network, graph).why(width),
            mend=(f"Grow it by whole multiples of {old}" if helps else "Leave the width as it is")
            + ", or say grow=nearly (the function stays nearly) or grow=initialise (new channels are drawn).",
        )


def carried(graph: Graph, width: str) -> bool:
    """Whether a batch norm's scale carries a width."""
    return any(width in widths_in(a) for name in scored(graph, "batch-norm") for a in graph.types[name].axes)


def shared_again(recipe: Recipe, type: Type) -> Recipe:
    """Real numbers as they are, or in blocks anew where these need no calibration."""
    if type.step is None or not type.step.shared:
        return recipe
    return Rounded(recipe, type.format, None, type.step.axis, type.step.block)


def without_steps(graph: Graph) -> Graph:
    """The graph with all steps unknown again, its types computed anew; itself where nothing is quantized."""
    if not any(t.quantized for op in graph.ops for t in op.types):
        return graph
    return retype(replace(graph, ops=tuple(map(_forgetting, graph.ops))))


def known_steps(graph: Graph) -> int:
    """How many tensors and quantizers have a step that is known."""
    rounded = (op.type.step for op in graph.ops if op.kind in STORED or op.kind == "quantize")
    return sum(step is not None and step.known for step in rounded)


def _forgetting(op: Op) -> Op:
    """The op with its steps unknown, and the zeros of unsigned weights, which may be 0 by chance."""
    if not any(t.quantized for t in op.types):
        return op
    if op.kind in STORED and op.type.step is not None and not op.type.format.signed:
        return op.with_type(replace(op.type, step=replace(op.type.step.forget(), zero=None)))
    return replace(op, types=tuple(replace(t, step=t.step.forget() if t.step else None) for t in op.types))
