"""A small network for the jets, 16-16-16-5: wide enough to be read at a glance, for experiments with widths.

    nasc opt examples/mlp16.py --passes 'resize{fc1=32, fc2=64}'

It reads raw features and is trained on first use, as `jets.py` beside it.
"""

import torch
from jets_data import CLASSES, rows, statistics
from torch import Tensor, nn


class Mlp16(nn.Module):
    """16-16-16-5 with batch norm and ReLU; logits [N, 5] from raw features [N, 16]."""

    def __init__(self) -> None:
        super().__init__()
        mean, std = statistics()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.fc1, self.bn1 = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.fc2, self.bn2 = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.fc3 = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        x = torch.relu(self.bn1(self.fc1(x)))
        x = torch.relu(self.bn2(self.fc2(x)))
        return self.fc3(x)


model = Mlp16
classes = CLASSES
checkpoint = "mlp16.safetensors"
training = {"epochs": 20, "batch_size": 512, "learning_rate": 8e-3, "weight_decay": 1e-5, "seed": 0}


def example_inputs() -> Tensor:
    return rows("train")[0][:8]


def train_data() -> tuple[Tensor, Tensor]:
    return rows("train")


def validation_data() -> tuple[Tensor, Tensor]:
    return rows("validation")


def test_data() -> tuple[Tensor, Tensor]:
    return rows("test")
