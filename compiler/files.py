"""Networks on disk: `model.nasc` is the graph's text, `model.safetensors` beside it holds the tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..ir import Graph, NascError, Op, UsageError, graph_digest, parse, verify
from ..ir.files import write_atomically, write_text
from .network import Network
from .weights import Recipe, Rounded, Source, Store, along, check_shape, container

STEPS = ".steps"
"""Suffix of the entry that holds a tensor's steps."""
REAL = ".real"
"""Suffix of the entry that holds the real numbers of a value whose step is not known yet."""


def save(network: Network, path: Path) -> None:
    """Write a network as `path` and its tensors beside it, each atomically.

    Raises:
        UsageError: the folder cannot be written to.
    """
    tensors: dict[str, Tensor] = {}
    for op in network.graph.stored:
        recipe = network.weights.recipe(op.name)
        tensors[op.name if isinstance(recipe, Rounded) or not op.type.quantized else op.name + REAL] = (
            recipe.tensor.contiguous()
        )
        if isinstance(recipe, Rounded) and recipe.axis is not None:
            tensors[op.name + STEPS] = recipe.steps.contiguous()
    digest = {"nasc": graph_digest(network.graph)}
    write_atomically(path.with_suffix(".safetensors"), lambda p: save_file(tensors, p, metadata=digest))
    write_text(path, str(network.graph))


def load_graph(path: Path) -> Graph:
    """Read and verify a graph's text.

    Raises:
        UsageError: there is no such file.
        NascError: it is not a valid graph; the message names the line.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: error: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NascError(f"{path}: error: cannot be read as text: {error}") from error
    graph = parse(content, str(path))
    verify(graph)
    return graph


def load(path: Path) -> Network:
    """Read a network from `path` and the tensors beside it.

    Raises:
        UsageError: a file is missing.
        NascError: a file is damaged, or the two do not belong together.
    """
    graph = load_graph(path)
    beside = path.with_suffix(".safetensors")
    if not beside.exists():
        raise UsageError(
            f"{beside}: error: there is no such file", mend="The weights must lie beside the graph's text."
        )
    try:
        with safe_open(beside, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise NascError(f"{beside}: error: is not a readable safetensors file: {error}") from error
    return Network(graph, Store({op.name: _recipe(op, tensors, graph, beside) for op in graph.stored}))


def _recipe(op: Op, tensors: dict[str, Tensor], graph: Graph, path: Path) -> Recipe:
    unknown = op.type.step is not None and not op.type.step.known
    name = op.name + REAL if unknown else op.name
    if name not in tensors:
        raise NascError(f"{path}: error: it has no tensor {name!r}, which the graph needs")
    tensor = tensors[name]
    check_shape(op.name, tensor, op.type.axes, graph.sizes)
    if unknown:
        return Source(tensor)
    if tensor.dtype != container(op.type.format):
        raise NascError(f"{path}: error: %{op.name} holds {tensor.dtype}, the graph says {op.type.format}")
    if op.type.step is None:
        return Source(tensor)
    if op.type.step.axis is None:
        steps = torch.tensor(op.type.step.value, dtype=torch.float32)
    elif op.name + STEPS in tensors:
        steps = tensors[op.name + STEPS]
    else:
        raise NascError(f"{path}: error: it has no tensor {op.name + STEPS!r}, which the graph needs")
    real = tensor.to(torch.float64) * along(steps, op.type.step.axis, tensor.dim()).to(torch.float64)
    return Rounded(Source(real), op.type.format, steps, op.type.step.axis)
