"""Hold the sums of integer layers against the width of the accumulator that will hold them."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir import UsageError
from ..analyses.accumulators import accumulators
from ..network import Network
from .base import Context, Pass, PassError, register


@register("check-accumulators")
@dataclass(frozen=True)
class CheckAccumulators(Pass):
    """Refuse a network in which the accumulator of an integer layer can overflow; changes nothing.

    The bound holds for every input, since the codes of weights are known: `analyses.accumulators`. Put it last.

    Args:
        bits: of the accumulator, a signed integer.

    Raises:
        UsageError: an option makes no sense.
        PassError: a layer needs more bits; names the one that needs most.
    """

    bits: int = 32

    def __post_init__(self) -> None:
        if self.bits < 4:
            raise UsageError(f"check-accumulators: bits must be at least 4; found {self.bits}")

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        found = accumulators(network)
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
