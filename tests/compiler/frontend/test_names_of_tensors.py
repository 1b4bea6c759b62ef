"""Names of stored tensors: as the user's module calls them, in the characters that the text holds."""

from __future__ import annotations

import torch
from nasc.compiler.frontend.lower import lower_module
from nasc.ir import parse, text
from torch import nn


def test_names_that_the_text_cannot_hold_are_written_otherwise() -> None:
    """Two layers whose names differ only in such characters stay two."""
    model = nn.Sequential()
    model.add_module("block1-0", nn.Linear(4, 6))
    model.add_module("block1_0", nn.Linear(6, 5))
    network = lower_module(model, (torch.randn(3, 4),))
    stored = {op.name: tuple(network.values[op.name].shape) for op in network.graph.stored}
    assert stored == {
        "block1_0.weight": (6, 4),
        "block1_0.bias": (6,),
        "block1_0.weight_1": (5, 6),
        "block1_0.bias_1": (5,),
    }
    assert parse(text(network.graph)) == network.graph
