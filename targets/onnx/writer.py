"""What emitters write with: nodes, initializers and readings of values, straight into one `GraphProto`.

Values keep the names they have in the IR. What an emitter adds beside them is named `value/part`, which no value of the
IR can be called, so that a file can be read next to the text it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import onnx

from ...ir import SPECS, STORED, Attribute, Axis, Format, Graph, NascError, Op, Type, Weights
from ...ir.axes import has_batch, size
from ...ir.formats import F32, I64
from ...ir.graph import is_axis
from .bits import Unpacking, codes_format, has_gaps, held_bytes, packed_bytes, paying
from .clamps import folded
from .elements import INT4, UINT4, Array, computing, element, packed, stored
from .external import External
from .registry import EmissionError
from .style import Style

Value: TypeAlias = "int | float | str | Sequence[int] | Sequence[float]"

_Attribute = onnx.AttributeProto

LARGEST_FILE = 2**31 - 2**20
"""Bytes of tensors that fit into one ONNX file beside the graph itself: protobuf's limit is 2 GiB."""


class Writer:
    """The ONNX graph under construction, and the IR it is made from."""

    def __init__(
        self, graph: Graph, weights: Weights, style: Style, external: External | None = None, opset: int = 20
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.proto = onnx.GraphProto(name=graph.name)
        self.external = external
        self.opset = opset
        self.inside_bytes = 0
        self.op: Op | None = None
        self.style = style
        self.compact = paying(graph) if style.packed else frozenset[Format]()
        self.folded = folded(graph) if style.clip_codes else frozenset[str]()
        self._types = graph.types
        self._sizes = graph.sizes
        self._producers = graph.producers
        self._known: set[str] = set()
        self._real: dict[tuple[str, str], str] = {}

    def node(self, kind: str, inputs: Sequence[str], result: str, **attributes: Value) -> str:
        """Write a node and give its one result's name; the node is called like its result."""
        return self.nodes(kind, inputs, [result], **attributes)[0]

    def nodes(self, kind: str, inputs: Sequence[str], results: Sequence[str], **attributes: Value) -> Sequence[str]:
        """Write a node with any number of results and give their names; the node is called like the first."""
        node = self._node(kind, inputs, results, attributes)
        node.name = next(filter(None, results))
        if self.op is not None and self.op.location is not None:
            node.doc_string = str(self.op.location)
        return results

    def beforehand(self, kind: str, inputs: Sequence[str], result: str, **attributes: Value) -> str:
        """Write a node of constants, which a runtime computes when it loads the model, in as few bytes as it takes:
        without a name of its own and without the user's line."""
        self._node(kind, inputs, [result], attributes)
        return result

    def _node(
        self, kind: str, inputs: Sequence[str], results: Sequence[str], attributes: Mapping[str, Value]
    ) -> onnx.NodeProto:
        node = self.proto.node.add(op_type=kind, input=inputs, output=results)
        for name, value in attributes.items():
            put = node.attribute.add(name=name)
            if isinstance(value, int):
                put.type, put.i = _Attribute.INT, value
            elif isinstance(value, float):
                put.type, put.f = _Attribute.FLOAT, value
            elif isinstance(value, str):
                put.type, put.s = _Attribute.STRING, value.encode()
            elif value and isinstance(value[0], float):
                put.type = _Attribute.FLOATS
                put.floats.extend(cast(Sequence[float], value))
            else:
                put.type = _Attribute.INTS
                put.ints.extend(cast(Sequence[int], value))
        return node

    def once(self, name: str, write: Callable[[], object]) -> str:
        """A value that several ops share, written where it is first asked for; `write` gives it this name."""
        if name not in self._known:
            self._known.add(name)
            write()
        return name

    def initializer(self, name: str, array: Array, format: Format) -> str:
        """Write a constant tensor; a second one of the same name is the same tensor."""
        if name in self._known:
            return name
        self._known.add(name)
        return self.put(name, array, element(format)[0], array.shape)

    def put(self, name: str, array: Array, element: int, lengths: Sequence[int]) -> str:
        """Write the bytes of an array as a constant tensor of some element type and shape.

        Packed ones stay inside the model: ONNX Runtime takes tensors from memory with whole bytes per element only.
        """
        tensor = self.proto.initializer.add(name=name, data_type=element, dims=lengths)
        if self.external is None or element in (INT4, UINT4) or not self.external.take(tensor, array):
            self.inside_bytes += array.nbytes
            if self.inside_bytes > LARGEST_FILE:
                raise NascError(
                    f"the tensors of graph @{self.graph.name} take more than {LARGEST_FILE} bytes, the most that one"
                    " ONNX file can hold",
                    mend="Let them lie in a file beside the model (`location`).",
                )
            tensor.raw_data = array.tobytes()
        return name

    def number(self, value: float, format: Format = F32) -> str:
        """A scalar constant; equal ones are shared."""
        if format.is_int and np.isfinite(value):
            value = int(value)
        return self.initializer(f"{format}/{value!r}", np.array(value, element(format)[1]), format)

    def scalar(self, value: int) -> str:
        """A 64-bit integer without axes, as positions are; equal ones are shared."""
        return self.initializer(f"i64/{value}", np.array(value, np.int64), I64)

    def integers(self, values: Sequence[int]) -> str:
        """A vector of 64-bit integers, as shapes and axes are; equal ones are shared."""
        return self.initializer(f"i64/[{','.join(map(str, values))}]", np.array(values, np.int64), I64)

    def type(self, value: str) -> Type:
        """The type of a value of the IR."""
        return self._types[value]

    def lengths(self, value: str) -> tuple[int, ...]:
        """The lengths of a value's axes, with 1 for the batch."""
        return tuple(size(axis, self._sizes) for axis in self._types[value].axes)

    def size(self, axis: Axis) -> int:
        """The length of an axis, with 1 for the batch."""
        return size(axis, self._sizes)

    def is_stored(self, value: str) -> bool:
        """Whether a value lies in the weights' store."""
        return (op := self._producers.get(value)) is not None and op.kind in STORED

    def value(self, name: str) -> str:
        """A value as it is: codes where it is quantized. Stored tensors become initializers on first use."""
        if name not in self._known and self.is_stored(name):
            type = self._types[name]
            self.codes(name, stored(self.weights.array(name), type.format, name), type)
        return name

    def codes(self, name: str, array: Array, type: Type) -> str:
        """Write the codes of a stored tensor, or zeros beside it, in the format of a type; those that have fewer bits
        than ONNX's elements without gaps, where the style asks for it, with nodes behind that give whole bytes."""
        format = codes_format(type.format) if type.step is not None else type.format
        if not self.style.packed or type.step is None or not format.is_int:
            self.initializer(name, array, format)
        elif self._in_pieces(format, type.format, array.size):
            self._known.add(name)
            Unpacking(self, name, array, format, type.format).write()
            return name
        elif format.bits <= 4:
            self._known.add(name)
            halves = self.put(f"{name}/packed", packed(array), INT4 if format.signed else UINT4, array.shape)
            self.node("Cast", [halves], name, to=element(format)[0])
        else:
            self.initializer(name, array, format)
        if format.is_int and (type.format != format or format.bits not in (8, 16, 32, 64)):
            self.proto.initializer[-1].doc_string = str(type.format)
        return name

    def _in_pieces(self, codes: Format, format: Format, count: int) -> bool:
        """Whether the codes of a format take the fewest bytes in pieces."""
        return format in self.compact and has_gaps(codes) and packed_bytes(codes, count) < held_bytes(codes, count)

    def real(self, name: str, format: Format = F32) -> str:
        """A value as real numbers in a float format: through its step where it is quantized, and cast if need be.

        A folded clamp is read as what it clamps.
        """
        if (found := self._real.get((name, format.name))) is not None:
            return found
        type = self._types[name]
        if name in self.folded:
            result, now = self.real(self._producers[name].inputs[0], format), format
        elif type.step is not None:
            from .quantize import dequantized  # the two modules read each other

            result, now = dequantized(self, name, type), F32
        else:
            result, now = self.value(name), type.format
        if now.name != format.name:
            result = self.cast(result, f"{name}/{format}", format)
        self._real[name, format.name] = result
        return result

    def moved(self, op: Op) -> str:
        """What an op reads that moves or chooses elements: codes as they are, since its result keeps their type."""
        return self.value(op.inputs[0]) if op.type.quantized else self.real(op.inputs[0], op.type.format)

    def cast(self, value: str, result: str, format: Format) -> str:
        """Write a Cast."""
        return self.node("Cast", [value], result, to=element(format)[0])

    def held(self, op: Op, kind: str, index: int = 0) -> tuple[str, Format]:
        """What a moving op reads for a node of a kind, and the format it is read in: codes and integers that the
        runtime has no kernel for as 32-bit ones; see `computing`."""
        name, type = op.inputs[index], self._types[op.inputs[index]]
        if type.step is not None and type.step.axis is not None:
            return self.real(name), F32
        given = self.value(name) if type.quantized else self.real(name, type.format)
        if (format := computing(kind, type.format)) != type.format:
            given = self.cast(given, f"{op.name}/{format}.{index}", format)
        return given, format

    def result_in(self, op: Op, format: Format, index: int = 0) -> str:
        """What to call a result that is computed in a format; `settle` brings it into its own."""
        name = op.results[index]
        return name if format == op.types[index].format else f"{name}/{format}"

    def settle(self, op: Op, format: Format, index: int = 0) -> None:
        """Bring a result that was computed in another format into its own."""
        if format != op.types[index].format:
            self.cast(f"{op.results[index]}/{format}", op.results[index], op.types[index].format)

    def attribute(self, op: Op, name: str) -> Attribute:
        """An attribute of an op, or its default, with axis terms as integers."""
        return self._plain(op.attribute(name, SPECS[op.kind].attributes[name]))

    def integer(self, op: Op, name: str) -> int:
        """An integer attribute."""
        return cast(int, self.attribute(op, name))

    def floating(self, op: Op, name: str) -> float:
        """A number as an attribute."""
        return float(cast(float, self.attribute(op, name)))

    def window(self, op: Op, name: str, length: int) -> tuple[int, ...]:
        """A list of integers, one per axis of a window; a single one is repeated."""
        found = self.attribute(op, name)
        if isinstance(found, int):
            return (found,) * length
        found = cast(tuple[int, ...], found)
        return found * length if len(found) == 1 else found

    def _plain(self, value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(map(self._plain, value))
        if is_axis(value):
            axis = cast(Axis, value)
            return axis if has_batch(axis) else size(axis, self._sizes)
        return value

    def known_step(self, name: str, type: Type) -> None:
        """Refuse a value whose step is not known yet.

        Raises:
            EmissionError: the step prints as `?`.
        """
        if type.step is not None and not type.step.known:
            mend = "Run `calibrate` before the network is written."
            op = self._producers.get(name)
            if op is None:
                raise NascError(f"the step of the input %{name}: {type} is not known", mend=mend)
            raise EmissionError(op, f"its step is not known: {type}", mend=mend)
