"""Store the weights, inputs and biases of layers in fewer bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from ...ir import (
    SPECS,
    Encoding,
    Graph,
    Op,
    Step,
    Type,
    UsageError,
    chosen_layers,
    format_named,
    fresh_name,
    operand,
    rebuilt,
    without_dead_code,
)  # fmt: skip
from ...ir.axes import size
from ...ir.formats import BF16, F16, F32
from ..analyses.signs import never_negative
from ..network import Network
from ..weights import Recipe, Rounded, rounded_once, stored_as
from .base import Context, Pass, PassError, register

MOVERS = ("reshape", "permute", "max_pool1d", "max_pool2d", "max_pool3d")
"""Ops that only move or choose elements: rounding before them is rounding after them, and runtimes fuse it there."""


@register("quantize")
@dataclass(frozen=True)
class Quantize(Pass):
    """Read the weights, the input and the bias of each chosen layer in another number format.

        %y = linear %x, %w, %b   ==>   %x.q: u8<?, ?>[N, 16] = quantize %x
                                       %w: i4<per 0 ?>[$y, 16] = weight
                                       %b: i8<?>[$y] = weight
                                       %y = linear %x.q, %w, %b

    Steps are unknown (`?`) until `calibrate` finds them. Weights have one step per output channel, inputs and biases
    one per tensor. Signed formats are symmetric; unsigned ones may have any zero, one for each step: `u4` is
    asymmetric, and so is `i4<?, ?>`. Biases are symmetric. `i8<2^?>` asks for a step that is a power of two (fixed
    point), `i8<2^-6>` for just this one, which holds for the whole tensor and rounds at once, as `u8<0.02, 127>` does.

    `i4<block 32>` has a step for every 32 weights along the axis that the layer reads its input by, or along the
    longest where that is shorter than a block; activations are cut along their features, and unsigned blocks of them
    (`u4<block 32>`) are for layers whose input is never negative. In `f4e2m1<block 32 2^>` the steps are exponents that
    follow from the block and need no calibration. `f16` and `bf16` store weights without a step. `docs/formats.md` has
    all formats.

    Equal quantized inputs are shared; an input that arrives through reshapes, permutations or maximum pools is rounded
    before them. What is left out stays as it is, and a later `quantize` of the same layer overrides an earlier one. A
    weight that serves several layers is one tensor, so it is stored in few bits for all of them.

    Args:
        layers: names of layers, patterns (`fc*`) or kinds (`linear`).
        weights: format of the weights.
        activations: format of the layers' inputs.
        biases: integer format of the biases; layers without a bias stay as they are.
        per: one step per output `channel` of a weight, or one for the whole `tensor`.

    Raises:
        UsageError: no layer matches, or a format is not what it is asked for.
        PassError: a weight or bias is computed, or belongs to a legalized layer; inputs that may be negative would be
            read in unsigned blocks.

    Source: uniform affine quantization as in Jacob et al., CVPR 2018, section 2.
    """

    layers: tuple[str, ...] = ("*",)
    weights: Encoding | None = None
    activations: Encoding | None = None
    biases: Encoding | None = None
    per: Literal["channel", "tensor"] = "channel"

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("quantize: layers must name at least one layer", mend="Write layers=* for all.")
        for name in ("weights", "activations", "biases"):
            encoding: Encoding | None = getattr(self, name)
            if encoding is not None:
                check_format(name, encoding)
            step = encoding.step if encoding is not None else None
            if step is not None and step.axis is not None:
                raise UsageError(
                    f"quantize: {name} cannot name an axis for its steps; found {encoding}",
                    mend="Weights have one step per output channel (per=tensor: one alone), all else one per tensor.",
                )
            if name == "activations" and encoding is not None and step is not None and step.zeros:
                raise UsageError(
                    f"quantize: activations in blocks are symmetric; found {encoding}",
                    mend=f"Write {encoding.format}<block {step.block}>.",
                )
            if name == "weights" and step is not None and step.block is not None and self.per == "tensor":
                raise UsageError(f"quantize: weights have one step per block or one in all, not both; found {encoding}")
            if name == "biases" and step is not None and step.zero != 0:
                raise UsageError(f"quantize: biases are symmetric, their zero is 0; found {encoding}")
            if name == "biases" and encoding is not None and not encoding.format.signed:
                raise UsageError(f"quantize: biases must be signed, i2 to i16; found {encoding}")
            if encoding is not None and name == "weights":
                check_zero(encoding)

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        graph, chosen = network.graph, chosen_layers(network.graph, self.layers)
        if self.activations:
            check_signs(graph, chosen, self.activations)
        stored: dict[str, Type] = {}
        for layer in chosen:
            if self.weights:
                name, axis = operand(layer, "weight"), SPECS[layer.kind].weight_axis
                assert name is not None and axis is not None
                stored[name] = weight_type(graph, layer, name, self.weights, axis if self.per == "channel" else None)
            if self.biases and (bias := operand(layer, "bias")):
                if graph.types[bias].format.bits > 16 and graph.types[bias].quantized:
                    raise PassError("it is legalized already", op=layer, mend="Put `quantize` before `legalize`.")
                stored[bias] = weight_type(graph, layer, bias, self.biases, None)
        if not (stored or self.activations):
            context.say(f"quantize changes nothing: {self.nothing_to_quantize()}")
            return network
        graph = replace(
            graph, ops=tuple(op.with_type(stored[op.name]) if op.name in stored else op for op in graph.ops)
        )
        if self.activations:
            for name in [op.name for op in chosen]:
                graph = read_through(graph, name, activation(self.activations, graph, name))
        recipes = {name: as_typed(network.weights.unrounded(name), type) for name, type in stored.items()}
        return Network(rebuilt(network.graph, graph.ops), network.weights.with_recipes(recipes))

    def nothing_to_quantize(self) -> str:
        """Why no tensor gets another format."""
        if self.biases:
            return "none of its layers has a bias"
        return "no format is given; write quantize{weights=i8, activations=u8}"


def check_format(name: str, encoding: Encoding) -> None:
    """Refuse a format that a part of a layer cannot have.

    Raises:
        UsageError: the format, what is possible, and what to write instead.
    """
    format = encoding.format
    if name == "biases" and (format.family != "int" or format.bits > 16 or (encoding.step and encoding.step.block)):
        raise UsageError(f"quantize: biases must be an integer format of 2 to 16 bits; found {encoding}")
    if name == "activations" and format in (F16, BF16):
        raise UsageError(f"quantize: activations cannot be {format}", mend=f"Write convert{{to={format}}} for all.")
    if not (format.takes_step or (name == "weights" and format in (F16, BF16))) or format.bits > 16:
        raise UsageError(f"quantize: {name} must be a format of 16 bits or fewer; found {encoding}")


def check_zero(encoding: Encoding) -> None:
    """Refuse weights whose zero cannot be had.

    Raises:
        UsageError: the format, and what to write instead.
    """
    step, format = encoding.step, encoding.format
    if step is not None and step.shared and not format.signed:
        raise UsageError(
            f"quantize: weights whose blocks share an exponent are symmetric; found {encoding}",
            mend=f"Write i{format.bits}<block {step.block} 2^>, or u{format.bits}<block {step.block}>.",
        )
    if step is not None and step.zero and not format.low <= step.zero <= format.high:
        codes = f"{format.low} to {format.high}"
        raise UsageError(f"quantize: the zero of weights must be one of the codes {codes}; found {encoding}")


def check_signs(graph: Graph, chosen: Iterable[Op], encoding: Encoding) -> None:
    """Refuse unsigned blocks for inputs with negative numbers: blocks have no zero, so these would all become 0.

    Raises:
        PassError: a layer's input may be negative.
    """
    step, format = encoding.step, encoding.format
    if step is None or step.block is None or format.signed:
        return
    for layer in chosen:
        if not never_negative(graph, value := layer.inputs[0]):
            signed = Encoding(format_named(f"i{format.bits}"), step)
            raise PassError(
                f"%{value} may be negative, and unsigned blocks have no zero: {encoding} would make such numbers 0",
                op=layer,
                mend=f"Write {signed}; {encoding} is for inputs that are never negative, such as those behind a ReLU.",
            )


def as_typed(recipe: Recipe, type: Type) -> Recipe:
    """Real numbers as a type stores them: codes where its step is known."""
    if type.step is None:
        return stored_as(recipe, type.format)
    if type.step.shared:
        return Rounded(recipe, type.format, None, type.step.axis, type.step.block)
    if type.step.value is None:
        return recipe
    return rounded_once(recipe, type.format, type.step)


def weight_type(graph: Graph, layer: Op, name: str, encoding: Encoding, axis: int | None) -> Type:
    """The type of a stored tensor in a format, its step unknown unless the format names it or the blocks hold it.

    Raises:
        PassError: the tensor is computed.
    """
    if name not in graph.producers or graph.producers[name].kind != "weight":
        raise PassError(f"%{name} is not a stored weight", op=layer)
    if not encoding.format.takes_step:
        return replace(graph.types[name], format=encoding.format, step=None)
    step = encoding.step or Step()
    free = step.zero is None or not encoding.format.signed
    if step.block is not None:
        along = block_axis(graph, layer, name, step.block)
        step = Step.blocks(step.block, along, known=False, power_of_two=step.power_of_two, zeros=free)
    elif not step.known:
        step = Step(axis=axis, power_of_two=step.power_of_two, zero=None if free else 0)
    return replace(graph.types[name], format=encoding.format, step=step)


def block_axis(graph: Graph, layer: Op, name: str, block: int) -> int:
    """The axis that a weight's blocks run along: the one that is summed over, or the longest where that is short."""
    lengths = [size(axis, graph.sizes) for axis in graph.types[name].axes]
    read = SPECS[layer.kind].input_axis
    assert read is not None
    return read if lengths[read] >= block else lengths.index(max(lengths))


def activation(encoding: Encoding, graph: Graph, name: str) -> Encoding:
    """The format of a layer's input with its step: unsigned ones may have any zero, blocks run along the features."""
    if encoding.step is not None and encoding.step.block is not None:
        axis = graph.types[graph.producers[name].inputs[0]].rank - 1 if graph.producers[name].kind == "linear" else 1
        return Encoding(encoding.format, replace(encoding.step, axis=axis, known=True))
    if encoding.step is not None:
        zero = encoding.step.zero
        free = zero == 0 and not encoding.step.known and not encoding.format.signed
        return Encoding(encoding.format, replace(encoding.step, zero=None) if free else encoding.step)
    return Encoding(encoding.format, Step(zero=0 if encoding.format.signed else None))


def read_through(graph: Graph, name: str, encoding: Encoding) -> Graph:
    """The graph with the input of layer `name` read through `quantize`, put before ops that only move elements."""
    if not (_passes_movers(encoding) and _passes_movers(graph.types[graph.producers[name].inputs[0]].encoding)):
        return read_in_place(graph, name, encoding)
    layer = graph.producers[name]
    chain = [layer]
    value = layer.inputs[0]
    while (mover := graph.producers.get(value)) is not None and _moves(graph, mover):
        chain.append(mover)
        value = mover.inputs[0]
    if (old := graph.producers.get(value)) is not None and old.kind == "quantize":
        value = old.inputs[0]
    wanted = replace(graph.types[value], format=encoding.format, step=encoding.step)
    for reader in graph.readers[value]:
        if reader.kind == "quantize" and reader.type == wanted:
            return _rewire(graph, chain[-1], reader.name, None)
    if old is not None and old.kind == "quantize" and graph.readers[old.name] == (chain[-1],):
        return replace(graph, ops=tuple(op.with_type(wanted) if op is old else op for op in graph.ops))
    new = Op("quantize", (fresh_name(f"{value}.q", graph.types),), (wanted,), (value,))
    return _rewire(graph, chain[-1], new.name, new)


def read_in_place(graph: Graph, name: str, encoding: Encoding) -> Graph:
    """The same right before the layer, whatever stands before it, and with what rounded it till now left out: blocks
    stand in the axes that the layer reads, and runtimes only move the codes of integers."""
    chain = [graph.producers[name]]
    while (mover := graph.producers.get(chain[-1].inputs[0])) is not None and _moves(graph, mover):
        chain.append(mover)
    if (old := graph.producers.get(chain[-1].inputs[0])) is not None and old.kind == "quantize":
        graph = without_dead_code(_rewire(graph, chain[-1], old.inputs[0], None))
        if _passes_movers(encoding):
            return read_through(graph, name, encoding)
    layer = graph.producers[name]
    value = layer.inputs[0]
    wanted = replace(graph.types[value], format=encoding.format, step=encoding.step)
    for reader in graph.readers[value]:
        if reader.kind == "quantize" and reader.type == wanted:
            return _rewire(graph, layer, reader.name, None)
    new = Op("quantize", (fresh_name(f"{value}.q", graph.types),), (wanted,), (value,))
    return _rewire(graph, layer, new.name, new)


def _passes_movers(encoding: Encoding) -> bool:
    """Whether codes may be moved as they are; real numbers always may."""
    return encoding.step is None or (encoding.format.family == "int" and encoding.step.block is None)


def _in_blocks(step: Step | None) -> bool:
    return step is not None and step.block is not None


def _moves(graph: Graph, op: Op) -> bool:
    return op.kind in MOVERS and len(graph.readers[op.name]) == 1 and op.name not in graph.outputs


def _rewire(graph: Graph, reader: Op, value: str, new: Op | None) -> Graph:
    """The graph with `reader` reading `value`; a new `quantize` comes right behind what it rounds and behind others of
    it, so that all that may share it stands after it."""
    ops = [replace(op, inputs=(value, *op.inputs[1:])) if op is reader else op for op in graph.ops]
    if new is not None:
        source = new.inputs[0]
        at = next((i + 1 for i, op in enumerate(ops) if source in op.results), 0)
        while ops[at].kind == "quantize" and ops[at].inputs[0] == source:
            at += 1
        ops.insert(at, new)
    return retyped_movers(replace(graph, ops=tuple(ops)))


def retyped_movers(graph: Graph) -> Graph:
    """The graph with the types of ops that only move elements brought up to date."""
    known = {i.name: i.type for i in graph.inputs}
    ops: list[Op] = []
    for op in graph.ops:
        if op.kind in MOVERS:
            source = known[op.inputs[0]]
            if _in_blocks(source.step):
                source = Type(F32, source.axes)
            op = op.with_type(replace(op.type, format=source.format, step=source.step))
        ops.append(op)
        known.update(zip(op.results, op.types, strict=True))
    return replace(graph, ops=tuple(ops))
