"""Running a person's Python: their folder importable only meanwhile, their errors shown at their own line."""

from __future__ import annotations

import importlib
import itertools
import linecache
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import RLock
from types import ModuleType

from ...ir.errors import NascError, UsageError

_lock = RLock()
_numbers = itertools.count()
_never_hidden = sys.stdlib_module_names | {"nasc", "torch"}  # a second copy of these could not live in one process


class Surroundings:
    """What a person's file sees while it runs: its folder first on `sys.path`, and its own modules in `sys.modules`.

    Both are put back afterwards, so a person's `search.py` or `data.py` never meets ours, another program's, or that of
    the next model file; the modules are kept here and are seen again when a function of the file runs later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.modules: dict[str, ModuleType] = {}
        self._paths = [str(self.folder)]
        self._depth = 0

    @contextmanager
    def importable(self) -> Generator[None]:
        """Make the folder's modules importable inside the `with` block."""
        with _lock:
            if self._depth:
                yield
                return
            known = list(sys.path)
            added = [path for path in self._paths if path not in known]
            if not added:  # it is on the path anyway: the person's own program runs from there
                yield
                return
            sys.path[:0] = added
            hidden = {name: sys.modules.pop(name) for name in self._clashing()}
            sys.modules.update(self.modules)
            before = set(sys.modules) - set(self.modules)
            importlib.invalidate_caches()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                self._paths = [path for path in sys.path if path not in known]
                sys.path[:] = [path for path in sys.path if path in known]
                for name in set(sys.modules) - before:
                    if self._is_local(name):
                        self.modules[name] = sys.modules.pop(name)
                sys.modules.update(hidden)

    def _clashing(self) -> list[str]:
        """Modules from elsewhere that bear the name of one in the folder."""
        tops = {name.partition(".")[0] for name in sys.modules} - _never_hidden
        ours = {top for top in tops if self._provides(top) and not self._is_local(top)}
        return [name for name in sys.modules if name.partition(".")[0] in ours]

    def _provides(self, top: str) -> bool:
        return (self.folder / f"{top}.py").is_file() or (self.folder / top / "__init__.py").is_file()

    def _is_local(self, name: str) -> bool:
        """Whether a module was found by way of the person's own paths (and not, say, in a `.venv` that lies below)."""
        top = name.partition(".")[0]
        module = sys.modules.get(top) or self.modules.get(top)
        if module is None:
            return False
        file = getattr(module, "__file__", None)
        places = [Path(place).resolve() for place in ([file] if file else getattr(module, "__path__", []))]
        homes = {place.parent.parent if place.name == "__init__.py" else place.parent for place in places}
        return bool(homes & {Path(path).resolve() for path in self._paths})


def execute(path: Path, surroundings: Surroundings) -> ModuleType:
    """Run a Python file as a module under a private name and return it.

    The file is compiled from its text each time, so a rewritten file is never mistaken for its old self.

    Raises:
        UsageError: it cannot be read, or is not Python.
        NascError: it raised; the message has its line and the exception's text.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    spec = spec_from_file_location(f"_nasc_model_file_{next(_numbers)}_{path.stem}", path)
    if spec is None:
        raise UsageError(f"{shown(path)}: Python does not know how to import it; expected a .py file")
    module = module_from_spec(spec)
    with blaming(path.name, surroundings):
        code = compile(text, str(path), "exec", dont_inherit=True)
        sys.modules[module.__name__] = module  # dataclasses and type hints look their module up there
        linecache.checkcache(str(path))
        exec(code, module.__dict__)
    return module


@contextmanager
def blaming(what: str, surroundings: Surroundings | None) -> Generator[None]:
    """Run a person's code inside this block: what it raises becomes a NascError at their own line.

    Args:
        what: what runs, as the last line of the message says: `train_data()`.
        surroundings: the folder it comes from; None for functions given from Python.
    """
    try:
        if surroundings is None:
            yield
        else:
            with surroundings.importable():
                yield
    except NascError:
        raise
    except (Exception, SystemExit) as error:
        raise _as_theirs(error, what, surroundings) from error


def shown(path: Path) -> str:
    """A path as a person would write it: relative where that is shorter."""
    relative = os.path.relpath(path) if path.drive == Path.cwd().drive else str(path)
    return str(path) if relative.startswith("..") else relative


def _as_theirs(error: BaseException, what: str, surroundings: Surroundings | None) -> NascError:
    place, source = _place(error, surroundings)
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    message = f"{place}error: {type(error).__name__}: {text}".rstrip(": ")
    if source:
        message += f"\n    {source}"
    message += f"\n  while running {what}"
    return NascError(message, mend=_mend(error))


def _mend(error: BaseException) -> str | None:
    if isinstance(error, ImportError) and "no known parent package" in str(error):
        return "A model file runs on its own: import the modules of its folder by their plain names."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Install what provides {error.name!r} in the environment that nasc runs in."
    return None


def _place(error: BaseException, surroundings: Surroundings | None) -> tuple[str, str]:
    """`file:line: ` of the deepest frame in the person's own code, and its source line."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{shown(Path(error.filename))}:{error.lineno}: ", (error.text or "").strip()
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _is_theirs(frame.filename, surroundings)]
    if not theirs:
        return "", ""
    return f"{shown(Path(theirs[-1].filename))}:{theirs[-1].lineno}: ", (theirs[-1].line or "").strip()


def _is_theirs(filename: str, surroundings: Surroundings | None) -> bool:
    path = Path(filename)
    ours = Path(__file__).resolve().parents[2]
    if ours in path.parents and path.relative_to(ours).parts[0] in ("ir", "compiler", "targets", "search"):
        return False
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    if surroundings is not None:
        return surroundings.folder in path.parents
    return path.is_file() and Path(os.__file__).parent not in path.parents
