"""What every store of tensors promises to those who read it: the numbers beside a graph, by the names of its values."""

from __future__ import annotations

from typing import Any, Protocol


class Weights(Protocol):
    """The numbers of a graph's `weight` and `buffer` values.

    Arrays follow numpy's array interface, have the shape that the graph's type gives, and are not to be written to.
    """

    def array(self, name: str) -> Any:
        """The tensor of a value: numbers for floats, integer codes for quantized formats (`int8` up to 8 signed bits,
        `uint8` up to 8 unsigned bits, `int16`, `uint16`, `int32`, `int64`).

        Raises:
            KeyError: there is no such tensor.
            NascError: the value's step is not known yet.
        """
        ...

    def steps(self, name: str) -> Any:
        """The steps of a value of type `<per axis>`: binary32, one per index of that axis; or one per block, see
        `types.Step`.

        Raises:
            KeyError: the value has no steps of its own.
        """
        ...

    def zeros(self, name: str) -> Any:
        """The codes that mean 0 of a value of type `<…, zeros>`: integers, one per step.

        Raises:
            KeyError: the value has no zeros of its own.
        """
        ...
