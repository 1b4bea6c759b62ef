"""Read a graph from its text. Every error names the line and column, what was expected and what was found."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from .axes import Axes, Axis, Const, N, Width, product, total
from .errors import NascError, UsageError
from .formats import MX, format_named
from .graph import Attribute, Graph, Input, Location, Op
from .printer import VERSION
from .rules import Fault, attributes
from .types import Encoding, Step, Type

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<power>2\^(?:-?[0-9]+|\?)?)
      | (?P<number>-?(?:inf\b|nan\b|[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|[0-9]+(?![A-Za-z_0-9.])))
      | (?P<value>%[A-Za-z0-9_][A-Za-z0-9_.]*)
      | (?P<width>\$[A-Za-z0-9_][A-Za-z0-9_.]*)
      | (?P<graph>@[A-Za-z0-9_][A-Za-z0-9_.\-]*)
      | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<sign>[\[\](){}<>,:=*+?])
    """,
    re.VERBOSE,
)


LARGEST = (2.0 - 2.0**-23) * 2.0**127
"""The largest finite binary32 number."""


class ParseError(NascError):
    """The text is not a graph."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, text: str, number: int, source: str) -> None:
        self.text, self.number, self.source = text, number, source
        self.tokens: list[_Token] = []
        self.position = 0
        at = 0
        while at < len(text):
            if not (match := _TOKEN.match(text, at)):
                raise self.error(f"unexpected character {text[at]!r}", at)
            if match.lastgroup != "space":
                self.tokens.append(_Token(match.lastgroup or "", match.group(), at))
            at = match.end()

    def error(self, message: str, column: int | None = None) -> ParseError:
        """An error at a column of this line, or at the next token."""
        if column is None:
            column = self.tokens[self.position].column if self.position < len(self.tokens) else len(self.text)
        place = f"{self.source}:{self.number}:{column + 1}"
        return ParseError(f"{place}: error: {message}\n  {self.text}\n  {' ' * column}^")

    def error_before(self, message: str) -> ParseError:
        """An error at the token that was taken last."""
        return self.error(message, self.tokens[self.position - 1].column)

    def peek(self, text: str) -> bool:
        """Whether the next token is this one."""
        return self.position < len(self.tokens) and self.tokens[self.position].text == text

    def kind(self) -> str:
        """The kind of the next token, empty at the end."""
        return self.tokens[self.position].kind if self.position < len(self.tokens) else ""

    def take(self, *kinds: str, what: str) -> str:
        """The next token, which must be of one of these kinds."""
        if self.kind() not in kinds:
            raise self.error(f"expected {what}, found {self.found()}")
        self.position += 1
        return self.tokens[self.position - 1].text

    def found(self) -> str:
        """The next token, for a message."""
        return repr(self.tokens[self.position].text) if self.position < len(self.tokens) else "the end of the line"

    def expect(self, text: str) -> None:
        """The next token must be this one."""
        if not self.peek(text):
            raise self.error(f"expected {text!r}, found {self.found()}")
        self.position += 1

    def accept(self, text: str) -> bool:
        """Skip the next token if it is this one."""
        if self.peek(text):
            self.position += 1
            return True
        return False

    def end(self) -> None:
        """There must be nothing left."""
        if self.position < len(self.tokens):
            raise self.error(f"expected the end of the line, found {self.found()}")


def parse(text: str, source: str = "graph") -> Graph:
    """The graph that `text` describes.

    Args:
        text: what `text(graph)` prints; `//` starts a comment at the head of a line.
        source: the name to give in errors, a file's path as a rule.

    Raises:
        ParseError: the text is not a graph of this version.
    """
    rows = [(i, row.rstrip()) for i, row in enumerate(text.split("\n"), 1)]
    lines = [_Line(row, i, source) for i, row in rows if row.strip() and not row.lstrip().startswith("//")]
    if not lines:
        raise ParseError(f"{source}: error: the text is empty", mend=f"A graph starts with the line `nasc {VERSION}`.")
    last = lines[-1]
    _version(lines[0])
    if len(lines) < 2:
        raise last.error("expected `graph @name(…) {` after this line", len(last.text))
    name, inputs = _header(lines[1])
    widths: list[tuple[str, int]] = []
    ops: list[Op] = []
    at = 2
    while at < len(lines) and lines[at].peek("width"):
        widths.append(_width(lines[at]))
        at += 1
    while at < len(lines) and lines[at].kind() == "value":
        ops.append(_op(lines[at]))
        at += 1
    if at >= len(lines):
        raise last.error("expected an op or `return`, found the end of the text", len(last.text))
    outputs = _return(lines[at])
    if at + 1 >= len(lines):
        raise last.error("expected `}`, found the end of the text", len(last.text))
    lines[at + 1].expect("}")
    lines[at + 1].end()
    if at + 2 < len(lines):
        raise lines[at + 2].error("expected nothing after the graph's `}`", 0)
    return Graph(name, inputs, tuple(widths), tuple(ops), outputs)


def _version(line: _Line) -> None:
    if not line.accept("nasc"):
        raise line.error(f"expected `nasc {VERSION}` on the first line, found {line.found()}")
    version = line.take("number", what="a version")
    line.end()
    if version != str(VERSION):
        raise line.error(f"the text is of version {version}; this nasc reads version {VERSION}", 5)


def _header(line: _Line) -> tuple[str, tuple[Input, ...]]:
    line.expect("graph")
    name = line.take("graph", what="a name such as @net")[1:]
    line.expect("(")
    inputs: list[Input] = []
    while not line.accept(")"):
        if inputs:
            line.expect(",")
        value = line.take("value", what="an input such as %x")[1:]
        line.expect(":")
        inputs.append(Input(value, _type(line)))
    line.expect("{")
    line.end()
    return name, tuple(inputs)


def _width(line: _Line) -> tuple[str, int]:
    line.expect("width")
    name = line.take("width", what="a width such as $stem")[1:]
    line.expect("=")
    size = _integer(line)
    line.end()
    return name, size


def _integer(line: _Line) -> int:
    token = line.take("number", what="an integer")
    try:
        return int(token)
    except ValueError:
        raise line.error_before(f"expected an integer, found {token!r}") from None


def _count(line: _Line, what: str) -> int:
    if (number := _integer(line)) < 0:
        raise line.error_before(f"expected {what} of 0 or more, found {number}")
    return number


def _string(line: _Line, what: str) -> str:
    token = line.take("string", what=what)
    try:
        return json.loads(token)
    except json.JSONDecodeError:
        raise line.error_before(f"expected text in quotes, found {token!r}") from None


def _values(line: _Line) -> tuple[str, ...]:
    if line.kind() != "value":
        return ()
    names = [line.take("value", what="a value")[1:]]
    while line.accept(","):
        names.append(line.take("value", what="a value")[1:])
    return tuple(names)


def _return(line: _Line) -> tuple[str, ...]:
    if not line.accept("return"):
        raise line.error(f"expected an op or `return`, found {line.found()}")
    names = _values(line)
    line.end()
    return names


def _op(line: _Line) -> Op:
    results = _values(line)
    line.expect(":")
    types = [_type(line)]
    while line.accept(","):
        types.append(_type(line))
    if len(types) != len(results):
        raise line.error(f"{len(results)} results need as many types, found {len(types)}")
    line.expect("=")
    kind_at = line.position
    kind = line.take("word", what="an op")
    inputs = _values(line)
    given: dict[str, Attribute] = {}
    if line.accept("{"):
        while not line.accept("}"):
            if given:
                line.expect(",")
            key = line.take("word", what="an attribute's name")
            if key in given:
                raise line.error_before(f"the attribute {key!r} is given twice")
            line.expect("=")
            given[key] = _attribute(line)
    location = None
    if line.accept("at"):
        file = _string(line, "a file name in quotes")
        line.expect(":")
        location = Location(file, _integer(line))
    line.end()
    try:
        kept = attributes(kind, given)
    except Fault as fault:
        raise line.error(fault.message, line.tokens[kind_at].column) from None
    return Op(kind, results, tuple(types), inputs, kept, location)


def _type(line: _Line) -> Type:
    encoding = _encoding(line)
    line.expect("[")
    axes: list[Axis] = []
    while not line.accept("]"):
        if axes:
            line.expect(",")
        axes.append(_axis(line))
    return Type(encoding.format, tuple(axes), encoding.step)


def _encoding(line: _Line) -> Encoding:
    at = line.position
    word = line.take("word", what="a format such as f32")
    try:
        format = format_named(word)
    except UsageError as error:
        line.position = at
        raise line.error(str(error)) from None
    if not line.accept("<"):
        return Encoding(format)
    if not format.takes_step:
        raise line.error(f"{format} numbers stand for themselves and have no step")
    step = _step(line)
    line.expect(">")
    if step.zero != 0 and format.family != "int":
        raise line.error_before(f"only integers have another zero than 0, found {Encoding(format, step)}")
    return Encoding(format, step)


def _step(line: _Line) -> Step:
    if line.accept("block"):
        return _blocks(line)
    if line.accept("per"):
        axis = _count(line, "an axis")
        if line.kind() != "power":
            known = not line.accept("?")
            return Step.per(axis, known=known, zeros=_zeros(line))
        power = line.take("power", what="a power of two")
        if power not in ("2^", "2^?"):
            raise line.error_before(f"expected `2^` or `2^?` behind the axis, found {power!r}")
        return Step.per(axis, known=power == "2^", power_of_two=True, zeros=_zeros(line))
    power_of_two = line.kind() == "power"
    value = None if line.accept("?") or line.accept("2^?") else _step_value(line)
    zero: int | None = 0
    if line.accept(","):
        zero = None if line.accept("?") else _integer(line)
    if value is None:
        return Step(zero=zero, power_of_two=power_of_two)
    if zero is None:
        raise line.error("expected the integer that means zero, since the step is known")
    return Step.of(value, zero)


def _blocks(line: _Line) -> Step:
    if (length := _integer(line)) < 2:
        raise line.error_before(f"expected a block of 2 elements or more, found {length}")
    axis = _count(line, "an axis") if line.accept("on") else None
    if line.kind() != "power":
        known = not line.accept("?")
        return Step.blocks(length, axis, known=known, zeros=_zeros(line))
    if (power := line.take("power", what="a power of two")) != "2^":
        raise line.error_before(f"expected `2^` or `?` behind a block, found {power!r}")
    if line.peek(","):
        raise line.error("blocks that share an exponent have no zeros")
    return Step.blocks(length, axis, power_of_two=True)


def _zeros(line: _Line) -> bool:
    """Whether several steps have zeros of their own."""
    if not line.accept(","):
        return False
    if not line.accept("zeros"):
        raise line.error(f"expected `zeros`: each of several steps has one of its own; found {line.found()}")
    return True


def _step_value(line: _Line) -> float:
    token = line.take("number", "power", what="a step such as 0.047, 2^-5 or ?")
    if token == "2^":
        raise line.error_before("expected a power of two such as 2^-5, found 2^")
    value = 2.0 ** min(int(token[2:]), 1000) if token.startswith("2^") else float(token)
    if not 0 < value < float("inf"):
        raise line.error_before(f"expected a positive step, found {token}")
    if not 2.0**-149 <= value <= LARGEST:
        raise line.error_before(f"expected a step that a binary32 number can hold, found {token}")
    return value


def _axis(line: _Line) -> Axis:
    terms = [_product(line)]
    while line.accept("+"):
        terms.append(_product(line))
    return total(terms) if len(terms) > 1 else terms[0]


def _product(line: _Line) -> Axis:
    terms = [_factor(line)]
    while line.accept("*"):
        terms.append(_factor(line))
    return product(terms) if len(terms) > 1 else terms[0]


def _factor(line: _Line) -> Axis:
    if line.accept("("):
        axis = _axis(line)
        line.expect(")")
        return axis
    if line.kind() == "width":
        return Width(line.take("width", what="a width")[1:])
    if line.accept("N"):
        return N
    if line.kind() != "number":
        raise line.error(f"expected a size, N, or a width such as $stem, found {line.found()}")
    return Const(_count(line, "a size"))


def _attribute(line: _Line) -> Attribute:
    if line.accept("["):
        items: list[Attribute] = []
        while not line.accept("]"):
            if items:
                line.expect(",")
            items.append(_attribute(line))
        return tuple(items)
    if line.kind() == "string":
        return _string(line, "text")
    for word, value in (("none", None), ("true", True), ("false", False)):
        if line.accept(word):
            return value
    if line.kind() == "word" and not line.peek("N"):
        at = line.position
        if (encoding := _encoding(line)).step is not None:
            raise line.error(f"expected a format without a step, found {encoding}", line.tokens[at].column)
        return encoding.format
    if line.kind() == "number":
        token = line.tokens[line.position].text
        if not re.fullmatch(r"-?[0-9]+", token):
            line.position += 1
            return float(token)
        if token.startswith("-"):
            return _integer(line)
    return _axis(line)


def parse_encoding(text: str, source: str = "encoding") -> Encoding:
    """An encoding on its own, as passes take it: `f16`, `u8`, `i4<per 0 ?>`, `u8<2^-4>`, `mxfp4`.

    Raises:
        ParseError: it is none.
    """
    line = _Line(MX.get(text, text), 1, source)
    encoding = _encoding(line)
    line.end()
    return encoding


def parse_axes(text: str, source: str = "axes") -> Axes:
    """Axis terms separated by commas, without brackets."""
    line = _Line(text, 1, source)
    axes = [_axis(line)]
    while line.accept(","):
        axes.append(_axis(line))
    line.end()
    return tuple(axes)
