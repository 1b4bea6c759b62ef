"""What a network is timed on: a length for every axis of its inputs, and made-up numbers of these shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from ..ir.axes import N
from ..ir.errors import UsageError
from .artifact import Artifact
from .base import Array, Signature, TargetError

SOME = 16
"""A length as an example."""
PACKED = ("int2", "uint2", "int4", "uint4", "float4_e2m1fn")
"""Types of which a byte holds several, and a numpy array one."""

Key = str | tuple[str, int]
"""An open length: by the file's name for it, or by input and axis where it has none."""


@dataclass(frozen=True)
class InputShape:
    """An input as somebody asks for it.

    Args:
        shape: its lengths.
        name: the input's name; None: by its position.
        dtype: numpy's name of its type; None: whatever the file says.
        range: the smallest and largest of random whole numbers; None: zeros.
    """

    shape: tuple[int, ...]
    name: str | None = None
    dtype: str | None = None
    range: tuple[int, int] | None = None


@dataclass(frozen=True)
class Filled:
    """Inputs of which every length is known.

    Args:
        signatures: the inputs, in order, with all lengths.
        batch: the length of the batch axis.
        ranges: of each input's random whole numbers; None: zeros.
    """

    signatures: tuple[Signature, ...]
    batch: int
    ranges: tuple[tuple[int, int] | None, ...]

    @property
    def kinds(self) -> list[str]:
        """What two networks must share to be compared: shapes, and types but that floats of all widths count alike."""
        return sorted(replace(s, dtype="float" if "float" in s.dtype else s.dtype).type for s in self.signatures)

    def as_list(self) -> list[dict[str, object]]:
        """Plain data for a record."""
        return [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in self.signatures]

    def arrays(self, seed: int = 0) -> list[Array]:
        """Standard normal numbers, zeros for whole numbers without a range; dense kernels do not care.

        Raises:
            TargetError: an input is no tensor of numbers.
        """
        random = np.random.default_rng(seed)
        made: list[Array] = []
        for entry, limits in zip(self.signatures, self.ranges, strict=True):
            dtype = number(entry, "input")
            shape = tuple(n or 0 for n in entry.shape)
            if "float" in dtype.name:
                values: Array = random.standard_normal(shape)
            elif limits is not None:
                values = random.integers(*limits, shape, endpoint=True)
            else:
                values = np.zeros(shape)
            made.append(np.asarray(values).astype(dtype))
        return made


def example_arrays(signatures: Sequence[Signature], batch: int, seed: int = 0) -> list[Array]:
    """Inputs to time a network with; a fixed batch stays what it is.

    Raises:
        UsageError: other lengths than the batch are open.
        TargetError: an input is no tensor of numbers.
    """
    return filled(signatures, batch).arrays(seed)


def number(signature: Signature, what: str = "value") -> np.dtype[Any]:
    """The numpy type of an input or output.

    Args:
        signature: the input or output.
        what: what it is, for the message.

    Raises:
        TargetError: it is no tensor of numbers, or several of its numbers share a byte.
    """
    try:
        if signature.dtype not in PACKED:
            return np.dtype(getattr(ml_dtypes, signature.dtype, signature.dtype))
    except TypeError:
        pass
    raise TargetError(
        f"{what} {signature.name} is {signature.dtype}; only tensors of numbers of 8 bits and more can be measured",
        mend="Measure the part of the model between such values.",
    )


def is_number(signature: Signature) -> bool:
    """Whether `number` gives a type."""
    try:
        number(signature)
    except TargetError:
        return False
    return True


def own_lengths(model: object, batch: int) -> Mapping[Key, int]:
    """The open lengths that are known beforehand: in what nasc emits, `N` is the batch wherever it stands."""
    return {str(N): batch} if isinstance(model, Artifact) else {}


def filled(
    signatures: Sequence[Signature],
    batch: int,
    asked: Sequence[InputShape] = (),
    *,
    exact: bool = False,
    known: Mapping[Key, int] | None = None,
    place: str = "the model",
) -> Filled:
    """Choose a length for every open axis: as asked, else the batch for axis 0 and all axes of the same symbol.

    Args:
        signatures: the inputs, as the file has them.
        batch: length of the batch axis, where it is open and nothing else was asked for.
        asked: inputs as somebody wants them, in order or by name.
        exact: refuse inputs whose batch is another one.
        known: open lengths that are known beforehand, if nothing else was asked for.
        place: what to call the model in errors.

    Raises:
        UsageError: what was asked for does not fit the file, the batch is fixed at another length, or a length or a
            whole shape is open that nobody asked for.
    """
    wanted = _matched(signatures, asked, place)
    signatures = _ranked(signatures, wanted, place)
    lengths: dict[Key, int] = {}
    for signature, entry in zip(signatures, wanted, strict=True):
        if entry is not None:
            _bind(signature, entry, lengths, place)
    firsts = [_key(s, 0)[0] for s in signatures if s.shape and s.shape[0] is None]
    own = next((lengths[key] for key in firsts if key in lengths), batch)
    for key, length in (known or {}).items():
        lengths.setdefault(key, length)
    for key in firsts:
        lengths.setdefault(key, own)
    _all_known(signatures, lengths, place)
    found = tuple(Signature(s.name, s.dtype, tuple(_lengths(s, lengths))) for s in signatures)
    ranges = tuple(None if entry is None else entry.range for entry in wanted)
    if not firsts and not any(_key(s, a)[0] in (known or {}) for s, a in _open(signatures)):
        first = next((s for s in found if s.shape), None)
        own = 1 if first is None else int(first.shape[0] or 0)
    if exact and own != batch:
        shown = ", ".join(map(str, found)) or "no inputs"
        raise UsageError(
            f"{place}: the batch is {own} ({shown}), and {batch} was asked for",
            mend="Leave --batch out, or name a file and inputs of this batch.",
        )
    return Filled(found, own, ranges)


def _matched(signatures: Sequence[Signature], asked: Sequence[InputShape], place: str) -> list[InputShape | None]:
    """What was asked of each input."""
    has = ", ".join(map(str, signatures)) or "no inputs"
    if any(entry.name is not None for entry in asked):
        named = {entry.name: entry for entry in asked}
        if unknown := sorted(str(name) for name in set(named) - {s.name for s in signatures}):
            raise UsageError(
                f"{place}: there is no input {', '.join(unknown)}",
                mend=f"It has {has}. Without names, inputs are taken in order.",
            )
        return [named.get(s.name) for s in signatures]
    if asked and len(asked) != len(signatures):
        raise UsageError(
            f"{place} reads {len(signatures)} input(s), found shapes of {len(asked)}",
            mend=f"It has {has}. Name those that you mean, as in --input NAME=1x3.",
        )
    return list(asked) or [None] * len(signatures)


def _ranked(
    signatures: Sequence[Signature], wanted: Sequence[InputShape | None], place: str
) -> tuple[Signature, ...]:  # fmt: skip
    """The inputs, those without a shape in the file with the one that was asked for.

    Raises:
        UsageError: none was asked for.
    """
    pairs = list(zip(signatures, wanted, strict=True))
    if left := [s for s, entry in pairs if not s.ranked and entry is None]:
        raise UsageError(
            f"{place}: the file says no shape of input {', '.join(map(str, left))}",
            mend=f"Say it, such as {' '.join(f'--input {s.name}=1x3x224x224' for s in left)}.",
        )
    return tuple(s if s.ranked or entry is None else Signature(s.name, s.dtype, entry.shape) for s, entry in pairs)


def _bind(signature: Signature, asked: InputShape, lengths: dict[Key, int], place: str) -> None:
    """Note the open lengths that an asked shape tells.

    Raises:
        UsageError: it does not fit the input.
    """
    found = "x".join(map(str, asked.shape)) + ("" if asked.dtype is None else f" of {asked.dtype}")
    differs = UsageError(
        f"{place}: input {signature.name} is {signature.type}, and {found} was asked for",
        mend="Keep the type and the lengths that the file fixes; axes of one name have one length.",
    )
    fits = len(asked.shape) == len(signature.shape) and asked.dtype in (None, signature.dtype)
    if not fits or any(n not in (None, m) for n, m in zip(signature.shape, asked.shape, strict=True)):
        raise differs
    for axis, (n, m) in enumerate(zip(signature.shape, asked.shape, strict=True)):
        if n is not None:
            continue
        key, factor = _key(signature, axis)
        if m % factor or lengths.setdefault(key, m // factor) != m // factor:
            raise differs


def _all_known(signatures: Sequence[Signature], lengths: Mapping[Key, int], place: str) -> None:
    """Refuse inputs of which a length is open; one that several inputs share is told of the first of them.

    Raises:
        UsageError: it is.
    """
    faults: list[str] = []
    shapes: list[str] = []
    told: set[Key] = set(lengths)
    for signature in signatures:
        axes = [axis for _, axis in _open([signature]) if _key(signature, axis)[0] not in told]
        told.update(_key(signature, axis)[0] for axis in axes)
        if axes:
            which = " and ".join(f"{a} ({signature.symbol(a)})" if signature.symbol(a) else str(a) for a in axes)
            faults.append(f"input {signature} leaves axis {which} open")
            shapes.append(f"--input {signature.name}={_example(signature, lengths)}")
    if faults:
        raise UsageError(
            f"{place}: {'; '.join(faults)}, and only axis 0 is taken for the batch",
            mend=f"Say the lengths, such as {' '.join(shapes)}.",
        )


def _example(signature: Signature, lengths: Mapping[Key, int]) -> str:
    """A shape that would do."""
    some = {_key(signature, axis)[0]: SOME for _, axis in _open([signature])}
    return "x".join(map(str, _lengths(signature, {**some, **lengths})))


def _open(signatures: Sequence[Signature]) -> Iterator[tuple[Signature, int]]:
    """The inputs' open axes."""
    return ((s, axis) for s in signatures for axis, n in enumerate(s.shape) if n is None)


def _lengths(signature: Signature, lengths: Mapping[Key, int]) -> list[int]:
    return [_length(signature, axis, lengths) for axis in range(len(signature.shape))]


def _length(signature: Signature, axis: int, lengths: Mapping[Key, int]) -> int:
    if (n := signature.shape[axis]) is not None:
        return n
    key, factor = _key(signature, axis)
    return factor * lengths[key]


def _key(signature: Signature, axis: int) -> tuple[Key, int]:
    """An open length as a multiple of one that has a name: `N*4`, `4*N` are four times `N`."""
    symbol = signature.symbol(axis)
    if not symbol:
        return (signature.name, axis), 1
    parts = [part.strip() for part in symbol.split("*")]
    names = [part for part in parts if not part.isdigit()]
    if len(names) != 1:
        return symbol, 1
    factor = int(np.prod([int(part) for part in parts if part.isdigit()]))
    return names[0], max(1, factor)
