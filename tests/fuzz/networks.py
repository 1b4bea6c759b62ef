"""Random networks of what real ones are made of, as data that Hypothesis can draw, shrink and print.

An image network is a list of stages over a map of `channels x side x side`; a sequence network over `length x size`.
Each stage is a name with numbers; what does not fit where it stands is skipped, so every drawn list is a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

SIDE, LENGTH, WORDS = 6, 5, 11


@dataclass(frozen=True)
class Spec:
    """A network.

    Args:
        start: `image`, `sequence` or `words`.
        stages: what it is made of, each a name and three small numbers.
        head: how it ends: `flatten`, `mean` or `first`.
    """

    start: str
    stages: tuple[tuple[str, int, int, int], ...]
    head: str


class Stage(nn.Module):
    """A part of a network that says how many channels it leaves."""

    out: int


def groups_of(channels: int, wanted: int) -> int:
    """The divisor of `channels` nearest to `wanted`."""
    return min((d for d in range(1, channels + 1) if channels % d == 0), key=lambda d: abs(d - wanted))


class Conv(Stage):
    """A convolution, grouped where the numbers fit."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        groups = groups_of(channels, b)
        self.out = groups * (1 + a)
        kernel = 3 if c % 2 else 1
        self.conv = nn.Conv2d(channels, self.out, kernel, padding=kernel // 2, groups=groups, bias=c > 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Depthwise(Stage):
    """A depthwise convolution and a pointwise one."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = 2 + a
        self.depth = nn.Conv2d(channels, channels * (1 + b % 2), 3, padding=1, groups=channels)
        self.point = nn.Conv2d(channels * (1 + b % 2), self.out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(F.silu(self.depth(x)))


class Norm(Stage):
    """A norm over channels, of one of four kinds."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = channels
        kinds: list[Callable[[], nn.Module]] = [
            lambda: nn.BatchNorm2d(channels),
            lambda: nn.GroupNorm(groups_of(channels, 1 + b), channels),
            lambda: nn.InstanceNorm2d(channels, affine=True),
            lambda: nn.LayerNorm(channels),
        ]
        self.norm = kinds[a % 4]()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.LayerNorm):
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.norm(x)


class Activation(Stage):
    """An activation."""

    KINDS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.ELU, nn.ReLU6, nn.LeakyReLU)

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = channels
        self.act = self.KINDS[(a + b) % len(self.KINDS)]() if c else nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class Residual(Stage):
    """Two convolutions beside an identity or a projection."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = channels if b % 3 else channels + 2
        self.inner, self.outer = nn.Conv2d(channels, 2 + a, 3, padding=1), nn.Conv2d(2 + a, self.out, 1)
        self.skip = nn.Identity() if self.out == channels else nn.Conv2d(channels, self.out, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(self.out, 1, 1)) if c % 2 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.outer(torch.relu(self.inner(x)))
        return self.skip(x) + (y if self.scale is None else y * self.scale)


class Gate(Stage):
    """Squeeze and excitation."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = channels
        self.down, self.up = nn.Conv2d(channels, 1 + a, 1), nn.Conv2d(1 + a, channels, 1)
        self.pool = nn.AdaptiveAvgPool2d(1) if b % 2 else None

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True) if self.pool is None else self.pool(x)
        return x * torch.sigmoid(self.up(F.relu(self.down(pooled))))


class Concat(Stage):
    """Branches side by side, with the input among them."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(channels, 1 + a, 1), nn.Conv2d(channels, 2 + b, 3, padding=1)
        self.keep = bool(c % 2)
        self.out = 3 + a + b + channels * self.keep

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), *([x] if self.keep else []), self.right(x)], 1)


class Split(Stage):
    """The channels in two parts, of which one goes on through a convolution."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.at = 1 + a % (channels - 1) if channels > 1 else 0
        self.conv = nn.Conv2d(channels - self.at, 2 + b, 1)
        self.out = self.at + 2 + b

    def forward(self, x: Tensor) -> Tensor:
        if not self.at:
            return self.conv(x)
        left, right = x.split([self.at, x.shape[1] - self.at], 1)
        return torch.cat([left, self.conv(right)], 1)


class Chunk(Stage):
    """A gated pair: one half of what a convolution makes lets the other through."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = 1 + a
        self.conv = nn.Conv2d(channels, 2 * self.out, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, 1)
        return value * gate.sigmoid()


class Shuffle(Stage):
    """Channels shuffled between groups."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = channels
        self.groups = groups_of(channels, 2 + a)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        return (
            x.view(-1, self.groups, channels // self.groups, height, width)
            .transpose(1, 2)
            .reshape(-1, channels, height, width)
        )


class Pool(Stage):
    """Pooling that keeps the map's size, or padding and cutting back."""

    def __init__(self, channels: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = channels
        kinds: list[Callable[[Tensor], Tensor]] = [
            lambda x: F.max_pool2d(x, 3, 1, 1),
            lambda x: F.avg_pool2d(x, 3, 1, 1),
            lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
            lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0),
        ]
        self.act = kinds[a % 4]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class Linear(Stage):
    """A linear layer with an activation."""

    def __init__(self, size: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = 2 + a + 2 * (b % 3)
        self.fc = nn.Linear(size, self.out, bias=bool(c % 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.fc(x))


class Attention(Stage):
    """Self-attention with packed or separate projections, fused or written out, before a residual."""

    def __init__(self, size: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = size
        self.heads, self.each = 1 + b % 3, 2 + a % 3
        self.norm = nn.LayerNorm(size)
        inner = self.heads * self.each
        self.qkv = nn.Linear(size, 3 * inner) if c % 2 else None
        self.apart = None if c % 2 else nn.ModuleList(nn.Linear(size, inner) for _ in range(3))
        self.fused = c % 4 < 2
        self.proj = nn.Linear(inner, size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        rows, length, _ = y.shape
        if self.qkv is not None:
            q, k, v = self.qkv(y).reshape(rows, length, 3, self.heads, self.each).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            assert self.apart is not None
            q, k, v = (p(y).view(rows, length, self.heads, self.each).transpose(1, 2) for p in self.apart)
        if self.fused:
            found = F.scaled_dot_product_attention(q, k, v)
        else:
            found = (q @ k.transpose(-2, -1) * self.each**-0.5).softmax(-1) @ v
        return x + self.proj(found.transpose(1, 2).reshape(rows, length, self.heads * self.each))


class Mlp(Stage):
    """The other half of a transformer's block, plain or gated, with a layer scale."""

    def __init__(self, size: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = size
        self.norm, self.gated = nn.LayerNorm(size), bool(b % 2)
        self.fc1, self.fc2 = nn.Linear(size, (3 + a) * (1 + self.gated)), nn.Linear(3 + a, size)
        self.scale = nn.Parameter(torch.ones(size)) if c % 2 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc1(self.norm(x))
        y = F.glu(y, -1) if self.gated else F.gelu(y)
        y = self.fc2(y)
        return x + (y if self.scale is None else y * self.scale)


class Mixer(Stage):
    """A convolution along the sequence, depthwise or whole."""

    def __init__(self, size: int, a: int, b: int, c: int) -> None:
        super().__init__()
        self.out = size if c % 2 else 2 + a
        self.conv = nn.Conv1d(size, self.out, 3, padding=1, groups=size if c % 2 else 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x.transpose(1, 2))).transpose(1, 2)


IMAGE: dict[str, type[Stage]] = {
    "conv": Conv, "depthwise": Depthwise, "norm": Norm, "activation": Activation, "residual": Residual, "gate": Gate,
    "concat": Concat, "split": Split, "chunk": Chunk, "shuffle": Shuffle, "pool": Pool,
}  # fmt: skip
SEQUENCE: dict[str, type[Stage]] = {"linear": Linear, "attention": Attention, "mlp": Mlp, "mixer": Mixer}


class Drawn(nn.Module):
    """The network of a spec."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        size = 4
        self.words = nn.Embedding(WORDS, size) if spec.start == "words" else None
        self.position = nn.Parameter(torch.randn(1, LENGTH, size)) if spec.start == "words" else None
        self.stem: nn.Module = nn.Identity()
        if spec.start == "image":
            self.stem = nn.Conv2d(3, size, 3, padding=1)
        elif spec.start == "sequence":
            self.stem = nn.Linear(3, size)
        kinds = IMAGE if spec.start == "image" else SEQUENCE
        stages: list[nn.Module] = []
        for name, a, b, c in spec.stages:
            if name in kinds:
                stages.append(stage := kinds[name](size, a, b, c))
                size = stage.out
        self.stages = nn.Sequential(*stages)
        places = SIDE * SIDE if spec.start == "image" else LENGTH
        self.head = nn.Linear(size * places if spec.head == "flatten" else size, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.words is not None:
            x = self.words(x) + self.position
        x = self.stages(self.stem(x))
        if self.spec.head == "flatten":
            return self.head(x.flatten(1))
        if self.spec.start == "image":
            return self.head(x.mean((2, 3)) if self.spec.head == "mean" else x.amax((2, 3)))
        return self.head(x.mean(1) if self.spec.head == "mean" else x[:, 0])

    def inputs(self, seed: int = 0) -> tuple[Tensor]:
        """Random inputs in float64, or words."""
        random = torch.Generator().manual_seed(seed)
        if self.spec.start == "words":
            return (torch.randint(WORDS, (3, LENGTH), generator=random),)
        shape = (3, 3, SIDE, SIDE) if self.spec.start == "image" else (3, LENGTH, 3)
        return (torch.randn(shape, generator=random, dtype=torch.float64),)


def specs(start: str) -> st.SearchStrategy[Spec]:
    """Networks that start alike."""
    kinds = IMAGE if start == "image" else SEQUENCE
    stage = st.tuples(st.sampled_from(sorted(kinds)), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3))
    return st.builds(
        Spec,
        st.just(start),
        st.lists(stage, min_size=1, max_size=6).map(tuple),
        st.sampled_from(["flatten", "mean", "first"]),
    )
