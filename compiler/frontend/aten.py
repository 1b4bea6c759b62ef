"""How each ATen op that torch.export leaves becomes an op of the IR. One small function per family.

A converter reads the call's arguments by their names in ATen's schema and gives the IR op's kind, operands and
attributes. Ops without a converter stay `aten.*`: they run and export, and their axes are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from ...ir.graph import Attribute


@dataclass(frozen=True)
class Converted:
    """An IR op without names and types. `operands` are fx nodes."""

    kind: str
    operands: tuple[fx.Node, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True)
class Call:
    """A call of an ATen op, its arguments by name with the schema's defaults filled in."""

    name: str
    arguments: Mapping[str, Any]
    rank: int
    shape: tuple[Attribute, ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def nodes(self, *names: str) -> tuple[fx.Node, ...]:
        """Operands that are there, in order."""
        return tuple(self.arguments[n] for n in names if isinstance(self.arguments.get(n), fx.Node))

    def dim(self, value: int, rank: int | None = None) -> int:
        """An axis counted from the front."""
        rank = self.rank if rank is None else rank
        return value + rank if value < 0 else value


Converter = Callable[[Call], "Converted | None"]
CONVERTERS: dict[str, Converter] = {}
IDENTITIES = frozenset({
    "aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default", "aten.contiguous.default",
    "aten.clone.default", "aten.detach.default", "aten.alias.default", "aten.detach_.default",
    "aten.lift_fresh_copy.default",
})  # fmt: skip
"""Ops that inference does not need: their value is their first operand."""


def convert(*names: str) -> Callable[[Converter], Converter]:
    """Register a converter for ATen ops by `name.overload`."""

    def register(function: Converter) -> Converter:
        for name in names:
            CONVERTERS[f"aten.{name}"] = function
        return function

    return register


@convert("linear.default")
def _linear(call: Call) -> Converted:
    return Converted("linear", call.nodes("input", "weight", "bias"), {})


@convert("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def _conv(call: Call) -> Converted | None:
    rank = int(call.name.split("conv")[1][0])
    padding: Any = call["padding"]
    if padding == "valid":
        padding = (0,) * rank
    elif padding == "same":
        kernel = call["weight"].meta["val"].shape[2:]
        spans = [int(d) * (int(k) - 1) for k, d in zip(kernel, _spread(call["dilation"], rank), strict=True)]
        if any(span % 2 for span in spans):
            return None
        padding = tuple(span // 2 for span in spans)
    attributes: dict[str, Attribute] = {
        "stride": _spread(call["stride"], rank),
        "padding": _spread(padding, rank),
        "dilation": _spread(call["dilation"], rank),
        "groups": call["groups"],
    }
    return Converted(f"conv{rank}d", call.nodes("input", "weight", "bias"), attributes)


def _spread(value: Any, rank: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


@convert("batch_norm.default", "_native_batch_norm_legit_no_training.default")
def _batch_norm(call: Call) -> Converted | None:
    if call.arguments.get("training") or len(call.nodes("running_mean", "running_var")) != 2:
        return None
    affine = call.nodes("weight", "bias")
    if len(affine) == 1 and call["weight"] is None:
        return None
    operands = (*call.nodes("input", "running_mean", "running_var"), *affine)
    return Converted("batch_norm", operands, {"eps": float(call["eps"])})


@convert("layer_norm.default")
def _layer_norm(call: Call) -> Converted | None:
    if call["weight"] is None and call["bias"] is not None:
        return None
    shape = tuple(call["normalized_shape"])
    return Converted(
        "layer_norm", call.nodes("input", "weight", "bias"), {"normalized_shape": shape, "eps": call["eps"]}
    )


_UNARY = {
    "relu": (), "relu6": (), "selu": (), "silu": (), "mish": (), "sigmoid": (), "tanh": (), "hardswish": (), "erf": (),
    "hardsigmoid": (), "exp": (), "log": (), "sqrt": (), "rsqrt": (), "neg": (), "abs": (), "reciprocal": (),
    "leaky_relu": ("negative_slope",), "gelu": ("approximate",), "hardtanh": ("min_val", "max_val"), "celu": ("alpha",),
    "softplus": ("beta", "threshold"), "clamp": ("min", "max"),
}  # fmt: skip


@convert(*(f"{name}.default" for name in _UNARY))
def _unary(call: Call) -> Converted:
    kind = call.name.split(".")[1]
    values = {n: call[n] for n in _UNARY[kind]}
    real = {n: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for n, v in values.items()}
    return Converted(kind, call.nodes("self" if "self" in call.arguments else "input"), real)


@convert("elu.default")
def _elu(call: Call) -> Converted | None:
    if call["scale"] != 1 or call["input_scale"] != 1:
        return None
    return Converted("elu", call.nodes("self"), {"alpha": float(call["alpha"])})


@convert("clamp_min.default")
def _clamp_min(call: Call) -> Converted:
    return Converted("clamp", call.nodes("self"), {"min": float(call["min"])})


@convert("prelu.default")
def _prelu(call: Call) -> Converted:
    return Converted("prelu", call.nodes("self", "weight"), {})


_BINARY = ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge")


@convert(*(f"{n}.{o}" for n in _BINARY for o in ("Tensor", "Scalar", "default", "Tensor_Tensor", "Tensor_Scalar")))
def _binary(call: Call) -> Converted | None:
    if call.arguments.get("alpha", 1) != 1 or call.arguments.get("rounding_mode"):
        return None
    kind = call.name.split(".")[1]
    left = "self" if "self" in call.arguments else "input"
    right = "exponent" if "exponent" in call.arguments else "other"
    number = call[right]
    if isinstance(number, fx.Node):
        return Converted(kind, call.nodes(left, right), {}) if isinstance(call[left], fx.Node) else None
    return Converted(kind, call.nodes(left), {"other": number})


@convert("rsub.Scalar")
def _rsub(call: Call) -> Converted | None:
    return Converted("sub", call.nodes("self"), {"input": call["other"]}) if call["alpha"] == 1 else None


@convert("pow.Scalar")
def _pow_of_number(call: Call) -> Converted:
    return Converted("pow", call.nodes("exponent"), {"input": call["self"]})


@convert("softmax.int", "log_softmax.int")
def _softmax(call: Call) -> Converted:
    return Converted(call.name.split(".")[1], call.nodes("self"), {"dim": call.dim(call["dim"])})


@convert(
    "view.default", "reshape.default", "flatten.using_ints", "unflatten.int", "unsqueeze.default", "squeeze.dim",
    "squeeze.dims", "squeeze.default", "_unsafe_view.default",
)  # fmt: skip
def _reshape(call: Call) -> Converted:
    return Converted("reshape", call.nodes("self" if "self" in call.arguments else "input"), {"shape": call.shape})


@convert("permute.default")
def _permute(call: Call) -> Converted:
    return Converted("permute", call.nodes("self"), {"dims": tuple(call.dim(d) for d in call["dims"])})


@convert("transpose.int")
def _transpose(call: Call) -> Converted:
    dims = list(range(call.rank))
    a, b = call.dim(call["dim0"]), call.dim(call["dim1"])
    dims[a], dims[b] = dims[b], dims[a]
    return Converted("permute", call.nodes("self"), {"dims": tuple(dims)})


@convert("t.default")
def _t(call: Call) -> Converted:
    return Converted("permute", call.nodes("self"), {"dims": tuple(reversed(range(call.rank)))})


@convert("cat.default", "concat.default")
def _cat(call: Call) -> Converted:
    return Converted("cat", tuple(call["tensors"]), {"dim": call.dim(call["dim"])})


@convert("mean.dim", "sum.dim_IntList", "amax.default", "amin.default", "mean.default", "sum.default")
def _reduce(call: Call) -> Converted | None:
    if call.arguments.get("dtype") is not None:
        return None
    node = call.nodes("self")[0]
    rank = node.meta["val"].dim()
    dims = call.arguments.get("dim") or ()
    dims = (dims,) if isinstance(dims, int) else dims
    kept = bool(call.arguments.get("keepdim", False))
    kind = call.name.split(".")[1]
    return Converted(kind, (node,), {"dim": tuple(call.dim(d, rank) for d in dims), "keepdim": kept})


@convert(*(f"max_pool{n}d.default" for n in (1, 2, 3)))
def _max_pool(call: Call) -> Converted:
    rank = int(call.name.split("pool")[1][0])
    kernel = _spread(call["kernel_size"], rank)
    attributes: dict[str, Attribute] = {
        "kernel_size": kernel,
        "stride": _spread(call["stride"] or kernel, rank),
        "padding": _spread(call["padding"], rank),
        "dilation": _spread(call["dilation"], rank),
        "ceil_mode": bool(call["ceil_mode"]),
    }
    return Converted(f"max_pool{rank}d", call.nodes("self"), attributes)


@convert(*(f"avg_pool{n}d.default" for n in (1, 2, 3)))
def _avg_pool(call: Call) -> Converted:
    rank = int(call.name.split("pool")[1][0])
    kernel = _spread(call["kernel_size"], rank)
    attributes: dict[str, Attribute] = {
        "kernel_size": kernel,
        "stride": _spread(call["stride"] or kernel, rank),
        "padding": _spread(call["padding"], rank),
        "ceil_mode": bool(call["ceil_mode"]),
        "count_include_pad": bool(call["count_include_pad"]),
        "divisor_override": call.arguments.get("divisor_override"),
    }
    return Converted(f"avg_pool{rank}d", call.nodes("self"), attributes)


@convert(*(f"adaptive_avg_pool{n}d.default" for n in (1, 2, 3)))
def _adaptive(call: Call) -> Converted:
    rank = int(call.name.split("pool")[1][0])
    return Converted(
        f"adaptive_avg_pool{rank}d", call.nodes("self"), {"output_size": _spread(call["output_size"], rank)}
    )
