"""The energy of the processors of this machine, from the RAPL counters that Linux shows under powercap.

Source: Linux, Documentation/power/powercap/powercap.rst; Intel, Software Developer's Manual, volume 3B, section 15.10.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..host import Counters, Host, Load, ThisHost
from .meter import EnergyMeter, MeterLostError, MeterUnavailableError, Source, Support
from .record import Grade, Observation

# No machine of one or two sockets draws more: how long a counter may go unread before it wraps around unseen.
MOST_POWER_W = 2000.0

MEND = "Name the folder where the kernel shows powercap (/sys/class/powercap); a copy of it must be complete."


@dataclass(frozen=True)
class Domain:
    """One counter: the package of a socket, or its memory.

    Args:
        folder: where the kernel shows it.
        name: "package-0", "dram", …
        range_j: it starts from 0 again after so much.
    """

    folder: Path
    name: str
    range_j: float

    def read_j(self) -> float:
        """The counter now."""
        return int((self.folder / "energy_uj").read_text()) * 1e-6


@dataclass(frozen=True)
class RaplMeter(EnergyMeter):
    """The meter of the processors: packages and, where they are counted apart, memories.

    Args:
        domains: the counters that are added up.
        host: to see what other processes do; RAPL counts them too.
    """

    domains: tuple[Domain, ...] = ()
    host: Host = field(default_factory=ThisHost)

    @classmethod
    def choose(cls, powercap: Path) -> RaplMeter:
        """Find the counters; see `EnergyMeter.rapl`."""
        zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if (zone / "energy_uj").exists()]
        names = {zone: _read(zone / "name", powercap) for zone in zones}
        # The parts of a package ("core", "uncore") are in its figure already, and "psys" holds the package.
        domains = [
            Domain(zone, name, _number(zone / "max_energy_range_uj", powercap, least=1) * 1e-6)
            for zone, name in names.items()
            if name.startswith("package") or name == "dram"
        ]
        if not domains:
            raise MeterUnavailableError(
                f"{powercap}: no RAPL counters here",
                mend="They need Linux on an Intel or AMD processor (sudo modprobe intel_rapl_msr); virtual machines "
                "and most containers do not have them.",
            )
        for domain in domains:
            _number(domain.folder / "energy_uj", powercap)
        return cls(domains=tuple(domains))

    @property
    def devices(self) -> tuple[str, ...]:
        return ()

    @contextmanager
    def open(self) -> Generator[Source, None, None]:
        names = " + ".join(domain.name for domain in self.domains)
        yield Source(Support(f"RAPL {names}", Grade.COUNTER), RaplCounter(self.domains, self.host), settle_s=0.5)


def _read(file: Path, powercap: Path) -> str:
    """The text of a file of powercap.

    Raises:
        MeterUnavailableError: it is missing, is no file, or may not be read.
    """
    try:
        return file.read_text().strip()
    except PermissionError as fault:
        raise MeterUnavailableError(
            f"{file}: no permission to read this counter (only root may, since 2020)",
            mend=f"Until the next start: sudo chmod a+r {powercap}/intel-rapl:*/energy_uj",
        ) from fault
    except (OSError, UnicodeDecodeError) as fault:
        found = fault.strerror if isinstance(fault, OSError) else "bytes that are no text"
        raise MeterUnavailableError(f"{file}: expected a file of text, found: {found}", mend=MEND) from fault


def _number(file: Path, powercap: Path, least: int = 0) -> int:
    """The number in a file of powercap.

    Raises:
        MeterUnavailableError: there is none, or it is smaller.
    """
    text = _read(file, powercap)
    if not text.isdecimal() or int(text) < least:
        wanted = f"a whole number of microjoules of at least {least}"
        raise MeterUnavailableError(f"{file}: expected {wanted}, found {text[:40]!r}", mend=MEND)
    return int(text)


class RaplCounter:
    """The sum of several counters, each followed over its wrap-arounds (`EnergyCounter`)."""

    # Waiting busily would be no rest; the counters themselves move about every millisecond.
    poll_s = 0.01
    known_period_s = 0.001

    def __init__(self, domains: tuple[Domain, ...], host: Host) -> None:
        self._domains = domains
        self._host = host
        self._total_j = 0.0
        self._last_j = [self._read(domain) for domain in domains]
        self._counters: Counters = host.counters()

    @property
    def longest_silence_s(self) -> float:
        return min(domain.range_j for domain in self._domains) / MOST_POWER_W

    def read_j(self) -> float:
        for at, domain in enumerate(self._domains):
            now_j = self._read(domain)
            step_j = now_j - self._last_j[at]
            self._total_j += step_j if step_j >= 0 else step_j + domain.range_j
            self._last_j[at] = now_j
        return self._total_j

    def observe(self) -> Observation:
        counters = self._host.counters()
        load = Load.between(self._counters, counters)
        self._counters = counters
        return Observation(others=load.others)

    def _read(self, domain: Domain) -> float:
        try:
            return domain.read_j()
        except (OSError, ValueError) as fault:
            raise MeterLostError(f"{domain.folder}/energy_uj: {fault}") from fault
