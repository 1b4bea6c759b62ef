"""From a network to what is deployed: where compiler and targets meet."""

from __future__ import annotations

from collections.abc import Mapping

from ..compiler.foreign import onnx_of
from ..compiler.network import Network
from ..ir.axes import size
from ..targets import Artifact, Target

LARGE_BYTES = 32 * 2**20
"""From how many bytes of tensors on they lie in a file of their own beside a model: inside it they are copied several
times at emission and at every load (`docs/onnxruntime.md`)."""


def passes_for(target: str, *, calibrate: str = "calibrate", only_faster: bool = False) -> str:
    """The passes, as text, that bring a network with quantized layers into the form that a target runs: with them ends
    every candidate of a search, and `nasc export` adds what a pipeline lacks of them.

    Args:
        target: the target's name.
        calibrate: the pass that finds steps.
        only_faster: give layers that do not pay in codes their real numbers back.
    """
    runs_on = f"target={target}"
    places = f"{runs_on}, only=faster" if only_faster else runs_on
    return f"place{{{places}}} | {calibrate} | legalize{{{runs_on}}}"


def artifact_of(
    target: Target, network: Network, metadata: Mapping[str, str] | None = None, *, name: str = "model.onnx"
) -> Artifact:
    """A network in a target's form.

    Args:
        target: the target.
        network: the network; all steps known.
        metadata: what the file is to say of itself.
        name: what the file is going to be called; a file of tensors beside it is called `NAME.data`.

    Raises:
        NascError: an op that cannot be written, or a step that is not known.
    """
    location = f"{name}.data" if tensor_bytes(network) >= LARGE_BYTES else ""
    return target.emit(network.graph, network.weights, metadata, location=location, foreign=onnx_of)


def tensor_bytes(network: Network) -> int:
    """The bytes of all stored tensors, in formats of a whole number of bytes."""
    graph, total = network.graph, 0
    for op in graph.stored:
        elements = 1
        for axis in op.type.axes:
            elements *= size(axis, graph.sizes)
        total += elements * -(-op.type.format.bits // 8)
    return total
