"""Jets: tell five kinds of particle jets apart by sixteen features; a small network, to be made smaller.

    nasc compile --search tpe examples/jets.py

The network takes raw features: standardising them is its first step, so the exported file serves as it is. On first
use it is trained (seconds) and kept under `.cache`; a file `jets.safetensors` beside this one is taken instead.
The data are described in `data/README.md`.
"""

import torch
from jets_data import CLASSES, rows, statistics
from torch import Tensor, nn


class Jets(nn.Module):
    """16-64-32-32-5 with batch norm and ReLU; logits [N, 5] from raw features [N, 16]."""

    def __init__(self) -> None:
        super().__init__()
        mean, std = statistics()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.fc1, self.bn1 = nn.Linear(16, 64), nn.BatchNorm1d(64)
        self.fc2, self.bn2 = nn.Linear(64, 32), nn.BatchNorm1d(32)
        self.fc3, self.bn3 = nn.Linear(32, 32), nn.BatchNorm1d(32)
        self.fc4 = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        x = torch.relu(self.bn1(self.fc1(x)))
        x = torch.relu(self.bn2(self.fc2(x)))
        x = torch.relu(self.bn3(self.fc3(x)))
        return self.fc4(x)


model = Jets
classes = CLASSES
checkpoint = "jets.safetensors"
training = {"epochs": 30, "batch_size": 512, "learning_rate": 4e-3, "weight_decay": 1e-5, "seed": 0}


def example_inputs() -> Tensor:
    return rows("train")[0][:8]


def train_data() -> tuple[Tensor, Tensor]:
    return rows("train")


def validation_data() -> tuple[Tensor, Tensor]:
    return rows("validation")


def test_data() -> tuple[Tensor, Tensor]:
    return rows("test")
