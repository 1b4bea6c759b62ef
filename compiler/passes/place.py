"""Let integers pass from integer layer to integer layer, so that a runtime's integer kernels can take them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from ...ir import Encoding, Graph, Op, Step, Type, UsageError, fresh_name, rebuilt
from ...ir.errors import did_you_mean
from ...ir.formats import format_named
from ..network import Network
from .base import Context, Pass, register
from .integers import CLAMPS, carriers, integer_layers, settled, takes_codes
from .quantize import retyped_movers
from .regions import without_losses

BYTES = {
    "onnxruntime:cpu": Encoding(format_named("u8"), Step(zero=None)),
    "onnxruntime:tensorrt": Encoding(format_named("i8"), Step()),
}
"""What is put where nothing was asked for, by target: 8 bits as its integer kernels write them. Targets without integer
kernels are not here."""
TARGETS = ("onnxruntime:cpu", "onnxruntime:cuda", "onnxruntime:tensorrt")


@register("place")
@dataclass(frozen=True)
class Place(Pass):
    """Round the results of integer layers, and of what stands between them, where integer kernels need it.

        %y = conv2d %x.q, %w         ==>    %y = conv2d %x.q, %w
        %z = add %y, %skip                  %y.q: u8<?, ?>[N, 16, 8, 8] = quantize %y
        %z.q: u8<?> = quantize %z           %skip.q: u8<?, ?>[N, 16, 8, 8] = quantize %skip
                                            %z = add %y.q, %skip.q
                                            %z.q: u8<?> = quantize %z

    A convolution of integers writes integers, so its result is rounded once, behind its clamps, pools and reshapes, and
    everyone reads it from there. Additions, concatenations, mean pools and the like between integer layers run on
    integers if all they read and give are; where that cannot be (one side comes from an op in real numbers), they stay
    real. Steps are unknown (`?`) until `calibrate`, which comes next. What is integers as a whole already stays as it
    is. `legalize` does the same by itself where this pass was left out; only training does not see it then.

    TensorRT takes signed codes whose zero is 0: inputs of other formats whose steps are not known yet become such. The
    CUDA provider has no integer kernels; nothing is added for it.

    Args:
        target: the target to suit.
        only: `asked`: all layers stay as `quantize` left them; `faster`: layers are in real numbers again, region by
            region, where the cheapest division of the graph into real numbers and codes has them, by prices that were
            measured on a CPU; what it costs to round and to read back between the two is part of it.

    Raises:
        UsageError: there is no such target.

    Source: the QDQ fusions of ONNX Runtime, `docs/onnxruntime.md`.
    """

    target: str = "onnxruntime:cpu"
    only: Literal["asked", "faster"] = "asked"

    def __post_init__(self) -> None:
        known_target("place", self.target)

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        if self.only == "faster":
            network = without_losses(network)
        graph = placed(network.graph, self.target)
        if graph is network.graph:
            return network
        return Network(rebuilt(network.graph, graph.ops, graph.outputs), network.weights)


def known_target(asker: str, name: str) -> None:
    """Hold a target's name against those there are.

    Raises:
        UsageError: there is no such target.
    """
    if name not in TARGETS:
        raise UsageError(f"{asker}: there is no target {name!r}", mend=did_you_mean(name, list(TARGETS)))


def placed(graph: Graph, target: str) -> Graph:
    """The graph with a `quantize` on every value that integer kernels pass on; itself where none is missing."""
    if (byte := BYTES.get(target)) is None:
        return graph
    if byte.format.signed:
        graph = signed(graph)
    for name in wanted(graph, carriers(graph)):
        graph = rounded_once(graph, name, byte)
    return graph


def signed(graph: Graph) -> Graph:
    """The graph with codes around 0 wherever a step is not known yet."""
    ops: list[Op] = []
    for op in graph.ops:
        step = op.type.step
        if (
            op.kind == "quantize"
            and step is not None
            and not step.known
            and (step.zero != 0 or not op.type.format.signed)
        ):
            op = op.with_type(
                replace(op.type, format=format_named(f"i{op.type.format.bits}"), step=replace(step, zero=0))
            )
        ops.append(op)
    return graph if tuple(ops) == graph.ops else retyped_movers(replace(graph, ops=tuple(ops)))


def wanted(graph: Graph, carried: frozenset[str]) -> Iterable[str]:
    """The values that must be rounded once for all who read them, in order, each once."""
    found: dict[str, None] = {}
    mine = {op.name for op in integer_layers(graph)}
    for op in graph.ops:
        if op.name in carried:
            found.update((value, None) for value in op.inputs if not graph.types[value].quantized)
            found[settled(graph, op.name)] = None
        elif op.name in mine and (op.kind != "linear" or _breaks_linear(graph, op)):
            found[settled(graph, op.name)] = None
    return [name for name in found if not graph.types[name].quantized]


def _breaks_linear(graph: Graph, op: Op) -> bool:
    """Whether a linear layer, which may give real numbers, must be rounded: it is already, for some of its readers
    only, or a clamp behind it would be merged with it in real numbers."""
    last = settled(graph, op.name)
    readers = graph.readers.get(last, ())
    rounds = [r for r in readers if r.kind == "quantize"]
    if rounds and (len(readers) > 1 or last in graph.outputs):
        return True
    clamped = last != op.name and graph.readers[op.name][0].kind in CLAMPS
    return clamped and not rounds and len(readers) == 1 and last not in graph.outputs


def rounded_once(graph: Graph, name: str, byte: Encoding) -> Graph:
    """The graph with one `quantize` of a value, from which everyone reads it.

    Of several, the one with the most bits stays and the others round what it gives. What rounds in the same way behind
    a reshape has become the same.
    """
    readers = graph.readers.get(name, ())
    own = [r for r in readers if takes_codes(r)]
    if graph.types[name].quantized:
        return graph
    if own and len(readers) == 1 and name not in graph.outputs:
        return graph
    type = graph.types[name]
    new = max(own, key=lambda r: r.type.format.bits, default=None)
    if new is None:
        wanted = replace(type, format=byte.format, step=byte.step)
        new = Op("quantize", (fresh_name(f"{name}.q", graph.types),), (wanted,), (name,))
    ops: list[Op] = []
    for op in graph.ops:
        if op is new:
            continue
        if name in op.inputs:
            op = replace(op, inputs=tuple(new.name if n == name else n for n in op.inputs))
        ops.append(op)
        if name in op.results:
            ops.append(new)
    if name not in graph.producers:
        ops.insert(0, new)
    outputs = tuple(new.name if n == name else n for n in graph.outputs)
    return without_repeats(retyped_movers(replace(graph, ops=tuple(ops), outputs=outputs)))


def without_repeats(graph: Graph) -> Graph:
    """The graph without `quantize`s that would round what is rounded alike already."""
    same: dict[str, str] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if any(n in same for n in op.inputs):
            op = replace(op, inputs=tuple(same.get(n, n) for n in op.inputs))
        source = graph.types.get(op.inputs[0]) if op.kind == "quantize" else None
        if source is not None and _alike(source, op.type):
            same[op.name] = op.inputs[0]
            continue
        ops.append(op)
    outputs = tuple(same.get(n, n) for n in graph.outputs)
    return retyped_movers(replace(graph, ops=tuple(ops), outputs=outputs)) if same else graph


def _alike(given: Type, asked: Type) -> bool:
    """Whether rounding again changes nothing: the same format, and the same step or one that is not known yet."""
    if given.step is None or asked.step is None or given.format != asked.format:
        return False
    return given.step == asked.step or not asked.step.known
