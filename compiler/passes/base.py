"""What every pass promises: frozen options that print and parse, and a pure rewrite of a network."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar, Self, TypeVar

from ...ir import Encoding, Graph, NascError, Op, ParseError, UsageError, parse_encoding
from ...ir.errors import did_you_mean
from ..batches import Batch as Batch
from ..batches import Data as Data
from ..batches import batches_of, in_order
from ..data import tensors_of
from ..network import Network
from ..supervision import Supervision
from ..weights import Trained


class PassError(NascError):
    """A pass refuses a graph; the message names the op and the user's line where there is one."""

    def __init__(self, message: str, *, op: Op | None = None, mend: str | None = None) -> None:
        place = f"{op.location or '%' + op.name}: error: {op.kind} %{op.name}: " if op else "error: "
        super().__init__(place + message, mend=mend)


@dataclass(frozen=True)
class Context:
    """What a pass may look at beside the network.

    Args:
        data: gives batches of inputs, one tuple of tensors each; None where the user gave no data.
        seed: for passes that draw at random.
        memo: lets passes keep what depends on the source network and the data only, from candidate to candidate.
        supervision: what `train` learns from; None where the user gave no training data.
        source: the network that candidates come from; where it is None, the one that a pipeline starts from.
        tell: called with a sentence where a pass leaves out what one might expect of it.
    """

    data: Callable[[], Iterable[Batch]] | None = None
    seed: int = 0
    memo: dict[Any, Any] = field(default_factory=dict[Any, Any], compare=False, repr=False)
    supervision: Supervision | None = field(default=None, compare=False, repr=False)
    source: Network | None = field(default=None, compare=False, repr=False)
    tell: Callable[[str], None] | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def of(
        data: Data,
        seed: int = 0,
        tell: Callable[[str], None] | None = None,
        supervision: Supervision | None = None,
        network: Network | None = None,
    ) -> Context:
        """A context from whatever a caller has: inputs without labels as one tensor or a dict by the names of inputs
        of `network`, batches of them, a Dataset, or a function that gives batches."""

        def batches() -> Iterable[Batch]:
            for batch in batches_of(data):
                if network is None and isinstance(batch, dict):
                    raise UsageError("these inputs go by names, and no network says in which order it takes them")
                yield in_order(batch, data, network.graph) if network is not None else tuple(tensors_of(batch))

        return Context(data=None if data is None else batches, seed=seed, tell=tell, supervision=supervision)

    def say(self, sentence: str) -> None:
        """Tell the user, if anybody listens."""
        if self.tell is not None:
            self.tell(sentence)

    def samples(self, count: int, asker: str) -> list[Batch]:
        """Whole batches, cut so that they hold `count` samples together, or all there are.

        Raises:
            PassError: there is no data.
        """
        if self.data is None:
            raise PassError(
                f"{asker} needs data and there is none",
                mend="Give the model file `calibration_data` or `validation_data`, or pass data=… (`--data model.py`).",
            )
        taken: list[Batch] = []
        left = count
        for batch in self.data():
            if left <= 0:
                break
            taken.append(tuple(t[:left] for t in batch))
            left -= taken[-1][0].shape[0]
        if not taken:
            raise PassError(f"{asker} needs data and the data is empty")
        return taken


def expect_calibrated(graph: Graph, asker: str) -> None:
    """Refuse a graph in which a step is unknown.

    Raises:
        PassError: there is one; names the first.
    """
    for op in graph.ops:
        if op.type.step is not None and not op.type.step.known:
            raise PassError("it has no step yet", op=op, mend=calibrate_before(asker))


def expect_real_numbers(network: Network, asker: str) -> None:
    """Refuse a network that was trained with rounding in place: it has no real-numbered one to compare with.

    Raises:
        PassError: it was; names the first of its weights.
    """
    for op in network.graph.stored:
        if isinstance(network.weights.unrounded(op.name), Trained):
            raise PassError(
                "it was trained with the rounding in place, and no real-numbered network is left to compare with",
                op=op,
                mend=f"Put `{asker}` before `train`, which starts from what it mends, or leave it out.",
            )


def calibrate_before(asker: str) -> str:
    """The mend where a pass meets steps that are unknown: never calibrated, or forgotten since."""
    return f"Put `calibrate` before `{asker}` and behind what leaves steps unknown: `quantize`, `place`, `resize`."


PASSES: dict[str, type[Pass]] = {}
PassT = TypeVar("PassT", bound="Pass")


def register(name: str) -> Callable[[type[PassT]], type[PassT]]:
    """Make a pass known under its name in pipelines."""

    def note(cls: type[PassT]) -> type[PassT]:
        cls.name = name
        PASSES[name] = cls
        return cls

    return note


class Pass:
    """A rewrite of networks. Subclasses are frozen dataclasses whose fields are the options."""

    name: ClassVar[str]

    def run(self, network: Network, context: Context) -> Network:
        """The rewritten network; the given one stays as it is.

        Raises:
            PassError: the pass cannot be applied to this network.
        """
        raise NotImplementedError

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """The pass with options as text.

        Raises:
            UsageError: an unknown option, a missing one, or a value that cannot be read.
        """
        known: dict[str, Field[Any]] = {f.name: f for f in fields(cls)}  # pyright: ignore[reportArgumentType]
        hints = _hints(cls)
        for key in options:
            if key not in known:
                raise UsageError(f"{cls.name} has no option {key!r}", mend=did_you_mean(key, list(known)))
        for key, f in known.items():
            if key not in options and f.default is MISSING and f.default_factory is MISSING:
                raise UsageError(f"{cls.name} needs the option {key!r}", mend=f"Write {cls.name}{{{key}=…}}.")
        return cls(**{key: read_option(cls.name, key, text, hints[key]) for key, text in options.items()})

    def options(self, *, complete: bool = False) -> dict[str, str]:
        """The options as text; those at their default only where `complete`."""
        found: dict[str, str] = {}
        for f in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, f.name)
            if value is not None and (complete or value != f.default):
                found[f.name] = option_text(value)
        return found

    def text(self, *, complete: bool = False) -> str:
        """The pass as it stands in a pipeline."""
        options = ", ".join(f"{k}={v}" for k, v in self.options(complete=complete).items())
        return f"{self.name}{{{options}}}" if options else self.name

    def __str__(self) -> str:
        return self.text()

    @property
    def needs_data(self) -> bool:
        """Whether the result depends on data, and not only on the network."""
        return False

    @property
    def needs_real_numbers(self) -> bool:
        """Whether it compares with the real-numbered network, which `train` with rounding in place does not leave."""
        return False


@lru_cache(maxsize=64)
def _hints(cls: type[Pass]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def option_text(value: Any) -> str:
    """An option's value as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        plain = len(value) == 1 and not str(value[0]).startswith("[")
        return str(value[0]) if plain else f"[{', '.join(map(str, value))}]"
    return str(value)


def read_option(owner: str, key: str, text: str, hint: Any) -> Any:
    """An option's value from its text, by the field's type.

    Raises:
        UsageError: the text is no such value.
    """
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return read_option(owner, key, text, next(c for c in choices if c is not type(None)))
    if origin is tuple:
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return tuple(read_option(owner, key, part, choices[0]) for part in split(inner, ",") if part)
    if origin is typing.Literal:
        if text not in choices:
            raise UsageError(
                f"{owner}: {key} must be one of {', '.join(choices)}; found {text!r}",
                mend=did_you_mean(text, list(choices)),
            )
        return text
    if hint is Encoding:
        try:
            return parse_encoding(text, f"{owner}: {key}")
        except ParseError as error:
            mend = f"Write {owner}{{{key}=i8}}, or another format of docs/formats.md."
            raise UsageError(error.message, mend=mend) from None
    if hint is bool:
        if text not in ("true", "false"):
            raise UsageError(f"{owner}: {key} must be true or false; found {text!r}")
        return text == "true"
    try:
        if (value := hint(text)) in (math.inf, -math.inf) or value != value:
            raise ValueError
        return value
    except ValueError:
        kind = {"int": "an integer", "float": "a number"}.get(hint.__name__, hint.__name__)
        raise UsageError(f"{owner}: {key} must be {kind}; found {text!r}") from None


CLOSING = {"{": "}", "[": "]", "<": ">", "(": ")"}


def split(text: str, separator: str) -> Iterator[str]:
    """The parts of a text between separators that stand outside of all brackets, without blanks around them.

    Raises:
        UsageError: a bracket is not closed.
    """
    depth: list[str] = []
    start = 0
    for at, character in enumerate(text):
        if character in CLOSING:
            depth.append(CLOSING[character])
        elif depth and character == depth[-1]:
            depth.pop()
        elif character == separator and not depth:
            yield text[start:at].strip()
            start = at + 1
    if depth:
        raise UsageError(f"pipeline: expected {depth[-1]!r} before the end of {text!r}")
    yield text[start:].strip()
