"""`nasc doctor`: what it finds on machines that have something, that lack it, and that forbid it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nasc.targets import doctor
from nasc.targets.doctor import Finding
from nasc.targets.host import Counters, Load
from nasc.targets.lock import DIRECTORY_VARIABLE, device_lock
from nasc.targets.provenance import governor


def named(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_the_command_prints_every_section_and_the_same_as_json() -> None:
    command = [sys.executable, "-m", "nasc", "doctor"]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(told.stdout)
    assert list(found) == list(doctor.SECTIONS)
    assert named(tuple(Finding(**f) for f in found["targets"]))["onnxruntime:cpu"].state == "ok"
    assert named(tuple(Finding(**f) for f in found["measuring"]))["measuring process"].found.startswith("starts in")
    for section in found.values():
        for finding in section:
            assert finding["state"] != "missing" or finding["mend"], f"{finding['what']}: no mend is named"


def test_a_section_that_is_added_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECTIONS", {"weather": lambda: (Finding("sky", "blue"),)})
    (section,) = doctor.examine()
    assert (section.name, section.findings) == ("weather", (Finding("sky", "blue"),))


def test_installed_packages_are_named_and_missing_ones_come_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "versions", lambda packages: {"python": "3", "onnxruntime": "1", "onnxruntime-gpu": "2"}
    )
    found = named(doctor.software())
    assert found["torch"].state == "missing"
    assert found["torch"].mend == f"{sys.executable} -m pip install torch"
    assert found["onnxruntime"].state == "note"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found["onnxruntime"].mend
    monkeypatch.setattr(doctor, "versions", lambda packages: {"python": "3"})
    assert named(doctor.software())["onnxruntime"].state == "missing"


@dataclass
class Told:
    """A host with counters that grow as the test says."""

    step: Counters
    waiting: int | None = 0
    resolution_s: float = 1e-9
    reads: int = 0
    now_s: float = 0.0

    def wall_s(self) -> float:
        self.now_s += 1e-7
        return self.now_s

    def waits(self) -> int | None:
        return self.waiting

    def thread_resolution_s(self) -> float:
        return self.resolution_s

    def counters(self) -> Counters:
        self.reads += 1
        s = self.step
        parts = (s.wall_s, s.process_s, s.pressure_s, s.busy_s, s.steal_s)
        return Counters(*(None if part is None else part * self.reads for part in parts))  # pyright: ignore


def test_a_busy_machine_is_noted_and_a_quiet_one_is_not() -> None:
    busy: Any = Told(Counters(1.0, 0.0, 0.4, 1.5, 0.1))
    found = named(doctor.processors(busy, watch_s=0))
    assert found["pressure"].found == "a task waited for a processor 40% of the time"
    assert found["other processes"].found == "other processes keep 1.50 processors busy"
    assert found["stolen time"].state == "note"
    quiet: Any = Told(Counters(1.0, 0.0, 0.01, 0.1, 0.0))
    found = named(doctor.processors(quiet, watch_s=0))
    assert found["pressure"].state == found["other processes"].state == "ok"
    assert "stolen time" not in found
    assert found["wall clock"].found == "a reading costs 100 ns"


def test_a_system_without_pressure_or_clocks_is_explained() -> None:
    blind: Any = Told(Counters(1.0, 0.0), waiting=None, resolution_s=0.01)
    found = named(doctor.processors(blind, watch_s=0))
    assert found["pressure"].state == "note" and "psi=1" in found["pressure"].mend
    assert "other processes" not in found
    assert found["clock of a thread"].state == found["waits of a thread"].state == "note"
    assert Load.between(blind.counters(), blind.counters()) == Load(None, None, None)


def test_the_governor_of_all_processors_is_read(tmp_path: Path) -> None:
    assert governor(tmp_path) is None
    for cpu, value in (("cpu0", "powersave"), ("cpu1", "performance"), ("cpu10", "powersave")):
        (tmp_path / cpu / "cpufreq").mkdir(parents=True)
        (tmp_path / cpu / "cpufreq" / "scaling_governor").write_text(f"{value}\n")
    assert governor(tmp_path) == "performance, powersave"


@pytest.mark.parametrize(("kind", "command"), [("powersave", "cpupower"), ("performance", "")])
def test_a_governor_that_saves_power_comes_with_the_command(
    monkeypatch: pytest.MonkeyPatch, kind: str, command: str
) -> None:
    monkeypatch.setattr(doctor, "governor", lambda: kind)
    host: Any = Told(Counters(1.0, 0.0))
    assert command in named(doctor.processors(host, watch_s=0))["clock governor"].mend


def powercap(folder: Path) -> Path:
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, value in (("name", "package-0"), ("max_energy_range_uj", "262143328850"), ("energy_uj", "12345")):
        (zone / name).write_text(f"{value}\n")
    return folder


def test_rapl_is_found_missing_or_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (missing,) = doctor.energy(tmp_path / "none")
    assert missing.state == "missing" and "modprobe intel_rapl" in missing.mend
    (here,) = doctor.energy(powercap(tmp_path / "here"))
    assert (here.found, here.state) == ("RAPL package-0", "ok")

    def forbidden(self: Path, *_: object, **__: object) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self)

    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", forbidden)
    (refused,) = doctor.energy(tmp_path / "here")
    assert refused.state == "missing"
    assert refused.mend.endswith(f"sudo chmod a+r {tmp_path / 'here'}/intel-rapl:*/energy_uj")


def test_a_lock_that_somebody_holds_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    with device_lock("cpu"):
        found = named(doctor.isolation())
        assert found["lock of cpu"].found.startswith(f"held by process {os.getpid()}")
    (tmp_path / "gone.holder").write_text("{}")  # its holder died
    found = named(doctor.isolation())
    assert "lock of cpu" not in found and "lock of gone" not in found
    assert found["measuring process"].state == "ok"
