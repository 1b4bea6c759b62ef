"""Reproducers: what a failing pass was given, in one file that runs again on its own.

    // nasc reproducer 1
    // error: %fc1.weight: error: …
    // pipeline: quantize{weights=i4} | calibrate
    // data: model.py
    // seed: 0
    // versions: nasc 0.1.0, torch 2.14.1
    nasc 1
    graph @net(…

The tensors lie beside it, as with every network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..ir import UsageError
from ..ir.files import write_text
from .files import load, save
from .network import Network

HEAD = "// nasc reproducer 1"
_FIELDS = ("error", "pipeline", "data", "seed", "versions")
PYTHON = "given from Python"
"""Stands for data that no file names."""


@dataclass(frozen=True)
class Reproducer:
    """What a failing pass was given.

    Args:
        network: the network before it.
        pipeline: the pass and those behind it, as text.
        data: the model file whose data passes may look at; None where there were none, `PYTHON` where no file has them.
        seed: for passes that draw at random.
        error: what was said, in one line.
        versions: of what took part, by name.
    """

    network: Network
    pipeline: str
    data: str | None = None
    seed: int = 0
    error: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

    def save(self, path: Path) -> None:
        """Write the file and the tensors beside it.

        Raises:
            UsageError: the place cannot be written to.
        """
        save(self.network, path)
        said = {
            "error": " ".join(self.error.split()),
            "pipeline": self.pipeline,
            "data": self.data or "",
            "seed": str(self.seed),
            "versions": ", ".join(f"{name} {number}" for name, number in self.versions.items()),
        }
        lines = [HEAD, *(f"// {name}: {said[name]}".rstrip() for name in _FIELDS)]
        write_text(path, "\n".join(lines) + "\n" + str(self.network.graph))

    @staticmethod
    def load(path: Path) -> Reproducer:
        """Read what `save` wrote.

        Raises:
            UsageError: there is no such file, or it is no reproducer.
            NascError: the network in it is damaged.
        """
        network = load(path)
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines[0] != HEAD:
            raise UsageError(
                f"{path}:1: error: expected {HEAD!r}, found {lines[0]!r}",
                mend="Give the file that a failing `nasc opt` wrote, or leave --run-reproducer out.",
            )
        said: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.removeprefix("// ").partition(":")
            if not line.startswith("//") or not colon or name not in _FIELDS:
                break
            said[name] = value.strip()
        if "pipeline" not in said or not said.get("seed", "0").isdecimal():
            raise UsageError(f"{path}: error: its head names no pipeline, or no whole number as seed")
        versions = dict(part.rsplit(" ", 1) for part in said.get("versions", "").split(", ") if " " in part)
        data = said.get("data") or None
        return Reproducer(network, said["pipeline"], data, int(said.get("seed", "0")), said.get("error", ""), versions)
