"""Call networks on inputs in whatever form a task has them: positional, or by keyword."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .data import Inputs
from .execution import InputError
from .network import Network


def positional(inputs: Inputs, network: Network) -> tuple[Tensor, ...]:
    """Inputs as the graph takes them, in order.

    Raises:
        InputError: an input of the graph is not among them.
    """
    if isinstance(inputs, Tensor):
        return (inputs,)
    if isinstance(inputs, dict):
        missing = [i.name for i in network.graph.inputs if i.name not in inputs]
        if missing:
            raise InputError(f"the inputs lack {missing[0]!r}; found {', '.join(inputs)}")
        return tuple(inputs[i.name] for i in network.graph.inputs)
    return tuple(inputs)


class Positional(nn.Module):
    """A module of a network whose forward also takes keyword inputs, by the graph's names."""

    def __init__(self, module: nn.Module, network: Network) -> None:
        super().__init__()
        self.module = module
        self.network = network

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Run the module."""
        return self.module(*(positional(dict(kwargs), self.network) if kwargs else args))
