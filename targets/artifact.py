"""What a target makes of a network: the bytes that are deployed, and a digest that names them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Artifact:
    """A network as one target runs it.

    Args:
        target: the name of the target it was made for.
        model: the bytes of the model file.
        location: name of the file beside the model that holds its large tensors; empty: there is none.
        tensors: offset and content of each tensor in that file, in order of offsets.
    """

    target: str
    model: bytes = field(repr=False)
    location: str = ""
    tensors: tuple[tuple[int, NDArray[Any]], ...] = field(default=(), repr=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that is deployed: the model's bytes, then the tensors beside it."""
        found = hashlib.sha256(self.model)
        for piece in self._data():
            found.update(piece)
        return found.hexdigest()

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return len(self.model) + sum(map(len, self._data()))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tensors beside the model, then the model, each in one step.

        Raises:
            OSError: the place cannot be written to.
        """
        path = Path(path)
        if self.location:
            write(path.with_name(self.location), self._data())
        write(path, [self.model])
        return path

    def _data(self) -> Iterator[memoryview | bytes]:
        at = 0
        for offset, array in self.tensors:
            if offset > at:
                yield bytes(offset - at)
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            at = offset + array.nbytes


def write(path: Path, pieces: Iterator[memoryview | bytes] | list[bytes]) -> None:
    """Write a file in one step: a reader sees the old content or the new, and a crash leaves no half."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        Path(partial).chmod(0o666 & ~_umask())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
