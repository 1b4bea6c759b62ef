"""Codes of few bits without gaps in the file, and the nodes that make whole bytes of them when a model is loaded.

ONNX has tensors of 4-bit codes from opset 21 on, and a Cast to bytes. Codes of other widths are cut into pieces of 4, 2
and 1 bits, the lowest first, behind a whole byte where they have more than 8: 7 = 4 + 2 + 1, 13 = 8 + 4 + 1. Pieces of
4 bits are such a tensor. Those of 2 and 1 bits lie in bytes, four or eight in each, the first in the lowest bits; a
Gather from a table of all 256 bytes gives their part of the codes, moved to its place and with the sign. The parts are
added up.

The runtime computes all this once, when it loads the model (ONNX Runtime: constant folding, level basic). Few nodes
with small results matter there, since it keeps all results to the end (`docs/onnxruntime.md`).
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ...ir import Format, Graph, format_named
from ...ir.axes import size
from ...ir.formats import I32
from .elements import INT4, UINT4, Array, element, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .writer import Value, Writer

U8 = format_named("u8")
NODE_BYTES = 64
"""About what one node that unpacks takes in the file."""
ELEMENT_NODES = 8
"""About how many nodes make numbers of the codes of one value whose elements stand in a table, with names and lines."""


def codes_format(format: Format) -> Format:
    """The integers that the codes of a format are; those of minifloats and logs are their bits. Floats stay floats."""
    return format if format.is_int or format.is_float else format_named(f"u{format.bits}")


def has_gaps(format: Format) -> bool:
    """Whether codes have fewer bits than the element types of ONNX."""
    return format.bits < 16 and format.bits not in (4, 8)


def pieces_of(bits: int) -> list[tuple[int, int]]:
    """The pieces of less than a byte that codes of 1 to 15 bits are cut into: their bits, and the bits below."""
    found: list[tuple[int, int]] = []
    below = bits & 8
    for width in (4, 2, 1):
        if bits & width:
            found.append((width, below))
            below += width
    return found


def packed_bytes(format: Format, count: int) -> int:
    """What codes take in pieces, with the nodes that put them together."""
    nodes = 3 * len(pieces_of(format.bits)) + 2 * (count % 8 > 0) + 4 * (format.bits > 8)
    return format.bits * -(-count // 8) + NODE_BYTES * nodes


def table_bytes(bits: int) -> int:
    """What the tables take that all codes of as many bits share."""
    return sum(256 * 8 // width for width, _ in pieces_of(bits) if width < 4)


def paying(graph: Graph) -> frozenset[Format]:
    """The formats whose stored values take fewer bytes in their own bits than in larger elements: codes in pieces, and
    elements of a table in place of numbers; nodes and tables included, over all stored values of the format."""
    saved: Counter[Format] = Counter()
    for op in graph.stored:
        format = op.type.format
        if op.type.step is None or format.is_float or (format.is_int and not has_gaps(format)):
            continue
        count = prod(size(axis, graph.sizes) for axis in op.type.axes)
        saved[format] += max(saved_bytes(format, count), 0)
    return frozenset(format for format, found in saved.items() if found > _tables(format))


def saved_bytes(format: Format, count: int) -> int:
    """How many bytes of the file one value's own bits save, without the tables that others share; less than 0: it takes
    more."""
    codes = codes_format(format)
    held = held_bytes(codes, count)
    if format.is_int:
        return held - packed_bytes(codes, count)
    least = min(held, packed_bytes(codes, count)) if has_gaps(format) else held
    return count * np.dtype(np.float32).itemsize - least - ELEMENT_NODES * NODE_BYTES


def _tables(format: Format) -> int:
    """What the tables take that all values of a format share."""
    elements = 0 if format.is_int else np.dtype(np.float32).itemsize << format.bits
    return elements + (table_bytes(format.bits) if has_gaps(format) else 0)


def held_bytes(format: Format, count: int) -> int:
    """What codes take in the element type that holds them: two to a byte, or in whole ones."""
    return -(-count // 2) if format.bits <= 4 else count * element(format)[1].itemsize


def table(format: Format, width: int, below: int) -> Array:
    """The part of codes that each byte of pieces stands for, in the codes' container, in one byte.

    Args:
        format: of the codes.
        width: bits of a piece, 2 or 1.
        below: bits of the code below it; of the whole byte that wider codes have is no part of this.
    """
    pieces = np.arange(256)[:, None] >> np.arange(0, 8, width) & (1 << width) - 1
    if format.bits == 1:
        values = 2 * pieces - 1
    else:
        values = pieces << (below & 7)
        if format.signed and below + width == format.bits:
            values = np.where(pieces >> (width - 1), values - (1 << (format.bits & 7)), values)
    held = np.int8 if format.signed else np.uint8
    return np.ascontiguousarray(values.astype(held).reshape([256, *((4,) if width == 2 else (2, 4))]))


def bits_of(codes: Array, format: Format) -> Array:
    """The bits of codes as unsigned integers, in order, filled up to a multiple of 8 with 0; 1 is binary's bit 1."""
    flat = codes.reshape(-1)
    if format.bits == 1:
        flat = flat > 0
    whole = np.zeros(-(-flat.size // 8) * 8, np.uint8 if format.bits <= 8 else np.uint16)
    whole[: flat.size] = flat
    return whole


def pieces_in_bytes(bits: Array, width: int, below: int) -> Array:
    """One piece of all codes: four of 2 bits in a byte, `[n / 8, 2]`, or eight of one bit, `[n / 8]`."""
    pieces = ((bits >> bits.dtype.type(below)) & bits.dtype.type((1 << width) - 1)).astype(np.uint8, copy=False)
    if width == 1:
        return np.packbits(pieces, bitorder="little")
    four = pieces.view("<u4")
    return (four | four >> 6 | four >> 12 | four >> 18).astype(np.uint8).reshape(-1, 2)


class Unpacking:
    """Writes the pieces of one stored value's codes, and the nodes behind them.

    Args:
        writer: of the graph.
        name: of the value.
        codes: its codes.
        format: what they are.
        said: what the file says that they are.
    """

    def __init__(self, writer: Writer, name: str, codes: Array, format: Format, said: Format) -> None:
        self.writer, self.name, self.codes, self.format, self.said = writer, name, codes, format, said
        self.count = 0
        self.to, dtype = element(format)
        self.own = format_named(f"{dtype.kind}{8 * dtype.itemsize}")
        self.low = format_named("i8" if format.signed else "u8")

    def node(self, kind: str, inputs: Sequence[str], result: str = "", **attributes: Value) -> str:
        """Write a node."""
        self.count += 1
        return self.writer.beforehand(kind, inputs, result or f"{self.name}/{self.count}", **attributes)

    def held(self, part: str, array: Array, element: int, lengths: Sequence[int]) -> str:
        """Write a tensor; all say what the codes are."""
        found = self.writer.put(f"{self.name}/{part}", array, element, lengths)
        self.writer.proto.initializer[-1].doc_string = str(self.said)
        return found

    def write(self) -> str:
        """Write all of it; the last node gives the value its name."""
        bits = bits_of(self.codes, self.format)
        parts: list[str] = []
        if self.format.bits & 4:
            parts.append(self.fours(bits))
        if self.format.bits & 3:
            parts.append(self.shaped(self.few(bits), whole=not parts and self.format.bits < 8))
        if self.format.bits < 8:
            return self.node("Add", parts, self.name) if len(parts) > 1 else parts[0]
        high = self.node("Add", parts) if len(parts) > 1 else parts[0]
        if self.own != self.low and not (len(parts) == 1 and self.format.bits & 4):
            high = self.node("Cast", [high], to=self.to)
        high = self.node("Mul", [high, self.writer.number(256, self.own)])
        low = bits[: self.codes.size].astype(np.uint8).reshape(self.codes.shape)
        low = self.held("bits0", low, element(U8)[0], low.shape)
        return self.node("Add", [high, self.node("Cast", [low], to=self.to)], self.name)

    def fours(self, bits: Array) -> str:
        """The piece of 4 bits, in the shape of the codes; with the sign where it is the highest."""
        below = self.format.bits & 8
        highest = self.format.signed and below + 4 == self.format.bits
        halves = packed((bits >> bits.dtype.type(below))[: self.codes.size])
        held = self.held(f"bits{below}", halves, INT4 if highest else UINT4, self.codes.shape)
        alone = self.format.bits in (4, 12)
        return self.node("Cast", [held], to=self.to if alone else element(self.low)[0])

    def few(self, bits: Array) -> str:
        """The pieces of 2 and 1 bits, added up: `[n / 8, 2, 4]`."""
        parts: list[str] = []
        for width, below in pieces_of(self.format.bits):
            if width == 4:
                continue
            held = pieces_in_bytes(bits, width, below)
            index = self.node("Cast", [self.held(f"bits{below}", held, element(U8)[0], held.shape)], to=element(I32)[0])
            parts_of = table(self.format, width, below)
            known = self.writer.initializer(f"{self.format}/bits{below}", parts_of, self.low)
            parts.append(self.node("Gather", [known, index]))
        return self.node("Add", parts) if len(parts) > 1 else parts[0]

    def shaped(self, value: str, whole: bool) -> str:
        """Codes in their shape, without what fills them up."""
        writer, count = self.writer, self.codes.size
        if count % 8:
            flat = self.node("Reshape", [value, writer.integers((-1,))])
            value = self.node("Slice", [flat, writer.integers((0,)), writer.integers((count,))])
        return self.node("Reshape", [value, writer.integers(self.codes.shape)], self.name if whole else "")
