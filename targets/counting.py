"""What each op kind computes, counted: multiply-additions as products of axes, and operations on single elements.

A multiply-addition is counted where two tensors are multiplied and summed: layers, matrix products, attention. Their
number is a sum of products of axis lengths, so the same rule gives a number for a graph (`cost`) and a polynomial in
its widths (`polynomial`). All else is counted in operations: additions, comparisons, functions of one element, each
as 1.

Sources: Sze et al., Efficient Processing of Deep Neural Networks, Proc. IEEE 2017, section III; torchvision's
`weights.meta["_ops"]`, which counts layers, matrix products and attention in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias, cast

from ..ir import SPECS, STORED, Axes, Axis, Format, Graph, Op
from ..ir.axes import size
from ..ir.rules import pointwise


@dataclass(frozen=True)
class Product:
    """Multiply-additions of one op: as many as the product of some axes' lengths.

    Args:
        axes: the axes.
        formats: of the two factors.
    """

    axes: Axes
    formats: tuple[Format, Format]

    @property
    def bits(self) -> int:
        """The product of both factors' bits."""
        return self.formats[0].bits * self.formats[1].bits


MacRule: TypeAlias = "Callable[[Graph, Op], tuple[Product, ...]]"
OperationRule: TypeAlias = "Callable[[Graph, Op], int]"

MACS: dict[str, MacRule] = {}
"""Multiply-additions of the kinds that have any."""

OPERATIONS: dict[str, OperationRule] = {}
"""Operations on single elements, by kind, for a batch of 1; every kind of `SPECS` is here or in `MACS`."""


def products(graph: Graph, op: Op) -> tuple[Product, ...]:
    """The multiply-additions of an op; none for kinds that have none, `aten.*` among them."""
    rule = MACS.get(op.kind)
    return () if rule is None else rule(graph, op)


def operations(graph: Graph, op: Op) -> int:
    """The operations of an op on single elements, for a batch of 1; `aten.*` has one per element of its results."""
    rule = OPERATIONS.get(op.kind)
    if rule is None:
        return 0 if op.kind in MACS else results(graph, op)
    return rule(graph, op)


def counts_macs(*kinds: str) -> Callable[[MacRule], MacRule]:
    """Declare the multiply-additions of some kinds."""

    def declare(rule: MacRule) -> MacRule:
        MACS.update(dict.fromkeys(kinds, rule))
        return rule

    return declare


def formats(graph: Graph, first: str, second: str) -> tuple[Format, Format]:
    """The formats of two factors."""
    return graph.types[first].format, graph.types[second].format


@counts_macs("linear", "conv1d", "conv2d", "conv3d")
def per_output(graph: Graph, op: Op) -> tuple[Product, ...]:
    """Each element of the result is a sum over all weights of its output.

    For `linear` that is outputs x inputs for each row, for a convolution `H' W' O (C / groups) k_h k_w`.
    """
    weight = op.inputs[1]
    return (Product((*op.type.axes, *graph.types[weight].axes[1:]), formats(graph, op.inputs[0], weight)),)


@counts_macs("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def per_input(graph: Graph, op: Op) -> tuple[Product, ...]:
    """Each element of the input is multiplied with all weights of its channel: `H W C (O / groups) k_h k_w`."""
    given, weight = graph.types[op.inputs[0]], graph.types[op.inputs[1]]
    return (Product((*given.axes, *weight.axes[1:]), formats(graph, op.inputs[0], op.inputs[1])),)


@counts_macs("matmul")
def matrix_product(graph: Graph, op: Op) -> tuple[Product, ...]:
    """Each element of the result is a sum over the last axis of the first operand."""
    given = graph.types[op.inputs[0]]
    return (Product((*op.type.axes, given.axes[-1]), formats(graph, op.inputs[0], op.inputs[1])),)


@counts_macs("einsum")
def einsum(graph: Graph, op: Op) -> tuple[Product, ...]:
    """One multiply-addition per index of all letters that take part, operand by operand from the left."""
    given, result = str(op.attribute("equation")).replace(" ", "").split("->")
    operands = given.split(",")
    axes: dict[str, Axis] = {}
    for name, letters in zip(op.inputs, operands, strict=True):
        for letter, axis in zip(letters, graph.types[name].axes, strict=True):
            if letter not in axes or size(axes[letter], graph.sizes) == 1:
                axes[letter] = axis
    found: list[Product] = []
    held, left = operands[0], op.inputs[0]
    for i in range(1, len(operands)):
        letters = dict.fromkeys(held + operands[i])
        found.append(Product(tuple(axes[n] for n in letters), formats(graph, left, op.inputs[i])))
        later = set(result).union(*operands[i + 1 :])
        held, left = "".join(n for n in letters if n in later), op.name
    return tuple(found)


@counts_macs("scaled_dot_product_attention")
def attention(graph: Graph, op: Op) -> tuple[Product, ...]:
    """Query times key for each pair of positions, and the weights (as wide as the result) times value."""
    query, key, value = (graph.types[name] for name in op.inputs[:3])
    scores = (*op.type.axes[:-1], key.axes[-2])
    weights = (op.type.format, value.format)
    return (
        Product((*scores, query.axes[-1]), formats(graph, op.inputs[0], op.inputs[1])),
        Product((*scores, value.axes[-1]), weights),
    )


def elements(graph: Graph, name: str) -> int:
    """The number of elements of a value for a batch of 1."""
    return prod(size(axis, graph.sizes) for axis in graph.types[name].axes)


def results(graph: Graph, op: Op) -> int:
    """The number of elements of all results."""
    return sum(elements(graph, name) for name in op.results)


def none(graph: Graph, op: Op) -> int:
    """Nothing is computed: elements are moved, chosen by their place, or made."""
    return 0


def each(times: int = 1) -> OperationRule:
    """So many operations per element of the results."""
    return lambda graph, op: times * results(graph, op)


def read(times: int = 1) -> OperationRule:
    """So many operations per element of the first operand."""
    return lambda graph, op: times * elements(graph, op.inputs[0])


def of_window(graph: Graph, op: Op) -> int:
    """One operation per element of each window."""
    kernel, spatial = op.attribute("kernel_size"), int(op.kind[-2])
    sizes = cast(tuple[int, ...], kernel if isinstance(kernel, tuple) else (kernel,))
    return prod(sizes if len(sizes) == spatial else sizes * spatial) * elements(graph, op.name)


def of_bias(graph: Graph, op: Op) -> int:
    """One addition per element of the result where there is a bias."""
    return elements(graph, op.name) if len(op.inputs) > SPECS[op.kind].index("bias") else 0


def of_attention(graph: Graph, op: Op) -> int:
    """Scale, mask, and a softmax of five operations per pair of positions."""
    key = graph.types[op.inputs[1]]
    pairs = prod(size(axis, graph.sizes) for axis in (*op.type.axes[:-1], key.axes[-2]))
    return (6 + (len(op.inputs) > 3)) * pairs


def declare(rule: OperationRule, *kinds: str) -> None:
    """Declare the operations of some kinds."""
    OPERATIONS.update(dict.fromkeys(kinds, rule))


MOVES = (
    "weight", "buffer", "reshape", "permute", "cat", "stack", "split", "narrow", "slice", "select", "unbind", "pad",
    "expand", "repeat", "repeat_interleave", "flip", "roll", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "slice_scatter", "select_scatter", "unfold", "tensor_unfold", "tril", "triu", "full", "arange", "embedding",
    "index", "index_select", "gather",
)  # fmt: skip
"""Kinds that move or make elements."""
REDUCTIONS = (
    "mean", "sum", "prod", "amax", "amin", "any", "all", "cumsum", "argmax", "argmin", "max", "min", "topk", "sort",
)  # fmt: skip
"""Kinds that look at every element of what they read once, as far as we count; a sort's comparisons are not."""

declare(none, *MOVES)
declare(each(), *pointwise.UNARY, *pointwise.BINARY, *pointwise.COMPARE)
declare(
    each(), "logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor",
    "bitwise_not", "isnan", "isinf", "where", "masked_fill", "cast", "prelu", "fold",
)  # fmt: skip
declare(each(2), "glu")
declare(each(2), "quantize")  # divided by the step, rounded
declare(each(2), "batch_norm")  # one factor and one summand per channel, as at inference
declare(each(7), "layer_norm", "group_norm", "instance_norm")  # mean 1, variance 2, both applied 2, weight and bias 2
declare(each(4), "rms_norm")  # squares and their sum 2, root applied 1, weight 1
declare(each(5), "softmax", "log_softmax")  # largest, difference, exponential, sum, quotient
declare(read(), *REDUCTIONS, "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
declare(read(3), "var", "std", "logsumexp")
declare(read(2), "norm")
declare(of_window, *(f"{which}_pool{n}d" for which in ("max", "avg") for n in (1, 2, 3)))
declare(of_bias, "linear", *(f"conv{n}d" for n in (1, 2, 3)), *(f"conv_transpose{n}d" for n in (1, 2, 3)))
declare(of_attention, "scaled_dot_product_attention")
declare(each(7), "interpolate")  # two linear blends by rows and one by columns, at most; a copy where it is nearest


def uncounted(kinds: Iterable[str] = SPECS) -> tuple[str, ...]:
    """Those of some op kinds that have no rule here: none of the IR's own, as a test holds."""
    return tuple(kind for kind in kinds if kind not in MACS and kind not in OPERATIONS)


def outdated() -> tuple[str, ...]:
    """The kinds with a rule here that the IR does not have."""
    return tuple(kind for kind in (*MACS, *OPERATIONS) if kind not in SPECS and kind not in STORED)
