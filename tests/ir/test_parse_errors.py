"""Every text that is no graph is refused at its line and column, with what was expected and what was found."""

from __future__ import annotations

import pytest
from nasc.ir import NascError, ParseError, UsageError, parse, parse_axes, parse_encoding

HEAD = "nasc 1\ngraph @g(%x: f32[N, 4]) {\n"
TAIL = "\n  return %y\n}\n"


def refusal(text: str) -> tuple[str, str]:
    """The place and the message with which a text is refused."""
    with pytest.raises(ParseError) as caught:
        parse(text, "g.nasc")
    place, message = str(caught.value).split(": error: ", 1)
    assert place.startswith("g.nasc:")
    return place.removeprefix("g.nasc:"), message


WHOLE = [
    ("", "g.nasc: error: the text is empty\n  A graph starts with the line `nasc 1`."),
    ("  \n// only words\n", "g.nasc: error: the text is empty\n  A graph starts with the line `nasc 1`."),
]


@pytest.mark.parametrize(("text", "message"), WHOLE)
def test_an_empty_text_has_no_line(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text, "g.nasc")
    assert str(caught.value) == message


OUTSIDE = [
    ("graph @g() {", "1:1", "expected `nasc 1` on the first line, found 'graph'"),
    ("nasc", "1:5", "expected a version, found the end of the line"),
    ("nasc 2\n", "1:6", "the text is of version 2; this nasc reads version 1"),
    ("nasc 1.5\n", "1:6", "the text is of version 1.5; this nasc reads version 1"),
    ("nasc 1 1\n", "1:8", "expected the end of the line, found '1'"),
    ("nasc 1\n", "1:7", "expected `graph @name(…) {` after this line"),
    ("nasc 1\nnet", "2:1", "expected 'graph', found 'net'"),
    ("nasc 1\ngraph g", "2:7", "expected a name such as @net, found 'g'"),
    ("nasc 1\ngraph @g {", "2:10", "expected '(', found '{'"),
    ("nasc 1\ngraph @g(x: f32[]) {", "2:10", "expected an input such as %x, found 'x'"),
    ("nasc 1\ngraph @g(%x f32[]) {", "2:13", "expected ':', found 'f32'"),
    ("nasc 1\ngraph @g(%x: f32[] %y: f32[]) {", "2:20", "expected ',', found '%y'"),
    ("nasc 1\ngraph @g(%x: f32[])", "2:20", "expected '{', found the end of the line"),
    ("nasc 1\ngraph @g() {", "2:13", "expected an op or `return`, found the end of the text"),
    ("nasc 1\ngraph @g() {\n  width stem = 3", "3:9", "expected a width such as $stem, found 'stem'"),
    ("nasc 1\ngraph @g() {\n  width $stem 3", "3:15", "expected '=', found '3'"),
    ("nasc 1\ngraph @g() {\n  width $stem = 3.5", "3:17", "expected an integer, found '3.5'"),
    ("nasc 1\ngraph @g() {\n  width $stem = 3 4", "3:19", "expected the end of the line, found '4'"),
    (HEAD + "  wdith $a = 3", "3:3", "expected an op or `return`, found 'wdith'"),
    (HEAD + "  return %x", "3:12", "expected `}`, found the end of the text"),
    (HEAD + "  return %x\n{", "4:1", "expected '}', found '{'"),
    (HEAD + "  return %x\n} }", "4:3", "expected the end of the line, found '}'"),
    (HEAD + "  return %x\n}\nnasc 1", "5:1", "expected nothing after the graph's `}`"),
    (HEAD + "  return %x,\n}", "3:13", "expected a value, found the end of the line"),
    (HEAD + "  return %x %x\n}", "3:13", "expected the end of the line, found '%x'"),
]


@pytest.mark.parametrize(("text", "place", "message"), OUTSIDE)
def test_the_frame_of_a_graph(text: str, place: str, message: str) -> None:
    found_place, found = refusal(text)
    assert (found_place, found.splitlines()[0]) == (place, message)


LINES = [
    ("%y f32[] = relu %x", 4, "expected ':', found 'f32'"),
    ("%y: f32[] relu %x", 11, "expected '=', found 'relu'"),
    ("%y: f32[] = %x", 13, "expected an op, found '%x'"),
    ("%y: f33[] = relu %x", 5, "unknown number format 'f33'"),
    ("%y: i1[] = relu %x", 5, "unknown number format 'i1'"),
    ("%y: u17[] = relu %x", 5, "unknown number format 'u17'"),
    ("%y: f32 = relu %x", 9, "expected '[', found '='"),
    ("%y: f32[N 4] = relu %x", 11, "expected ',', found '4'"),
    ("%y: f32[n] = relu %x", 9, "expected a size, N, or a width such as $stem, found 'n'"),
    ("%y: f32[N, 4.5] = relu %x", 12, "expected an integer, found '4.5'"),
    ("%y: f32[N, -4] = relu %x", 12, "expected a size of 0 or more, found -4"),
    ("%y: f32[($a+4] = relu %x", 14, "expected ')', found ']'"),
    ("%y: f32[$a+] = relu %x", 12, "expected a size, N, or a width such as $stem, found ']'"),
    ("%y, %z: f32[] = relu %x", 15, "2 results need as many types, found 1"),
    ("%y: f32[], f32[] = relu %x", 18, "1 results need as many types, found 2"),
    ("%y: f32<2^-3>[] = quantize %x", 9, "f32 numbers stand for themselves and have no step"),
    ("%y: u8<0>[] = quantize %x", 8, "expected a positive step, found 0"),
    ("%y: u8<-0.5>[] = quantize %x", 8, "expected a positive step, found -0.5"),
    ("%y: u8<nan>[] = quantize %x", 8, "expected a positive step, found nan"),
    ("%y: u8<inf>[] = quantize %x", 8, "expected a positive step, found inf"),
    ("%y: u8<1e39>[] = quantize %x", 8, "expected a step that a binary32 number can hold, found 1e39"),
    ("%y: u8<1e-60>[] = quantize %x", 8, "expected a step that a binary32 number can hold, found 1e-60"),
    ("%y: u8<2^128>[] = quantize %x", 8, "expected a step that a binary32 number can hold, found 2^128"),
    ("%y: u8<2^-150>[] = quantize %x", 8, "expected a step that a binary32 number can hold, found 2^-150"),
    ("%y: u8<2^99999>[] = quantize %x", 8, "expected a step that a binary32 number can hold, found 2^99999"),
    ("%y: u8<0.1, ?>[] = quantize %x", 14, "expected the integer that means zero, since the step is known"),
    ("%y: u8<0.1, 1.5>[] = quantize %x", 13, "expected an integer, found '1.5'"),
    ("%y: u8<2^>[] = quantize %x", 8, "expected a power of two such as 2^-5, found 2^"),
    ("%y: i8<per 0 2^3>[] = quantize %x", 14, "expected `2^` or `2^?` behind the axis, found '2^3'"),
    ("%y: f16<2^-3>[] = quantize %x", 9, "f16 numbers stand for themselves and have no step"),
    ("%y: f4e3m1<2^-3>[] = quantize %x", 5, "unknown number format 'f4e3m1'"),
    ("%y: f8e4m3<0.1, 3>[] = quantize %x", 18, "only integers have another zero than 0, found f8e4m3<0.1, 3>"),
    ("%y: binary<?, ?>[] = quantize %x", 16, "only integers have another zero than 0, found binary<?, ?>"),
    ("%y: i8<block>[] = quantize %x", 13, "expected an integer, found '>'"),
    ("%y: i8<block 1 on 0>[] = quantize %x", 14, "expected a block of 2 elements or more, found 1"),
    ("%y: i8<block 8 on>[] = quantize %x", 18, "expected an integer, found '>'"),
    ("%y: i8<block 8 on 0 2^?>[] = quantize %x", 21, "expected `2^` or `?` behind a block, found '2^?'"),
    ("%y: i8<block 8 on 0 2^3>[] = quantize %x", 21, "expected `2^` or `?` behind a block, found '2^3'"),
    ("%y: i8<block 8 0>[] = quantize %x", 16, "expected '>', found '0'"),
    ("%y: u8<x>[] = quantize %x", 8, "expected a step such as 0.047, 2^-5 or ?, found 'x'"),
    ("%y: u8<0.1[] = quantize %x", 11, "expected '>', found '['"),
    ("%y: i8<per>[] = quantize %x", 11, "expected an integer, found '>'"),
    ("%y: i8<per -1>[] = quantize %x", 12, "expected an axis of 0 or more, found -1"),
    ("%y: f32[] = relu %x,", 21, "expected a value, found the end of the line"),
    ("%y: f32[] = relu %x %x", 21, "expected the end of the line, found '%x'"),
    ("%y: f32[] = elu %x {alpha 1}", 27, "expected '=', found '1'"),
    ("%y: f32[] = elu %x {alpha=}", 27, "expected a size, N, or a width such as $stem, found '}'"),
    ("%y: f32[] = elu %x {alpha=1.0 beta=2}", 31, "expected ',', found 'beta'"),
    ("%y: f32[] = elu %x {alpha=2.0, alpha=3.0}", 32, "the attribute 'alpha' is given twice"),
    ("%y: f32[] = elu %x {alhpa=2.0}", 13, "elu has no attribute 'alhpa'; it has alpha"),
    ("%y: f32[] = relu %x {alpha=2.0}", 13, "relu has no attribute 'alpha'; it has none"),
    ("%y: f32[] = softmax %x", 13, "softmax needs the attribute 'dim'"),
    ("%y: f32[] = elu %x {alpha=[1, 2}", 32, "expected ',', found '}'"),
    ("%y: f32[] = aten.a.b {x=i8<2^-3>}", 25, "expected a format without a step, found i8<2^-3>"),
    ("%y: f32[] = relu %x at net.py:3", 24, "expected a file name in quotes, found 'net.py'"),
    ('%y: f32[] = relu %x at "net.py"', 32, "expected ':', found the end of the line"),
    ('%y: f32[] = relu %x at "\\q":3', 24, "expected text in quotes, found '\"\\\\q\"'"),
    ('%y: f32[] = aten.a.b {x="\\u12"}', 25, "expected text in quotes, found '\"\\\\u12\"'"),
    ('%y: f32[] = relu %x at "net.py', 24, "unexpected character '\"'"),
    ("%y: f32[] = relu 'x'", 18, 'unexpected character "\'"'),
    ("%y: f32[3x] = relu %x", 9, "unexpected character '3'"),
]


@pytest.mark.parametrize(("line", "column", "message"), LINES)
def test_a_line_of_an_op(line: str, column: int, message: str) -> None:
    place, found = refusal(HEAD + line + TAIL)
    assert (place, found.splitlines()[0]) == (f"3:{column}", message)


def test_the_line_and_the_column_are_shown() -> None:
    _, message = refusal(HEAD + "  %y: f32[] = elu %x {alpha 1}" + TAIL)
    assert message.splitlines()[1:] == ["    %y: f32[] = elu %x {alpha 1}", "                              ^"]


def test_line_numbers_count_comments_and_blank_lines() -> None:
    place, _ = refusal("// a test\n\n" + HEAD + "\n  // here\n  %y: f32[ = relu %x" + TAIL)
    assert place == "7:12"


def test_a_newer_version_names_both() -> None:
    _, message = refusal("nasc 7\ngraph @g() {\n  new things\n}\n")
    assert "7" in message and "version 1" in message


def test_errors_are_errors_of_nasc_and_exit_with_one() -> None:
    with pytest.raises(NascError) as caught:
        parse("nothing")
    assert caught.value.exit_code == 1
    assert str(caught.value).startswith("graph:1:1: error:")


@pytest.mark.parametrize("text", ["", "f32 f32", "u8<", "i8<per 0", "[3]", "u8<2^-3>x"])
def test_encodings_alone(text: str) -> None:
    with pytest.raises(ParseError, match=r"^weights:1:"):
        parse_encoding(text, "weights")


@pytest.mark.parametrize("text", ["", "$", "3,", "$a+", "(3", "3)", "3 4"])
def test_axes_alone(text: str) -> None:
    with pytest.raises(ParseError, match=r"^axes:1:"):
        parse_axes(text)


def test_usage_errors_exit_with_two() -> None:
    assert UsageError("wrong").exit_code == 2
