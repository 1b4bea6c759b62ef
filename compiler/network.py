"""A network: a graph and the numbers beside it. Immutable; an edit is a new network that shares what did not change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..ir import Graph, graph_digest, infer
from ..ir.infer import Frozen
from .execution import called_with, run, unknown_step
from .weights import Rounded, Store

if TYPE_CHECKING:
    from .losses import Loss
    from .passes.base import Data
    from .pipeline import Pipeline


@dataclass(frozen=True)
class Network:
    """A graph with its weights.

    Args:
        graph: structure, types and widths; `print(network.graph)` shows it as text.
        weights: the tensors of the graph's stored values.
    """

    graph: Graph
    weights: Store

    @property
    def widths(self) -> Mapping[str, int]:
        """The free widths by name, with their sizes: what `resize` takes."""
        return self.graph.sizes

    @cached_property
    def frozen(self) -> tuple[Frozen, ...]:
        """The axes of stored tensors that cannot change, each with the reason and the user's line."""
        return infer(self.graph).frozen

    @cached_property
    def key(self) -> str:
        """A digest of graph and weights: networks with equal keys compute the same."""
        digest = hashlib.sha256(graph_digest(self.graph).encode())
        for op in self.graph.stored:
            digest.update(f"{op.name}={self.weights.recipe(op.name).key}\n".encode())
        return digest.hexdigest()

    @cached_property
    def values(self) -> Mapping[str, Tensor]:
        """The real numbers of all stored values, as the graph's types keep them.

        Raises:
            ExecutionError: a step is not calibrated.
        """
        found: dict[str, Tensor] = {}
        for op in self.graph.stored:
            recipe = self.weights.recipe(op.name)
            if op.type.quantized and not isinstance(recipe, Rounded):
                raise unknown_step(f"%{op.name}")
            found[op.name] = recipe.real if isinstance(recipe, Rounded) else recipe.tensor
        return found

    @cached_property
    def indices(self) -> Mapping[str, Tensor]:
        """The stored tensors of integers and truth values: positions, masks."""
        whole = [op.name for op in self.graph.stored if not op.type.format.is_float and not op.type.quantized]
        return {name: self.weights.recipe(name).tensor for name in whole}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the network with torch, without gradients.

        Args:
            inputs: tensors in the graph's order, or one dict of them by name.
            named: tensors by the names of the inputs.

        Returns:
            The output, or a tuple where there are several.

        Raises:
            InputError: an input is missing, is no tensor, or has another shape.
        """
        with torch.no_grad():
            outputs = run(self.graph, self.values, called_with(inputs, named, self.graph))
        return outputs[0] if len(outputs) == 1 else outputs

    def apply(
        self,
        pipeline: str | Pipeline,
        *,
        data: Data = None,
        train_data: Any = None,
        loss: Loss | None = None,
        seed: int = 0,
        tell: Callable[[str], None] | None = None,
    ) -> Network:
        """Rewrite the network by a pipeline of passes.

        Args:
            pipeline: passes as text, `resize{stem=24} | quantize{layers=*, weights=i4}`, or parsed.
            data: for passes that look at data (`calibrate`): inputs without labels as a tensor, or as a dict by name,
                or a list of batches, each a tensor, a tuple or a dict, or a Dataset; arrays of numpy are taken for
                tensors; by default the inputs of `train_data`.
            train_data: for the pass `train`: a pair of tensors `(x, y)`, or a Dataset of `(x, y)`.
            loss: of a batch, from outputs and labels; by default cross-entropy for class labels, squared error for
                real ones.
            seed: for passes that draw at random.
            tell: called with a sentence where a pass leaves out what one might expect of it.

        Raises:
            UsageError: the text is no pipeline, or names something that is not there.
            PassError: a pass refuses this graph.
        """
        from .passes.base import Context
        from .pipeline import parse_pipeline
        from .supervision import Supervision

        parsed = parse_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
        supervision = Supervision.of(train_data, loss)
        if data is None and supervision is not None:
            data = supervision.inputs
        return parsed.run(self, Context.of(data, seed, tell, supervision, self))

    def module(self, *, learn_steps: bool = True) -> nn.Module:
        """The network as a trainable module; quantizers are simulated with straight-through gradients.

        Args:
            learn_steps: whether the steps are trained too, those that must be powers of two among powers of two.
        """
        from .module import GraphModule

        return GraphModule(self, learn_steps=learn_steps)

    def with_trained(self, module: nn.Module) -> Network:
        """The network with the weights and steps that training has left in `module`, which came from `module()`."""
        from .module import with_trained

        return with_trained(self, module)

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """Itself: nothing in it changes, so a copy of a module that holds it need not copy it."""
        return self

    def save(self, path: str | Path) -> None:
        """Write `path` (text) and `path` with the suffix `.safetensors` (tensors), each atomically.

        Raises:
            UsageError: the place cannot be written to, or holds tensors that no network wrote, such as a checkpoint.
        """
        from .files import save

        save(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Network:
        """Read what `save` wrote.

        Raises:
            NascError: a file is missing or damaged, or the two do not belong together.
        """
        from .files import load

        return load(Path(path))
