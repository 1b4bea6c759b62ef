"""The table of what is really faster on a device."""

from __future__ import annotations

from pathlib import Path

import pytest
from nasc.ir import verify
from nasc.targets import target_named, truth
from nasc.targets.truth import FORMATS, SHAPES, Row, Shape, Truth, network

CPU = target_named("onnxruntime:cpu")
TINY = (Shape("linear", "2 rows", 2, (8,), (8, 8)), Shape("conv2d", "maps", 1, (4, 6, 6), (4, 4, 1, 1)))


def row(op: str, weights: str, activations: str, verdict: str) -> Row:
    return Row(op, "s", weights, activations, 1.5, 1.4, 1.6, verdict)


TRUTH = Truth(
    "onnxruntime:cpu",
    "a device",
    "a runtime",
    (
        row("linear", "i8", "u8", "FASTER"),
        row("linear", "i8", "f32", "SLOWER"),
        row("linear", "i16", "u16", "SLOWER"),
        row("linear", "i8", "u16", "SLOWER"),
        row("conv2d", "i16", "u16", "AMBIGUOUS"),
    ),
)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.op} {s.name}")
@pytest.mark.parametrize(("weights", "activations"), [("f32", "f32"), *FORMATS])
def test_the_networks_are_valid_and_planned_as_their_formats_say(shape: Shape, weights: str, activations: str) -> None:
    graph = network(shape, weights, activations)
    verify(graph)
    integer = activations in ("u8", "u4") and weights in ("i8", "i4")
    assert [entry.integer for entry in CPU.plan(graph).layers] == [integer] * truth.LAYERS


def test_every_format_of_every_shape_is_timed_with_its_interval() -> None:
    found = truth.probe(CPU, TINY, rounds=6)
    assert [(r.op, r.weights, r.activations) for r in found.rows] == [(s.op, *f) for s in TINY for f in FORMATS]
    for entry in found.rows:
        assert entry.ratio is not None and entry.low is not None and entry.high is not None
        assert 0 < entry.low <= entry.ratio <= entry.high
        assert entry.verdict in ("FASTER", "SAME", "SLOWER", "AMBIGUOUS")


def test_a_table_is_timed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []

    def counted(target: object) -> Truth:
        times.append("probed")
        return TRUTH

    monkeypatch.setattr(truth, "probe", counted)
    assert truth.table(CPU, folder=tmp_path) == truth.table(CPU, folder=tmp_path) == TRUTH
    assert len(times) == 1
    truth.table(CPU, folder=tmp_path, again=True)
    assert len(times) == 2
    (file,) = tmp_path.glob("truth-*.json")
    file.write_text("{ not json")
    assert truth.table(CPU, folder=tmp_path) == TRUTH
    assert len(times) == 3


def test_a_runtimes_version_makes_another_table(monkeypatch: pytest.MonkeyPatch) -> None:
    before = truth.key_of(CPU)
    monkeypatch.setattr(truth, "runtime", lambda: "onnxruntime 99")
    assert truth.key_of(CPU) != before


def test_only_what_is_slower_everywhere_is_only_slower() -> None:
    assert TRUTH.only_slower("linear", activations="u16")
    assert TRUTH.only_slower("linear", weights="i16")
    assert not TRUTH.only_slower("linear", weights="i8")
    assert not TRUTH.only_slower("conv2d", activations="u16")
    assert not TRUTH.only_slower("conv1d", activations="u16")


def test_where_the_cache_is() -> None:
    assert truth.cache_folder({"NASC_CACHE_DIR": "/a"}) == Path("/a")
    assert truth.cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/nasc")
    assert truth.cache_folder({}) == Path.home() / ".cache" / "nasc"
