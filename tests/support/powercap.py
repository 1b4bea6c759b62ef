"""A powercap tree whose counter really runs, at a power that the test knows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

DIGITS = 12


@contextmanager
def running(folder: Path, power_w: float) -> Generator[Path, None, None]:
    """A package's counter that moves every millisecond."""
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text(f"{10**DIGITS - 1}\n")
    counter = os.open(zone / "energy_uj", os.O_CREAT | os.O_WRONLY)
    stop, began_s = threading.Event(), time.perf_counter()

    def show() -> None:
        used_uj = int((time.perf_counter() - began_s) * power_w * 1e6)
        os.pwrite(counter, f"{used_uj:0{DIGITS}d}\n".encode(), 0)  # a reader sees the old number or the new one

    def run() -> None:
        while not stop.wait(0.001):
            show()

    show()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield folder
    finally:
        stop.set()
        thread.join()
        os.close(counter)
