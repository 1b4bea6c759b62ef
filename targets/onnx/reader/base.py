"""What readers of ONNX nodes write with: IR ops, stored tensors, and lengths that are computed in the model."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
from onnx import numpy_helper

from ....ir import (
    Attribute,
    Axis,
    Const,
    Fault,
    Format,
    Input,
    NascError,
    Op,
    Step,
    Type,
    UsageError,
    attributes,
    format_named,
    fresh_name,
)
from ....ir.infer import apply_rule
from ....ir.solver import Solver
from ..elements import Array, format_of

Reads: TypeAlias = "Callable[[Reader, onnx.NodeProto], None]"
"""Reads one node: says what each of its results is."""

READERS: dict[str, Reads] = {}


class ReadError(NascError):
    """A file holds something that nasc cannot read; the message names the node and its type."""


def reads(*kinds: str) -> Callable[[Reads], Reads]:
    """Declare the reader of nodes of some types; those of other domains than ONNX's own as `domain.type`."""

    def declare(reader: Reads) -> Reads:
        for kind in kinds:
            READERS[kind] = reader
        return reader

    return declare


Sizes: TypeAlias = "np.ndarray[Any, np.dtype[np.object_]]"
"""Lengths that the model computes from shapes: an array of axis terms."""

NARROW = {"int2": np.int8, "uint2": np.uint8, "int4": np.int8, "uint4": np.uint8}
"""Element types of less than a byte, by the names that `ml_dtypes` gives them, and what holds them here."""


def codes_said(text: str) -> str:
    """A text if it says what codes in a container are, such as `u3` or `ternary`; else nothing."""
    try:
        format = format_named(text)
    except UsageError:
        return ""
    return text if format.is_int and format.bits <= 16 else ""


@dataclass(frozen=True, eq=False)
class Scale:
    """What codes stand for.

    Args:
        step: their step; where each of several steps has a zero of its own, its zero is None.
        steps: the steps where there are several.
        zeros: their zeros where these are not all 0, of the same shape.
    """

    step: Step
    steps: Array | None = None
    zeros: Array | None = None


class Reader:
    """The IR graph under construction.

    Args:
        graph: the ONNX graph.
        place: what errors call the file.
        opset: version of the operator set.
    """

    def __init__(self, graph: onnx.GraphProto, place: str, opset: int) -> None:
        self.place = place
        self.opset = opset
        self.node = onnx.NodeProto()
        self.mark = 0
        self.constants: dict[str, Array] = {}
        self.formats: dict[str, str] = {}
        self.casts: dict[str, str] = {}
        self.gathers: dict[str, tuple[str, Array, int]] = {}
        self.moves: dict[str, tuple[str, str]] = {}
        self.codes: dict[str, tuple[str, Scale]] = {}
        self.float8: dict[str, tuple[str, str]] = {}
        self.sizes: dict[str, Sizes] = {}
        self.values: dict[str, str] = {}
        self.types: dict[str, Type] = {}
        self.inputs: list[Input] = []
        self.ops: list[Op] = []
        self.arrays: dict[str, Array] = {}
        self.steps: dict[str, Array] = {}
        self.zeros: dict[str, Array] = {}
        self.taken: set[str] = set()
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses.update(output.name for output in graph.output)
        self.readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        for tensor in graph.initializer:
            held = numpy_helper.to_array(tensor)
            narrow = NARROW.get(held.dtype.name)
            self.constants[tensor.name] = held if narrow is None else held.astype(narrow)
            said = "" if narrow is None else f"{'u' if narrow == np.uint8 else 'i'}{held.dtype.name[-1]}"
            self.formats[tensor.name] = codes_said(tensor.doc_string) or said

    def error(self, message: str, *, mend: str | None = None) -> ReadError:
        """An error at the node that is being read."""
        called = self.node.name or next(iter(self.node.output), "")
        return ReadError(f"{self.place}: error: node {called!r} ({self.node.op_type}): {message}", mend=mend)

    def there(self, index: int) -> bool:
        """Whether the node has an operand at a position."""
        return len(self.node.input) > index and bool(self.node.input[index])

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node, as Python's own numbers, texts and lists."""
        for given in self.node.attribute:
            if given.name == name:
                found = onnx.helper.get_attribute_value(given)
                return found.decode() if isinstance(found, bytes) else found
        return default

    def numbers(self, index: int) -> list[Any]:
        """An operand that must be a constant, as a flat list.

        Raises:
            ReadError: it is computed.
        """
        name = self.node.input[index]
        if (found := self.constants.get(name)) is None:
            raise self.error(f"its operand {name!r} must be a constant", mend="Only the batch may be left open.")
        return np.asarray(found).reshape(-1).tolist()

    def lengths(self, index: int) -> list[Attribute]:
        """An operand that holds lengths: numbers, and terms with the batch.

        Raises:
            ReadError: it depends on more than shapes.
        """
        name = self.node.input[index]
        if (found := self.sizes.get(name)) is not None:
            return [a.value if isinstance(a, Const) else a for a in cast("list[Axis]", found.reshape(-1).tolist())]
        return self.numbers(index)

    def type(self, index: int) -> Type:
        """The type of an operand."""
        return self.types[self.value(index)]

    def rank(self, index: int = 0) -> int:
        """The number of axes of an operand."""
        name = self.node.input[index]
        held = self.constants.get(name, self.sizes.get(name))
        return self.type(index).rank if held is None else held.ndim

    def axis(self, default: int | None = None, name: str = "axis", rank: int | None = None) -> int:
        """An axis attribute counted from the front."""
        found = int(self.attribute(name, default))
        return found + (self.rank() if rank is None else rank) if found < 0 else found

    def axes(self, index: int, rank: int | None = None) -> list[int]:
        """Axes as an operand (newer opsets) or the attribute `axes`, counted from the front; none given: empty."""
        given = self.numbers(index) if self.there(index) else self.attribute("axes", [])
        rank = self.rank() if rank is None else rank
        return [a + rank if a < 0 else a for a in given]

    def scalar(self, index: int) -> float | int | bool | None:
        """An operand that is one constant number, or None."""
        found = self.constants.get(self.node.input[index])
        return None if found is None or found.size != 1 else found.reshape(-1)[0].item()

    def value(self, index: int, kind: str = "weight") -> str:
        """The IR value of an operand; a constant is stored when something first reads it."""
        return self.named(self.node.input[index], kind)

    def named(self, name: str, kind: str = "weight") -> str:
        """The IR value of an ONNX value.

        Raises:
            ReadError: nothing gives it.
        """
        if name in self.values:
            return self.values[name]
        if name in self.codes:
            from .quantized import stored_codes  # the two modules read each other

            self.values[name] = stored_codes(self, *self.codes[name])
            return self.values[name]
        if name in self.constants:
            self.values[name] = self.stored(name, self.constants[name], kind)
            return self.values[name]
        if name in self.sizes:
            from .sizes import as_numbers  # the two modules read each other

            self.values[name] = as_numbers(self, name)
            return self.values[name]
        raise self.error(f"nothing gives its operand {name!r}")

    def stored(
        self, wanted: str, array: Array, kind: str = "weight", format: Format | None = None, step: Step | None = None
    ) -> str:
        """Store a tensor; integers and truth values are buffers."""
        format = format_of(array.dtype) if format is None else format
        if not format.is_float and step is None:
            kind = "buffer"
        name = self.fresh(wanted.removesuffix("/output"))
        axes = tuple(Const(n) for n in array.shape)
        self.arrays[name] = array
        self._keep(Op(kind, (name,), (Type(format, axes, step),)))
        return name

    def give(self, kind: str, inputs: Sequence[str], declared: Type | None = None, /, **given: Attribute) -> None:
        """Write the op that gives the node's results."""
        results = [name for name in self.node.output if name] or [f"{self.node.name}.result"]
        for name, made in zip(results, self.op(kind, inputs, declared, results, **given), strict=True):
            self.values[name] = made

    def op(
        self,
        kind: str,
        inputs: Sequence[str],
        declared: Type | None = None,
        wanted: Sequence[str] | None = None,
        /,
        **given: Attribute,
    ) -> tuple[str, ...]:
        """Write an op and give the names of its results.

        Raises:
            ReadError: its operands do not fit.
        """
        wanted = wanted or [f"{self.node.output[0]}.{kind}"]
        blank = declared or Type(format_of(np.dtype(np.float32)), ())
        try:
            kept = attributes(kind, given)
            op = Op(kind, tuple(map(self.fresh, wanted)), (blank,) * len(wanted), tuple(inputs), kept)
            types, op = apply_rule(op, [self.types[name] for name in inputs], Solver(), infer=False)
        except Fault as fault:
            raise self.error(fault.message) from fault
        self._keep(Op(op.kind, op.results, types, op.inputs, op.attributes))
        return op.results

    def alias(self, value: str, output: int = 0) -> None:
        """Say that a result of the node is a value that is there already."""
        self.values[self.node.output[output]] = value

    def replace_last(self, name: str) -> Op | None:
        """Take back the op that gives a value, if it was written last and nothing else reads it."""
        made = self.values.get(name)
        if not self.ops or self.ops[-1].results != (made,) or self.uses[name] != 1:
            return None
        op = self.ops.pop()
        self.taken.discard(op.name)
        self.types.pop(op.name)
        return op

    def producer(self, name: str) -> Op | None:
        """The op that gives an ONNX value."""
        made = self.values.get(name)
        return next((op for op in reversed(self.ops) if made in op.results), None)

    def fresh(self, wanted: str) -> str:
        """A name of the IR that is not taken."""
        name = fresh_name(re.sub(r"[^A-Za-z0-9_.]", "_", wanted).strip(".") or "value", self.taken)
        name = name if not name[0].isdigit() else fresh_name(f"v{name}", self.taken)
        self.taken.add(name)
        return name

    def _keep(self, op: Op) -> None:
        self.ops.append(op)
        self.types.update(zip(op.results, op.types, strict=True))
