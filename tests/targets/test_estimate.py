"""Energy by counting: the figures of the literature, bits, memories, and that an estimate is always called one."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from nasc import EnergyMeter
from nasc.targets import static_cost, target_named
from nasc.targets.energy import Energy, EnergyFlag, Grade, Support
from nasc.targets.energy.estimate import LITERATURE, PICO, EnergyPrices, Work, work_of_graph, work_of_kernels
from nasc.targets.energy.meter import Source
from nasc.targets.onnxruntime.energy_prices import energy_prices
from nasc.targets.profile import KernelProfile

from .conftest import graph_of

MLP = """
graph @mlp(%x: f32[N, 16]) {{
  {quantize}%a: {stored}[32, 16] = weight
  %h: f32[N, 32] = linear %{read}, %a
  %r: f32[N, 32] = relu %h
  return %r
}}"""
FLOAT = MLP.format(quantize="", stored="f32", read="x")
BYTES = MLP.format(quantize="%q: u8<2^-5>[N, 16] = quantize %x\n  ", stored="i8<per 0>", read="q")
NIBBLES = MLP.format(quantize="%q: u4<2^-5>[N, 16] = quantize %x\n  ", stored="i4<per 0>", read="q")


def test_arithmetic_costs_what_horowitz_gives() -> None:
    """ISSCC 2014, figure 1.1.9: product and sum of 32 and 16 bit floats, and of 8-bit integers into 32 bits."""
    assert LITERATURE.mac_j((32, 32), real=True) == pytest.approx(4.6 * PICO)
    assert LITERATURE.mac_j((16, 16), real=True) == pytest.approx(1.5 * PICO)
    assert LITERATURE.mac_j((8, 8), real=False) == pytest.approx(0.3 * PICO)
    assert LITERATURE.mac_j((4, 4), real=False) == pytest.approx((0.2 / 4 + 0.1) * PICO)
    assert LITERATURE.mac_j((8, 32), real=True) == LITERATURE.mac_j((32, 32), real=True)


def test_bytes_cost_by_the_memory_that_holds_them() -> None:
    small = LITERATURE.interval([Work(0, activation_bytes=1000)])
    assert small == pytest.approx((1250 * PICO, 1250 * PICO))
    large = LITERATURE.interval([Work(0, stored_bytes=2 << 20)])
    assert large == pytest.approx(((2 << 20) * 162.5 * PICO, (2 << 20) * 325 * PICO))


def test_stored_tensors_lie_where_all_of_them_fit() -> None:
    """Each is read once per inference, so that a cache smaller than their sum keeps none of them."""
    one = LITERATURE.interval([Work(0, stored_bytes=600_000)])[0]
    two = LITERATURE.interval([Work(0, stored_bytes=600_000)] * 2)[0]
    assert two > 10 * one


def test_a_graph_is_priced_by_hand() -> None:
    work = work_of_graph(static_cost(graph_of(FLOAT)))
    low, high = LITERATURE.interval(work)
    bytes_j = (64 + 128 + 2048 + 128 + 128) * 10 / 8 * PICO  # all of it fits 8 KiB
    assert low == high == pytest.approx(512 * 4.6 * PICO + 32 * 0.9 * PICO + bytes_j)


def test_fewer_bits_cost_less() -> None:
    found = [LITERATURE.interval(work_of_graph(static_cost(graph_of(text))))[1] for text in (FLOAT, BYTES, NIBBLES)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 3


def test_kernels_are_priced_by_what_they_compute_in() -> None:
    def kernel(format: str) -> KernelProfile:
        return KernelProfile("k", "Gemm", "CPU", "k", ("k",), "", format, 1e-3, 1.0, 10**6, 1000, 1000)

    real, integer = (LITERATURE.interval(work_of_kernels([kernel(f)]))[0] for f in ("f32", "i8"))
    assert real - integer == pytest.approx(10**6 * (4.6 - 0.3) * PICO)


def test_an_estimate_is_a_meter_and_says_what_it_is() -> None:
    """The same call and the same record as of a meter, with a grade and a flag that no measurement has."""
    work = work_of_graph(static_cost(graph_of(FLOAT)))
    meter = EnergyMeter.estimated(work)
    assert isinstance(meter, EnergyMeter)
    assert meter.support().grade is Grade.ESTIMATED

    def never() -> None:
        raise AssertionError("an estimate runs nothing")

    energy = meter.measure(never)
    assert energy.grade is Grade.ESTIMATED
    assert EnergyFlag.ESTIMATED in energy.flags
    assert energy.energy_j is not None and energy.energy_j > 0
    assert energy.interval is None  # caches have one price each
    large = EnergyMeter.estimated([replace(entry, stored_bytes=8 << 20) for entry in work]).measure(never)
    assert large.interval is not None and large.interval.confidence == 0
    assert large.interval.low < large.interval.high
    assert "Horowitz" in energy.device
    assert energy.reason is not None and "counted" in energy.reason
    assert energy.calls == energy.windows == 0
    assert energy.as_dict()["grade"] == "estimated"


@dataclass(frozen=True)
class Priced(EnergyMeter):
    """A meter of a device on which each call costs what a list says, in order."""

    costs_j: tuple[float | None, ...] = ()
    asked: list[int] = field(default_factory=list)

    @property
    def devices(self) -> tuple[str, ...]:
        return ()

    @contextmanager
    def open(self) -> Generator[Source, None, None]:
        yield Source(Support("a device", Grade.COUNTER))

    def measure(self, run: Callable[[], object]) -> Energy:
        run()
        self.asked.append(1)
        return Energy(1.0, energy_above_idle_j=self.costs_j[len(self.asked) - 1])


def test_a_devices_own_prices_come_from_its_meter() -> None:
    """A product of 512 cubed in floats and integers, then a chain of copies per level of memory."""
    macs, moved = 512**3, 8 * (1 << 14)
    meter = Priced(costs_j=(macs * 9.2 * PICO, macs * 3 * PICO, moved * 5 * PICO, (1 << 27) * 8 * 40 * PICO))
    cpu = target_named("onnxruntime:cpu")
    found = energy_prices(cpu, ("CPUExecutionProvider", {}), 1, meter, {"L1": 1 << 15})
    assert found is not None
    assert found.source == "calibrated on a device"
    assert found.mac_j((32, 32), real=True) == pytest.approx(9.2 * PICO)
    assert found.mac_j((16, 16), real=True) == pytest.approx(3.0 * PICO)  # the literature's proportion
    assert found.mac_j((8, 8), real=False) == pytest.approx(3 * PICO)
    assert [m.low_j for m in found.memories] == pytest.approx([5 * PICO, 40 * PICO])
    assert EnergyPrices.of(json.loads(json.dumps(found.as_dict()))) == found


def test_a_meter_that_cannot_tell_gives_no_prices() -> None:
    cpu = target_named("onnxruntime:cpu")
    meter = Priced(costs_j=(1e-3, 1e-3, None, None))
    assert energy_prices(cpu, ("CPUExecutionProvider", {}), 1, meter, {"L1": 1 << 15}) is None
