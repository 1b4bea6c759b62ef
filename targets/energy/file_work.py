"""The work of a model file for an estimate: its kernels, those of its local functions and of the bodies it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact import Artifact
from ..base import Array, Target, TargetError
from ..model_file import is_ort_format
from ..profile import kernels_of
from ..provenance import size_bytes
from .estimate import EnergyPrices, Work, work_of_kernels

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Counted:
    """The work of a model.

    Args:
        work: its pieces.
        uncounted: the parts that are not among them, each with the reason.
    """

    work: tuple[Work, ...] = ()
    uncounted: tuple[str, ...] = ()

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.work + other.work, self.uncounted + other.uncounted)

    def repeated(self, times: int) -> Counted:
        """The work so many times."""
        return Counted(tuple(replace(w, times=w.times * times) for w in self.work), self.uncounted)


@dataclass(frozen=True)
class Counter:
    """Counts the work of models on a target; each piece runs a few times, so that its kernels and shapes are real.

    Args:
        target: where they run.
        threads: threads of the runtime.
        prices: by which of an If's branches the dearer one is told.
    """

    target: Target
    threads: int
    prices: EnergyPrices

    def count(self, model: Artifact | Path, inputs: Sequence[Array]) -> Counted:
        """The work of one call.

        Local functions are counted as what they stand for, Loop and Scan as so many of their bodies, If as the branch
        that costs more. What cannot be counted is named.

        Args:
            model: the model.
            inputs: what it is called with.

        Raises:
            TargetError: the runtime refuses the model.
        """
        import onnx
        from onnx import inliner

        from ..onnx.bodies import control_nodes
        from ..onnx.writer import LARGEST_FILE

        if isinstance(model, Artifact) or is_ort_format(model):
            return self._kernels(model, inputs)
        proto = onnx.load(str(model), load_external_data=False)
        unnamed = any(not node.name for node in proto.graph.node) and size_bytes(model) < LARGEST_FILE
        if not proto.functions and not any(control_nodes(proto.graph)) and not unnamed:
            return self._kernels(model, inputs)
        if size_bytes(model) >= LARGEST_FILE:
            return self._kernels(model, inputs) + Counted(uncounted=("local functions and bodies: over 2 GiB",))
        onnx.load_external_data_for_model(proto, str(model.parent))
        proto = inliner.inline_local_functions(proto)
        return self._count(proto, dict(zip((i.name for i in self._signed(proto)), inputs, strict=True)))

    def _signed(self, proto: onnx.ModelProto) -> Sequence[onnx.ValueInfoProto]:
        stored = {t.name for t in proto.graph.initializer}
        return [i for i in proto.graph.input if i.name not in stored]

    def _kernels(self, model: Artifact | Path | bytes, inputs: Sequence[Array]) -> Counted:
        traced = self.target.trace(model, inputs, threads=self.threads, budget_s=0.0)
        return Counted(work_of_kernels(kernels_of(traced)))

    def _count(self, proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> Counted:
        """The work of a model whose inputs have these values."""
        from ..onnx.bodies import constants, control_nodes, is_control, name_nodes, piece, read_by

        graph = proto.graph
        control = list(control_nodes(graph))
        name_nodes(graph)
        if not control:
            return self._kernels(proto.SerializeToString(), list(inputs.values()))
        values = {**inputs, **self._values(proto, control, list(inputs.values()))}
        wanted = [o.name for o in graph.output] + [name for node in control for name in read_by(node)]
        rest = [node for node in graph.node if not is_control(node)]
        plain = piece(proto, rest, graph.initializer, values, wanted)
        found = Counted() if plain is None else self._kernels(plain[0].SerializeToString(), plain[1])
        known = constants(graph)
        for node in control:
            try:
                found += self._body(proto, node, known, values)
            except (TargetError, KeyError) as error:
                reason = f"it does not run by itself ({str(error).partition(chr(10))[0]})"
                found += Counted(uncounted=(_told(node, reason),))
        return found

    def _values(
        self, proto: onnx.ModelProto, control: Sequence[onnx.NodeProto], inputs: Sequence[Array]
    ) -> dict[str, Array]:
        """What stands around the nodes with bodies, from one run of the model."""
        from onnx import numpy_helper

        from ..onnx.bodies import read_by, with_outputs

        around = dict.fromkeys(name for node in control for name in (*read_by(node), *node.output) if name)
        made = {name for node in proto.graph.node for name in node.output}
        asked = [name for name in around if name in made]
        stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in around}
        session = self.target.load(with_outputs(proto, asked).SerializeToString(), threads=self.threads)
        return stored | dict(zip(asked, session.run(inputs), strict=True))

    def _body(
        self, proto: onnx.ModelProto, node: onnx.NodeProto, known: Mapping[str, Array], values: Mapping[str, Array]
    ) -> Counted:
        from ..onnx.bodies import bodies, rounds

        if node.op_type == "If":
            branches = [self._graph(proto, body, {}, values) for body in bodies(node)]
            return max(branches, key=lambda branch: sum(self.prices.interval(branch.work)))
        found = rounds(node, known, values)
        if isinstance(found, str):
            return Counted(uncounted=(_told(node, found),))
        times, start = found
        (body,) = bodies(node)
        carried = zip([*start.values()][2:], node.output, strict=False) if node.op_type == "Loop" else ()
        if any(outer and inner.shape != values[outer].shape for inner, outer in carried):
            return Counted(uncounted=(_told(node, "its values change their shape from round to round"),))
        return self._graph(proto, body, start, values).repeated(times) if times else Counted()

    def _graph(
        self, proto: onnx.ModelProto, body: onnx.GraphProto, start: Mapping[str, Array], values: Mapping[str, Array]
    ) -> Counted:
        """The work of a body, once."""
        from ..onnx.bodies import piece

        stored = (*body.initializer, *proto.graph.initializer)
        made = piece(proto, list(body.node), stored, {**values, **start}, [o.name for o in body.output])
        if made is None:
            return Counted()
        model, inputs = made
        return self._count(model, dict(zip((i.name for i in model.graph.input), inputs, strict=True)))


def _told(node: onnx.NodeProto, reason: str) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}: {reason}"
