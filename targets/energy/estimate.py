"""Energy by counting: what operations and bytes cost in the literature, or cost on a device that was calibrated.

An estimate says which of two networks asks for less, as far as energy goes by arithmetic and bytes. It knows nothing
of a device's idle power, of its voltage, or of how well a kernel is written, and is often off by a factor of several.
It is given only where it was asked for, is marked estimated wherever it goes, and never takes a measured figure's
place.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from ...ir import format_named
from ..cost import StaticCost
from ..profile import KernelProfile
from ..statistics import Interval
from .counter import Run
from .meter import EnergyMeter, Source, Support
from .record import Energy, EnergyFlag, Grade

PICO = 1e-12


@dataclass(frozen=True)
class Work:
    """A piece of work as energy is counted for it.

    Args:
        macs: multiply-additions.
        bits: bits of their two factors.
        real: whether the factors are floating-point numbers.
        operations: additions and functions of single elements.
        activation_bytes: bytes of activations read and written.
        stored_bytes: bytes of stored tensors read.
        times: how often it is done in one call.
    """

    macs: float
    bits: tuple[int, int] = (32, 32)
    real: bool = True
    operations: float = 0.0
    activation_bytes: float = 0.0
    stored_bytes: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class MemoryPrice:
    """What moving a byte costs.

    Args:
        size_bytes: what the memory holds; None for the one behind all others.
        low_j: the least that the source gives per byte.
        high_j: the most.
    """

    size_bytes: int | None
    low_j: float
    high_j: float


@dataclass(frozen=True)
class EnergyPrices:
    """What operations and bytes cost.

    Args:
        source: where the figures come from.
        real_mac_j: a multiply-addition of floating-point numbers, by their bits.
        product_j: a product of two integers of 8 bits; others cost in proportion to the product of their bits.
        sum_j: adding a product of integers to a sum of 32 bits.
        operation_j: an operation on a single element.
        memories: from the smallest.
    """

    source: str
    real_mac_j: Mapping[int, float]
    product_j: float
    sum_j: float
    operation_j: float
    memories: tuple[MemoryPrice, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**asdict(self), "real_mac_j": {str(bits): price for bits, price in self.real_mac_j.items()}}

    @staticmethod
    def of(data: Mapping[str, Any]) -> EnergyPrices:
        """The prices that `as_dict` gave."""
        held = dict(data)
        held["real_mac_j"] = {int(bits): price for bits, price in data["real_mac_j"].items()}
        held["memories"] = tuple(MemoryPrice(**entry) for entry in data["memories"])
        return EnergyPrices(**held)

    def mac_j(self, bits: tuple[int, int], real: bool) -> float:
        """A multiply-addition; integers by the size of an array multiplier, which grows with both factors' bits."""
        if not real:
            return self.product_j * bits[0] * bits[1] / 64 + self.sum_j
        widest = max(bits)
        known = sorted(self.real_mac_j)
        return self.real_mac_j[next((b for b in known if b >= widest), known[-1])]

    def memory(self, held_bytes: float) -> MemoryPrice:
        """The smallest memory that holds so many bytes."""
        return next((m for m in self.memories if m.size_bytes is None or held_bytes <= m.size_bytes), self.memories[-1])

    def interval(self, work: Sequence[Work]) -> tuple[float, float]:
        """The least and the most that some pieces of work cost, run one after the other, in joules.

        Activations lie in the smallest memory that holds those of one piece of work, stored tensors in the smallest
        that holds all of them, since each is read once per inference, or once per round of a loop.
        """
        stored = self.memory(sum(w.stored_bytes for w in work))
        low = high = 0.0
        for entry in work:
            arithmetic = entry.macs * self.mac_j(entry.bits, entry.real) + entry.operations * self.operation_j
            held = self.memory(entry.activation_bytes)
            moved, read = entry.activation_bytes, entry.stored_bytes
            low += entry.times * (arithmetic + moved * held.low_j + read * stored.low_j)
            high += entry.times * (arithmetic + moved * held.high_j + read * stored.high_j)
        return low, high


LITERATURE = EnergyPrices(
    source="Horowitz, Computing's Energy Problem, ISSCC 2014, figure 1.1.9: 45 nm at 0.9 V",
    real_mac_j={16: (1.1 + 0.4) * PICO, 32: (3.7 + 0.9) * PICO},
    product_j=0.2 * PICO,
    sum_j=0.1 * PICO,
    operation_j=0.9 * PICO,
    memories=(
        MemoryPrice(8 << 10, 10 / 8 * PICO, 10 / 8 * PICO),
        MemoryPrice(32 << 10, 20 / 8 * PICO, 20 / 8 * PICO),
        MemoryPrice(1 << 20, 100 / 8 * PICO, 100 / 8 * PICO),
        MemoryPrice(None, 1300 / 8 * PICO, 2600 / 8 * PICO),
    ),
)
"""Arithmetic and memory accesses of 64 bits alone: a processor spends some 70 pJ more on each instruction (ibid.)."""


def work_of_graph(cost: StaticCost) -> tuple[Work, ...]:
    """The work of a network by counting; fused ops are counted as if they were not, so bytes are an upper bound."""
    found: list[Work] = []
    for node in cost.nodes:
        formats = [format_named(name) for name in node.factors]
        bits = (formats[0].bits, formats[1].bits) if formats else (32, 32)
        real = any(f.is_float for f in formats)
        moved = node.read_bytes + node.written_bytes
        found.append(Work(node.macs, bits, real, node.operations, moved, node.stored_bytes))
    return tuple(found)


def work_of_kernels(kernels: Iterable[KernelProfile]) -> tuple[Work, ...]:
    """The work of a network from the kernels that ran; operations on single elements go by the results' bytes."""
    found: list[Work] = []
    for kernel in kernels:
        bits = {"i8": 8, "f16": 16, "bf16": 16, "f64": 64}.get(kernel.format, 32)
        elements = 0.0 if kernel.macs else kernel.activation_bytes * 8 / bits / 2
        found.append(
            Work(
                kernel.macs, (bits, bits), kernel.format != "i8", elements, kernel.activation_bytes, kernel.stored_bytes
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class EnergyEstimator(EnergyMeter):
    """An energy meter that counts instead of measuring; made by `EnergyMeter.estimated`.

    Args:
        work: what one call does.
        prices: what that costs.
        uncounted: parts that are not in the work, each with the reason.
    """

    work: tuple[Work, ...] = ()
    prices: EnergyPrices = field(default=LITERATURE)
    uncounted: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        return ()

    @contextmanager
    def open(self) -> Generator[Source, None, None]:
        yield Source(Support(f"estimate ({self.prices.source})", Grade.ESTIMATED))

    def measure(self, run: Run) -> Energy:
        """The estimate. The run is not called: nothing is measured, and no device is waited for."""
        low, high = self.prices.interval(self.work)
        value = (low + high) / 2
        interval = Interval(low, high, 0.0) if low < high else None
        reason = "counted from operations and bytes; what the device draws beside them is not in it"
        if self.uncounted:
            reason += f"; not counted: {'; '.join(self.uncounted)}"
        return Energy(
            value,
            energy_above_idle_j=value,
            interval=interval,
            above_idle_interval=interval,
            grade=Grade.ESTIMATED,
            reason=reason,
            device=f"estimate ({self.prices.source})",
            flags=(EnergyFlag.ESTIMATED, EnergyFlag.INCOMPLETE) if self.uncounted else (EnergyFlag.ESTIMATED,),
        )
