"""A deployed file beside the network it was made from: do both compute the same, and do layers run as planned?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..compiler.network import Network
from ..ir import Graph
from ..targets import Agreement, Placement, Plan, Session, Target, agree, check_placement
from ..targets.plan import F8_KERNELS, INTEGER_KERNELS
from .artifacts import tensor_bytes
from .judge import TOLERANCE_DB, session_run
from .layer_values import LayerValues, layer_values
from .layerwise import LayerwiseAgreement, layerwise
from .result import listed

LARGEST_BYTES = 2**31 - 2**24
"""Of tensors inside of one file of ONNX, which ends at 2 GiB."""
SAME_CLASS = 0.995
"""Share of samples whose top class must be the same in the deployed file and in torch's execution."""


@dataclass(frozen=True)
class Check:
    """One piece of evidence: what was looked at, whether it holds (None: it could not be seen), and the figures."""

    name: str
    holds: bool | None
    found: str


@dataclass(frozen=True)
class Comparison:
    """How a file does on a target beside its network's own execution.

    Args:
        graph: the network's.
        samples: how many samples were compared.
        origin: where they come from, `train_data`; empty: it is not said.
        agreement: of the outputs.
        layers: of the integers of quantized activations; of a network without any, of the results of layers.
        plan: what was expected of layers.
        placement: what runs them.
    """

    graph: Graph
    samples: int
    origin: str
    agreement: Agreement
    layers: LayerwiseAgreement | LayerValues
    plan: Plan
    placement: Placement

    @property
    def logits(self) -> float | None:
        """Share of samples with the same top class; None where no output is logits: classes along its second axis."""
        outputs = zip(self.agreement.outputs, self.graph.outputs, strict=True)
        found = [o.top1 for o, name in outputs if self.graph.types[name].rank == 2 and o.top1 is not None]
        return min(found, default=None)

    @property
    def outputs(self) -> Check:
        """Whether outputs agree."""
        found, samples = self.agreement, f"{self.samples:,} sample{'s' if self.samples > 1 else ''}"
        samples += f" of {self.origin}" if self.origin else ""
        close = (
            f"{found.sqnr_db:.1f} dB on {samples}, apart by at most {found.max_difference:.2g} of the largest output"
        )
        told = f"equal on {samples}" if found.max_difference == 0 else close
        return Check("agreement with torch", found.sqnr_db >= TOLERANCE_DB, told)

    @property
    def top_class(self) -> tuple[Check, ...]:
        """Whether the top class is the same for nearly all samples; nothing where no output is logits."""
        if self.logits is None:
            return ()
        least = "" if self.logits >= SAME_CLASS else f", expected at least {SAME_CLASS:.1%}"
        return (Check("same top class as torch", self.logits >= SAME_CLASS, f"{self.logits:.2%}{least}"),)

    @property
    def inside(self) -> Check:
        """Whether layers agree; the first that does not is named."""
        name = "same integers as torch" if isinstance(self.layers, LayerwiseAgreement) else "layers as in torch"
        return Check(name, self.layers.holds, str(self.layers))

    @property
    def kernels(self) -> Check:
        """Whether the planned kernels run."""
        return kernels(self.graph, self.plan, self.placement)

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of it as evidence."""
        return self.outputs, *self.top_class, self.inside, self.kernels


def compare(
    network: Network,
    target: Target,
    deployed: Path,
    inputs: Sequence[Tensor],
    session: Session | None = None,
    *,
    of: str = "",
) -> Comparison:
    """Run a file and the network it was made from.

    Args:
        network: in the form that the target runs.
        target: what runs the file.
        deployed: the file.
        inputs: real ones, one tensor per input.
        session: the file, where it is loaded already, placed.
        of: where the inputs come from, for people.

    Raises:
        TargetError: the target is not available, or refuses the file or the inputs.
        NascError: the file gives other outputs than the network, or other shapes.
    """
    session = session or target.load(deployed, placed=True)
    found = agree(network, session_run(session, network), inputs)
    plan = target.plan(network.graph)
    placement = check_placement(plan, session.placement())
    return Comparison(
        network.graph, len(inputs[0]), of, found, by_layer(network, target, inputs, deployed), plan, placement
    )


def by_layer(
    network: Network, target: Target, inputs: Sequence[Tensor], deployed: Path
) -> LayerwiseAgreement | LayerValues:
    """The integers of quantized activations where there are any, else the numbers that layers give."""
    if tensor_bytes(network) >= LARGEST_BYTES:
        return LayerValues((), unseen="the copy that shows its layers would be larger than a file of ONNX may be")
    quantized = any(op.kind == "quantize" for op in network.graph.ops)
    return (layerwise if quantized else layer_values)(network, target, inputs, deployed)


def kernels(graph: Graph, plan: Plan, placement: Placement) -> Check:
    """Whether the planned kernels run; layers that run otherwise are named, with their kernels and the user's line."""
    found = ", ".join(f"{n} {kind}" for kind, n in placement.kernels.items())
    ops = {op.name: op for op in graph.ops}
    in_float = [
        f"{layer} ({kinds}){'' if (at := ops[layer].location) is None else f' at {at}'}"
        for layer, kinds in placement.float_layers.items()
    ]
    told = f"; in float: {listed(in_float)}" if in_float else ""
    if unplanned := better(plan, placement):
        told += f"; planned in float: {', '.join(f'{layer} ({kind})' for layer, kind in unplanned.items())}"
    return Check("integer kernels as planned", not in_float, found + told)


def better(plan: Plan, placement: Placement) -> dict[str, str]:
    """The layers that were expected in float and run on kernels for integers or 8-bit floats, with those."""
    planned = {*plan.integer, *plan.f8}
    return {
        node.layer: node.kind
        for node in placement.nodes
        if node.layer and node.layer not in planned and node.kind in INTEGER_KERNELS | F8_KERNELS
    }
