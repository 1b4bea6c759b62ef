"""Hold the sums of integer layers against the width of the accumulator that will hold them."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir import Graph, UsageError, layers
from ..analyses.accumulators import accumulators
from ..network import Network
from .base import Context, Pass, PassError, calibrate_before, register


@register("check-accumulators")
@dataclass(frozen=True)
class CheckAccumulators(Pass):
    """Refuse a network in which the accumulator of an integer layer can overflow; changes nothing.

    The bound holds for every input, since the codes of weights are known: `analyses.accumulators`. Put it last.

    Args:
        bits: of the accumulator, a signed integer.

    Raises:
        UsageError: an option makes no sense.
        PassError: an integer layer is not calibrated; a layer needs more bits, named is the one that needs most.
    """

    bits: int = 32

    def __post_init__(self) -> None:
        if self.bits < 4:
            raise UsageError(f"check-accumulators: bits must be at least 4; found {self.bits}")

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        expect_codes(network.graph)
        found = accumulators(network)
        if not found:
            context.say("check-accumulators checks nothing: no layer has integers for both weights and input")
        worst = max(found, key=lambda a: a.bits, default=None)
        if worst is not None and worst.bits > self.bits:
            wide = sum(a.bits > self.bits for a in found)
            raise PassError(
                f"its sums reach {worst.largest:,}, which takes {worst.bits} bits; the accumulator has {self.bits}"
                + (f"; {wide - 1} more of {len(found)} layers overflow too" if wide > 1 else ""),
                op=network.graph.producers[worst.layer],
                mend="Give weights or activations of this layer fewer bits, or the accumulator more.",
            )
        return network


def expect_codes(graph: Graph) -> None:
    """Refuse a graph with a layer of integers whose steps, and so whose codes, are not known.

    Raises:
        PassError: there is one; names the first.
    """
    for layer in layers(graph):
        given = {name: graph.types[name] for name in layer.inputs[:2]}
        if not all(type.integer for type in given.values()):
            continue
        for name, type in given.items():
            if type.step is not None and not type.step.known:
                raise PassError(
                    f"%{name} has no step yet, so its sums cannot be bounded",
                    op=layer,
                    mend=calibrate_before("check-accumulators"),
                )
