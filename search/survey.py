"""What can be searched on a network: its widths and blocks, what is frozen and why, and the corners of the space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from ..compiler.analyses.branches import Branch, branches
from ..compiler.network import Network
from ..compiler.passes import Context
from ..compiler.pipeline import parse_pipeline
from ..ir import Frozen, Graph, Location, widths_in
from ..ir.axes import size
from ..targets import target_named
from ..targets.cost import static_cost
from ..targets.truth import table
from .artifacts import passes_for
from .builder import SHARED
from .config import Settings
from .sizing import Sizing
from .space import Assignment, Knob, Space, build_space
from .space_groups import group_name, grouped_widths
from .space_rules import parse_rule
from .space_truth import latency_counts, suspects, without_slow

BEFORE = "cleanup"
"""The passes before blocks go: the names of blocks are those that they leave."""


@dataclass(frozen=True)
class WidthRow:
    """Widths that choose together, or one that the space does not offer.

    Args:
        name: the width, or the pattern of the group.
        widths: its members, as `resize` takes them.
        sizes: their sizes, one if they are alike.
        layers: the layers whose weights have one of them as a length.
        parameters: of the tensors that carry one of them.
        share: these of all parameters.
        low: the smallest size offered; None: none is.
        high: the largest.
        multiple: what sizes are multiples of.
        choices: as the search chooses.
    """

    name: str
    widths: tuple[str, ...]
    sizes: tuple[int, ...]
    layers: tuple[str, ...]
    parameters: int
    share: float
    low: int | None
    high: int | None
    multiple: int
    choices: tuple[str, ...]


@dataclass(frozen=True)
class BlockRow:
    """A residual branch that can be dropped, with its layers and its share of all parameters."""

    name: str
    layers: tuple[str, ...]
    parameters: int
    share: float
    choices: tuple[str, ...]


@dataclass(frozen=True)
class FrozenRow:
    """Axes that are frozen for one reason on one line.

    Args:
        reason: what fixes them; behind `<-` the chain to the root cause.
        ops: the ops that ask for it.
        axes: the tensors, each with its axes and their lengths, `fc.weight[0]=10`, `conv.weight[2,3]=3,3`.
        location: the user's line.
        count: how many axes these are.
    """

    reason: str
    ops: tuple[str, ...]
    axes: tuple[str, ...]
    location: str | None
    count: int


@dataclass(frozen=True)
class Corner:
    """What one network of the space costs by counting, for a batch of 1."""

    name: str
    parameters: int
    macs: int
    size_bytes: int
    bit_operations: int
    pipeline: str


@dataclass(frozen=True)
class Survey:
    """A network's space.

    Args:
        name: the network.
        target: what it is for.
        widths: in the graph's order.
        blocks: in the graph's order.
        frozen: axes of stored tensors.
        share: the share of parameters that lie in tensors with a free axis.
        size: the number of configurations.
        knobs: what the search chooses, part by part.
        left_out: what is not offered since it is slower on the target, as sentences.
        corners: the source network, the smallest and the largest of the space.
    """

    name: str
    target: str
    widths: tuple[WidthRow, ...]
    blocks: tuple[BlockRow, ...]
    frozen: tuple[FrozenRow, ...]
    share: float
    size: int
    knobs: tuple[Knob, ...]
    left_out: tuple[str, ...]
    corners: tuple[Corner, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def described_space(
    graph: Graph, blocks: Sequence[Branch], settings: Settings, target: str, *, generations: bool = False
) -> Space:
    """The search space that settings describe: what `nasc space` prints and `nasc compile` searches.

    Args:
        graph: the source network behind the passes that all candidates share.
        blocks: the branches that can go, by their names behind `BEFORE`.
        settings: rules, bounds and the rest.
        target: what it is for.
        generations: whether it is for candidates that are trained after the trials.

    Raises:
        UsageError: a rule names no layer, an unknown format or size; bounds are empty.
    """
    chosen, calibration = settings.search, settings.calibration
    options = [f"method={calibration.method}", f"samples={calibration.samples}"]
    if calibration.method == "percentile":
        options.append(f"percentile={calibration.percentile:g}")
    trained = generations or settings.training.epochs > 0
    space = build_space(
        graph,
        [parse_rule(text) for text in chosen.space],
        widths=trained if chosen.widths is None else chosen.widths,
        low=generations,
        blocks=blocks,
        sizing=sizing_of(settings, target),
        before=BEFORE,
        after=passes_for(target, calibrate=f"calibrate{{{', '.join(options)}}}", only_faster=chosen.only_faster),
    )
    runtime = target_named(target)
    if not (latency_counts(chosen.objectives) and suspects(space)) or runtime.unavailable():
        return space
    return without_slow(space, graph, table(runtime))


def sizing_of(settings: Settings, target: str) -> Sizing:
    """How settings choose sizes of widths, rounded to what suits the target unless they say otherwise."""
    low, high = settings.search.width_bounds
    multiple = settings.search.width_multiple or target_named(target).lanes
    return Sizing(low, high, settings.search.width_steps, multiple)


def survey(network: Network, settings: Settings) -> Survey:
    """Look at a network as a search would.

    Raises:
        UsageError: a rule names no layer, an unknown format or size.
    """
    target = target_named(settings.target).name
    cleaned, graph = network.apply(BEFORE).graph, network.apply(SHARED).graph
    blocks = branches(cleaned)
    space = described_space(graph, blocks, settings, target)
    counts = {op.name: prod(size(a, graph.sizes) for a in op.type.axes) for op in graph.stored if op.kind == "weight"}
    total = max(1, sum(counts.values()))
    free = sum(n for name, n in counts.items() if any(True for a in graph.types[name].axes for _ in widths_in(a)))
    corners: list[tuple[str, Assignment | None]] = [
        ("source", None),
        ("smallest", space.smallest),
        ("largest", space.largest),
    ]
    return Survey(
        name=graph.name,
        target=target,
        widths=tuple(_width_rows(graph, space, sizing_of(settings, target), counts, total)),
        blocks=tuple(_block_rows(network.graph, space, total)),
        frozen=frozen_rows(network.graph, network.frozen),
        share=free / total,
        size=space.size,
        knobs=space.knobs,
        left_out=space.left_out,
        corners=tuple(_corner(network, space, name, assignment) for name, assignment in corners),
    )


def _width_rows(
    graph: Graph, space: Space, sizing: Sizing, counts: Mapping[str, int], total: int
) -> Iterable[WidthRow]:
    order = list(graph.sizes)
    knobs = [(k.targets, k) for k in space.knobs if k.part == "width"]
    offered = {width for targets, _ in knobs for width in targets}
    left = [w for w in order if w not in offered]
    rows = [*knobs, *((group, None) for group in grouped_widths(graph, left))]
    touched = {name: {w for a in graph.types[name].axes for w in widths_in(a)} for name in counts}
    for widths, knob in sorted(rows, key=lambda row: order.index(row[0][0])):
        parameters = sum(n for name, n in counts.items() if touched[name] & set(widths))
        carrying = {layer for w in widths for layer in space.carriers.get(w, ())}
        chosen = [int(knob.meaning(c, w)) for c in knob.choices for w in widths] if knob else []
        yield WidthRow(
            name=knob.name.removesuffix(".width") if knob else group_name(widths),
            widths=tuple(widths),
            sizes=tuple(dict.fromkeys(graph.sizes[w] for w in widths)),
            layers=tuple(name for name in space.order if name in carrying),
            parameters=parameters,
            share=parameters / total,
            low=min(chosen, default=None),
            high=max(chosen, default=None),
            multiple=sizing.multiple_of(graph, widths[0]),
            choices=knob.choices if knob else (),
        )


def _block_rows(graph: Graph, space: Space, total: int) -> Iterable[BlockRow]:
    choices = {t: k.choices for k in space.knobs if k.part == "block" for t in k.targets}
    for block in space.blocks:
        stored = [graph.producers[n] for n in block.ops if n in graph.producers]
        parameters = sum(prod(size(a, graph.sizes) for a in op.type.axes) for op in stored if op.kind == "weight")
        yield BlockRow(block.name, block.layers, parameters, parameters / total, choices.get(block.name, ()))


def frozen_rows(graph: Graph, frozen: Sequence[Frozen]) -> tuple[FrozenRow, ...]:
    """The frozen axes by reason and line; those of kernels and of length 1 come last."""
    found: dict[tuple[str, str | None], tuple[list[str], dict[str, list[Frozen]]]] = {}
    for entry in frozen:
        chain = entry.reason.chain
        reason = " <- ".join(_plain(r.text, r.op) if len(chain) == 1 else r.text for r in chain)
        place = next((r.location for r in chain if r.location), None) or _line(graph, entry.value)
        ops, tensors = found.setdefault((reason, None if place is None else str(place)), ([], {}))
        ops.append(entry.reason.op)
        tensors.setdefault(entry.value, []).append(entry)
    rows = [
        FrozenRow(
            reason, tuple(dict.fromkeys(op for op in ops if op)), tuple(map(_axes, tensors.values())), place, len(ops)
        )
        for (reason, place), (ops, tensors) in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: row.reason.endswith(("kernel's size is fixed", "one entry along it"))))


def _axes(entries: Sequence[Frozen]) -> str:
    places, lengths = (",".join(map(str, found)) for found in zip(*((f.axis, f.size) for f in entries), strict=True))
    return f"{entries[0].value}[{places}]={lengths}"


def _plain(text: str, op: str) -> str:
    """A reason without the op's name, so that the same reason of several ops reads the same."""
    return text.replace(f" %{op}:", ":", 1).replace(f"%{op} ", "it ", 1) if op else text


def _line(graph: Graph, value: str) -> Location | None:
    """The line of the first op that reads a stored tensor."""
    return next((op.location for op in graph.readers.get(value, ()) if op.location), None)


def _corner(network: Network, space: Space, name: str, assignment: Assignment | None) -> Corner:
    pipeline = "" if assignment is None else space.pipeline(assignment)
    made = parse_pipeline(pipeline).split()[0].run(network, Context()) if pipeline else network
    cost = static_cost(made.graph)
    return Corner(name, cost.parameters, cost.macs, cost.weight_bytes, cost.bit_operations, pipeline)
