"""Who imports whom: cli -> search -> compiler, targets -> ir, and heavy packages only where they belong."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nasc
import pytest

ROOT = Path(nasc.__file__).parent

BELOW = {
    "cli": {"api", "search", "compiler", "targets", "ir"},
    "api": {"search", "compiler", "targets", "ir"},
    "search": {"compiler", "targets", "ir"},
    "compiler": {"ir"},
    "targets": {"ir"},
    "ir": set[str](),
}
"""For each part of the house the parts it may import beside itself. `api` is `nasc`'s Python face: api.py,
loading.py, rewriting.py, making.py, deploying.py, __init__.py and __main__.py (which may start the command line)."""

HOMES = {
    "torch": {"compiler", "search"},
    "torchmetrics": {"search"},
    "safetensors": {"compiler"},
    "onnx": {"targets"},
    "onnxruntime": {"targets"},
    "optuna": {"search"},
    "pynvml": {"targets"},
    "typer": {"cli"},
    "rich": {"cli"},
    "pydantic": {"search"},
    "plotly": {"search"},
}
"""For each heavy package the parts that may import it."""


@dataclass(frozen=True)
class Arrow:
    """One import: the part and the file it stands in, what it names, and whether only type checkers see it."""

    part: str
    place: str
    module: str
    for_types: bool


def part_of(path: Path, root: Path) -> str:
    """The part of the house a file belongs to."""
    first = path.relative_to(root).parts[0]
    return "api" if first.endswith(".py") else first


def files(root: Path) -> Iterator[Path]:
    """The package's own source files; tests, examples and a virtual environment beside them are none."""
    yield from sorted(root.glob("*.py"))
    for part in BELOW:
        yield from sorted((root / part).rglob("*.py"))


def arrows(root: Path) -> Iterator[Arrow]:
    """Every import of the package, also those inside functions, with relative ones made absolute."""
    for path in files(root):
        part = part_of(path, root)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        package = ["nasc", *path.relative_to(root).parts[:-1]]
        for node in ast.walk(tree):
            place = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield Arrow(part, place, name.name, node in guarded)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                whole = ".".join([*base, *([node.module] if node.module else [])])
                if node.module is None or whole == "nasc":
                    for name in node.names:
                        yield Arrow(part, place, f"{whole}.{name.name}", node in guarded)
                else:
                    yield Arrow(part, place, whole, node in guarded)


def faults(root: Path) -> list[str]:
    """Every arrow that the house does not have."""
    found: list[str] = []
    for arrow in arrows(root):
        top, *rest = arrow.module.split(".")
        if top == "nasc":
            to = rest[0] if rest and (root / rest[0]).is_dir() else "api"
            start = arrow.place.startswith("__main__.py:") and to == "cli"
            if to != arrow.part and to not in BELOW[arrow.part] and not start:
                found.append(f"{arrow.place}: {arrow.part} imports {to}")
        elif arrow.part == "ir" and top not in sys.stdlib_module_names:
            found.append(f"{arrow.place}: ir imports {top}")
        elif arrow.part not in HOMES.get(top, BELOW) and not (arrow.part == "api" and arrow.for_types):
            found.append(f"{arrow.place}: {arrow.part} imports {top}")
    return found


def test_there_are_no_arrows_but_those_of_the_house() -> None:
    assert faults(ROOT) == []


def test_the_package_imports_itself_relatively() -> None:
    """Absolute imports of `nasc` inside the package hide it from type checkers and editors."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files(ROOT)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "nasc")
        or (isinstance(node, ast.Import) and any(n.name.split(".")[0] == "nasc" for n in node.names))
    ]
    assert found == []


WRONG = [
    ("ir/new.py", "import torch", "ir/new.py:1: ir imports torch"),
    ("ir/new.py", "import numpy", "ir/new.py:1: ir imports numpy"),
    ("ir/rules/new.py", "from ...compiler import network", "ir/rules/new.py:1: ir imports compiler"),
    ("ir/new.py", "from .. import targets", "ir/new.py:1: ir imports targets"),
    ("compiler/new.py", "from ..targets.cost import x", "compiler/new.py:1: compiler imports targets"),
    ("compiler/new.py", "from ..search import x", "compiler/new.py:1: compiler imports search"),
    ("compiler/new.py", "import onnx.helper", "compiler/new.py:1: compiler imports onnx"),
    ("compiler/new.py", "def f():\n    import optuna", "compiler/new.py:2: compiler imports optuna"),
    ("targets/new.py", "from ..compiler.network import Network", "targets/new.py:1: targets imports compiler"),
    ("targets/onnx/new.py", "from torch import Tensor", "targets/onnx/new.py:1: targets imports torch"),
    ("search/new.py", "from ..cli import app", "search/new.py:1: search imports cli"),
    ("search/new.py", "from .. import api", "search/new.py:1: search imports api"),
    ("search/new.py", "import rich", "search/new.py:1: search imports rich"),
    ("search/new.py", "import onnxruntime", "search/new.py:1: search imports onnxruntime"),
    ("cli/new.py", "import torch", "cli/new.py:1: cli imports torch"),
    ("api.py", "import torch", "api.py:1: api imports torch"),
    ("api.py", "from .cli import app", "api.py:1: api imports cli"),
    ("compiler/new.py", "from nasc.search import x", "compiler/new.py:1: compiler imports search"),
]


@pytest.mark.parametrize(("file", "text", "fault"), WRONG)
def test_this_check_finds_a_new_arrow(tmp_path: Path, file: str, text: str, fault: str) -> None:
    for part in BELOW:
        (tmp_path / part).mkdir()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert faults(tmp_path) == [fault]


def test_this_check_lets_the_houses_own_arrows_pass(tmp_path: Path) -> None:
    for part in BELOW:
        (tmp_path / part).mkdir()
    (tmp_path / "cli" / "app.py").write_text(
        "import typer\nfrom ..search import run\nfrom .. import api\nfrom ..ir import text"
    )
    (tmp_path / "search" / "run.py").write_text(
        "import torch, optuna\nfrom ..targets import x\nfrom ..compiler import y"
    )
    (tmp_path / "compiler" / "run.py").write_text("import torch\nfrom ..ir import text\nfrom . import passes")
    (tmp_path / "api.py").write_text("if TYPE_CHECKING:\n    import torch\nfrom .search import run")
    (tmp_path / "__main__.py").write_text("from .cli import main")
    assert faults(tmp_path) == []
