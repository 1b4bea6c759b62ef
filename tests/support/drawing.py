"""Hypothesis strategies for the IR: axis terms, types, and whole graphs that need not make sense to a rule."""

from __future__ import annotations

from hypothesis import strategies as st
from nasc.ir import Format, Graph, Input, Location, N, Op, Step, Type, Width, product, total
from nasc.ir.axes import Axis, Const
from nasc.ir.formats import FLOATS, format_named
from nasc.ir.rules import attributes

WIDTHS = ("a", "b", "c", "layer1.0.conv", "d_1")
SIZES = {"a": 2, "b": 3, "c": 5, "layer1.0.conv": 7, "d_1": 1}

atoms: st.SearchStrategy[Axis] = st.one_of(
    st.integers(1, 12).map(Const), st.sampled_from(WIDTHS).map(Width), st.just(N)
)
"""Terms that are not made of others."""

terms: st.SearchStrategy[Axis] = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(product), st.lists(inner, min_size=1, max_size=3).map(total)
    ),
    max_leaves=8,
)
"""Axis terms in normal form."""

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,8}", fullmatch=True)
float_formats = st.sampled_from(FLOATS)
other_formats = st.sampled_from(["f4e2m1", "f6e3m2", "f16e5m10", "l3", "l7", "ternary", "binary", "f8e4m3"]).map(
    format_named
)
"""Formats that are quantized to and are no plain integers."""
integer_formats = st.builds(lambda s, b: format_named(f"{s}{b}"), st.sampled_from("iu"), st.integers(2, 16))


@st.composite
def steps(draw: st.DrawFn, format: Format) -> Step:
    """Any step that the language can write."""
    if draw(st.integers(0, 3)) == 0:
        axis, power_of_two = draw(st.none() | st.integers(0, 3)), draw(st.booleans())
        zeros = format.family == "int" and not power_of_two and draw(st.booleans())
        known = draw(st.booleans())
        return Step.blocks(draw(st.integers(2, 512)), axis, known=known, power_of_two=power_of_two, zeros=zeros)
    kind = draw(st.sampled_from(["known", "power", "unknown", "per", "zero unknown"]))
    if format.family != "int":
        if kind in ("known", "power"):
            return Step.of(draw(st.floats(2.0**-126, 2.0**100, width=32)))
        kind = "unknown" if kind == "zero unknown" else kind
    if kind == "known":
        value = draw(st.floats(2.0**-126, 2.0**100, width=32))
        return Step.of(value, draw(st.integers(format.low, format.high)))
    if kind == "power":
        return Step.of(2.0 ** draw(st.integers(-140, 127)), draw(st.integers(format.low, format.high)))
    power_of_two = draw(st.booleans())
    if kind == "per":
        zeros = format.family == "int" and draw(st.booleans())
        return Step.per(draw(st.integers(0, 3)), known=draw(st.booleans()), power_of_two=power_of_two, zeros=zeros)
    return Step(zero=None if kind == "zero unknown" else 0, power_of_two=power_of_two)


@st.composite
def types(draw: st.DrawFn) -> Type:
    """Any type."""
    axes = tuple(draw(st.lists(terms, max_size=4)))
    if draw(st.booleans()):
        return Type(draw(float_formats), axes)
    format = draw(integer_formats | other_formats)
    return Type(format, axes, draw(steps(format)) if format.needs_step or draw(st.booleans()) else None)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    terms.map(lambda t: t.value if isinstance(t, Const) else t),
    st.one_of(float_formats, integer_formats, other_formats),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)
"""Attribute values."""


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph that the language can write; names are distinct and defined before they are read, no more."""
    taken = draw(st.lists(names, min_size=2, max_size=8, unique=True))
    inputs = [Input(taken[0], draw(types()))]
    ops: list[Op] = []
    known = [taken[0]]
    for name in taken[1:]:
        kind = draw(st.sampled_from(["relu", "add", "weight", "aten.split.Tensor", "aten.x.y"]))
        raw = kind.startswith("aten.")
        given = draw(st.dictionaries(st.from_regex("[a-z_]{1,6}", fullmatch=True), values, max_size=3)) if raw else {}
        reads = () if kind == "weight" else tuple(draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)))
        results = (name, f"{name}.1") if kind == "aten.split.Tensor" else (name,)
        file = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        place = draw(st.none() | st.builds(Location, file, st.integers(0, 9999)))
        result_types = tuple(draw(types()) for _ in results)
        ops.append(Op(kind, results, result_types, reads, attributes(kind, given), place))
        known += [r for r in results if r not in known]
    widths = tuple((w, draw(st.integers(1, 4096))) for w in WIDTHS)
    graph_name = draw(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,8}", fullmatch=True))
    return Graph(graph_name, tuple(inputs), widths, tuple(ops), (known[-1],))
