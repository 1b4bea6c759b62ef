"""What may be said of a model beside its name: example inputs, weights, and arguments of what makes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...ir.errors import UsageError
from ..data import Inputs
from .example_text import example_of_text, parse_inputs

_ARGUMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Given:
    """What the command line says of a model beside its name.

    Args:
        input: shapes and types of random example inputs as text, see `example_text`; empty: the source names its own.
        weights: a checkpoint whose tensors take the place of the model's.
        arguments: keyword arguments of the function or class that makes the model.
    """

    input: tuple[str, ...] = ()
    weights: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    def of(
        input: str | Sequence[str] | None = None,
        weights: str | Path | None = None,
        arguments: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> Given:
        """From what a caller has: one text or several, arguments by name or as `NAME=VALUE`.

        Raises:
            UsageError: an argument is not `NAME=VALUE`, or is given twice.
        """
        texts = () if input is None else (input,) if isinstance(input, str) else tuple(input)
        named = arguments if isinstance(arguments, Mapping) else parse_arguments(arguments or ())
        return Given(texts, None if weights is None else str(weights), dict(named))

    @staticmethod
    def of_words(words: Sequence[str]) -> Given:
        """The inverse of `words`.

        Raises:
            UsageError: a word is none that `words` writes.
        """
        options: dict[str, list[str]] = {"--input": [], "--weights": [], "--arg": []}
        for option, value in zip(words[::2], words[1::2], strict=True):
            if option not in options:
                raise UsageError(f"{option} is not said of a model", mend=f"Known: {', '.join(options)}.")
            options[option].append(value)
        return Given.of(options["--input"], next(iter(options["--weights"]), None), options["--arg"])

    @property
    def words(self) -> tuple[str, ...]:
        """The same as words of a command line."""
        found: list[str] = []
        for text in self.input:
            found += ["--input", text]
        if self.weights is not None:
            found += ["--weights", self.weights]
        for name, value in self.arguments.items():
            found += ["--arg", f"{name}={value if isinstance(value, str) else repr(value)}"]
        return tuple(found)

    def check(self) -> None:
        """Refuse what suits no source, before one is loaded.

        Raises:
            UsageError: an input is no shape.
        """
        if self.input:
            parse_inputs(self.input)

    def example(self) -> Inputs | None:
        """Random example inputs of the shapes given; None where none are given.

        Raises:
            UsageError: a text is no shape.
        """
        return example_of_text(self.input) if self.input else None

    def checkpoint(self) -> Path | None:
        """Where the weights lie; None where none are given.

        Raises:
            UsageError: there is no such file.
        """
        if self.weights is None:
            return None
        path = Path(self.weights).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"--weights {self.weights}: there is no file {path}", mend="Mend the path.")
        return path

    def refuse(self, source: str, what: str, *names: str) -> None:
        """Refuse what cannot be said of this kind of source.

        Raises:
            UsageError: it was said.
        """
        if "weights" in names and self.weights is not None:
            raise UsageError(f"{source}: --weights says nothing of {what}: its weights lie with it")
        if "arguments" in names and self.arguments:
            raise UsageError(f"{source}: --arg {next(iter(self.arguments))} says nothing of {what}: nothing is called")


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments from `NAME=VALUE`: Python's own literals, `true`, `false`, `none`; all else is text.

    Raises:
        UsageError: a text is not `NAME=VALUE`, or a name is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        match = _ARGUMENT.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"argument {text!r} is not NAME=VALUE", mend="Write --arg num_classes=10.")
        if match[1] in found:
            raise UsageError(f"argument {match[1]!r} is given twice")
        found[match[1]] = _value(match[2].strip())
    return found


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
