"""What measuring in a process of its own costs per candidate, beside measuring in the same process.

    python benchmarks/isolation.py [--candidates 30] [--json FILE]

A candidate is sent, loaded, bound, run once and let go: all that measuring does except timing itself. It is done in
turns here and there, so that what happens to the machine happens to both. The figures are medians in milliseconds, on
the wall clock and of processor time, which other work on the machine does not stretch. Starting the process is paid
once per search, and once after a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from latency_verdicts import conv, mlp
from nasc.targets import Artifact, target_named
from nasc.targets.bench import Bench
from nasc.targets.isolation.bench import IsolatedBench

CPU = target_named("onnxruntime:cpu")
NETWORKS = {"mlp": mlp, "resnet-18": conv}


def spent_s(work: Callable[[], object]) -> float:
    """The time that some work takes."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def processor_s(pid: int | None) -> float:
    """The processor time of this process and another one (Linux, Documentation/scheduler/sched-stats.rst)."""
    other = 0 if pid is None else int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat") if pid is not None else ()
    other = sum(int(path.read_text().split()[0]) for path in threads) or other
    return time.process_time() + other * 1e-9


def compare(network: str, candidates: int) -> dict[str, object]:
    """One network, so many times here and there."""
    model, shape = NETWORKS[network](slower=False)
    artifact = Artifact(CPU.name, model)
    inputs = [np.zeros(shape, "f4")]
    here, there = Bench(CPU), IsolatedBench(CPU)
    start_s = spent_s(there.worker.ready)
    try:
        times: dict[str, list[float]] = {"here": [], "there": []}
        work: dict[str, list[float]] = {"here": [], "there": []}

        def once(bench: Bench | IsolatedBench) -> None:
            session = bench.load(artifact)
            session.run(inputs)
            if bench is there:
                session.close()  # pyright: ignore

        once(here), once(there)
        for _ in range(candidates):
            for name, bench in (("here", here), ("there", there)):
                before_s = processor_s(there.worker.pid)
                times[name].append(spent_s(lambda bench=bench: once(bench)))
                work[name].append(processor_s(there.worker.pid) - before_s)
    finally:
        there.close()
    more = median(b - a for a, b in zip(times["here"], times["there"], strict=True))
    dearer = median(b - a for a, b in zip(work["here"], work["there"], strict=True))
    return {
        "network": network,
        "MB": round(len(model) / 1e6, 2),
        "start_s": round(start_s, 2),
        "here_ms": round(1e3 * median(times["here"]), 2),
        "there_ms": round(1e3 * median(times["there"]), 2),
        "more_ms": round(1e3 * more, 2),
        "cpu_here": round(1e3 * median(work["here"]), 2),
        "cpu_there": round(1e3 * median(work["there"]), 2),
        "cpu_more": round(1e3 * dearer, 2),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rows = [compare(name, options.candidates) for name in NETWORKS]
    print(" ".join(f"{key:>10}" for key in rows[0]))
    for row in rows:
        print(" ".join(f"{value!s:>10}" for value in row.values()))
    print(f"\n{os.cpu_count()} processors, {os.getloadavg()[0]:.1f} runnable tasks")
    if options.json:
        options.json.write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
