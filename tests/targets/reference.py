"""An interpreter of the IR over torch in binary64, written for these tests alone: what emission is held against."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nasc.ir import SPECS, STORED, Format, Graph, Op, Step
from nasc.ir.axes import size
from nasc.ir.graph import is_axis

from .conftest import Dictionary, bias_in_step

torch.set_num_threads(1)

Tensors = dict[str, torch.Tensor]


def attribute(graph: Graph, op: Op, name: str, batch: int) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        return size(value, graph.sizes, batch) if is_axis(value) else value

    return plain(op.attribute(name, SPECS[op.kind].attributes[name]))


def run(graph: Graph, weights: Dictionary, *inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs of a graph in binary64; quantized values are codes in `values`, numbers wherever an op reads them."""
    values = evaluate(graph, weights, *inputs)
    return [real(graph, values, n).numpy() for n in graph.outputs]


def evaluate(graph: Graph, weights: Dictionary, *inputs: np.ndarray) -> Tensors:
    """Every value of a graph; codes where it is quantized."""
    values = given(graph, inputs)
    for op in graph.ops:
        values[op.name] = result(graph, weights, values, op, inputs[0].shape[0])
    return values


def calibrate(graph: Graph, weights: Dictionary, *inputs: np.ndarray) -> Graph:
    """The graph with all steps known, each from the range of what its quantize reads; biases follow in `weights`."""
    values = given(graph, inputs)
    for op in graph.ops:
        if op.kind == "quantize" and op.type.step is not None and not op.type.step.known:
            known = op.with_type(replace(op.type, step=step_for(real(graph, values, op.inputs[0]), op.type.format)))
            graph = replace(graph, ops=tuple(known if o is op else o for o in graph.ops))
            op = known
        bias_in_step(graph, weights, op)
        if op.inputs[2:] and graph.types[op.inputs[2]].quantized:
            values[op.inputs[2]] = torch.from_numpy(np.array(weights.real(graph, op.inputs[2])))
        values[op.name] = result(graph, weights, values, op, inputs[0].shape[0])
    return graph


def step_for(values: torch.Tensor, format: Format) -> Step:
    """The step that lets a format's codes span the values, and 0."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-3)
    if format.signed:
        return Step.of(max(-low, high) / format.high)
    unit = (high - low) / format.high
    return Step.of(unit, round(-low / unit))


def given(graph: Graph, inputs: tuple[np.ndarray, ...]) -> Tensors:
    pairs = zip(graph.inputs, inputs, strict=True)
    return {entry.name: torch.from_numpy(np.asarray(array, np.float64)) for entry, array in pairs}


def result(graph: Graph, weights: Dictionary, values: Tensors, op: Op, batch: int) -> torch.Tensor:
    if op.kind in STORED:
        unknown = op.name not in weights.per_axis and op.type.step is not None and op.type.step.axis is not None
        return torch.zeros(()) if unknown else torch.from_numpy(np.array(weights.real(graph, op.name)))
    moved = op.type.quantized and op.kind != "quantize"
    operands = [values[n] if moved else real(graph, values, n) for n in op.inputs]
    return OPS[op.kind](lambda n: attribute(graph, op, n, batch), op, operands)


def real(graph: Graph, values: Tensors, name: str) -> torch.Tensor:
    type, value = graph.types[name], values[name]
    producer = graph.producers.get(name)
    if type.step is None or (producer is not None and producer.kind in STORED):
        return value
    return (value - type.step.zero) * type.step.value  # type: ignore[operator]


def quantize(a: Any, op: Op, x: list[torch.Tensor]) -> torch.Tensor:
    step = op.type.step
    assert step is not None
    assert step.value is not None
    single = x[0].to(torch.float32) / torch.tensor(step.value, dtype=torch.float32)
    return (single.round().double() + (step.zero or 0)).clamp(op.type.format.low, op.type.format.high)


def arithmetic(function: Any) -> Any:
    def call(a: Any, op: Op, x: list[torch.Tensor]) -> torch.Tensor:
        operands = list(x)
        if a("other") is not None:
            operands.append(torch.tensor(float(a("other")), dtype=torch.float64))
        if a("input") is not None:
            operands.insert(0, torch.tensor(float(a("input")), dtype=torch.float64))
        return function(*operands)

    return call


def convolution(function: Any) -> Any:
    return lambda a, op, x: function(*x, **{n: a(n) for n in ("stride", "padding", "dilation", "groups")})


def max_pool(function: Any) -> Any:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    return lambda a, op, x: function(*x, **{n: a(n) for n in names})


def avg_pool(function: Any, *more: str) -> Any:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", *more)
    return lambda a, op, x: function(*x, **{n: a(n) for n in names})


def adaptive(function: Any) -> Any:
    return lambda a, op, x: function(x[0], a("output_size"))


def reduction(function: Any) -> Any:
    def call(a: Any, op: Op, x: list[torch.Tensor]) -> torch.Tensor:
        return function(x[0], dim=a("dim") or tuple(range(x[0].ndim)), keepdim=a("keepdim"))

    return call


def unary(function: Any, *names: str) -> Any:
    return lambda a, op, x: function(x[0], **{n: a(n) for n in names})


FORMATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64, "i64": torch.int64}

OPS: dict[str, Any] = {
    "linear": lambda a, op, x: F.linear(*x),
    "conv1d": convolution(F.conv1d),
    "conv2d": convolution(F.conv2d),
    "conv3d": convolution(F.conv3d),
    "max_pool1d": max_pool(F.max_pool1d),
    "max_pool2d": max_pool(F.max_pool2d),
    "max_pool3d": max_pool(F.max_pool3d),
    "avg_pool1d": avg_pool(F.avg_pool1d),
    "avg_pool2d": avg_pool(F.avg_pool2d, "divisor_override"),
    "avg_pool3d": avg_pool(F.avg_pool3d, "divisor_override"),
    "adaptive_avg_pool1d": adaptive(F.adaptive_avg_pool1d),
    "adaptive_avg_pool2d": adaptive(F.adaptive_avg_pool2d),
    "adaptive_avg_pool3d": adaptive(F.adaptive_avg_pool3d),
    "batch_norm": lambda a, op, x: F.batch_norm(x[0], x[1], x[2], *x[3:], eps=a("eps")),
    "layer_norm": lambda a, op, x: F.layer_norm(x[0], a("normalized_shape"), *x[1:], eps=a("eps")),
    "relu": unary(F.relu),
    "relu6": unary(F.relu6),
    "leaky_relu": unary(F.leaky_relu, "negative_slope"),
    "elu": unary(F.elu, "alpha"),
    "selu": unary(F.selu),
    "celu": unary(F.celu, "alpha"),
    "gelu": unary(F.gelu, "approximate"),
    "silu": unary(F.silu),
    "mish": unary(F.mish),
    "sigmoid": unary(torch.sigmoid),
    "tanh": unary(torch.tanh),
    "hardtanh": unary(F.hardtanh, "min_val", "max_val"),
    "hardswish": unary(F.hardswish),
    "hardsigmoid": unary(F.hardsigmoid),
    "softplus": unary(F.softplus, "beta", "threshold"),
    "clamp": unary(torch.clamp, "min", "max"),
    "exp": unary(torch.exp),
    "log": unary(torch.log),
    "sqrt": unary(torch.sqrt),
    "rsqrt": unary(torch.rsqrt),
    "neg": unary(torch.neg),
    "abs": unary(torch.abs),
    "erf": unary(torch.erf),
    "reciprocal": unary(torch.reciprocal),
    "add": arithmetic(torch.add),
    "sub": arithmetic(torch.sub),
    "mul": arithmetic(torch.mul),
    "div": arithmetic(torch.div),
    "pow": arithmetic(torch.pow),
    "maximum": arithmetic(torch.maximum),
    "minimum": arithmetic(torch.minimum),
    "eq": arithmetic(torch.eq),
    "ne": arithmetic(torch.ne),
    "lt": arithmetic(torch.lt),
    "le": arithmetic(torch.le),
    "gt": arithmetic(torch.gt),
    "ge": arithmetic(torch.ge),
    "prelu": lambda a, op, x: F.prelu(*x),
    "quantize": quantize,
    "cast": lambda a, op, x: x[0].to(FORMATS[op.type.format.name]).double(),
    "softmax": unary(torch.softmax, "dim"),
    "log_softmax": unary(torch.log_softmax, "dim"),
    "reshape": lambda a, op, x: x[0].reshape(a("shape")),
    "permute": lambda a, op, x: x[0].permute(a("dims")),
    "cat": lambda a, op, x: torch.cat(x, a("dim")),
    "mean": reduction(torch.mean),
    "sum": reduction(torch.sum),
    "amax": reduction(torch.amax),
    "amin": reduction(torch.amin),
}
