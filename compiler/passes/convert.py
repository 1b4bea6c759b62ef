"""Compute in another number format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...ir import SPECS, STORED, Encoding, Format, Graph, Op, Type, UsageError, fresh_name, rebuilt, rewired
from ...ir.formats import BF16, F16, F32
from ..network import Network
from ..weights import stored_as
from .base import Context, Pass, register
from .quantize import Quantize

COMPUTED = (F32, F16, BF16)
"""The formats that all ops compute in."""
TAKES = "Write f16 or bf16 for all ops, or a format that layers read, such as i8, f8e4m3 or mxfp4."


@register("convert")
@dataclass(frozen=True)
class Convert(Pass):
    """Store weights and compute in `f16` or `bf16`; inputs and outputs of the network keep their format.

        graph @g(%x: f32[N, 16])   ==>   %x.f16: f16[N, 16] = cast %x

    Ops without a rule compute as they did, between casts. What has a step keeps it; layers that read it give `f32`.
    In all other formats layers alone compute, and give `f32`: `convert{to=mxfp4}` is
    `quantize{weights=mxfp4, activations=mxfp4}`.

    Args:
        to: the format.

    Raises:
        UsageError: the format is none of these, or one that weights or inputs cannot have.
    """

    to: Encoding

    def __post_init__(self) -> None:
        format = self.to.format
        if format in COMPUTED:
            return
        if not format.takes_step or format.bits > 16:
            raise UsageError(
                f"convert: to must be f32, f16, bf16, or a format of 16 bits or fewer; found {self.to}", mend=TAKES
            )
        try:
            Quantize(weights=self.to, activations=self.to)
        except UsageError as error:
            reason = error.message.removeprefix("quantize: ")
            raise UsageError(
                f"convert: to must suit weights and inputs alike: {reason}", mend=error.mend or TAKES
            ) from None

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        format = self.to.format
        if format not in COMPUTED:
            return Quantize(weights=self.to, activations=self.to).run(network, context)
        graph = network.graph
        recipes = dict(network.weights.recipes)
        ops: list[Op] = []
        taken = set(graph.types)
        names: dict[str, str] = {}
        for entry in graph.inputs:
            if _differs(entry.type, format):
                names[entry.name] = self._cast(entry.name, entry.type, format, ops, taken)
        back: dict[str, str] = {}
        for op in graph.ops:
            if op.kind not in SPECS and op.kind not in STORED:
                self._apart(op, graph, format, ops, taken, names, back)
                continue
            if op.name in recipes and _differs(op.type, format):
                recipes[op.name] = stored_as(recipes[op.name], format)
                op = op.with_type(replace(op.type, format=format))
            ops.append(rewired([op], names)[0])
        inner = rebuilt(graph, ops)
        outputs: list[str] = []
        ops = list(inner.ops)
        for name in inner.outputs:
            before, after = graph.types[name], inner.types[name]
            different = before.format != after.format and before.format.is_float and not before.quantized
            outputs.append(self._cast(name, after, before.format, ops, taken) if different else name)
        result = rebuilt(inner, *without_idle_casts(inner, ops, tuple(outputs)))
        return Network(result, replace(network.weights, recipes=recipes).keep({op.name for op in result.stored}))

    def _apart(
        self, op: Op, graph: Graph, format: Format, ops: list[Op], taken: set[str], names: dict[str, str],
        back: dict[str, str],
    ) -> None:  # fmt: skip
        """An op without a rule, with its operands in the formats they had and its results in the new one."""
        given = {i.name for i in graph.inputs}
        for name in op.inputs:
            type = graph.types[name]
            if type.format.is_float and not type.quantized and name not in back:
                back[name] = name if name in given else self._cast(name, type, type.format, ops, taken)
        ops.append(rewired([op], back)[0])
        for name, type in zip(op.results, op.types, strict=True):
            if _differs(type, format):
                names[name] = self._cast(name, type, format, ops, taken)
                back[name] = name

    @staticmethod
    def _cast(name: str, type: Type, to: Format, ops: list[Op], taken: set[str]) -> str:
        new = fresh_name(f"{name}.{to}", taken)
        taken.add(new)
        ops.append(Op("cast", (new,), (replace(type, format=to),), (name,)))
        return new


def _differs(type: Type, format: Format) -> bool:
    """Whether values are numbers of another format, not codes."""
    return type.format.is_float and not type.quantized and type.format != format


def without_idle_casts(
    graph: Graph, ops: Iterable[Op], outputs: tuple[str, ...]
) -> tuple[tuple[Op, ...], tuple[str, ...]]:
    """Ops and outputs without the casts of values that have the format already."""
    known = {i.name: i.type.format for i in graph.inputs}
    names: dict[str, str] = {}
    kept: list[Op] = []
    for op in ops:
        op = rewired([op], names)[0]
        if op.kind == "cast" and known[op.inputs[0]] == op.type.format:
            names[op.name] = op.inputs[0]
            continue
        kept.append(op)
        known.update((name, type.format) for name, type in zip(op.results, op.types, strict=True))
    return tuple(kept), tuple(names.get(n, n) for n in outputs)
