"""Find the steps that are not known yet: for inputs from data, for weights and biases from themselves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ...ir import Format, Op, Step, UsageError, operand, rebuilt
from ...ir.axes import has_batch
from ..elements import in_blocks
from ..execution import run
from ..network import Network
from ..ranges import Range, average_range, entropy_range, percentile_range, whole_range
from ..steps import affine_step, affine_steps, best_range, symmetric_steps
from ..weights import Recipe, Rounded, rounded_once, tensor_digest
from ..winograd import quick_kernels
from .base import Context, Pass, register

Method = Literal["minmax", "average", "percentile", "mse", "entropy"]
WeightMethod = Literal["minmax", "percentile", "mse"]
KEPT = 1 << 16
"""Elements of one value that are kept for choosing its step; of more a part is drawn."""
AVERAGED = 32
"""Samples whose range is one term of the moving average."""


@register("calibrate")
@dataclass(frozen=True)
class Calibrate(Pass):
    """Give every `?` a step, and turn weights into integer codes.

    The network runs in real numbers on the calibration data; each `quantize` sees what it will have to round. Steps of
    weights and biases come from their own values, one per output channel, block or tensor as their type says, and so do
    the zeros of weights that have any. 0 is always exactly a code.

    Args:
        method: for inputs. `minmax` covers all values; `average` the moving average of what batches of 32 samples
            cover; `percentile` leaves out the given share, half of it at each end; `mse` takes the range with the
            smallest mean squared rounding error; `entropy` the one that keeps most of what a histogram tells.
        samples: how many samples to look at.
        percentile: what `percentile` covers, in percent.
        momentum: how much `average` keeps of the average so far at each batch.
        weights: for weights and biases, `minmax`, `percentile` or `mse`; by default `mse` where inputs have it, and
            `minmax` beside any other method.

    Raises:
        UsageError: an option makes no sense.
        PassError: an input needs a step and there is no data, or a step of a legalized bias was forgotten.

    Source: Krishnamoorthi, arXiv:1806.08342, section 2; Nagel et al., arXiv:2106.08295, section 2.3 (range setting);
    `nasc.compiler.ranges`.
    """

    method: Method = "mse"
    samples: int = 512
    percentile: float = 99.99
    momentum: float = 0.9
    weights: WeightMethod | None = None

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"calibrate: samples must be at least 1; found {self.samples}")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"calibrate: percentile must be above 50 and at most 100; found {self.percentile:g}")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"calibrate: momentum must be at least 0 and below 1; found {self.momentum:g}")

    @property
    def needs_data(self) -> bool:
        """See `Pass.needs_data`."""
        return True

    @property
    def weight_method(self) -> WeightMethod:
        """How the steps of weights and biases are found."""
        return self.weights or ("mse" if self.method == "mse" else "minmax")

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        graph = network.graph
        recipes = dict(network.weights.recipes)
        steps: dict[str, Step] = {}
        for op in graph.stored:
            if op.type.step is not None and not isinstance(recipes[op.name], Rounded):
                key = ("rounded", recipes[op.name].key, op.type.encoding, self.weight_method, self.percentile)
                rounded = context.memo.get(key) or self.rounded(recipes[op.name], op)
                recipes[op.name] = context.memo[key] = rounded
                steps[op.name] = op.type.step if op.type.step.known else _known(op.type.step, rounded)
        unknown = [
            op for op in graph.ops if op.kind == "quantize" and op.type.step is not None and not op.type.step.known
        ]
        if unknown:
            names = {op.inputs[0] for op in unknown}
            batch = AVERAGED if self.method == "average" else None
            key, seen = observed(network, names, self.samples, context, batch, KEPT if self.sampled else 0)
            for op in unknown:
                asked = ("step", key, op.inputs[0], op.type.encoding, self)
                steps[op.name] = context.memo.get(asked) or self.input_step(seen[op.inputs[0]], op)
                context.memo[asked] = steps[op.name]
        if not steps:
            if not graph.quantized:
                context.say("calibrate changes nothing: no value is quantized; put it behind `quantize`")
            return network
        ops = [op.with_type(replace(op.type, step=steps[op.name])) if op.name in steps else op for op in graph.ops]
        return Network(rebuilt(graph, ops), replace(network.weights, recipes=recipes))

    @property
    def sampled(self) -> bool:
        """Whether steps of inputs depend on more of their values than the ranges of batches."""
        return self.method not in ("minmax", "average")

    def rounded(self, recipe: Recipe, op: Op) -> Rounded:
        """A stored tensor as codes."""
        step, format = op.type.step, op.type.format
        assert step is not None
        if step.shared:
            return Rounded(recipe, format, None, step.axis, step.block)
        if step.known and step.value is not None:
            return rounded_once(recipe, format, step)
        rows, shape = rows_of(recipe.tensor.float(), step)
        if step.zero is None:
            share = (100 - self.percentile) / 200 if self.weight_method == "percentile" else 0.0
            mse = self.weight_method == "mse"
            found, zeros = affine_steps(rows, format, mse=mse, power_of_two=step.power_of_two, share=share)
            return Rounded(recipe, format, found.reshape(shape), step.axis, step.block, zeros.reshape(shape))
        if self.weight_method == "percentile":
            place = max(1, round(self.percentile / 100 * rows.shape[1]))
            bound = rows.abs().kthvalue(place, dim=1, keepdim=True).values
            rows = rows.clamp(-bound, bound)
        mse = self.weight_method == "mse"
        found = symmetric_steps(rows, format, mse=mse, power_of_two=step.power_of_two)
        return Rounded(recipe, format, found.reshape(shape), step.axis, step.block)

    def input_step(self, seen: Seen, op: Op) -> Step:
        """The step of one input from the values it took."""
        step, format = op.type.step, op.type.format
        assert step is not None
        values = seen.values
        if step.zero == 0:
            row = values if format.signed else values.clamp(min=0)
            if self.method not in ("minmax", "mse") and format.family != "sign":
                low, high = self.range(replace(seen, values=mirrored(row) if format.signed else row), format)
                row = torch.tensor([max(-low, high) if format.signed else high])
            found = symmetric_steps(row[None, :], format, mse=self.method == "mse", power_of_two=step.power_of_two)
            return replace(
                Step.of(float(found[0])), power_of_two=step.power_of_two or Step.of(float(found[0])).power_of_two
            )
        low, high = self.range(seen, format)
        if self.method == "mse":
            low, high = best_range(values, low, high, format, step.power_of_two)
        return affine_step(low, high, format, step.power_of_two)

    def range(self, seen: Seen, format: Format) -> Range:
        """The values to cover, always with zero among them."""
        match self.method:
            case "percentile":
                return percentile_range(seen.values, self.percentile)
            case "average":
                return average_range(seen.ranges, self.momentum)
            case "entropy":
                return entropy_range(seen.values, *whole_range(seen.values), 1 << format.bits)
            case _:
                return whole_range(seen.values)


def rows_of(tensor: Tensor, step: Step) -> tuple[Tensor, tuple[int, ...]]:
    """A tensor as one row for all that shares a step, and the shape of the steps."""
    if step.axis is None:
        return tensor.reshape(1, -1), ()
    if step.block is None:
        return tensor.transpose(0, step.axis).reshape(tensor.shape[step.axis], -1), (tensor.shape[step.axis],)
    blocks = in_blocks(tensor, step.axis, step.block)
    return blocks.reshape(-1, step.block), tuple(blocks.shape[:-1])


def mirrored(values: Tensor) -> Tensor:
    """The values and their negatives."""
    return torch.cat([values, -values])


def _known(step: Step, recipe: Rounded) -> Step:
    if step.axis is not None:
        return replace(step, known=True)
    return Step.of(float(recipe.steps), 0 if recipe.zeros is None else int(recipe.zeros))


@dataclass(frozen=True, eq=False)
class Seen:
    """What one value was in the real-numbered network on the calibration data.

    Args:
        values: its elements, at most about as many as asked for, the smallest and the largest of each batch among them;
            1-d.
        ranges: the smallest and the largest element of each batch.
    """

    values: Tensor
    ranges: tuple[Range, ...]


def observed(
    network: Network, names: set[str], samples: int, context: Context, batch: int | None = None, kept: int = KEPT
) -> tuple[str, dict[str, Seen]]:
    """What values are in the real-numbered network on the calibration data; and a digest of all they depend on.

    The runs are remembered by source weights, so that candidates which differ in bits only pay for them once.

    Args:
        network: whose values.
        names: which values.
        samples: how many samples.
        context: has the data and the memory.
        batch: how many samples to run at once; by default batches are as they come, and so they are where the network
            has no batch axis.
        kept: how many elements to keep of each value at most, beside the ends of its ranges.
    """
    batches = context.samples(samples, "calibrate")
    if batch is not None and any(has_batch(axis) for entry in network.graph.inputs for axis in entry.type.axes):
        batches = [part for whole in batches for part in zip(*(t.split(batch) for t in whole), strict=True)]
    key = hashlib.sha256(_real_key(network, batches).encode()).hexdigest()
    memo: dict[str, Seen] = context.memo.setdefault(("observed", key, kept), {})
    missing = names - set(memo)
    if missing:
        found: dict[str, list[Tensor]] = {name: [] for name in missing}
        ranges: dict[str, list[Range]] = {name: [] for name in missing}

        def observe(name: str, tensor: Tensor) -> None:
            if name in found:
                values = tensor.detach().float()
                ends = torch.stack(in_memory_order(values).aminmax())
                ranges[name].append((float(ends[0]), float(ends[1])))
                found[name].append(thinned(values, ends, kept // len(batches), len(found[name])))

        of_maps = {operand(op, "weight") for op in network.graph.ops if op.kind == "conv2d"}
        stored = {op.name: network.weights.real(op.name) for op in network.graph.stored}
        values = {name: channels_last(value) if name in of_maps else value for name, value in stored.items()}
        with torch.no_grad():
            table = quick_kernels(network.graph, stored)
            for inputs in batches:
                given = tuple(map(channels_last, inputs))
                run(network.graph, values, given, quantize=lambda op, x: x, observe=observe, table=table)
        memo.update({name: Seen(torch.cat(parts), tuple(ranges[name])) for name, parts in found.items()})
    return key, {name: memo[name] for name in names}


def channels_last(images: Tensor) -> Tensor:
    """Images, or weights of convolutions, laid out so that convolutions and pools on processors run fastest; other
    tensors as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def in_memory_order(values: Tensor) -> Tensor:
    """The same elements with axes in the order in which they lie in memory, where reductions are several times faster
    than over channels that lie last."""
    return values.permute(sorted(range(values.dim()), key=values.stride, reverse=True))


def thinned(values: Tensor, ends: Tensor, limit: int, seed: int) -> Tensor:
    """About `limit` of the values, with their ends (the smallest and the largest) among them; 1-d.

    One is drawn out of each stretch of equal length. The first of each would be the same few places of all maps, where
    the length divides their size.
    """
    if values.numel() <= limit:
        return values.reshape(-1)
    if not limit:
        return ends
    stretch = -(-values.numel() // limit)
    count = values.numel() // stretch
    places = torch.randint(stretch, (count,), generator=torch.Generator().manual_seed(seed))
    places += torch.arange(0, count * stretch, stretch)
    return torch.cat([in_memory_order(values).reshape(-1)[places], ends])


def _real_key(network: Network, batches: list[tuple[Tensor, ...]]) -> str:
    """What the observed values depend on: the graph without its quantizers, the real weights, the data."""
    graph = network.graph
    weights = [f"{op.name}={network.weights.unrounded(op.name).key}" for op in graph.stored]
    rounds = {op.name: op.inputs[0] for op in graph.ops if op.kind == "quantize"}
    reads = [[rounds.get(n, n) for n in op.inputs] for op in graph.ops]
    lines = [
        f"{op.kind} {op.name} {inputs} {op.attributes}"
        for op, inputs in zip(graph.ops, reads, strict=True)
        if op.kind != "quantize"
    ]
    data = [tensor_digest(t) for batch in batches for t in batch]
    return "\n".join([*weights, *lines, str(graph.widths), *data])
