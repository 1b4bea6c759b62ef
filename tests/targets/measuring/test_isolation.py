"""Measuring in a process of its own: whatever happens there is said here, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nasc.targets import TargetError, target_named
from nasc.targets.bench import Bench
from nasc.targets.device_profile import DeviceProfile, Level
from nasc.targets.isolation import Ending, Worker, WorkerError
from nasc.targets.isolation.bench import IsolatedBench
from nasc.targets.lock import device_lock, holders, lock_directory
from nasc.targets.measure import Conditions
from nasc.targets.onnxruntime.target import OnnxRuntime
from nasc.targets.profile import profile_model
from nasc.targets.trace import Trace
from support import hostile

CPU = target_named("onnxruntime:cpu")
GIB = 2**30
DEVICE = DeviceProfile("t", "d", "r 1", 1, {"f32": 1e9}, (Level("memory", None, 1e8),), 1e-6, 1e-7)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for all temporary files and locks, to see what is left in it."""
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


@pytest.fixture
def models(tmp_path: Path) -> Callable[[str], Path]:
    def written(name: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(getattr(hostile, name)())
        return path

    return written


def conditions(limit_s: float = 60.0) -> Conditions:
    return Conditions(budget_s=0.1, floor=False, limit_s=limit_s)


def children() -> list[int]:
    """Processes that this one started and that have not been waited for."""
    text = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    return [int(pid) for pid in text.split()]


def nothing_stays(place: Path, before: list[int]) -> None:
    assert children() == before
    assert list((place / "tmp").iterdir()) == []
    assert not list((place / "locks").glob("*.holder"))
    with device_lock("cpu", timeout_s=0):
        pass


@pytest.fixture
def bench(place: Path) -> Generator[IsolatedBench, None, None]:
    before = children()
    with IsolatedBench(CPU, memory_limit_bytes=4 * GIB) as made:
        yield made
    nothing_stays(place, before)


def test_it_measures_what_a_bench_in_this_process_measures(bench: IsolatedBench, models: Callable[[str], Path]) -> None:
    model = models("harmless")
    there = bench.measure(model, conditions(), model)
    here = Bench(CPU).measure(model, conditions(), model)
    assert there.latency is not None and here.latency is not None
    assert there.latency.ratio is not None
    assert there.latency.ratio.value == pytest.approx(1, abs=0.5)  # a tenth of a second says no more
    assert len(there.latency.rounds_s) == len(there.latency.reference_rounds_s) >= 1
    theirs, ours = there.provenance, here.provenance
    for name in ("host", "device", "runtime", "versions", "model", "baseline", "conditions"):
        assert theirs[name] == ours[name], name


def test_the_process_is_kept_over_calls_and_imports_no_torch(
    bench: IsolatedBench, models: Callable[[str], Path]
) -> None:
    model = models("harmless")
    bench.measure(model, conditions())
    pid = bench.worker.pid
    bench.measure(model, conditions())
    assert bench.worker.pid == pid
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps


def test_an_expected_error_comes_back_as_itself_and_the_process_stays(bench: IsolatedBench, place: Path) -> None:
    bench.worker.ready()
    pid = bench.worker.pid
    broken = place / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(TargetError, match="ONNX Runtime refuses the model"):
        bench.measure(broken, conditions())
    broken.unlink()
    with pytest.raises(TargetError, match=r"there is no model at .*broken\.onnx"):
        bench.measure(broken, conditions())
    assert bench.worker.pid == pid


@pytest.mark.parametrize(
    ("name", "limit_s", "ending", "said"),
    [
        ("crashes", 60, Ending.CRASHED, r"the process of measuring crashed \(SIG(FPE|ILL|TRAP)\)"),
        ("hangs", 1.5, Ending.HANG, "measuring gave no answer within 1.5 s and was stopped"),
        ("devours", 60, Ending.MEMORY, r"measuring ran out of memory \(limit 4 GiB\): .*Failed to allocate"),
    ],
)
def test_a_model_that_does_harm_is_said_and_the_next_one_is_measured(
    bench: IsolatedBench, models: Callable[[str], Path], name: str, limit_s: float, ending: Ending, said: str
) -> None:
    good = models("harmless")
    bench.measure(good, conditions(), good)
    with pytest.raises(WorkerError, match=said) as caught:
        bench.measure(models(name), conditions(limit_s), good)
    assert caught.value.ending == ending
    option = {Ending.HANG: "--limit", Ending.MEMORY: "--memory"}.get(ending, "")
    assert option in (caught.value.mend or "")
    again = bench.measure(good, conditions(), good)
    assert again.latency is not None and again.latency.ratio is not None
    assert bench.worker.started == 2


def test_a_process_killed_while_it_measures_is_said_and_the_lock_is_free(
    bench: IsolatedBench, models: Callable[[str], Path]
) -> None:
    bench.worker.ready()
    pid = bench.worker.pid
    assert pid is not None
    killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(WorkerError, match=r"killed from outside \(SIGKILL\)") as caught:
        bench.measure(models("hangs"), conditions())
    killer.join()
    assert caught.value.ending == Ending.KILLED
    with device_lock("cpu", timeout_s=0):
        pass


def test_a_process_killed_between_two_calls_harms_neither(bench: IsolatedBench, models: Callable[[str], Path]) -> None:
    model = models("harmless")
    bench.measure(model, conditions(), model)
    pid = bench.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    bench.measure(model, conditions(), model)
    assert bench.worker.started == 2


def test_a_session_over_there_runs_as_one_here(bench: IsolatedBench, models: Callable[[str], Path]) -> None:
    model = models("harmless")
    inputs = [np.random.default_rng(0).standard_normal((1, hostile.FEATURES)).astype("f4")]
    here = CPU.load(model, placed=True)
    with bench.load(model, placed=True) as there:
        assert there.inputs == here.inputs
        assert there.outputs == here.outputs
        np.testing.assert_array_equal(there.run(inputs)[0], here.run(inputs)[0])
        np.testing.assert_array_equal(there.run({"x": inputs[0]})[0], here.run(inputs)[0])
        assert there.placement() == here.placement()
        with pytest.raises(TargetError, match=r"input x has the shape \[1, 16\], found \[1, 17\]"):
            there.run([np.zeros((1, 17), "f4")])


@pytest.fixture
def echo(place: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Worker, None, None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from echo import Echo as Importable

    before = children()
    with Worker(Importable, work="echoing") as worker:
        yield worker
    nothing_stays(place, before) if (place / "locks").exists() else None


def test_an_error_that_nobody_expected_comes_with_its_traceback(echo: Worker) -> None:
    with pytest.raises(WorkerError, match="echoing failed: ZeroDivisionError: a fault") as caught:
        echo.call("fail", limit_s=60)
    assert caught.value.ending == Ending.FAULT
    assert 'raise ZeroDivisionError("a fault")' in (caught.value.trace or "")
    assert echo.started == 1


def test_a_process_that_leaves_is_quoted(echo: Worker) -> None:
    with pytest.raises(WorkerError, match="ended with status 3; it said: something about it"):
        echo.call("leave", 3, limit_s=60)


def test_its_temporary_files_go_with_it(echo: Worker, place: Path) -> None:
    folder, pid = echo.call("own", limit_s=60)
    assert Path(folder).is_dir()
    assert (place / "tmp") in Path(folder).parents
    echo.close()
    assert list((place / "tmp").iterdir()) == []
    assert not Path(f"/proc/{pid}").exists()


CALLER = """
import sys, tempfile
from pathlib import Path
tempfile.tempdir = sys.argv[2]
from nasc.targets import target_named
from nasc.targets.isolation.bench import IsolatedBench
from nasc.targets.measure import Conditions
bench = IsolatedBench(target_named("onnxruntime:cpu"))
bench.worker.ready()
print(bench.worker.pid, flush=True)
bench.measure(Path(sys.argv[1]), Conditions(limit_s=300))
"""


def test_a_caller_that_is_killed_takes_the_process_with_it(place: Path, models: Callable[[str], Path]) -> None:
    command = [sys.executable, "-c", CALLER, str(models("hangs")), str(place / "tmp")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        worker = int(caller.stdout.readline())
        time.sleep(0.5)
        caller.kill()
    until = time.monotonic() + 20
    while running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not running(worker)
    assert list((place / "tmp").iterdir()) == []


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_what_a_dead_caller_could_not_remove_is_removed_by_the_next(bench: IsolatedBench, place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = place / "tmp" / f"nasc-worker-{gone.pid}-left"
    left.mkdir()
    bench.worker.ready()
    assert not left.exists()


def test_ctrl_c_ends_the_process_and_the_next_call_starts_another(
    bench: IsolatedBench, models: Callable[[str], Path]
) -> None:
    bench.worker.ready()
    pid = bench.worker.pid
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs behind & without it
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        bench.measure(models("hangs"), conditions())
    signal.signal(signal.SIGINT, before)
    assert pid is not None and not running(pid)
    assert bench.measure(models("harmless"), conditions()).latency is not None


def test_a_limit_that_is_too_small_to_start_with_is_said(place: Path, models: Callable[[str], Path]) -> None:
    with (
        IsolatedBench(CPU, memory_limit_bytes=GIB // 64) as bench,
        pytest.raises(WorkerError, match="measuring ran out of memory") as caught,
    ):
        bench.measure(models("harmless"), conditions())
    assert caught.value.ending == Ending.MEMORY


@pytest.fixture
def profiling(place: Path) -> Generator[IsolatedBench, None, None]:
    before = children()
    with IsolatedBench(CPU, memory_limit_bytes=GIB, work="profiling") as made:
        yield made
    nothing_stays(place, before)


def test_it_profiles_what_a_bench_in_this_process_profiles(
    profiling: IsolatedBench, models: Callable[[str], Path]
) -> None:
    model = models("harmless")
    there = profiling.network_profile(model, conditions(), DEVICE)
    here = Bench(CPU).network_profile(model, conditions(), DEVICE)
    assert [(k.name, k.layer, k.macs, k.roof) for k in there.kernels] == [
        (k.name, k.layer, k.macs, k.roof) for k in here.kernels
    ]
    assert len(there.kernels[0].times_s) == there.calls >= 10
    assert there.latency.rounds_s
    theirs, ours = there.provenance, here.provenance
    assert {name for name in theirs if theirs[name] != ours[name]} <= {"began", "ended", "lock"}
    assert (theirs["lock"], ours["lock"]) == ("held by the caller", "taken here")
    assert theirs["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 16]}]
    assert theirs["values"].startswith("standard normal numbers")


def test_a_profile_of_given_inputs_says_so(profiling: IsolatedBench, models: Callable[[str], Path]) -> None:
    found = profiling.network_profile(models("harmless"), conditions(), None, [np.ones((1, 16), "f4")])
    assert (found.provenance["values"], found.device) == ("given", None)


@pytest.mark.parametrize(
    ("name", "limit_s", "ending", "said"),
    [
        ("crashes", 60, Ending.CRASHED, r"the process of profiling crashed \(SIG(FPE|ILL|TRAP)\)"),
        (
            "hangs",
            1.5,
            Ending.HANG,
            "profiling gave no answer within 1.5 s and was stopped\n  Allow more time: --limit",
        ),
        (
            "devours",
            60,
            Ending.MEMORY,
            r"profiling ran out of memory \(limit 1 GiB\): .*Failed to allocate(.|\n)*--memory",
        ),
    ],
)
def test_a_profile_of_a_model_that_does_harm_is_said_and_the_next_one_is_taken(
    profiling: IsolatedBench, models: Callable[[str], Path], name: str, limit_s: float, ending: Ending, said: str
) -> None:
    with pytest.raises(WorkerError, match=said) as caught:
        profiling.network_profile(models(name), conditions(limit_s))
    assert caught.value.ending == ending
    assert profiling.network_profile(models("harmless"), conditions()).kernels


@pytest.mark.parametrize(("name", "said"), [("reads_text", "input x is string"), ("writes_text", "output y is string")])
def test_a_model_of_texts_is_refused_and_the_process_stays(
    profiling: IsolatedBench, models: Callable[[str], Path], name: str, said: str
) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        profiling.network_profile(models(name), conditions())
    assert "tensors of numbers" in caught.value.message
    assert profiling.worker.pid is not None
    with pytest.raises(TargetError, match=said):
        Bench(CPU).network_profile(models(name), conditions())


def test_nobody_else_measures_while_a_profile_is_taken(profiling: IsolatedBench, models: Callable[[str], Path]) -> None:
    profiling.worker.ready()
    seen: list[dict[str, str]] = []
    watch = threading.Timer(0.5, lambda: seen.append(holders(lock_directory())))
    watch.start()
    with pytest.raises(WorkerError):
        profiling.network_profile(models("hangs"), conditions(1.5))
    watch.join()
    assert list(seen[0]) == ["cpu"]


def test_a_profile_in_this_process_holds_the_device_over_both_series(
    place: Path, models: Callable[[str], Path]
) -> None:
    seen: list[dict[str, str]] = []

    class Watched(OnnxRuntime):
        def trace(self, *words: Any, **named: Any) -> Trace:
            seen.append(holders(lock_directory()))
            return super().trace(*words, **named)

    watched = Watched("onnxruntime:cpu", "CPUExecutionProvider")
    profile_model(watched, models("harmless"), budget_s=0.1)
    assert list(seen[0]) == ["cpu"]
    assert holders(lock_directory()) == {}


def test_ctrl_c_ends_a_profile_and_its_process(profiling: IsolatedBench, models: Callable[[str], Path]) -> None:
    profiling.worker.ready()
    pid = profiling.worker.pid
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        profiling.network_profile(models("hangs"), conditions())
    signal.signal(signal.SIGINT, before)
    assert pid is not None and not running(pid)
