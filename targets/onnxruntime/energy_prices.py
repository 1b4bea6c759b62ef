"""What operations and bytes cost on a device of one's own: its meter's figures for large products and for copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...ir import parse
from ..energy import EnergyMeter
from ..energy.estimate import LITERATURE, EnergyPrices, MemoryPrice
from .calibration import CHAIN, MEMORY_BYTES, Filled, chain_text, product_text
from .session import OnnxRuntimeSession, Provider

ROWS = 512
"""Rows and columns of the product whose energy is measured."""


def energy_prices(
    target: Any, provider: Provider, threads: int, meter: EnergyMeter, caches: Mapping[str, int]
) -> EnergyPrices | None:
    """Prices from a meter: energy above idle, per multiply-addition of a large product and per byte of a copy.

    A format that is not measured keeps the literature's proportion to 32-bit floats, as do product and sum of integers
    to each other. Operations on single elements cost nothing beside the bytes that they move.

    Args:
        target: the target, which emits the networks.
        provider: the execution provider with its options.
        threads: threads within one op.
        meter: of the device.
        caches: sizes in bytes by level.

    Returns:
        None where the meter cannot tell the energy of one of them from none.
    """
    real = product_j(target, provider, threads, meter, "f32")
    integer = product_j(target, provider, threads, meter, "i8")
    memories: list[MemoryPrice] = []
    for size in (*caches.values(), None):
        held = MEMORY_BYTES if size is None else size // 2
        if (price := byte_j(target, provider, threads, meter, held)) is None:
            return None
        memories.append(MemoryPrice(size, price, price))
    if real is None or integer is None:
        return None
    scale = real / LITERATURE.real_mac_j[32]
    share = LITERATURE.product_j / (LITERATURE.product_j + LITERATURE.sum_j)
    return replace(
        LITERATURE,
        source=f"calibrated on {meter.support().device}",
        real_mac_j={bits: price * scale for bits, price in LITERATURE.real_mac_j.items()},
        product_j=integer * share,
        sum_j=integer * (1 - share),
        operation_j=0.0,
        memories=tuple(memories),
    )


def product_j(
    target: Any, provider: Provider, threads: int, meter: EnergyMeter, format: str
) -> float | None:  # fmt: skip
    """Joules above idle per multiply-addition of a large product."""
    graph = parse(product_text(ROWS, format))
    session = OnnxRuntimeSession(target.emit(graph, Filled(graph)), provider, threads=threads, placed=False)
    energy = meter.measure(session.bind([np.ones((ROWS, ROWS), np.float32)]))
    return _positive(energy.energy_above_idle_j, ROWS**3)


def byte_j(target: Any, provider: Provider, threads: int, meter: EnergyMeter, held: int) -> float | None:
    """Joules above idle per byte read or written by a chain of nodes over tensors of so many bytes."""
    graph = parse(chain_text())
    session = OnnxRuntimeSession(target.emit(graph, Filled(graph)), provider, threads=threads, placed=False)
    elements = max(1, held // 8)
    energy = meter.measure(session.bind([np.ones(elements, np.float32)]))
    return _positive(energy.energy_above_idle_j, CHAIN * elements * 8)


def _positive(energy_j: float | None, count: int) -> float | None:
    return None if energy_j is None or energy_j <= 0 else energy_j / count
