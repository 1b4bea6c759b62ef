"""The zoo: networks nobody here wrote, made by configuration with random weights, at small inputs where they allow it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ZooModel:
    """One network of the zoo.

    Args:
        name: `torchvision/resnet18`: where it comes from, and what it is called there.
        shape: the shape of the image (or other float input) it is given, without the batch; or the length of a text.
        options: what its maker is given beside the name.
        config: for transformers, the entries of its configuration.
        why: what it is in the zoo for.
    """

    name: str
    shape: tuple[int, ...] = (3, 64, 64)
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    why: str = ""

    @property
    def source(self) -> str:
        """`torchvision`, `timm` or `transformers`."""
        return self.name.partition("/")[0]

    @property
    def model_name(self) -> str:
        """The name within its source."""
        return self.name.partition("/")[2]

    def make(self, seed: int = 0) -> nn.Module:
        """The network with random weights, in evaluation mode."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return MAKERS[self.source](self).eval()

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs: floats for images and sounds, small integers for texts."""
        random = torch.Generator().manual_seed(seed)
        if len(self.shape) == 1 and not self.options.get("sound"):
            return (torch.randint(5, 90, (batch, *self.shape), generator=random),)
        return (torch.randn(batch, *self.shape, generator=random),)


def _torchvision(model: ZooModel) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(model.model_name, weights=None, **model.options)


def _timm(model: ZooModel) -> nn.Module:
    import timm

    return timm.create_model(model.model_name, pretrained=False, **model.options)


class Tensors(nn.Module):
    """A transformers model that takes one positional tensor and gives a tuple of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """The model's outputs as plain tensors."""
        outputs = self.model(x, return_dict=False) if self.takes_return_dict() else self.model(x)
        return outputs if isinstance(outputs, Tensor) else tuple(v for v in outputs if isinstance(v, Tensor))

    def takes_return_dict(self) -> bool:
        """Whether the model asks how to give its outputs."""
        import inspect

        names = inspect.signature(type(self.model).forward).parameters
        return "return_dict" in names or "kwargs" in names


def _transformers(model: ZooModel) -> nn.Module:
    transformers = importlib.import_module("transformers")
    cls = getattr(transformers, model.model_name.partition(":")[0])
    config = cls.config_class(**model.config)
    made = cls(config)
    return Tensors(made)


MAKERS: dict[str, Callable[[ZooModel], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
}
