"""What ops and roundings cost in integers and in real numbers, by counting; prices are measured.

All prices are nanoseconds of one thread of a processor with AVX-512 VNNI under ONNX Runtime 1.31.1, per sample with a
batch of one, so that what a call costs whatever its size counts in full. Those of layers are rounded from what
`benchmarks/integer_prices.py` fits to the layers of fifteen networks, where weights and large maps come from beyond the
core's caches, and to some fifty layers alone. They are off by a seventh in the median. The others are medians of its
last table, of ops between two convolutions, less what a kernel of one element takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

from ...ir import Axis, Graph, Op
from ...ir.axes import size
from ...ir.graph import is_axis
from .integers import CARRIERS, CLAMPS, MOVERS, is_stored, numbers, takes_codes

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
BLOCK = 16
"""Channels that kernels compute at once."""
CALL_NS = {"real": 1000.0, "codes": 1800.0}
"""Of a layer. Chains of 1 and of 9 layers of 16 channels on one pixel: 1.1 and 1.8 us a convolution, 1.0 and 2.6 a
linear layer."""
LAYER_NS: dict[tuple[str, str], tuple[float, ...]] = {
    ("conv", "real"): (0.014, 0.07, 0.03, 0.12, 0.1),
    ("conv", "codes"): (0.0035, 0.2, 0.42, 1.5, 0.04, 0.04),
    ("depthwise", "real"): (0.021, 0.23, 0.3, 0.1),
    ("depthwise", "codes"): (0.041, 0.31, 0.1, 0.02),
    ("ragged depthwise", "real"): (0.022, 0.26, 0.76, 0.1),
    ("ragged depthwise", "codes"): (0.14, 0.43, 0.14, 0.02),
    ("groups", "real"): (0.013, 0.13, 1.1, 0.52, 0.1),
    ("groups", "codes"): (0.0005, 0.77, 3.7, 0.09, 0.02),
    ("narrow groups", "real"): (850.0, 0.013, 0.43, 0.0, 0.1),
    ("narrow groups", "codes"): (0.0, 0.77, 3.7, 0.09, 0.02),
    ("linear", "real"): (0.017, 0.16, 0.15, 0.0),
    ("linear", "codes"): (0.0019, 0.88, 0.047, 0.0),
}
"""Of the amounts in `amounts`, by class of layer."""
CACHED_BYTES = 600_000
"""Up to which the maps that a layer reads and gives, and the real weights of all layers, stay in a core's caches of
2 MB."""
ROUNDING_NS, READING_NS = 0.28, 0.17
"""Rounding an element; reading it back."""
NODE_NS = 1000.0
"""Of one such op, whatever its size: chains of 9 with and without them."""
TURN_NS = 0.1
"""Of an element whose channels are turned to the last axis, where integer convolutions have them, or back."""
BLOCK_NS = 0.2
"""Of an element that is put into blocks of channels, in which real convolutions have them, or taken out."""
SLOPES_NS = 35.0
"""Of a pixel whose channels a PReLU multiplies with slopes of their own, where channels are the last axis."""
BETWEEN_NS: dict[str, tuple[float, float]] = {
    "add": (0.1, 0.2),
    "mul": (0.2, 0.34),
    "cat": (0.1, 0.15),
    "leaky_relu": (0.2, 0.33),
    "sigmoid": (0.43, 0.33),
    "softmax": (2.0, 2.0),
    "permute": (1.0, 0.5),
}
"""Of an element that an op reads, in real numbers and in codes."""
POOL_NS: dict[str, tuple[float, float]] = {"max": (0.045, 0.09), "avg": (0.03, 1.1), "all": (0.06, 0.06)}
"""Of an element of a window of a pool; `all`: of a mean over whole maps."""
ALONE = ("prelu", "leaky_relu", "sigmoid", "hardswish", "silu", "gelu", "hardsigmoid", "tanh", "elu", "selu", "celu",
         "mish", "softplus", "add", "sub", "mul", "div")  # fmt: skip
"""Ops on each element alone: between codes they read back and round, and channels may stay the last axis."""
COPY_NS = 0.1
"""Of an element that is copied so that its rounding stays behind a max pool of real numbers."""
BLOCKED = (*CLAMPS, *CARRIERS, "max_pool1d", "max_pool2d", "max_pool3d", "gelu", "silu", "hardswish", "hardsigmoid",
           "tanh", *CONVOLUTIONS)  # fmt: skip
"""Ops that take numbers in blocks of channels as they are."""


def lengths(graph: Graph, name: str) -> list[int]:
    """The lengths of a value's axes, with one sample."""
    return [size(axis, graph.sizes) for axis in graph.types[name].axes]


def elements(graph: Graph, name: str) -> int:
    """The elements of a value, per sample."""
    return prod(lengths(graph, name))


def keeps_weights(graph: Graph) -> bool:
    """Whether all weights stay in the caches from call to call."""
    return 4 * sum(elements(graph, op.name) for op in graph.stored) <= CACHED_BYTES


def layer_ns(graph: Graph, layer: Op, how: str, *, kept: bool) -> float:
    """What a layer costs in itself, in `real` numbers or in `codes`, with weights that are `kept` in caches or not."""
    kind, found = layer_amounts(graph, layer, how, kept=kept)
    total = CALL_NS[how] + sum(a * b for a, b in zip(LAYER_NS[kind, how], found, strict=True))
    if how == "codes" or kind == "linear":
        return total
    if not stays_in_blocks(graph, layer.name):
        total += BLOCK_NS * elements(graph, layer.name)
    given = graph.producers.get(numbers(graph, layer.inputs[0]))
    if lengths(graph, layer.inputs[1])[1] >= BLOCK and (given is None or given.kind not in BLOCKED):
        total += BLOCK_NS * elements(graph, layer.inputs[0])
    return total


def layer_amounts(graph: Graph, layer: Op, how: str, *, kept: bool) -> tuple[str, tuple[float, ...]]:
    """See `amounts`; weights that are kept in caches do not count."""
    weight, given, made = (lengths(graph, name) for name in (layer.inputs[1], layer.inputs[0], layer.name))
    groups = layer.attribute("groups", 1)
    groups = size(cast(Axis, groups), graph.sizes) if is_axis(groups) else cast(int, groups)
    kind, (*work, weights, large) = amounts(layer.kind, weight, given, made, groups, how)
    return kind, (*work, 0 if kept else weights, large)


def amounts(
    kind: str, weight: Sequence[int], given: Sequence[int], made: Sequence[int], groups: int, how: str
) -> tuple[str, tuple[float, ...]]:
    """The class of a layer, and how much of what has a price it does.

    Multiply-additions with channels in whole blocks, results, of convolutions elements of windows that are laid out (a
    row of a window counting two more), weights, and elements of maps that are too large for the caches. Kernels for
    real numbers work on four blocks of channels of six pixels of a row at once; with fewer than eight such sums at a
    time they wait for one after the other. Groups of fewer than 16 channels are computed one after the other, each of
    their windows laid out.

    Args:
        kind: the op's kind.
        weight: the weight's lengths.
        given: the input's lengths, with the batch.
        made: the result's lengths, with the batch.
        groups: of a convolution.
        how: `real` or `codes`.
    """
    outputs, inputs, window = weight[0], weight[1], prod(weight[2:])
    results, elements = prod(made), prod(given) + prod(made)
    read = prod(weight), elements if elements * (4 if how == "real" else 1) > CACHED_BYTES else 0
    if kind == "linear":
        return "linear", (results * inputs, results, *read)
    if groups > 1 and inputs == 1:
        return "ragged depthwise" if outputs % BLOCK else "depthwise", (results * window, results, *read)
    places = results // outputs
    laid = places * prod(weight[2:-1]) * (weight[-1] + 2) if window > 1 else 0
    if groups > 1 and inputs < BLOCK:
        work = (results * inputs * window, laid * groups * inputs) if how == "real" else (results, laid * groups)
        return "narrow groups", (groups, *work, *read)
    if groups > 1:
        return "groups", (results * inputs * window, results, laid * groups, *read)
    if how == "codes":
        ragged = laid if inputs % 4 else 0
        return "conv", (places * whole(outputs) * whole(inputs, 4) * window, results, laid, ragged, *read)
    few = laid if inputs <= BLOCK else 0
    sums = min(whole(outputs) // BLOCK, 4) * min(made[-1], 6)
    waits = max(1.0, 8 / sums)
    summed = whole(inputs) if inputs >= BLOCK else inputs
    return "conv", (waits * places * whole(outputs) * summed * window, results, few, *read)


def whole(channels: int, block: int = BLOCK) -> int:
    """Channels in whole blocks."""
    return -(-channels // block) * block


def stays_in_blocks(graph: Graph, name: str) -> bool:
    """Whether all who read the result of a convolution take it in blocks of channels."""
    readers = graph.readers.get(name, ())
    through = (r.kind in BLOCKED or (takes_codes(r) and stays_in_blocks(graph, r.name)) for r in readers)
    return name not in graph.outputs and all(through)


def between_ns(graph: Graph, op: Op, carried: bool) -> tuple[float, float]:
    """What an op between layers costs, in real numbers and among codes, with or without an integer kernel."""
    given = sum(elements(graph, name) for name in op.inputs if not is_stored(graph, name))
    if op.kind in MOVERS or carried:
        count, prices = given, BETWEEN_NS.get(op.kind, (0.0, 0.0))
        if "pool" in op.kind:
            count, prices = window_elements(graph, op)
        return prices[0] * count, prices[1] * count
    reading = sum(read_ns(graph, name, turned=False) for name in op.inputs if not is_stored(graph, name))
    slopes = SLOPES_NS * elements(graph, op.name) / slopes_of(graph, op) if slopes_of(graph, op) > 1 else 0.0
    return 0.0, reading + round_ns(graph, op.name, turned=False) + slopes


def slopes_of(graph: Graph, op: Op) -> int:
    """How many slopes a PReLU over maps has; 0 for other ops."""
    return elements(graph, op.inputs[1]) if op.kind == "prelu" and op.type.rank > 2 else 0


def window_elements(graph: Graph, pool: Op) -> tuple[int, tuple[float, float]]:
    """How many elements a pool looks at, windows that overlap apart, and what each costs."""
    window = pool.attribute("kernel_size")
    made = elements(graph, pool.name)
    if isinstance(window, tuple):
        return made * prod(n for n in window if isinstance(n, int)), POOL_NS[pool.kind[:3]]
    return elements(graph, pool.inputs[0]), POOL_NS["all" if prod(lengths(graph, pool.name)[2:]) == 1 else "avg"]


def round_ns(graph: Graph, name: str, *, turned: bool = True) -> float:
    """What it costs that a value in real numbers is read in codes."""
    total = NODE_NS + ROUNDING_NS * elements(graph, name)
    maker = graph.producers.get(name)
    if maker is not None and maker.kind.startswith("max_pool"):
        total += NODE_NS + COPY_NS * elements(graph, name)
    return total + turning_ns(graph, name) if turned else total


def read_ns(graph: Graph, name: str, *, turned: bool = True) -> float:
    """What it costs that a value in codes is read in real numbers: nothing for the result of a linear layer that nobody
    rounds."""
    op = graph.producers.get(name)
    if op is not None and op.kind == "linear" and not any(map(takes_codes, graph.readers.get(name, ()))):
        return 0.0
    total = NODE_NS + READING_NS * elements(graph, name)
    return total + turning_ns(graph, name) if turned else total


def turning_ns(graph: Graph, name: str) -> float:
    """What it costs to turn the channels of a map that convolutions read or give to the last axis, or back."""
    axes = lengths(graph, name)
    maps = any(op.kind in CONVOLUTIONS and op.type.rank == len(axes) for op in graph.ops)
    return NODE_NS + TURN_NS * prod(axes) if maps and axes[1] > 1 else 0.0
