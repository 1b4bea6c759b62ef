"""The walk over an exported program: each node becomes an op, a stored tensor, or nothing."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind, OutputKind

from ...ir import (
    Attribute,
    Axis,
    Const,
    Fault,
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
    product,
)  # fmt: skip
from ...ir.infer import apply_rule
from ...ir.solver import Solver
from ..weights import Recipe, Source, tensor_digest
from .aten import CONVERTERS, IDENTITIES, Call, Converted, Operand
from .export import Traced, is_users

FORMATS = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.bool: "bool",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8",
    torch.float8_e4m3fn: "f8e4m3", torch.float8_e5m2: "f8e5m2",
}  # fmt: skip


class LoweringError(NascError):
    """The exported program holds something that the IR cannot."""


class OtherDynamicAxis(LoweringError):
    """An axis depends on the input in another way than through the batch."""


@dataclass
class Walk:
    """The state of one walk over an exported program.

    Tensors that no input and no parameter changes (masks, positions) are computed on the way and become buffers where
    something reads them.
    """

    traced: Traced
    name: str
    values: dict[fx.Node, tuple[str, ...]] = field(default_factory=dict[fx.Node, tuple[str, ...]])
    inputs: list[Input] = field(default_factory=list[Input])
    ops: list[Op] = field(default_factory=list[Op])
    types: dict[str, Type] = field(default_factory=dict[str, Type])
    outputs: tuple[str, ...] = ()
    recipes: dict[str, Recipe] = field(default_factory=dict[str, Recipe])
    taken: set[str] = field(default_factory=set[str])
    pending: dict[fx.Node, tuple[str, Tensor, bool]] = field(default_factory=dict[fx.Node, tuple[str, Tensor, bool]])
    constants: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])
    storages: dict[tuple[Any, ...], str] = field(default_factory=dict[tuple[Any, ...], str])
    batch: Any = None

    def __post_init__(self) -> None:
        signature = self.traced.program.graph_signature
        self.specs = {s.arg.name: s for s in signature.input_specs if hasattr(s.arg, "name")}
        self.users = [
            s.arg.name for s in signature.output_specs if s.kind == OutputKind.USER_OUTPUT and hasattr(s.arg, "name")
        ]
        kept = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
        self.named = {str(s.target): self._fresh(str(s.target)) for s in signature.input_specs if s.kind in kept}

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
            held = getattr(self.traced.program.graph_module, str(node.target))
            if isinstance(held, Tensor):
                self._hold(node, str(node.target), held, trained=False)
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
            self.types[name] = self.inputs[-1].type
            self.values[node] = (name,)
        elif spec.kind == InputKind.PARAMETER:
            target = str(spec.target)
            self._hold(node, self.named[target], program.state_dict[target], trained=True)
        elif spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            target = str(spec.target)
            held = program.state_dict.get(target, program.constants.get(target))
            self._hold(node, self.named[target], cast(Tensor, held), trained=False)
        else:
            raise LoweringError(f"error: input {node.name!r} of kind {spec.kind.name} cannot be lowered")

    def _hold(self, node: fx.Node, name: str, tensor: Tensor, *, trained: bool) -> None:
        """A tensor of the program, stored once something reads it."""
        self.pending[node] = (name, tensor, trained)
        if not trained:
            self.constants[node] = tensor

    def _stored(self, node: fx.Node) -> str:
        """The op of a stored tensor, made where it is first read; tied tensors are one."""
        name, tensor, trained = self.pending[node]
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        if node.op == "call_function":
            key = (tensor_digest(tensor),)
            name = self._fresh(name) if key not in self.storages else name
        if key in self.storages and tensor.numel():
            return self.storages[key]
        self.storages[key] = name
        self.taken.add(name)
        self.recipes[name] = Source(tensor.detach().clone(memory_format=torch.contiguous_format))
        self._op(Op("weight" if trained else "buffer", (name,), (self._type(tensor),)))
        return name

    def _op(self, op: Op) -> None:
        self.ops.append(op)
        self.types.update(zip(op.results, op.types, strict=True))

    def value(self, node: fx.Node) -> str:
        """The IR name of a node's (first) value."""
        if node in self.pending:
            self.values[node] = (self._stored(node),)
            del self.pending[node]
        return self.values[node][0]

    def _output(self, node: fx.Node) -> None:
        flat = [n for n in flattened(node.args[0]) if isinstance(n, fx.Node)]
        wanted = set(self.users)
        self.outputs = tuple(self.value(n) for n in flat if n.name in wanted)

    def _call(self, node: fx.Node) -> None:
        target = str(node.target)
        value = node.meta.get("val")
        if self._folded(node, value):
            return
        if "getitem" in target and isinstance(source := node.args[0], fx.Node):
            self.values[node] = (self.values[source][cast(int, node.args[1])],)
            return
        if value is None or isinstance(value, torch.SymInt | torch.SymBool | torch.SymFloat | int | bool | float):
            return
        if target in IDENTITIES:
            self.values[node] = (self.value(cast(fx.Node, node.args[0])),)
            return
        results = tuple(value) if isinstance(value, tuple | list) else (value,)
        converter = CONVERTERS.get(target)
        converted = converter(self._arguments(node, target, results)) if converter else None
        if isinstance(converted, fx.Node):
            self.values[node] = (self.value(converted),)
            return
        if converted is None:
            self._raw(node, target, tuple(v for v in results if isinstance(v, Tensor)))
            return
        types = tuple(map(self._type, results[: converted.results]))
        self.values[node] = self._converted(node, converted, types)

    def _folded(self, node: fx.Node, value: Any) -> bool:
        """Compute a value that no input and no parameter changes."""
        sources = node.all_input_nodes
        if not isinstance(value, Tensor | tuple | list) or not all(s in self.constants for s in sources):
            return False
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return False
        args = fx.map_arg((node.args, dict(node.kwargs)), lambda n: self.constants[n])
        with torch.no_grad():
            found = cast(Any, node.target)(*args[0], **args[1])
        self.constants[node] = found
        if isinstance(found, Tensor):
            self.pending[node] = (self._wanted(node, str(node.target)), found, False)
        return True

    def _converted(self, node: fx.Node, converted: Converted, types: tuple[Type, ...]) -> tuple[str, ...]:
        """The op of a conversion, its operands first."""
        operands = tuple(self._operand(node, o) for o in converted.operands)
        if converted.kind == "reshape" and types[0].axes == self.types[operands[0]].axes:
            return operands
        name = self._fresh(self._wanted(node, converted.kind))
        names = (name, *(self._fresh(f"{name}.{i}") for i in range(1, len(types))))
        kept = attributes(converted.kind, converted.attributes)
        self._op(Op(converted.kind, names, types, operands, kept, location_of(node)))
        return names

    def _operand(self, node: fx.Node, operand: Operand) -> str:
        """An operand's value; an op of its own gets its type by its rule."""
        if isinstance(operand, fx.Node):
            return self.value(operand)
        inputs = tuple(self._operand(node, o) for o in operand.operands)
        name = self._fresh(self._wanted(node, operand.kind, own=False))
        kept = attributes(operand.kind, operand.attributes)
        blank = Type(operand.format or format_named("f32"), ())
        op = Op(operand.kind, (name,), (blank,), inputs, kept, location_of(node))
        try:
            types, op = apply_rule(op, [self.types[n] for n in inputs], Solver(), infer=False)
        except Fault as fault:
            raise LoweringError(f"{op.location or op.name}: error: {op.kind} %{op.name}: {fault.message}") from fault
        self._op(Op(op.kind, op.results, types, op.inputs, op.attributes, op.location))
        return name

    def _arguments(self, node: fx.Node, target: str, results: tuple[Tensor, ...]) -> Call:
        """The call's arguments by name, with sizes that depend on the batch as terms."""
        schema = cast(Any, node.target)._schema
        found: dict[str, Any] = {a.name: a.default_value for a in schema.arguments}
        found.update(zip((a.name for a in schema.arguments), node.args, strict=False))
        found.update(node.kwargs)
        shape = tuple(self._size(s) for s in results[0].shape)
        return Call(target, found, results, shape, self.constants, self._format(results[0]), self._size)

    def _raw(self, node: fx.Node, target: str, results: tuple[Tensor, ...]) -> None:
        """An op without a converter: its arguments as they are, `%0`, `%1` … for tensors."""
        operands: list[fx.Node] = []

        def encode(argument: Any) -> Attribute:
            if isinstance(argument, fx.Node):
                known = argument.meta.get("val")
                if isinstance(known, torch.SymInt | int):
                    return self._size(known)
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
        given: dict[str, Attribute] = {"args": args, **({"kwargs": kwargs} if kwargs else {})}
        self.values[node] = self._converted(
            node, Converted(target, tuple(operands), given), tuple(map(self._type, results))
        )

    def _type(self, value: Tensor) -> Type:
        return Type(self._format(value), tuple(self._axis(s) for s in value.shape))

    def _format(self, value: Tensor) -> Format:
        if value.dtype not in FORMATS:
            raise LoweringError(f"error: tensors of {value.dtype} have no format in the IR")
        return format_named(FORMATS[value.dtype])

    def _size(self, length: Any) -> Attribute:
        """A length as an attribute's value: a number, or a term with the batch."""
        if isinstance(length, fx.Node):
            length = length.meta["val"]
        axis = self._axis(length)
        return axis.value if isinstance(axis, Const) else axis

    def _axis(self, length: Any) -> Axis:
        """A length as a term: a number, the batch, or a multiple of the batch."""
        if isinstance(length, int):
            return Const(length)
        expression = length.node.expr
        if self.batch is not None:
            symbol = self.batch.node.expr
            factor = expression.coeff(symbol)
            if expression == factor * symbol and factor.is_Integer:
                return product([N, Const(int(factor))])
        if expression.is_Integer:
            return Const(int(expression))
        raise OtherDynamicAxis(
            f"error: an axis of length {length} depends on the input in another way than through the batch",
            mend="Make the lengths of all axes but the batch constants of the model.",
        )

    def _wanted(self, node: fx.Node, kind: str, *, own: bool = True) -> str:
        """What a value is called: the user's module, and the op's kind where the module does more than one thing."""
        stack = node.meta.get("nn_module_stack") or {}
        path, owner = list(stack.values())[-1] if stack else ("", "")
        short = kind.split(".")[1] if kind.startswith("aten.") else kind
        simple = str(owner).startswith("torch.nn.modules.") and not str(owner).startswith(COMPOUND)
        if own and path and simple:
            return path
        return f"{path}.{short}" if path else short

    def _fresh(self, wanted: str) -> str:
        name = fresh_name(re.sub(r"[^A-Za-z0-9_.]", "_", wanted), self.taken)
        self.taken.add(name)
        return name


COMPOUND = ("torch.nn.modules.container", "torch.nn.modules.activation.Multihead", "torch.nn.modules.transformer")
"""Torch's own modules that are made of several ops, whose values are called by their kinds as well."""


def flattened(value: Any) -> list[Any]:
    """The leaves of nested tuples, lists and dictionaries."""
    if isinstance(value, tuple | list):
        return [x for v in value for x in flattened(v)]
    if isinstance(value, dict):
        return [x for v in value.values() for x in flattened(v)]
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
