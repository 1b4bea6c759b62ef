"""Print and parse are each other's inverse, for every graph that can be written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.ir import Encoding, Graph, Input, Location, Op, Step, Type, format_named, parse, parse_encoding, text
from nasc.ir.axes import Const, Width
from nasc.ir.formats import F32
from nasc.ir.printer import attribute_text
from nasc.ir.types import as_f32, shortest
from support.drawing import graphs, types

SHOWN = """\
nasc 1
graph @tiny_cnn(%image: f32[N, 3, 32, 32], %mask: bool[N]) {
  width $stem = 16
  width $layer1.0.conv = 8
  %x: u8<2^-8>[N, 3, 32, 32] = quantize %image
  %stem.w: i8<per 0>[$stem, 3, 3, 3] = weight at "tiny_cnn.py":9
  %stem: f32[N, $stem, 32, 32] = conv2d %x, %stem.w {padding=[1, 1]} at "tiny_cnn.py":22
  %act.q: u8<0.047, 3>[N, $stem, 32, 32] = quantize %stem
  %asked.q: u4<?, ?>[N, $stem, 32, 32] = quantize %stem
  %fixed.q: i8<2^?>[N, $stem, 32, 32] = quantize %stem
  %body.w: i4<per 0 ?>[$stem, $stem, 3, 3] = weight
  %side.w: i4<per 1 2^>[$stem, $stem, 3, 3] = weight
  %more.w: i4<per 0 2^?>[$stem, $stem, 3, 3] = weight
  %blocks.w: i4<block 32 on 1>[$stem, $stem, 3, 3] = weight
  %asked.w: i4<block 32 on 1 ?>[$stem, $stem, 3, 3] = weight
  %mx.w: f4e2m1<block 32 on 0 2^>[$stem, $stem, 3, 3] = weight
  %log.w: l4<per 0>[$stem, $stem, 3, 3] = weight
  %sign.w: binary<?>[$stem, $stem, 3, 3] = weight
  %eight.q: f8e4m3<2^-6>[N, $stem, 32, 32] = quantize %stem
  %flat: u8<0.047, 3>[N, $stem*1024] = reshape %act.q {shape=[N, $stem*1024]}
  %joined: f32[N, 3*($stem+$layer1.0.conv)+$stem*2] = cat %x, %flat {dim=1}
  %odd: bool[0] = aten.odd.default %flat {args=["%0", [1, -2], none, true, 0.0625, -inf, f16, "a\\"b", $stem*4, N]}
  %a, %b: f32[], i64[0] = aten.split.default
  return %joined, %a
}
"""


@given(graphs())
@settings(max_examples=40)
def test_print_and_parse_are_inverse(graph: Graph) -> None:
    printed = text(graph)
    assert parse(printed) == graph
    assert text(parse(printed)) == printed


def test_every_construct_round_trips() -> None:
    assert text(parse(SHOWN)) == SHOWN
    assert str(parse(SHOWN)) == SHOWN


def test_a_text_that_lost_one_character_is_another_graph_or_none() -> None:
    """The round trip above is no tautology: leave out any one character, and text or graph are others."""
    from nasc.ir import ParseError

    whole = parse(SHOWN)
    for at, left_out in enumerate(SHOWN):
        if left_out in " \n":
            continue
        cut = SHOWN[:at] + SHOWN[at + 1 :]
        try:
            assert parse(cut) != whole, f"character {at}, {left_out!r}"
        except ParseError:
            continue


@given(types())
def test_encodings_round_trip_alone(type: Type) -> None:
    assert parse_encoding(str(type.encoding)) == type.encoding


@given(st.floats(2.0**-149, 2.0**127, width=32))
def test_steps_print_as_the_shortest_text_that_reads_back(value: float) -> None:
    printed = shortest(value)
    assert as_f32(2.0 ** int(printed[2:]) if printed.startswith("2^") else float(printed)) == value


def test_steps_of_a_power_of_two_show_it() -> None:
    assert [shortest(v) for v in (0.125, 1.0, 8.0, as_f32(0.1), 3.0, 100.0)] == [
        "2^-3",
        "2^0",
        "2^3",
        "0.1",
        "3",
        "1e+02",
    ]


@given(st.floats(allow_nan=False))
def test_float_attributes_are_exact(value: float) -> None:
    op = Op("leaky_relu", ("y",), (Type(F32, ()),), ("x",), (("negative_slope", value),))
    graph = Graph("g", (Input("x", Type(F32, ())),), (), (op,), ("y",))
    found = parse(text(graph)).ops[0].attribute("negative_slope", 0.01)
    assert isinstance(found, float) and (found, str(found)) == (value, str(value))


def test_what_has_no_text_is_an_error() -> None:
    with pytest.raises(TypeError, match="no text for an attribute of type dict"):
        attribute_text({})  # pyright: ignore[reportArgumentType]


def test_comments_and_blank_lines_are_skipped() -> None:
    lines = SHOWN.splitlines()
    commented = "\n\n// a pass\n".join(lines) + "\n   // the end\n\n"
    assert parse(commented) == parse(SHOWN)


def test_windows_line_ends_are_read() -> None:
    assert parse(SHOWN.replace("\n", "\r\n")) == parse(SHOWN)


@pytest.mark.parametrize("file", ['a "b".py', "c:\\net.py", "naïve.py", "two\nlines.py", "odd\u2028\x85\x0b.py", ""])
def test_any_file_name_can_be_a_location(file: str) -> None:
    op = Op("relu", ("y",), (Type(F32, ()),), ("x",), (), Location(file, 3))
    graph = Graph("g", (Input("x", Type(F32, ())),), (), (op,), ("y",))
    assert parse(text(graph)) == graph


def test_attributes_are_canonical() -> None:
    """Declared order, defaults left out, single constants as integers."""
    read = parse(
        "nasc 1\ngraph @g(%x: f32[N, 4, 8, 8]) {\n  %w: f32[4, 4, 3, 3] = weight\n"
        "  %y: f32[N, 4, 6, 6] = conv2d %x, %w {groups=1, dilation=[1, 1], padding=[0, 0], stride=[1, 1]}\n"
        "  %z: f32[N, 4, 3, 3] = max_pool2d %y {stride=[2, 2], kernel_size=[2, 2]}\n  return %z\n}\n"
    )
    assert [op.attributes for op in read.ops] == [(), (), (("kernel_size", (2, 2)), ("stride", (2, 2)))]


def test_one_change_in_meaning_is_one_line_of_difference() -> None:
    graph = parse(SHOWN)
    before, after = text(graph).splitlines(), text(graph.with_sizes({"stem": 24})).splitlines()
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [
        ("  width $stem = 16", "  width $stem = 24")
    ]


def test_types_print_shape_bits_and_precision() -> None:
    u8 = format_named("u8")
    assert str(Type(u8, (Const(3), Width("a")), Step.of(0.047, 3))) == "u8<0.047, 3>[3, $a]"
    assert str(Encoding(u8, Step.per(0, known=False))) == "u8<per 0 ?>"
    assert str(Encoding(F32)) == "f32"
    assert str(Encoding(u8, Step.of(0.25).forget())) == "u8<2^?>"
    assert str(Encoding(u8, replace(Step.of(0.1, 5).forget()))) == "u8<?, ?>"
