"""Meters of energy: joules per inference from the counters of GPUs and processors."""

from __future__ import annotations

from .choose import able, chosen_meter
from .meter import EnergyMeter, MeterLostError, MeterUnavailableError, Support
from .record import Energy, EnergyFlag, Grade, Observation

__all__ = [
    "Energy",
    "EnergyFlag",
    "EnergyMeter",
    "Grade",
    "MeterLostError",
    "MeterUnavailableError",
    "Observation",
    "Support",
    "able",
    "chosen_meter",
]
