"""The IR stands alone: the standard library only, imported in milliseconds, with its whole face in `nasc.ir`."""

from __future__ import annotations

import json
import subprocess
import sys

import nasc.ir
import pytest

PROBE = """
import json, sys, time
before = set(sys.modules)
start = time.process_time()
import nasc.ir
seconds = time.process_time() - start
from importlib.machinery import SourceFileLoader
import sysconfig
library = sysconfig.get_paths()["stdlib"]
foreign = []
for name in set(sys.modules) - before:
    path = getattr(sys.modules[name], "__file__", None)
    inside = path is None or path.startswith(library) and "site-packages" not in path
    if not inside and name.split(".")[0] != "nasc":
        foreign.append(name)
own = sorted(n for n in sys.modules if n.startswith("nasc"))
print(json.dumps({"seconds": seconds, "foreign": sorted(foreign), "nasc": own}))
"""


@pytest.fixture(scope="module")
def probed() -> dict[str, object]:
    """What importing `nasc.ir` in a fresh Python loads, and how long it takes."""
    ran = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, cwd="/")
    return json.loads(ran.stdout)


def test_only_the_standard_library_is_imported(probed: dict[str, object]) -> None:
    assert probed["foreign"] == []
    assert [n for n in probed["nasc"] if not (n == "nasc" or n.startswith("nasc.ir"))] == []  # type: ignore[union-attr]


def test_the_import_is_fast(probed: dict[str, object]) -> None:
    """It takes about 0.1 s of processor time; the bound leaves no room for torch, which takes seconds."""
    assert probed["seconds"] < 0.5  # type: ignore[operator]


def test_this_probe_sees_foreign_modules() -> None:
    probe = PROBE.replace("import nasc.ir", "import nasc.ir, numpy")
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd="/")
    assert "numpy" in json.loads(ran.stdout)["foreign"]


def test_every_public_name_is_there_and_documented() -> None:
    assert len(set(nasc.ir.__all__)) == len(nasc.ir.__all__)
    for name in nasc.ir.__all__:
        found = getattr(nasc.ir, name)
        if callable(found) and getattr(found, "__module__", "").startswith("nasc"):
            assert found.__doc__, name


def test_the_example_of_the_language_is_a_graph() -> None:
    text = (
        "nasc 1\ngraph @net(%x: f32[N, 16]) {\n  width $fc1 = 64\n  %w: f32[$fc1, 16] = weight\n"
        "  %fc1: f32[N, $fc1] = linear %x, %w\n  return %fc1\n}\n"
    )
    graph = nasc.ir.parse(text)
    nasc.ir.verify(graph)
    assert str(graph) == nasc.ir.text(graph) == text
    assert nasc.ir.text(graph.with_sizes({"fc1": 32})) == text.replace("= 64", "= 32")
