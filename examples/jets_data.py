"""The jets of `data/jets.npz`: raw features and classes, split into rows to train on, to choose by, and to judge by."""

from pathlib import Path

import numpy
import torch
from torch import Tensor

FILE = Path(__file__).parent / "data" / "jets.npz"
CLASSES = ["gluon", "light quark", "W boson", "Z boson", "top quark"]


def rows(split: str) -> tuple[Tensor, Tensor]:
    """Features float32 [rows, 16] and classes int64 [rows] of `train`, `validation` or `test`.

    Validation data are the last tenth of the file's training rows; nothing is trained on them.
    """
    with numpy.load(FILE) as held:
        x, y = (held[f"{name}_{'test' if split == 'test' else 'train'}"] for name in "xy")
    if split != "test":
        held_out = len(x) // 10
        part = slice(len(x) - held_out, None) if split == "validation" else slice(0, len(x) - held_out)
        x, y = x[part], y[part]
    return torch.from_numpy(x.copy()), torch.from_numpy(y.astype(numpy.int64))


def statistics() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [16] of the features over the training rows."""
    x, _ = rows("train")
    return x.mean(0), x.std(0)
