"""One device, one measurement at a time: across processes, threads and the death of the holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from nasc.targets.lock import (
    DIRECTORY_VARIABLE,
    DeviceBusyError,
    LockDirectoryError,
    device_lock,
    lock_directory,
    program,
)

HOLD_UNTIL_STDIN_CLOSES = """
import sys
from nasc.targets.lock import device_lock
with device_lock(*sys.argv[2:], directory=sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path, *devices: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_STDIN_CLOSES, str(folder), *devices],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def stop(holder: subprocess.Popen[str]) -> None:
    holder.communicate(timeout=30)


def test_another_process_waits_and_is_told_who_measures(tmp_path: Path) -> None:
    holder = start_holder(tmp_path, "cpu")
    refused = pytest.raises(DeviceBusyError, match=rf"'cpu' is being measured by process {holder.pid}")
    with refused, device_lock("cpu", timeout_s=0.1, directory=tmp_path):
        pass
    stop(holder)
    with device_lock("cpu", timeout_s=5, directory=tmp_path) as hold:
        assert hold.devices == ("cpu",)


def test_a_long_wait_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holder = start_holder(tmp_path, "cpu")
    with pytest.raises(DeviceBusyError), device_lock("cpu", timeout_s=0.2, directory=tmp_path):
        pass
    assert capsys.readouterr().err == ""
    with pytest.raises(DeviceBusyError), device_lock("cpu", timeout_s=1.4, directory=tmp_path):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"waiting for device 'cpu': it is being measured by process {holder.pid} (python), for")
    assert line.endswith("at most 0 s more")
    stop(holder)


@pytest.mark.parametrize(
    ("module", "words", "expected"),
    [
        ("nasc.__main__", ["/x/nasc/__main__.py", "measure", "m.onnx"], "nasc measure"),
        (None, ["/bin/nasc", "--debug", "compile", "net.py"], "nasc compile"),
        (None, ["/x/search.py", "fast"], "search.py"),
        (None, ["-c"], "python"),
        (None, [""], "python"),
    ],
)
def test_the_holder_is_called_what_a_person_calls_it(
    monkeypatch: pytest.MonkeyPatch, module: str | None, words: list[str], expected: str
) -> None:
    main = ModuleType("__main__")
    main.__spec__ = None if module is None else ModuleSpec(module, None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", words)
    assert program() == expected


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    holder = start_holder(tmp_path, "cpu")
    os.kill(holder.pid, signal.SIGKILL)
    stop(holder)
    with device_lock("cpu", timeout_s=5, directory=tmp_path):
        pass


def test_devices_are_independent_and_any_name_will_do(tmp_path: Path) -> None:
    holder = start_holder(tmp_path, "GPU-1/2:3 ü")
    with device_lock("cpu", "GPU-1", timeout_s=1, directory=tmp_path) as hold:
        assert hold.devices == ("GPU-1", "cpu")
    with pytest.raises(DeviceBusyError), device_lock("GPU-1/2:3 ü", timeout_s=0.05, directory=tmp_path):
        pass
    stop(holder)


def test_what_was_taken_is_given_back_when_a_later_device_is_busy(tmp_path: Path) -> None:
    holder = start_holder(tmp_path, "b")
    with pytest.raises(DeviceBusyError), device_lock("a", "b", timeout_s=0.05, directory=tmp_path):
        pass
    other = start_holder(tmp_path, "a")
    stop(other)
    stop(holder)


def test_a_thread_may_enter_again_but_another_thread_may_not(tmp_path: Path) -> None:
    outcomes: list[str] = []

    def try_from_thread() -> None:
        try:
            with device_lock("cpu", timeout_s=0.05, directory=tmp_path):
                outcomes.append("entered")
        except DeviceBusyError:
            outcomes.append("busy")

    with device_lock("cpu", directory=tmp_path):
        with device_lock("cpu", timeout_s=0.05, directory=tmp_path):
            pass
        thread = threading.Thread(target=try_from_thread)
        thread.start()
        thread.join()
    thread = threading.Thread(target=try_from_thread)
    thread.start()
    thread.join()
    assert outcomes == ["busy", "entered"]


def test_a_fault_inside_frees_the_device(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), device_lock("cpu", directory=tmp_path):
        _ = 1 / 0
    stop(start_holder(tmp_path, "cpu"))
    assert not list(tmp_path.glob("*.holder"))


def test_the_folder_is_the_users_own_or_the_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    assert lock_directory().stat().st_uid == os.getuid()
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "shared"))
    assert lock_directory() == tmp_path / "shared"


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "locks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LockDirectoryError, match="found a link"), device_lock("cpu", directory=tmp_path / "locks"):
        pass


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LockDirectoryError, match=DIRECTORY_VARIABLE), device_lock("cpu", directory=tmp_path / "file/x"):
        pass
