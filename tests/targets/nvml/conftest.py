"""The stand-in for NVML as a fixture, in place of the driver's library."""

from __future__ import annotations

import _ctypes
import ctypes
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import nvml_standin


@pytest.fixture(scope="session")
def _library(tmp_path_factory: pytest.TempPathFactory) -> Generator[ctypes.CDLL, None, None]:
    if nvml_standin.compiler() is None:
        pytest.skip("the stand-in for NVML needs a C compiler (cc, gcc or clang)")
    library = nvml_standin.build(tmp_path_factory.mktemp("nvml"))
    yield library
    _ctypes.dlclose(library._handle)


@pytest.fixture
def gpu(_library: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Any, None, None]:
    """A GPU at rest whose every joule is known (`nvml_standin.Gpu`)."""
    import pynvml

    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    if not hasattr(ctypes.CDLL("libnvidia-ml.so.1"), "sim_start"):  # a real driver's library was loaded before ours
        monkeypatch.setattr(pynvml, "nvmlLib", _library)
    yield nvml_standin.Gpu(_library).start()
    if pynvml.nvmlLib not in (None, _library):
        _ctypes.dlclose(pynvml.nvmlLib._handle)
