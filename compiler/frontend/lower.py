"""From an exported program to the IR: names after the user's modules, the user's line on every op, widths inferred."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from ...ir import (
    Attribute,
    Axis,
    Const,
    Format,
    Graph,
    Input,
    Location,
    N,
    NascError,
    Op,
    Type,
    attributes,
    format_named,
    fresh_name,
    infer,
    product,
    verify,
    without_dead_code,
)  # fmt: skip
from ..network import Network
from ..weights import Recipe, Source, Store
from .aten import CONVERTERS, IDENTITIES, Call, Converted
from .export import Traced, is_users, trace

FORMATS = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.bool: "bool",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8",
    torch.float8_e4m3fn: "f8e4m3", torch.float8_e5m2: "f8e5m2",
}  # fmt: skip


class LoweringError(NascError):
    """The exported program holds something that the IR cannot."""


def lower_module(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, *, name: str | None = None
) -> Network:
    """Lower a PyTorch module and check the result against it on the example inputs.

    Args:
        module: the network; its evaluation mode is lowered.
        args: example inputs, whose axis 0 is the batch.
        kwargs: example keyword inputs.
        name: the graph's name, by default the module's class.

    Raises:
        NascError: torch.export refuses the model, or the graph does not compute what the module does.
    """
    kwargs = kwargs or {}
    traced = trace(module, args, kwargs)
    network = lower_program(traced, name or snake(type(module).__name__))
    check(network, module, args, kwargs)
    return network


def snake(name: str) -> str:
    """`TinyCNN` as `tiny_cnn`: a graph's name."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return re.sub(r"[^a-z0-9_]", "_", text) or "graph"


def lower_program(traced: Traced, name: str) -> Network:
    """The graph and weights of an exported program.

    Raises:
        LoweringError: a value has an axis that depends on the input in another way than through the batch.
    """
    lowering = _Lowering(traced, name)
    for node in traced.program.graph_module.graph.nodes:
        lowering.add(node)
    graph = without_dead_code(lowering.graph())
    inferred = infer(graph).graph
    verify(inferred, after="lowering")
    return Network(inferred, Store({op.name: lowering.recipes[op.name] for op in inferred.stored}))


@dataclass
class _Lowering:
    """The state of one walk over an exported program."""

    traced: Traced
    name: str
    values: dict[fx.Node, tuple[str, ...]] = field(default_factory=dict[fx.Node, tuple[str, ...]])
    inputs: list[Input] = field(default_factory=list[Input])
    ops: list[Op] = field(default_factory=list[Op])
    outputs: tuple[str, ...] = ()
    recipes: dict[str, Recipe] = field(default_factory=dict[str, Recipe])
    taken: set[str] = field(default_factory=set[str])
    pending: dict[fx.Node, tuple[str, Tensor, bool]] = field(default_factory=dict[fx.Node, tuple[str, Tensor, bool]])
    storages: dict[tuple[Any, ...], str] = field(default_factory=dict[tuple[Any, ...], str])
    batch: Any = None

    def __post_init__(self) -> None:
        signature = self.traced.program.graph_signature
        self.specs = {s.arg.name: s for s in signature.input_specs if hasattr(s.arg, "name")}
        self.users = [
            s.arg.name for s in signature.output_specs if s.kind == OutputKind.USER_OUTPUT and hasattr(s.arg, "name")
        ]
        self.taken |= {
            s.target for s in signature.input_specs if s.target and s.kind in (InputKind.PARAMETER, InputKind.BUFFER)
        }

    def graph(self) -> Graph:
        """The graph with sizes for axes, before inference."""
        return Graph(self.name, tuple(self.inputs), (), tuple(self.ops), self.outputs)

    def add(self, node: fx.Node) -> None:
        """Take up one node."""
        if node.op == "placeholder":
            self._placeholder(node)
        elif node.op == "output":
            self._output(node)
        elif node.op == "call_function":
            self._call(node)
        elif node.op == "get_attr":
            tensor = getattr(self.traced.program.graph_module, str(node.target))
            self.pending[node] = (str(node.target), tensor, False)
        else:
            raise LoweringError(f"error: torch.export left a {node.op} node {node.name!r}, which nasc cannot lower")

    def _placeholder(self, node: fx.Node) -> None:
        spec = self.specs.get(node.name)
        program = self.traced.program
        if spec is None or spec.kind == InputKind.USER_INPUT:
            value = node.meta.get("val")
            if not isinstance(value, Tensor):
                self.values[node] = ()
                return
            if self.batch is None and self.traced.dynamic:
                self.batch = next((s for s in value.shape if isinstance(s, torch.SymInt)), None)
            name = self._fresh(node.name)
            self.inputs.append(Input(name, self._type(value)))
            self.values[node] = (name,)
        elif spec.kind == InputKind.PARAMETER:
            self.pending[node] = (str(spec.target), program.state_dict[str(spec.target)], True)
        elif spec.kind == InputKind.BUFFER:
            target = str(spec.target)
            tensor = program.state_dict.get(target, program.constants.get(target))
            self.pending[node] = (target, cast(Tensor, tensor), False)
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            self.pending[node] = (str(spec.target), cast(Tensor, program.constants[str(spec.target)]), False)
        else:
            raise LoweringError(f"error: input {node.name!r} of kind {spec.kind.name} cannot be lowered")

    def _stored(self, node: fx.Node) -> str:
        """The op of a stored tensor, made where it is first read; tied tensors are one."""
        name, tensor, trained = self.pending[node]
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        if key in self.storages and tensor.numel():
            return self.storages[key]
        self.storages[key] = name
        self.taken.add(name)
        self.recipes[name] = Source(tensor.detach().clone(memory_format=torch.contiguous_format))
        self.ops.append(Op("weight" if trained else "buffer", (name,), (self._type(tensor),)))
        return name

    def value(self, node: fx.Node) -> str:
        """The IR name of a node's (first) value."""
        if node in self.pending:
            self.values[node] = (self._stored(node),)
            del self.pending[node]
        return self.values[node][0]

    def _output(self, node: fx.Node) -> None:
        flat = [n for n in _flat(node.args[0]) if isinstance(n, fx.Node)]
        wanted = set(self.users)
        self.outputs = tuple(self.value(n) for n in flat if n.name in wanted)

    def _call(self, node: fx.Node) -> None:
        target = str(node.target)
        value = node.meta.get("val")
        if "getitem" in target and isinstance(source := node.args[0], fx.Node):
            self.values[node] = (self.values[source][cast(int, node.args[1])],)
            return
        if value is None or isinstance(value, torch.SymInt | torch.SymBool | torch.SymFloat | int | bool | float):
            return
        if target in IDENTITIES:
            self.values[node] = (self.value(cast(fx.Node, node.args[0])),)
            return
        call = self._arguments(node, target, value)
        converter = CONVERTERS.get(target)
        converted = (converter(call) if converter else None) or self._raw(node, target)
        operands = tuple(self.value(n) for n in converted.operands)
        results = list(value) if isinstance(value, tuple | list) else [value]
        if converted.kind == "batch_norm":
            results = results[:1]
        name = self._fresh(self._wanted(node, converted.kind))
        names = (name, *(self._fresh(f"{name}.{i}") for i in range(1, len(results))))
        types = tuple(self._type(v) for v in results)
        kept = attributes(converted.kind, converted.attributes)
        if converted.kind == "reshape" and types[0].axes == self._axes_of(operands[0]):
            self.values[node] = operands
            return
        self.ops.append(Op(converted.kind, names, types, operands, kept, location_of(node)))
        self.values[node] = names

    def _axes_of(self, name: str) -> tuple[Axis, ...] | None:
        found = next((op.type.axes for op in self.ops if op.name == name), None)
        return found or next((i.type.axes for i in self.inputs if i.name == name), None)

    def _arguments(self, node: fx.Node, target: str, value: Any) -> Call:
        """The call's arguments by name, with sizes that depend on the batch as terms."""
        schema = cast(Any, node.target)._schema
        found: dict[str, Any] = {a.name: a.default_value for a in schema.arguments}
        found.update(zip((a.name for a in schema.arguments), node.args, strict=False))
        found.update(node.kwargs)
        first = value[0] if isinstance(value, tuple | list) else value
        shape = tuple(canonical_size(self._axis(s)) for s in first.shape)
        return Call(target, found, first.dim(), shape)

    def _raw(self, node: fx.Node, target: str) -> Converted:
        """An op without a converter: its arguments as they are, `%0`, `%1` … for tensors."""
        operands: list[fx.Node] = []

        def encode(argument: Any) -> Attribute:
            if isinstance(argument, fx.Node):
                known = argument.meta.get("val")
                if isinstance(known, torch.SymInt | int):
                    return canonical_size(self._axis(known))
                if argument not in operands:
                    operands.append(argument)
                return f"%{operands.index(argument)}"
            if isinstance(argument, tuple | list):
                return tuple(encode(a) for a in argument)
            if argument is None or isinstance(argument, bool | int | float | str):
                return argument
            return str(argument)

        args = tuple(encode(a) for a in node.args)
        kwargs = tuple((k, encode(v)) for k, v in node.kwargs.items())
        return Converted(target, tuple(operands), {"args": args, **({"kwargs": kwargs} if kwargs else {})})

    def _type(self, value: Tensor) -> Type:
        if value.dtype not in FORMATS:
            raise LoweringError(f"error: tensors of {value.dtype} have no format in the IR")
        return Type(self._format(value), tuple(self._axis(s) for s in value.shape))

    def _format(self, value: Tensor) -> Format:
        return format_named(FORMATS[value.dtype])

    def _axis(self, length: Any) -> Axis:
        """A length as a term: a number, the batch, or a multiple of the batch."""
        if isinstance(length, int):
            return Const(length)
        text = str(length)
        if self.batch is not None:
            symbol = str(self.batch)
            if text == symbol:
                return N
            if match := re.fullmatch(rf"(\d+)\*{re.escape(symbol)}|{re.escape(symbol)}\*(\d+)", text):
                return product([N, Const(int(match[1] or match[2]))])
        raise LoweringError(
            f"error: an axis of length {text} depends on the input in another way than through the batch",
            mend="Make the lengths of all axes but the batch constants of the model.",
        )

    def _wanted(self, node: fx.Node, kind: str) -> str:
        """What a value is called: the user's module, and the op's kind where the module does more than one thing."""
        stack = node.meta.get("nn_module_stack") or {}
        path, owner = list(stack.values())[-1] if stack else ("", "")
        short = kind.split(".")[1] if kind.startswith("aten.") else kind
        if path and str(owner).startswith("torch.nn.modules.") and "container" not in str(owner):
            return path
        return f"{path}.{short}" if path else short

    def _fresh(self, wanted: str) -> str:
        name = fresh_name(re.sub(r"[^A-Za-z0-9_.]", "_", wanted), self.taken)
        self.taken.add(name)
        return name


def canonical_size(axis: Axis) -> Attribute:
    """A length as an attribute's value."""
    return axis.value if isinstance(axis, Const) else axis


def _flat(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [x for v in value for x in _flat(v)]
    if isinstance(value, dict):
        return [x for v in value.values() for x in _flat(v)]
    return [value]


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def location_of(node: fx.Node) -> Location | None:
    """The deepest line of the user's own code behind a node, with the file relative to the working folder."""
    frames = [(m["file"], int(m["line"])) for m in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    own = [frame for frame in frames if is_users(frame[0])]
    if not own:
        return None
    file, line = own[-1]
    relative = os.path.relpath(file)
    return Location(file if relative.startswith("..") else relative, line)


def check(network: Network, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Run the lowered graph and the module on the example inputs.

    Raises:
        LoweringError: outputs differ by more than 1e-4 of the largest value (1e-9 in f64).
    """
    was = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            expected = [v for v in _flat(module(*args, **kwargs)) if isinstance(v, Tensor)]
    finally:
        for part, mode in was.items():
            part.training = mode
    tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
    found = network(*tensors)
    found = found if isinstance(found, tuple) else (found,)
    for name, want, have in zip(network.graph.outputs, expected, found, strict=True):
        if not want.numel():
            continue
        tolerance = 1e-9 if want.dtype == torch.float64 else 1e-4
        bound = tolerance * max(1e-6, float(want.double().abs().nan_to_num().max()))
        if not torch.allclose(have.double(), want.double(), rtol=0, atol=bound, equal_nan=True):
            error = float((want.double() - have.double()).abs().max())
            raise LoweringError(f"error: output %{name} of the lowered graph differs from the module's by {error:.3g}")
