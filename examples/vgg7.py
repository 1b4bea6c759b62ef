"""VGG7: six convolutions and two linear layers for images of ten classes, 32 x 32 pixels in colour.

    CIFAR10=~/data/cifar-10-batches-py nasc compile --search tpe examples/vgg7.py

The environment variable CIFAR10 names a folder of CIFAR-10, as python or as binary batches. Without it the digits of
scikit-learn take its place: 1,797 real images of handwritten digits, 8 x 8 pixels in grey, enlarged to 32 x 32 and
repeated in three colours; a line on standard error says so. VGG7_WIDTH multiplies all widths: 1 with CIFAR-10 if not
set, which is 0.62 billion multiplications per image and wants a GPU to train; 1/8 with the digits (seconds on a CPU).

The network reads pixels from 0 to 1: standardising them is its first step. On first use it is trained and kept under
`.cache`; a file `vgg7.safetensors` beside this one is taken instead. Of the training images the last tenth is kept for
validation; a fifth of the digits is test data.
"""

import functools
import os
import sys
from pathlib import Path

import cifar10
import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

FOLDER = os.environ.get("CIFAR10")
WIDTH = float(os.environ.get("VGG7_WIDTH") or (1 if FOLDER else 1 / 8))

if not FOLDER:
    print(
        "vgg7.py: CIFAR10 names no folder: scikit-learn's handwritten digits, enlarged to 32 x 32, take its place"
        f" (width x {WIDTH:g})",
        file=sys.stderr,
    )


def digits() -> tuple[numpy.ndarray, numpy.ndarray]:
    """Images uint8 [1797, 8, 8] from 0 to 16, and classes."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "without a CIFAR-10 folder this example takes scikit-learn's digits, and scikit-learn is not installed:"
            " pip install scikit-learn, or set CIFAR10 to the folder",
            name="sklearn",
        ) from error
    held = load_digits()
    return held.images.astype(numpy.uint8), held.target.astype(numpy.int64)


@functools.cache
def images(split: str) -> tuple[Tensor, Tensor]:
    """Images float32 [rows, 3, 32, 32] from 0 to 1 and classes int64 [rows]: `train` (with validation) or `test`."""
    if FOLDER:
        pixels, labels = cifar10.read(Path(FOLDER).expanduser(), split)
        return torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels)
    grey, labels = digits()
    order = numpy.random.default_rng(0).permutation(len(labels))
    chosen = order[: len(order) // 5] if split == "test" else order[len(order) // 5 :]
    x = torch.from_numpy(grey[chosen]).float()[:, None] / 16
    x = functional.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
    return x.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels[chosen])


def rows(split: str) -> tuple[Tensor, Tensor]:
    """Images and classes to train on, to choose by (`validation`) or to judge by (`test`)."""
    x, y = images("test" if split == "test" else "train")
    if split == "test":
        return x, y
    held_out = len(x) // 10
    return (x[-held_out:], y[-held_out:]) if split == "validation" else (x[:-held_out], y[:-held_out])


class Vgg7(nn.Module):
    """128-128-M-256-256-M-512-512-M-1024-10 times WIDTH, batch norms, ReLU; logits [N, 10] from [N, 3, 32, 32]."""

    def __init__(self) -> None:
        super().__init__()
        x, _ = rows("train")
        self.register_buffer("mean", x.mean((0, 2, 3)).reshape(3, 1, 1))
        self.register_buffer("std", x.std((0, 2, 3)).reshape(3, 1, 1))
        a, b, c, d = (max(1, round(size * WIDTH)) for size in (128, 256, 512, 1024))
        self.conv1, self.bn1 = nn.Conv2d(3, a, 3, padding=1, bias=False), nn.BatchNorm2d(a)
        self.conv2, self.bn2 = nn.Conv2d(a, a, 3, padding=1, bias=False), nn.BatchNorm2d(a)
        self.conv3, self.bn3 = nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        self.conv4, self.bn4 = nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        self.conv5, self.bn5 = nn.Conv2d(b, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.conv6, self.bn6 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.fc1, self.bn7 = nn.Linear(c * 4 * 4, d, bias=False), nn.BatchNorm1d(d)
        self.fc2 = nn.Linear(d, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        x = torch.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
        x = torch.relu(self.bn3(self.conv3(x)))
        x = functional.max_pool2d(torch.relu(self.bn4(self.conv4(x))), 2)
        x = torch.relu(self.bn5(self.conv5(x)))
        x = functional.max_pool2d(torch.relu(self.bn6(self.conv6(x))), 2)
        x = torch.relu(self.bn7(self.fc1(x.flatten(1))))
        return self.fc2(x)


model = Vgg7
classes = cifar10.CLASSES if FOLDER else [str(digit) for digit in range(10)]
checkpoint = "vgg7.safetensors"
training = {"epochs": 30, "batch_size": 128, "learning_rate": 2e-3, "weight_decay": 5e-2, "optimizer": "adamw"}
if not FOLDER:
    training |= {"epochs": 4, "batch_size": 64}


def example_inputs() -> Tensor:
    return rows("train")[0][:4]


def train_data() -> tuple[Tensor, Tensor]:
    return rows("train")


def validation_data() -> tuple[Tensor, Tensor]:
    return rows("validation")


def test_data() -> tuple[Tensor, Tensor]:
    return rows("test")
