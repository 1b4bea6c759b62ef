"""Read CIFAR-10 from a folder, as python batches (without running what is pickled in them) or as binary ones."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN, TEST = [f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]
PIXELS = 3 * 32 * 32


def read(folder: Path, split: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Images uint8 [rows, 3, 32, 32] and classes int64 [rows] of `train` or `test`, in the order of the files.

    Args:
        folder: holds `data_batch_1` … `test_batch`, or the same with `.bin`; or holds `cifar-10-batches-py` or `-bin`.
        split: which.

    Raises:
        FileNotFoundError: a batch is missing.
        ValueError: a file is no batch of CIFAR-10.
        pickle.UnpicklingError: a file would run code when loaded.
    """
    home, read_one, ending = _layout(folder)
    batches = [read_one(home / f"{name}{ending}") for name in (TEST if split == "test" else TRAIN)]
    images, labels = (numpy.concatenate(column) for column in zip(*batches, strict=True))
    return images.reshape(-1, 3, 32, 32), labels


def _layout(folder: Path) -> tuple[Path, Callable[[Path], tuple[numpy.ndarray, numpy.ndarray]], str]:
    for home in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        if (home / "data_batch_1").is_file():
            return home, _python_batch, ""
        if (home / "data_batch_1.bin").is_file():
            return home, _binary_batch, ".bin"
    raise FileNotFoundError(f"{folder} holds neither data_batch_1 nor data_batch_1.bin: is it a CIFAR-10 folder?")


def _python_batch(path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    with path.open("rb") as file:
        held = _Numbers(file, encoding="latin1").load()
    if not isinstance(held, Mapping):
        raise ValueError(f"{path}: expected a dict with data and labels, found {type(held).__name__}")
    named = {key.decode() if isinstance(key, bytes) else key: value for key, value in held.items()}
    if not {"data", "labels"} <= set(named):
        raise ValueError(f"{path}: expected data and labels, found {', '.join(map(str, named))}")
    return _checked(path, named["data"], numpy.asarray(named["labels"]))


def _binary_batch(path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    held = numpy.fromfile(path, dtype=numpy.uint8)
    if held.size % (1 + PIXELS):
        raise ValueError(f"{path}: {held.size} bytes are no whole number of records of {1 + PIXELS}")
    records = held.reshape(-1, 1 + PIXELS)
    return _checked(path, records[:, 1:], records[:, 0])


def _checked(path: Path, images: Any, labels: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    is_image = isinstance(images, numpy.ndarray) and images.dtype == numpy.uint8 and images.shape[1:] == (PIXELS,)
    if (
        not is_image
        or labels.shape != images.shape[:1]
        or not len(labels)
        or not 0 <= labels.min() <= labels.max() < 10
    ):
        raise ValueError(f"{path}: is no batch of CIFAR-10: expected uint8 [rows, {PIXELS}] and labels 0…9")
    return images, labels.astype(numpy.int64)


class _Numbers(pickle.Unpickler):
    """An unpickler that makes numpy arrays and plain Python values, and nothing else: `pickle.load` would run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (made := _ALLOWED.get((module, name))) is None:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}: a CIFAR-10 batch holds only numpy arrays")
        return made


def _dtype(code: str, align: int = 0, copy: int = 0) -> numpy.dtype:
    """numpy.dtype as Python 2 pickled it, with numbers for truth values."""
    return numpy.dtype(code, bool(align), bool(copy))


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes in Python 2's protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused to encode as {encoding}")
    return text.encode("latin1")


_array = numpy.zeros(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): numpy.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
}
