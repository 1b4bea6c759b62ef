"""Run a graph with torch: for evaluation, calibration and training. Integers are simulated in real numbers.

A quantized value is carried as the real number its code stands for, `step * (code - zero)`, computed exactly as a
runtime does: `clamp(round_half_even(x / step) + zero, low, high)` in binary32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy
import torch
from torch import Tensor
from torch._ops import OpOverload

from ..ir import SPECS, STORED, Attribute, Axis, Graph, NascError, Op, Step, Type
from ..ir.axes import Batch, factors, has_batch, size
from ..ir.graph import is_axis
from .elements import block_steps, nearest, spread

Kernel = Callable[["Frame", Op, list[Tensor]], "Tensor | tuple[Tensor, ...]"]
KERNELS: dict[str, Kernel] = {}


class ExecutionError(NascError):
    """A graph cannot run, or not on these inputs."""


class InputError(ExecutionError):
    """Inputs of another number or other shapes than the graph takes."""


class Frame:
    """One run of a graph: the sizes of its axes, and whether batch norms use the batch's statistics.

    Args:
        graph: the graph that runs.
        batch: the length of `N` in this run.
        device: where it runs.
        training: whether batch norms use and update running statistics (`torch.nn.BatchNorm1d`).
        quantize: how `quantize` ops round; by default as a runtime does, without gradients.
        table: how ops of each kind run.
    """

    def __init__(
        self,
        graph: Graph,
        batch: int,
        *,
        device: torch.device | None = None,
        training: bool = False,
        quantize: Callable[[Op, Tensor], Tensor] | None = None,
        table: Mapping[str, Kernel] = KERNELS,
    ) -> None:
        self.graph = graph
        self.device = device
        self.batch = batch
        self.training = training
        self.quantize = quantize or _as_runtime
        self.table = table

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
    table: Mapping[str, Kernel] = KERNELS,
) -> tuple[Tensor, ...]:
    """Run a graph op by op, forgetting each value after its last reader.

    Args:
        graph: the graph.
        values: real numbers of its stored values by name.
        inputs: one tensor per input, shaped as its type says.
        training: see `Frame`.
        quantize: see `Frame`.
        observe: called with the name and value of each result (calibration).
        table: see `Frame`.

    Returns:
        The outputs in order.

    Raises:
        InputError: inputs of another number or other shapes than the graph takes.
        ExecutionError: a step that is not calibrated.
    """
    device = inputs[0].device if inputs else None
    frame = Frame(graph, batch_of(graph, inputs), device=device, training=training, quantize=quantize, table=table)
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


def called_with(inputs: Sequence[object], named: Mapping[str, object], graph: Graph) -> tuple[Tensor, ...]:
    """The arguments of a call, in a graph's order: tensors or arrays by position or by name, or one value of them all.

    Raises:
        InputError: an input is not among them, or is no tensor.
    """
    if inputs and named:
        raise InputError(f"inputs are given by position ({len(inputs)}) and by name ({', '.join(named)})", mend=_FORMS)
    return positional(named or (inputs[0] if len(inputs) == 1 else inputs), graph)


def positional(inputs: object, graph: Graph) -> tuple[Tensor, ...]:
    """Inputs as a graph takes them, in order.

    Args:
        inputs: a tensor, several in the graph's order, or a dict of them by name; numpy arrays count as tensors.
        graph: the graph.

    Raises:
        InputError: an input of the graph is not among them, or is no tensor.
    """
    if isinstance(inputs, Mapping):
        given = cast("Mapping[str, object]", inputs)
        if missing := [i.name for i in graph.inputs if i.name not in given]:
            raise InputError(f"the inputs lack {missing[0]!r}; found {', '.join(map(str, given)) or 'none'}")
        return tuple(_as_tensor(given[i.name], i.name) for i in graph.inputs)
    names = [i.name for i in graph.inputs]
    if isinstance(inputs, tuple | list):
        several = cast("Sequence[object]", inputs)
        return tuple(_as_tensor(held, names[at] if at < len(names) else str(at)) for at, held in enumerate(several))
    return (_as_tensor(inputs, names[0] if names else "0"),)


_FORMS = "Give inputs alone, without labels: a tensor, a tuple in the graph's order, or a dict by name."


def _as_tensor(held: object, name: str) -> Tensor:
    if isinstance(held, Tensor):
        return held
    if isinstance(held, numpy.ndarray):
        return torch.from_numpy(held)
    raise InputError(f"input %{name} is a {type(held).__name__}, expected a tensor", mend=_FORMS)


def batch_of(graph: Graph, inputs: Sequence[Tensor]) -> int:
    """The length of the batch, from the inputs' shapes.

    Raises:
        InputError: the number or the shapes of the inputs are not the graph's.
    """
    if len(inputs) != len(graph.inputs):
        raise InputError(f"error: the graph takes {len(graph.inputs)} inputs, found {len(inputs)}")
    batch: int | None = None
    fixed = not any(has_batch(axis) for entry in graph.inputs for axis in entry.type.axes)
    mend = "No axis of this network is the batch: the model it was lowered from takes this one only." if fixed else None
    for entry, tensor in zip(graph.inputs, inputs, strict=True):
        shape = tuple(tensor.shape)
        expected = f"[{', '.join(map(str, entry.type.axes))}]"
        if len(shape) != entry.type.rank:
            raise InputError(
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
                raise InputError(
                    f"error: input %{entry.name} has shape {list(shape)}, the graph takes {expected}", mend=mend
                )
    return 1 if batch is None else batch


def compute(frame: Frame, op: Op, inputs: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """One op's results.

    Raises:
        ExecutionError: torch cannot run it on these values.
    """
    function = frame.table.get(op.kind, raw)
    try:
        return function(frame, op, inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        place = f"{op.location}: " if op.location else ""
        raise ExecutionError(f"{place}error: {op.kind} %{op.name}: {error}") from error


def rounded(x: Tensor, type: Type) -> Tensor:
    """The real numbers that a quantized type keeps of `x`; see `nasc.ir.formats.encode` for the exact reference."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if type.step is not None and type.step.block is not None:
        steps = spread(block_steps(x, type.format, type.step), type.step.axis, type.step.block, x.shape)
        return nearest(x / steps, type.format) * steps
    value, zero = known_step(type.step, str(type))
    step = torch.tensor(value, dtype=torch.float32, device=x.device)  # a Python number would multiply by 1/step on GPUs
    if type.format.family != "int":
        return nearest(x / step, type.format) * step
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


def values(frame: Frame, op: Op, *names: str) -> dict[str, Any]:
    """Attributes of an op, all of them or those named, with defaults filled in and terms as numbers."""
    defaults = SPECS[op.kind].attributes
    return {n: frame.resolve(op.attribute(n, defaults[n])) for n in names or defaults}


def kernel(*kinds: str) -> Callable[[Kernel], Kernel]:
    """Register how ops of these kinds run."""

    def register(function: Kernel) -> Kernel:
        for kind in kinds:
            KERNELS[kind] = function
        return function

    return register


def alike(inputs: list[Tensor]) -> list[Tensor]:
    """The tensors in the widest of their formats, as an op's rule says it computes."""
    widest = inputs[0].dtype
    for tensor in inputs[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    return [tensor.to(widest) for tensor in inputs]


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
    return called(op, inputs, frame.length)


def called(op: Op, inputs: Sequence[Tensor], length: Callable[[Attribute], Any]) -> Tensor | tuple[Tensor, ...]:
    """Call the ATen op of an op without a rule; `length` gives its size arguments as numbers."""
    target = aten(op)

    def decode(value: Attribute) -> Any:
        if isinstance(value, tuple):
            return [decode(v) for v in value]
        if isinstance(value, str) and value.startswith("%"):
            return inputs[int(value[1:])]
        if isinstance(value, str) and value.startswith("torch."):  # torch.float32, torch.strided, torch.channels_last
            return getattr(torch, value.removeprefix("torch."))
        return length(value) if is_axis(value) else value

    args = [decode(v) for v in cast("tuple[Attribute, ...]", op.attribute("args", ()))]
    pairs = cast("tuple[tuple[str, Attribute], ...]", op.attribute("kwargs", ()))
    result = target(*args, **{k: decode(v) for k, v in pairs})
    return tuple(result) if isinstance(result, tuple | list) else result


from . import kernels  # noqa: E402, F401  # pyright: ignore[reportUnusedImport]  # registers itself
