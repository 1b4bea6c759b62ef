"""Networks on disk: `model.nasc` is the graph's text, `model.safetensors` beside it holds the tensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..ir import Graph, NascError, Op, UsageError, graph_digest, parse, verify
from ..ir.files import write_atomically, write_text
from ..ir.formats import BINARY
from .elements import container, elements_of, spread
from .network import Network
from .weights import Recipe, Rounded, Source, Store, check_shape

TEXT = ".nasc"
"""Suffix of the file that holds the graph."""
TENSORS = ".safetensors"
"""Suffix of the file that holds the tensors."""
STEPS = ".steps"
"""Suffix of the entry that holds a tensor's steps."""
ZEROS = ".zeros"
"""Suffix of the entry that holds the zeros beside the steps."""
DIGEST = "nasc"
"""Entry of the metadata of the tensors' file: the digest of the graph that they belong to."""
REAL = ".real"
"""Suffix of the entry that holds the real numbers of a value whose step is not known yet."""


def check_places(paths: Iterable[str | Path], checkpoint: Path | None = None, owner: str = "") -> None:
    """Refuse places for networks, before anything is computed for them.

    Args:
        paths: where networks would be written.
        checkpoint: the weights of the model that they come from: tensors there would be taken for trained ones.
        owner: the model, for the message.

    Raises:
        UsageError: a path does not end in `.nasc`, or the tensors beside it would take the checkpoint's place, or
            that of a file which no network wrote.
    """
    paths = list(paths)
    check_names(paths)
    for path in paths:
        _check_place(Path(path), checkpoint, owner)


def check_names(paths: Iterable[str | Path]) -> None:
    """Refuse names that are no network's, before it is known what model it comes from.

    Raises:
        UsageError: a path does not end in `.nasc`, or is a folder.
    """
    for path in map(Path, paths):
        if path.is_dir():
            raise UsageError(f"{path}: error: is a folder", mend=f"Name the file in it: {path / ('NAME' + TEXT)}.")
        if path.suffix != TEXT:
            raise UsageError(f"{path}: error: a network's file is called NAME{TEXT}", mend=f"Write {path.stem}{TEXT}.")


def _check_place(path: Path, checkpoint: Path | None, owner: str) -> None:
    beside = path.with_suffix(TENSORS)
    mend = "Choose another name for the output (-o)."
    if checkpoint is not None and beside.resolve() == checkpoint.resolve():
        found = f"{beside}, the checkpoint of {owner} ({checkpoint})"
        raise UsageError(f"{path}: error: its tensors would be written to {found}", mend=mend)
    if beside.exists() and not path.exists() and not _written_here(beside):
        raise UsageError(f"{path}: error: its tensors would replace {beside}, which is no network's", mend=mend)


def _written_here(path: Path) -> bool:
    """Whether `save` wrote a file of tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return DIGEST in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def save(network: Network, path: Path) -> None:
    """Write a network as `path` and its tensors beside it, each atomically.

    Raises:
        UsageError: the folder cannot be written to, or `check_places` refuses the path.
    """
    check_places([path])
    tensors: dict[str, Tensor] = {}
    for op in network.graph.stored:
        recipe = network.weights.recipe(op.name)
        real = op.type.quantized and not isinstance(recipe, Rounded)
        tensors[op.name + REAL if real else op.name] = recipe.tensor
        if isinstance(recipe, Rounded) and recipe.axis is not None:
            tensors[op.name + STEPS] = recipe.steps
            if recipe.zeros is not None:
                tensors[op.name + ZEROS] = recipe.zeros.to(container(op.type.format))
    held: set[int] = set()
    for name, tensor in tensors.items():  # safetensors takes no two names for one storage
        apart = tensor.detach().cpu().contiguous()
        tensors[name] = apart.clone() if apart.untyped_storage().data_ptr() in held else apart
        held.add(tensors[name].untyped_storage().data_ptr())
    digest = {DIGEST: graph_digest(network.graph)}
    write_atomically(path.with_suffix(TENSORS), lambda p: save_file(tensors, p, metadata=digest))
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
    beside = path.with_suffix(TENSORS)
    if not beside.exists():
        raise UsageError(
            f"{beside}: error: there is no such file", mend="The weights must lie beside the graph's text."
        )
    try:
        with safe_open(beside, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise NascError(f"{beside}: error: is not a readable safetensors file: {error}") from error
    return Network(graph, Store({op.name: recipe_of(op, tensors, graph, beside) for op in graph.stored}))


def recipe_of(op: Op, tensors: dict[str, Tensor], graph: Graph, path: Path) -> Recipe:
    step, format = op.type.step, op.type.format
    unknown = step is not None and not step.known
    name = op.name + REAL if unknown else op.name
    if name not in tensors:
        raise NascError(f"{path}: error: it has no tensor {name!r}, which the graph needs")
    tensor = tensors[name]
    check_shape(op.name, tensor, op.type.axes, graph.sizes)
    right = tensor.is_floating_point() if unknown else tensor.dtype == container(format)
    if not right:
        raise NascError(f"{path}: error: %{op.name} holds {tensor.dtype}, the graph says {op.type.encoding}")
    if step is None or unknown:
        return Source(tensor)
    _check_codes(op, tensor, path)
    steps = torch.tensor(step.value, dtype=torch.float32) if step.axis is None else _steps(op, tensors, path)
    zeros = _zeros(op, tensors, steps, path) if step.zero != 0 else None
    real = elements_of(tensor, format)
    if zeros is not None:
        real -= spread(zeros, step.axis, step.block, real.shape)
    real = real * spread(steps, step.axis, step.block, real.shape)
    return Rounded(Source(real), format, steps, step.axis, step.block, zeros)


def _check_codes(op: Op, tensor: Tensor, path: Path) -> None:
    """Refuse a tensor with numbers that are no codes of its format."""
    format = op.type.format
    if format.is_float:
        if not bool(torch.isfinite(tensor.float()).all()):
            raise NascError(f"{path}: error: %{op.name} holds codes that are no numbers, the graph says {format}")
        return
    wide = tensor.to(torch.int64)
    low, high = (int(wide.min()), int(wide.max())) if tensor.numel() else (0, 0)
    if low < format.low or high > format.high or (format == BINARY and bool((wide == 0).any())):
        raise NascError(f"{path}: error: %{op.name} holds codes from {low} to {high}, the graph says {format}")


def _steps(op: Op, tensors: dict[str, Tensor], path: Path) -> Tensor:
    """The steps beside a tensor's codes."""
    assert op.type.step is not None and op.type.step.axis is not None
    name = op.name + STEPS
    if name not in tensors:
        raise NascError(f"{path}: error: it has no tensor {name!r}, which the graph needs")
    steps, shape = tensors[name], list(tensors[op.name].shape)
    count, block = shape[op.type.step.axis], op.type.step.block
    if block is not None:
        shape[op.type.step.axis] = -(-count // block)
    expected = [count] if block is None else shape
    if list(steps.shape) != expected or steps.dtype != torch.float32:
        wanted = " x ".join(map(str, expected))
        raise NascError(f"{path}: error: {name!r} must hold {wanted} binary32 numbers, found {list(steps.shape)}")
    if not bool((steps > 0).all() & torch.isfinite(steps).all()):
        raise NascError(f"{path}: error: {name!r} must hold positive numbers")
    return steps


def _zeros(op: Op, tensors: dict[str, Tensor], steps: Tensor, path: Path) -> Tensor:
    """The zeros of a tensor's codes: that of the type, or those beside the codes."""
    format, step = op.type.format, op.type.step
    assert step is not None
    if step.zero is not None:
        return torch.tensor(step.zero, dtype=torch.int32)
    name = op.name + ZEROS
    if name not in tensors:
        raise NascError(f"{path}: error: it has no tensor {name!r}, which the graph needs")
    zeros = tensors[name]
    if zeros.shape != steps.shape or zeros.dtype != container(format):
        wanted = " x ".join(map(str, steps.shape))
        found = f"{list(zeros.shape)} of {zeros.dtype}"
        raise NascError(f"{path}: error: {name!r} must hold {wanted} codes of {format}, found {found}")
    wide = zeros.to(torch.int32)
    if not bool(((wide >= format.low) & (wide <= format.high)).all()):
        raise NascError(
            f"{path}: error: {name!r} holds codes from {wide.min()} to {wide.max()}, the graph says {format}"
        )
    return wide
