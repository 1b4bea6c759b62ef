"""Which files of its folder a Python file imports, read from their text: the same wherever the program runs from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def imported_files(path: Path) -> list[Path]:
    """The files below a file's folder that it imports, itself first, then by name; also those that these import.

    A file that cannot be read or is no Python imports nothing. Imports by names that are computed are not seen.

    Args:
        path: the file, whose folder is where its imports are looked for.
    """
    first = path.resolve()
    found, waiting = {first}, [first]
    while waiting:
        for name in _names(waiting.pop(), first.parent):
            new = [place for place in _places(name, first.parent) if place not in found]
            found.update(new)
            waiting += new
    return [first, *sorted(found - {first})]


def _names(file: Path, folder: Path) -> Iterator[str]:
    """All dotted names that a file imports; of `from a import b` both `a` and `a.b`, which may be a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = file.relative_to(folder).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}" if start else alias.name for alias in node.names)


def _places(name: str, folder: Path) -> Iterator[Path]:
    """The files that are run to import a dotted name: those of its packages, and its own."""
    here = folder
    for part in filter(None, name.split(".")):
        module, package = here / f"{part}.py", here / part / "__init__.py"
        here = here / part
        if package.is_file():
            yield package
        elif module.is_file():
            yield module
            return
        elif not here.is_dir():
            return
