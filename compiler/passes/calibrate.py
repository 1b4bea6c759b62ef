"""Find the steps that are not known yet: for inputs from data, for weights and biases from themselves."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ...ir import Format, Op, Step, UsageError, rebuilt
from ...ir.axes import has_batch
from ...ir.formats import BINARY, largest
from ..elements import in_blocks, nearest
from ..execution import run
from ..network import Network
from ..ranges import Range, average_range, entropy_range, percentile_range, whole_range
from ..weights import Recipe, Rounded, rounded_once, tensor_digest
from .base import Context, Pass, register

Method = Literal["minmax", "average", "percentile", "mse", "entropy"]
WeightMethod = Literal["minmax", "percentile", "mse"]
SHRINK = torch.linspace(1.0, 0.2, 33)
"""The clipping ranges that `mse` tries, relative to the largest magnitude."""
SWEEPS = ((True, True), (True, False), (False, True))
"""Which ends of the range of asymmetric weights `mse` narrows, sweep by sweep."""
KEPT = 1 << 16
"""Elements of one value that are kept for choosing its step; more are thinned out evenly."""
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


def symmetric_steps(rows: Tensor, format: Format, *, mse: bool, power_of_two: bool) -> Tensor:
    """One step per row for elements around zero; shape [rows]. Of ternary and binary ones always the best.

    Args:
        rows: real numbers, [rows, values].
        format: what the codes are stored in.
        mse: try narrower ranges and keep the one with the smallest squared error.
        power_of_two: only powers of two.
    """
    least, most = rows.amin(dim=1), rows.amax(dim=1)  # several times as fast as aminmax
    peak = torch.maximum(-least, most)
    peak = torch.where(peak > 0, peak.clamp(min=1e-30), 1.0)  # any step holds zeros; this one breaks nothing
    full = (peak / float(largest(format))).to(torch.float32)
    if format.family == "sign":
        best = sign_steps(rows, format)
        near = torch.floor(torch.log2(best))
        candidates = torch.exp2(torch.stack([near, near + 1])) if power_of_two else best[None, :]
    elif power_of_two:
        top = torch.ceil(torch.log2(full))
        candidates = torch.exp2(top[None, :] - torch.arange(4 if mse else 1)[:, None])
    else:
        candidates = full[None, :] * (SHRINK[:, None] if mse else torch.ones(1, 1))
    candidates = candidates.clamp(min=torch.finfo(torch.float32).tiny)
    if candidates.shape[0] == 1:
        return candidates[0]
    best, error = candidates[0], torch.full_like(candidates[0], math.inf)
    for steps in candidates:
        elements = nearest(rows / steps[:, None], format)
        found = (elements * steps[:, None] - rows).square().sum(dim=1)
        better = found < error
        best, error = torch.where(better, steps, best), torch.where(better, found, error)
    return best


def sign_steps(rows: Tensor, format: Format) -> Tensor:
    """One step per row with the smallest squared error of binary or ternary elements; shape [rows].

    It is the mean magnitude: of all values, or of those `k` largest for which `(their sum)^2 / k` is the largest.

    Source: Rastegari et al., ECCV 2016, equation 6; Li and Liu, arXiv:1605.04711, equation 4.
    """
    sums = rows.abs().sort(dim=1, descending=True).values.double().cumsum(dim=1)
    if format == BINARY:
        found = sums[:, -1] / rows.shape[1]
    else:
        counts = torch.arange(1, rows.shape[1] + 1)
        best = (sums.square() / counts).argmax(dim=1, keepdim=True)
        found = (sums.gather(1, best) / (best + 1))[:, 0]
    return torch.where(found > 0, found.clamp(min=1e-30), 1.0).to(torch.float32)


def affine_steps(
    rows: Tensor, format: Format, *, mse: bool, power_of_two: bool, share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """One step and one zero per row, such that 0 is exactly a code; both of shape [rows].

    Args:
        rows: real numbers, [rows, values].
        format: an integer format.
        mse: try narrower ranges and keep the one with the smallest squared error: first both ends together, then one
            after the other.
        power_of_two: only powers of two.
        share: of the values, how many to leave out at each end.
    """
    if share:
        ordered, last = rows.sort(dim=1).values, rows.shape[1] - 1
        low, high = ordered[:, round(share * last)], ordered[:, round((1 - share) * last)]
    else:
        low, high = rows.amin(dim=1), rows.amax(dim=1)
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    best = codes_between(low, high, format, power_of_two)
    if not mse:
        return best
    error = affine_error(rows, *best, format)
    for of_low, of_high in SWEEPS:
        least, most = low, high
        for shrink in SHRINK.tolist():
            bottom, top = least * (shrink if of_low else 1.0), most * (shrink if of_high else 1.0)
            found = codes_between(bottom, top, format, power_of_two)
            now = affine_error(rows, *found, format)
            better = now < error
            best = torch.where(better, found[0], best[0]), torch.where(better, found[1], best[1])
            low, high = torch.where(better, bottom, low), torch.where(better, top, high)
            error = torch.where(better, now, error)
    return best


def codes_between(low: Tensor, high: Tensor, format: Format, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """For each range the step in binary32 and the zero, see `affine_step`."""
    span = torch.where(high > low, (high - low).clamp(min=1e-30), 1.0)
    steps = (span / (format.high - format.low)).clamp(min=1e-30)
    if power_of_two:
        steps = torch.exp2(torch.ceil(torch.log2(steps)))
    steps = steps.float()
    zeros = (format.low + torch.round(-low / steps)).clamp(format.low, format.high)
    return steps, zeros.to(torch.int32)


def affine_error(rows: Tensor, steps: Tensor, zeros: Tensor, format: Format) -> Tensor:
    """The squared error of rounding each row; shape [rows]."""
    low, high = (format.low - zeros).to(rows), (format.high - zeros).to(rows)
    codes = torch.round(rows / steps[:, None]).clamp_(low[:, None], high[:, None])
    return codes.mul_(steps[:, None]).sub_(rows).square_().sum(dim=1)


def affine_step(low: float, high: float, format: Format, power_of_two: bool = False) -> Step:
    """The step and zero whose codes reach from `low` to `high`, with 0 exactly on a code."""
    span = max(high - low, 1e-30) if high > low else 1.0
    value = span / (format.high - format.low)
    if power_of_two:
        value = 2.0 ** math.ceil(math.log2(value))
    step = Step.of(max(value, 1e-30))
    assert step.value is not None
    zero = min(max(format.low + round(-low / step.value), format.low), format.high)
    return replace(Step.of(step.value, zero), power_of_two=power_of_two or step.power_of_two)


def best_range(values: Tensor, low: float, high: float, format: Format, power_of_two: bool) -> tuple[float, float]:
    """The range between `low` and `high` whose codes give the smallest squared error."""
    best, error = (low, high), math.inf
    tried: set[Step] = set()
    for shrink_low in SHRINK[::2].tolist() if low < 0 else [1.0]:
        for shrink_high in SHRINK[::2].tolist() if low < 0 else SHRINK.tolist():
            step = affine_step(low * shrink_low, high * shrink_high, format, power_of_two)
            if step in tried:
                continue
            tried.add(step)
            assert step.value is not None and step.zero is not None
            codes = (torch.round(values / step.value) + step.zero).clamp_(format.low, format.high)
            found = float(((codes - step.zero) * step.value - values).square().mean())
            if found < error:
                best, error = (low * shrink_low, high * shrink_high), found
    return best


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
                found[name].append(thinned(values, ends, kept // len(batches)))

        values = {op.name: network.weights.real(op.name) for op in network.graph.stored}
        with torch.no_grad():
            for inputs in batches:
                given = tuple(map(channels_last, inputs))
                run(network.graph, values, given, quantize=lambda op, x: x, observe=observe)
        memo.update({name: Seen(torch.cat(parts), tuple(ranges[name])) for name, parts in found.items()})
    return key, {name: memo[name] for name in names}


def channels_last(images: Tensor) -> Tensor:
    """Images laid out so that convolutions and pools on processors run fastest; other tensors as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def in_memory_order(values: Tensor) -> Tensor:
    """The same elements with axes in the order in which they lie in memory, where reductions are several times faster
    than over channels that lie last."""
    return values.permute(sorted(range(values.dim()), key=values.stride, reverse=True))


def thinned(values: Tensor, ends: Tensor, limit: int) -> Tensor:
    """About `limit` of the values, evenly spread, with their ends (the smallest and the largest) among them; 1-d."""
    if values.numel() <= limit:
        return values.reshape(-1)
    if not limit:
        return ends
    return torch.cat([values.reshape(-1)[:: -(-values.numel() // limit)], ends])


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
