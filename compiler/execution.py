"""Run a graph with torch: for evaluation, calibration and training. Integers are simulated in real numbers.

A quantized value is carried as the real number its code stands for, `step * (code - zero)`, computed exactly as a
runtime does: `clamp(round_half_even(x / step) + zero, low, high)` in binary32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

from ..ir import SPECS, STORED, Attribute, Axis, Graph, NascError, Op, Step, Type
from ..ir.axes import Batch, factors, has_batch, size
from ..ir.graph import is_axis

Kernel = Callable[["Frame", Op, list[Tensor]], "Tensor | tuple[Tensor, ...]"]
KERNELS: dict[str, Kernel] = {}


class ExecutionError(NascError):
    """A graph cannot run, or not on these inputs."""


class Frame:
    """One run of a graph: the sizes of its axes, and whether batch norms use the batch's statistics.

    Args:
        graph: the graph that runs.
        batch: the length of `N` in this run.
        training: whether batch norms use and update running statistics (`torch.nn.BatchNorm1d`).
        quantize: how `quantize` ops round; by default as a runtime does, without gradients.
    """

    def __init__(
        self,
        graph: Graph,
        batch: int,
        *,
        training: bool = False,
        quantize: Callable[[Op, Tensor], Tensor] | None = None,
    ) -> None:
        self.graph = graph
        self.batch = batch
        self.training = training
        self.quantize = quantize or _as_runtime

    def length(self, value: Attribute) -> int:
        """A size attribute as a number."""
        return size(cast(Axis, value), self.graph.sizes, self.batch) if is_axis(value) else cast(int, value)

    def resolve(self, value: Attribute) -> Any:
        """An attribute with its terms as numbers."""
        if isinstance(value, tuple):
            return [self.resolve(v) for v in value]
        return self.length(value) if is_axis(value) else value


def run(
    graph: Graph,
    values: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    *,
    training: bool = False,
    quantize: Callable[[Op, Tensor], Tensor] | None = None,
    observe: Callable[[str, Tensor], None] | None = None,
) -> tuple[Tensor, ...]:
    """Run a graph op by op, forgetting each value after its last reader.

    Args:
        graph: the graph.
        values: real numbers of its stored values by name.
        inputs: one tensor per input, shaped as its type says.
        training: see `Frame`.
        quantize: see `Frame`.
        observe: called with the name and value of each result (calibration).

    Returns:
        The outputs in order.

    Raises:
        ExecutionError: inputs of other shapes than the graph takes, or a step that is not calibrated.
    """
    frame = Frame(graph, batch_of(graph, inputs), training=training, quantize=quantize)
    known: dict[str, Tensor] = {i.name: t for i, t in zip(graph.inputs, inputs, strict=True)}
    for name, tensor in known.items() if observe else ():
        observe(name, tensor)  # pyright: ignore[reportOptionalCall]
    last = last_uses(graph)
    for op in graph.ops:
        if op.kind in STORED:
            known[op.name] = values[op.name]
        else:
            result = compute(frame, op, [known[n] for n in op.inputs])
            results = result if isinstance(result, tuple) else (result,)
            for name, tensor in zip(op.results, results, strict=True):
                known[name] = tensor
                if observe:
                    observe(name, tensor)
        for name in last.get(op.name, ()):
            known.pop(name, None)
    return tuple(known[name] for name in graph.outputs)


def last_uses(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For each op, the values that nothing reads after it."""
    last: dict[str, str] = {}
    for op in graph.ops:
        for name in (*op.inputs, *op.results):
            last[name] = op.name
    found: dict[str, tuple[str, ...]] = {}
    for value, op in last.items():
        if value not in graph.outputs:
            found[op] = (*found.get(op, ()), value)
    return found


def batch_of(graph: Graph, inputs: Sequence[Tensor]) -> int:
    """The length of the batch, from the inputs' shapes.

    Raises:
        ExecutionError: the number or the shapes of the inputs are not the graph's.
    """
    if len(inputs) != len(graph.inputs):
        raise ExecutionError(f"error: the graph takes {len(graph.inputs)} inputs, found {len(inputs)}")
    batch: int | None = None
    fixed = not any(has_batch(axis) for entry in graph.inputs for axis in entry.type.axes)
    mend = "No axis of this network is the batch: the model it was lowered from takes this one only." if fixed else None
    for entry, tensor in zip(graph.inputs, inputs, strict=True):
        shape = tuple(tensor.shape)
        expected = f"[{', '.join(map(str, entry.type.axes))}]"
        if len(shape) != entry.type.rank:
            raise ExecutionError(
                f"error: input %{entry.name} has shape {list(shape)}, the graph takes {expected}", mend=mend
            )
        for axis, length in zip(entry.type.axes, shape, strict=True):
            rest = size(axis, graph.sizes, 1)
            if any(isinstance(f, Batch) for f in factors(axis)):
                found, wrong = divmod(length, rest)
                wrong = wrong or (batch is not None and batch != found)
                batch = found
            else:
                wrong = length != rest
            if wrong:
                raise ExecutionError(
                    f"error: input %{entry.name} has shape {list(shape)}, the graph takes {expected}", mend=mend
                )
    return 1 if batch is None else batch


def compute(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """One op's results.

    Raises:
        ExecutionError: torch cannot run it on these values.
    """
    kernel = KERNELS.get(op.kind, raw)
    try:
        return kernel(frame, op, inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        place = f"{op.location}: " if op.location else ""
        raise ExecutionError(f"{place}error: {op.kind} %{op.name}: {error}") from error


def rounded(x: Tensor, type: Type) -> Tensor:
    """The real numbers that a quantized type keeps of `x`; see `nasc.ir.formats.encode` for the exact reference."""
    value, zero = known_step(type.step, str(type))
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    step = torch.tensor(value, dtype=torch.float32, device=x.device)  # a Python number would multiply by 1/step on GPUs
    codes = (torch.round(x / step) + zero).clamp_(type.format.low, type.format.high)
    return (codes - zero) * step


def _as_runtime(op: Op, x: Tensor) -> Tensor:
    return rounded(x, op.type)


def known_step(step: Step | None, what: str) -> tuple[float, int]:
    """The step and zero of a quantized type.

    Raises:
        ExecutionError: it is not calibrated.
    """
    if step is None or step.value is None or step.zero is None:
        raise unknown_step(what)
    return step.value, step.zero


def unknown_step(what: str) -> ExecutionError:
    """The error of a value that cannot be rounded yet."""
    return ExecutionError(f"error: {what} has no step yet", mend="Add `calibrate` to the pipeline.")


def kernel(*kinds: str) -> Callable[[Kernel], Kernel]:
    """Register how ops of these kinds run."""

    def register(function: Kernel) -> Kernel:
        for kind in kinds:
            KERNELS[kind] = function
        return function

    return register


@kernel("quantize")
def _quantize(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    return frame.quantize(op, inputs[0])


@kernel("cast")
def _cast(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    from .weights import container

    return inputs[0].to(container(op.type.format))


def alike(inputs: list[Tensor]) -> list[Tensor]:
    """The tensors in the widest of their formats, as an op's rule says it computes."""
    widest = inputs[0].dtype
    for tensor in inputs[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    return [tensor.to(widest) for tensor in inputs]


@kernel("linear")
def _linear(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    return F.linear(*alike(inputs))


@kernel("conv1d", "conv2d", "conv3d")
def _conv(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    function = cast(Any, {"conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d}[op.kind])
    x, weight, *bias = alike(inputs)
    values = {n: frame.resolve(op.attribute(n, SPECS[op.kind].attributes[n])) for n in SPECS[op.kind].attributes}
    return function(x, weight, bias[0] if bias else None, **values)


@kernel("batch_norm")
def _batch_norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    x, mean, var, *affine = inputs if frame.training else alike(inputs)  # training writes to the running statistics
    weight, bias = (*affine, None, None)[:2]
    eps = cast(float, op.attribute("eps", 1e-5))
    return F.batch_norm(x, mean, var, weight, bias, training=frame.training, momentum=0.1, eps=eps)


@kernel("layer_norm")
def _layer_norm(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    x, *affine = alike(inputs)
    weight, bias = (*affine, None, None)[:2]
    return F.layer_norm(
        x, frame.resolve(op.attribute("normalized_shape")), weight, bias, cast(float, op.attribute("eps", 1e-5))
    )


@kernel("prelu")
def _prelu(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    return F.prelu(*alike(inputs))


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu, "elu": F.elu, "selu": F.selu, "celu": F.celu,
    "gelu": F.gelu, "silu": F.silu, "mish": F.mish, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "softplus": F.softplus, "clamp": torch.clamp,
    "exp": torch.exp,
    "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "neg": torch.neg, "abs": torch.abs, "erf": torch.erf,
    "reciprocal": torch.reciprocal,
}  # fmt: skip


@kernel(*_FUNCTIONS)
def _unary(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    defaults = SPECS[op.kind].attributes
    return _FUNCTIONS[op.kind](inputs[0], **{n: op.attribute(n, d) for n, d in defaults.items()})


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow, "maximum": torch.maximum,
    "minimum": torch.minimum, "eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt,
    "ge": torch.ge,
}  # fmt: skip


@kernel(*_OPERATORS)
def _binary(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    left, right = op.attribute("input"), op.attribute("other")
    operands: list[Any] = [*inputs]
    if left is not None:
        operands.insert(
            0, left if op.kind == "pow" else torch.tensor(left, dtype=inputs[0].dtype, device=inputs[0].device)
        )
    if right is not None:
        tensors = op.kind in ("maximum", "minimum")
        operands.append(torch.tensor(right, dtype=inputs[0].dtype, device=inputs[0].device) if tensors else right)
    return _OPERATORS[op.kind](*operands)


@kernel("softmax", "log_softmax")
def _softmax(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    function = F.softmax if op.kind == "softmax" else F.log_softmax
    return function(inputs[0], dim=cast(int, op.attribute("dim")))


@kernel("reshape")
def _reshape(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    return inputs[0].reshape(frame.resolve(op.attribute("shape")))


@kernel("permute")
def _permute(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    return inputs[0].permute(frame.resolve(op.attribute("dims")))


@kernel("cat")
def _cat(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    return torch.cat(inputs, dim=cast(int, op.attribute("dim", 0)))


@kernel("mean", "sum", "amax", "amin")
def _reduce(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    dims = frame.resolve(op.attribute("dim", ())) or list(range(inputs[0].dim()))
    return getattr(torch, op.kind)(inputs[0], dim=dims, keepdim=bool(op.attribute("keepdim", False)))


@kernel(*(f"{k}_pool{n}d" for k in ("max", "avg") for n in (1, 2, 3)))
def _pool(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    values = {n: frame.resolve(op.attribute(n, d)) for n, d in SPECS[op.kind].attributes.items()}
    if op.kind == "avg_pool1d" and values.pop("divisor_override") is not None:
        raise ExecutionError(f"error: avg_pool1d %{op.name}: torch knows no divisor_override here")
    return getattr(F, op.kind)(inputs[0], **values)


@kernel(*(f"adaptive_avg_pool{n}d" for n in (1, 2, 3)))
def _adaptive(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor:
    return getattr(F, op.kind)(inputs[0], frame.resolve(op.attribute("output_size")))


def aten(op: Op) -> Any:
    """The function of an op without a rule, `aten.name.overload`.

    Raises:
        ExecutionError: this torch has none of that name.
    """
    found: Any = torch.ops
    try:
        for part in op.kind.split("."):
            found = getattr(found, part)
    except (AttributeError, RuntimeError):
        found = None
    if not isinstance(found, OpOverload):
        raise ExecutionError(f"error: {op.kind} %{op.name}: this torch has no op of that name")
    return found


def raw(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """An op without a rule: the ATen op of that name, on the arguments the export had."""
    target = aten(op)

    def decode(value: Attribute) -> Any:
        if isinstance(value, tuple):
            return [decode(v) for v in value]
        if isinstance(value, str) and value.startswith("%"):
            return inputs[int(value[1:])]
        if isinstance(value, str) and value.startswith("torch."):  # torch.float32, torch.strided, torch.channels_last
            return getattr(torch, value.removeprefix("torch."))
        return frame.length(value) if is_axis(value) else value

    args = [decode(v) for v in cast("tuple[Attribute, ...]", op.attribute("args", ()))]
    pairs = cast("tuple[tuple[str, Attribute], ...]", op.attribute("kwargs", ()))
    result = target(*args, **{k: decode(v) for k, v in pairs})
    return tuple(result) if isinstance(result, tuple | list) else result
