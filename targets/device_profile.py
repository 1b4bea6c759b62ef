"""What a device can do at best, as its runtime reaches it: peak rates, bandwidths, what calls and nodes cost.

Target once, kept in a file by device and runtime version, and read from there. From it follows the least time that
a piece of work could take, the roofline of Williams, Waterman and Patterson (CACM 52(4), 2009): the longer of its
arithmetic at the peak rate and of its bytes at the bandwidth of the memory that holds them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..ir import NascError
from ..ir.files import write_text

if TYPE_CHECKING:
    from .base import Target

Limit = Literal["compute", "memory", "overhead"]

DIRECTORY_VARIABLE = "NASC_CACHE_DIR"
"""Names the folder for what is kept between runs, in place of `~/.cache/nasc`."""
VERSION = 1
"""Of the file; one of another version is calibrated anew."""


@dataclass(frozen=True)
class Level:
    """A cache, or the memory behind all caches.

    Args:
        name: `L1`, `L2`, `L3` or `memory`.
        size_bytes: what it holds; None for the memory.
        bytes_per_s: reading and writing together, as reached by the runtime's own kernels.
    """

    name: str
    size_bytes: int | None
    bytes_per_s: float


@dataclass(frozen=True)
class Roof:
    """The least time for a piece of work.

    Args:
        seconds: the least time.
        limit: what sets it.
        level: where the bytes are, where they set it.
    """

    seconds: float
    limit: Limit
    level: str = ""


@dataclass(frozen=True)
class DeviceProfile:
    """What a device can do at best through one runtime.

    Args:
        target: the target's name.
        device: the device's name.
        runtime: the runtime and its version.
        threads: threads within one op.
        peaks: multiply-additions per second by format: `f32`, and `i8`, `f16`, `f8` where their kernels run.
        levels: caches from the smallest, then the memory.
        call_s: what a call costs before any node.
        node_s: what each node costs before any work.
        taken: when it was calibrated (ISO 8601).
        remarks: what to know before using it.
        energy: what operations and bytes cost (`EnergyPrices.as_dict`), where a meter could tell.
    """

    target: str
    device: str
    runtime: str
    threads: int
    peaks: Mapping[str, float]
    levels: tuple[Level, ...]
    call_s: float
    node_s: float
    taken: str = ""
    remarks: tuple[str, ...] = ()
    energy: Mapping[str, Any] | None = None

    def moving(self, moved: float, held: float) -> dict[str, float]:
        """The least seconds to move some bytes, by the level that they come from or go to.

        Of data that are used again and again, the caches hold at best as much as fits them: the fastest level its
        size, the next one what it holds beyond that, the memory the rest.

        Args:
            moved: bytes to move.
            held: all bytes among which they must be kept until they are used again.
        """
        found: dict[str, float] = {}
        below = 0.0
        for entry in self.levels:
            reach = held if entry.size_bytes is None else min(held, entry.size_bytes)
            if reach > below:
                found[entry.name] = moved * (reach - below) / held / entry.bytes_per_s
                below = reach
        return found

    def roof(self, macs: float, traffic: Sequence[tuple[float, float]], format: str = "f32") -> Roof:
        """The least time for some work.

        Args:
            macs: multiply-additions.
            traffic: pairs of bytes to move, and of all bytes among which they must be kept until they are used again.
            format: what is multiplied; one that was not calibrated counts as `f32`.
        """
        compute_s = macs / self.peaks.get(format, self.peaks["f32"])
        moves: dict[str, float] = {}
        for moved, held in traffic:
            for level, spent_s in self.moving(moved, held).items():
                moves[level] = moves.get(level, 0.0) + spent_s
        memory_s = sum(moves.values())
        if compute_s >= memory_s:
            return Roof(compute_s, "compute")
        return Roof(memory_s, "memory", max(moves, key=lambda level: moves[level]))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"version": VERSION, **asdict(self)}

    @staticmethod
    def of(data: Mapping[str, Any]) -> DeviceProfile:
        """The profile that `as_dict` gave.

        Raises:
            ValueError: it is of another version, or no profile.
        """
        try:
            if data["version"] != VERSION:
                raise ValueError(f"expected version {VERSION}, found {data['version']}")
            held: dict[str, Any] = {key: value for key, value in data.items() if key != "version"}
            held["levels"] = tuple(Level(**entry) for entry in held["levels"])
            held["remarks"] = tuple(held["remarks"])
            return DeviceProfile(**held)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a device profile: {error}") from error

    def rows(self) -> list[tuple[str, str]]:
        """What it says and the values, for people."""
        from .measure import seconds

        rows = [(f"peak {name}", f"{rate / 1e9:.3g} GMAC/s") for name, rate in self.peaks.items()]
        for entry in self.levels:
            held = "" if entry.size_bytes is None else f" ({entry.size_bytes / 1024:,.0f} KiB)"
            rows.append((f"bandwidth {entry.name}{held}", f"{entry.bytes_per_s / 1e9:.3g} GB/s"))
        return [*rows, ("per call", seconds(self.call_s)), ("per node", seconds(self.node_s))]


def device_profile(target: Target, threads: int = 1, *, calibrate: bool = False) -> DeviceProfile:
    """The profile of a target's device: the one that is kept, or a new one that is kept from now on.

    Args:
        target: the target.
        threads: threads within one op.
        calibrate: measure anew in any case.

    Raises:
        NascError: the device cannot be measured.
    """
    path = profile_path(target, threads)
    if not calibrate and (kept := read_profile(path)) is not None:
        return kept
    found = target.calibrate(threads)
    try:
        write_text(path, json.dumps(found.as_dict(), indent=2) + "\n")
    except NascError:
        remark = f"the profile of the device could not be kept in {path.parent}; name a folder by {DIRECTORY_VARIABLE}"
        return replace(found, remarks=(*found.remarks, remark))
    return found


def kept_profile(target: Target, threads: int = 1) -> DeviceProfile | None:
    """The profile that was calibrated before; None where there is none."""
    return read_profile(profile_path(target, threads))


def profile_path(target: Target, threads: int = 1) -> Path:
    """Where the profile of a device lies."""
    device, runtime = target.identity()
    key = hashlib.sha256("\n".join((target.name, device, runtime, str(threads))).encode()).hexdigest()[:16]
    return cache_directory() / "devices" / f"{target.name.replace(':', '-')}-{key}.json"


def read_profile(path: Path) -> DeviceProfile | None:
    """The profile in a file; None where there is no such file, or it is of another version or damaged."""
    try:
        return DeviceProfile.of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def cache_directory() -> Path:
    """The folder for what is kept between runs: NASC_CACHE_DIR, else `nasc` in the user's cache.

    Raises:
        NascError: there is no home directory.
    """
    if named := os.environ.get(DIRECTORY_VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "nasc"
    except RuntimeError as error:
        raise NascError(
            f"there is no home directory for nasc's cache: {error}", mend=f"Name a folder with {DIRECTORY_VARIABLE}."
        ) from error
