"""A real small network: scikit-learn's handwritten digits, and a trained separable network."""

from __future__ import annotations

from functools import cache

import nasc
import torch
from nasc.compiler.network import Network
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Digits(nn.Module):
    """Convolution, depthwise and pointwise convolution, pool, linear; logits [N, 10] from images [N, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.deep, self.n2 = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.point, self.n3 = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.n1(self.stem(x)))
        x = torch.relu(self.n2(self.deep(x)))
        x = self.pool(torch.relu(self.n3(self.point(x))))
        return self.head(x.flatten(1))


@cache
def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train on (1,200), and to see the quality on (597)."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


@cache
def trained() -> Network:
    """The network, trained for seconds, lowered."""
    torch.manual_seed(0)
    model, (x, y, _, _) = Digits(), rows()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(4):
        for index in torch.randperm(len(x)).split(100):
            loss = nn.functional.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return nasc.lower(model.eval(), x[:8])


def accuracy(network: Network) -> float:
    """The share of the unseen images that are told right."""
    _, _, x, y = rows()
    return float((network(x).argmax(1) == y).float().mean())


def noise(network: Network, reference: Network) -> float:
    """Power of the difference of outputs over that of the reference's, on the unseen images."""
    x = rows()[2]
    return float((network(x) - reference(x)).square().sum() / reference(x).square().sum())
