"""What a target makes of a network: the bytes that are deployed, and a digest that names them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.files import write_atomically


@dataclass(frozen=True, eq=False)
class Beside:
    """A tensor that lies in a file beside the model.

    Args:
        name: its name in the model.
        element: the code of its element type in the model's format.
        offset: where it starts in the file, in bytes.
        array: its content, contiguous.
    """

    name: str
    element: int
    offset: int
    array: NDArray[Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A network as one target runs it.

    Args:
        target: the name of the target it was made for.
        model: the bytes of the model file.
        location: name of the file beside the model that holds its large tensors; empty: there is none.
        tensors: the tensors in that file, in order of offsets.
    """

    target: str
    model: bytes = field(repr=False)
    location: str = ""
    tensors: tuple[Beside, ...] = field(default=(), repr=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that is deployed: the model's bytes, then the tensors beside it."""
        found = hashlib.sha256(self.model)
        for piece in self._data():
            found.update(piece)
        return found.hexdigest()

    def digests(self, name: str) -> dict[str, str]:
        """SHA-256 (hex) of each file that `save` writes under a name, by the files' names."""
        found = {name: hashlib.sha256(self.model).hexdigest()}
        if self.location:
            beside = hashlib.sha256()
            for piece in self._data():
                beside.update(piece)
            found[self.location] = beside.hexdigest()
        return found

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return len(self.model) + sum(map(len, self._data()))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tensors beside the model, then the model, each in one step; then remove the tensors of a model that
        nasc wrote there before, where nothing refers to them any more.

        Raises:
            UsageError: the place cannot be written to.
        """
        from .onnx.places import written_beside

        path = Path(path)
        before = written_beside(path)
        if self.location:
            write_atomically(path.with_name(self.location), self._write_data)
        write_atomically(path, self._write_model)
        if before is not None and before.name != self.location:
            before.unlink(missing_ok=True)
        return path

    def _write_model(self, path: Path) -> None:
        path.write_bytes(self.model)

    def _write_data(self, path: Path) -> None:
        with path.open("wb") as stream:
            stream.writelines(self._data())

    def _data(self) -> Iterator[memoryview | bytes]:
        at = 0
        for tensor in self.tensors:
            if tensor.offset > at:
                yield bytes(tensor.offset - at)
            yield tensor.array.reshape(-1).view(np.uint8).data
            at = tensor.offset + tensor.array.nbytes
