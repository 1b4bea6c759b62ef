"""Where numbers must be divided so that a value's elements are divided: backwards from the value to stored tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ir import SPECS, STORED, Graph, Op
from ...ir.axes import size
from ..execution import Frame, compute

_FIRST = (
    "reshape", "permute", "expand", "repeat", "repeat_interleave", "flip", "roll", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "split", "narrow", "slice", "select", "unbind", "pad", "unfold", "fold", "tensor_unfold",
    "index", "index_select", "gather", "masked_fill", "cast", "tril", "triu", "relu", "leaky_relu", "neg", "abs",
    "mean", "sum", "norm", "cumsum", "interpolate",
    *(f"{k}_pool{n}d" for k in ("avg", "adaptive_avg") for n in (1, 2, 3)),
)  # fmt: skip
HOMOGENEOUS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    **dict.fromkeys(_FIRST, ((0,),)),
    "prelu": ((0,),),
    "div": ((0,),),
    "mul": ((0,), (1,)),
    "matmul": ((0,), (1,)),
    "scaled_dot_product_attention": ((2,),),
}  # fmt: skip
"""For each kind the sets of operands that, divided together by some number, divide the result by it; best first.

Layers, sums and joins are in `alternatives`."""

PICKING = frozenset({"select", "narrow", "slice", "split", "unbind", "index", "index_select"})
"""Kinds that take some elements of their first operand as they are."""

CHANNEL_AXIS = {"batch_norm": 1, "instance_norm": 1, "group_norm": 1, "layer_norm": -1, "rms_norm": -1}
"""Norms end in a scale and a shift along this axis."""


@dataclass(frozen=True)
class Way:
    """How to divide a value's elements.

    Args:
        tensors: for each stored tensor to touch, which elements (bool, in its shape).
        ops: the ops through whose first operand the division passes.
    """

    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]


class Marks:
    """Which elements of stored tensors to divide, so that all elements of one operand of one op are divided.

    Every other reader of what is divided on the way must want it so as well; else there is no way.

    Args:
        graph: the graph.
        indices: stored integer tensors, for ops that look up by them.
    """

    def __init__(self, graph: Graph, indices: Mapping[str, Tensor]) -> None:
        self.graph = graph
        self.indices = indices
        self.order = {op.name: i for i, op in enumerate(graph.ops)}

    def of(self, value: str, reader: Op) -> Way | None:
        """What to touch, and the ops on the way; None where there is none."""
        if reader.inputs.count(value) != 1:
            return None
        ones = torch.ones(self.shape(value), dtype=torch.bool)
        return self.back({value: ones}, {(value, reader.name): (ones, ones)}, Way({}, ()))

    def shape(self, value: str) -> tuple[int, ...]:
        """A value's shape for a batch of 1."""
        return tuple(size(a, self.graph.sizes, 1) for a in self.graph.types[value].axes)

    def back(
        self, marked: dict[str, Tensor], asked: dict[tuple[str, str], tuple[Tensor, Tensor]], found: Way
    ) -> Way | None:
        """Take back the marks of the op that comes last, and go on."""
        if not marked:
            return found
        producers = self.graph.producers
        if any(v not in producers for v in marked):
            return None
        op = max((producers[v] for v in marked), key=lambda o: self.order[o.name])
        results = [v for v in op.results if v in marked]
        if not all(self.agreed(v, marked[v], asked) for v in results):
            return None
        rest = {v: m for v, m in marked.items() if v not in op.results}
        if op.kind in STORED:
            return self.back(rest, asked, Way({**found.tensors, op.name: marked[op.name]}, found.ops))
        for operands in alternatives(self.graph, op):
            taken = self.taken_back(op, operands, marked)
            if taken is None:
                continue
            new, wanted = dict(rest), dict(asked)
            for i, (touched, asks) in taken.items():
                name = op.inputs[i]
                if bool(asks.any()):
                    new[name] = new[name] | asks if name in new else asks
                wanted[name, op.name] = (touched, asks)
            through = (*found.ops, op) if 0 in operands else found.ops
            if (done := self.back(new, wanted, Way(found.tensors, through))) is not None:
                return done
        return None

    def agreed(self, value: str, marks: Tensor, asked: Mapping[tuple[str, str], tuple[Tensor, Tensor]]) -> bool:
        """Whether all readers of a value ask for the same marks where they look."""
        if value in self.graph.outputs:
            return False
        for reader in self.graph.readers[value]:
            found = asked.get((value, reader.name)) or self.picked(value, reader)
            if found is None:
                return False
            touched, asks = found
            if bool((touched & (asks != marks)).any()):
                return False
        return True

    def picked(self, value: str, reader: Op) -> tuple[Tensor, Tensor] | None:
        """What a reader takes of a value and asks nothing of, where it only picks elements (the keys of a packed qkv);
        None where it computes."""
        if reader.kind not in PICKING or reader.inputs.count(value) != 1:
            return None
        at = reader.inputs.index(value)
        taken = self.taken_back(reader, (at,), {}) if at == 0 else None
        return taken[at] if taken else None

    def taken_back(
        self, op: Op, operands: tuple[int, ...], marked: Mapping[str, Tensor]
    ) -> dict[int, tuple[Tensor, Tensor]] | None:
        """For some operands which elements reach marked results, and which reach any; None where some reach both."""
        if not operands:
            return {}
        if op.kind in CHANNEL_AXIS:
            return self.along_channels(op, operands, marked[op.name])
        if op.kind == "embedding":
            return self.along_columns(op, marked[op.name])
        if op.kind in ("index", "index_select", "gather") and any(n not in self.indices for n in op.inputs[1:]):
            return None
        inputs = [self.stand_in(name) for name in op.inputs]
        leaves = [inputs[i].requires_grad_() for i in operands]
        with torch.enable_grad():
            given = inputs[1] + inputs[2] if op.kind == "where" else compute(Frame(self.graph, 1), op, inputs)
        results = list(given) if isinstance(given, tuple) else [given]
        read = [n in self.graph.readers or n in self.graph.outputs for n in op.results]
        marks = [
            marked[n].to(r.dtype) if n in marked else torch.zeros_like(r)
            for n, r in zip(op.results, results, strict=True)
        ]
        every = [torch.full_like(r, float(r_read)) for r, r_read in zip(results, read, strict=True)]
        differentiable = [i for i, r in enumerate(results) if r.requires_grad]
        taken: dict[int, tuple[Tensor, Tensor]] = {}
        outs = [results[i] for i in differentiable]
        reached, all_of = (
            torch.autograd.grad(
                outs, leaves, [by[i] for i in differentiable], retain_graph=True, materialize_grads=True
            )
            for by in (marks, every)
        )
        for i, some, full in zip(operands, reached, all_of, strict=True):
            asks = some.abs() > 1e-9
            if bool((asks & ((some - full).abs() > 1e-6 * full.abs())).any()):
                return None
            taken[i] = (full.abs() > 1e-9, asks)
        return taken

    def stand_in(self, name: str) -> Tensor:
        """Ones in place of real numbers; positions as they are stored."""
        type = self.graph.types[name]
        if name in self.indices:
            return self.indices[name]
        if type.format.is_float or type.quantized:
            return torch.ones(self.shape(name), dtype=torch.float64)
        return torch.zeros(self.shape(name), dtype=torch.bool if type.format.name == "bool" else torch.int64)

    def along_channels(
        self, op: Op, operands: tuple[int, ...], marks: Tensor
    ) -> dict[int, tuple[Tensor, Tensor]] | None:
        """A norm's scale and shift, where all that one of their entries reaches is marked or nothing of it."""
        axis = CHANNEL_AXIS[op.kind]
        lengths = self.shape(op.inputs[operands[0]])
        if len(lengths) != 1:
            return None
        rows = marks.movedim(axis, 0).flatten(1)
        if bool((rows.any(1) != rows.all(1)).any()):
            return None
        asks = rows.all(1)
        return {i: (torch.ones_like(asks), asks) for i in operands}

    def along_columns(self, op: Op, marks: Tensor) -> dict[int, tuple[Tensor, Tensor]] | None:
        """A table's columns, where whole columns of what it gives are marked."""
        rows = marks.flatten(0, -2)
        if bool((rows.any(0) != rows.all(0)).any()):
            return None
        asks = rows.all(0).expand(self.shape(op.inputs[1]))
        return {1: (torch.ones_like(asks), asks)}


def alternatives(graph: Graph, op: Op) -> tuple[tuple[int, ...], ...]:
    """The sets of operands that divide an op's result when they are divided, best first."""
    spec = SPECS.get(op.kind)
    every = tuple(range(len(op.inputs)))
    number = [op.attribute(n) for n in ("other", "input") if spec and n in spec.attributes]
    if op.kind in ("add", "sub", "maximum", "minimum", "cat", "stack"):
        return () if any(n not in (None, 0, 0.0) for n in number) else (every,)
    if op.kind == "where":
        return ((1, 2),) if len(every) == 3 else ()
    if op.kind == "mul" and len(every) == 1:
        return ((0,),)
    if op.kind == "mul":
        first = graph.producers.get(op.inputs[0])
        return ((1,), (0,)) if first is not None and first.kind in STORED else ((0,), (1,))
    if op.kind == "div":
        return ((0,),) if op.attribute("input") is None and op.attribute("rounding_mode") is None else ()
    if op.kind in ("masked_fill", "pad") and op.attribute("value", 0.0) != 0:
        return ()
    if op.kind == "einsum":
        return tuple((i,) for i in every)
    if op.kind == "full":
        return ((),) if op.attribute("value", 0.0) == 0 else ()
    if op.kind == "embedding":
        return ((1,),)
    if op.kind in CHANNEL_AXIS:
        assert spec is not None
        affine = tuple(i for i in every if spec.operands[i].rstrip("?") in ("weight", "bias"))
        return (affine,) if affine and "weight" in spec.operands[affine[0]] else ()
    if spec is not None and spec.is_layer:
        at = spec.index("weight")
        with_bias = (at, *every[at + 1 :])
        return (with_bias,) if len(every) > at + 1 else ((at,), (0,))
    return HOMOGENEOUS.get(op.kind, ())
