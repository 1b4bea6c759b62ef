"""What a result says of formats that are larger on the target, or computed in float."""

from __future__ import annotations

from nasc.search.containers import CONTAINER, FLOAT, containers
from nasc.search.result import LayerRow


def row(name: str, weights: str, weights_run: str, inputs: str, inputs_run: str) -> LayerRow:
    return LayerRow(name, "linear", (4, 4), None, weights, inputs, None, {}, weights_run, inputs_run)


NARROW = row("fc1", "i3", "container", "u8", "native")
NATIVE = row("fc2", "i8", "native", "u8", "native")
WIDE = row("fc3", "i12", "float", "u8", "native")
REAL = row("fc4", "f16", "float", "f32", "native")
WEIGHTS_ALONE = row("fc5", "i4", "container", "f32", "native")


def test_what_runs_as_it_is_needs_no_words() -> None:
    assert containers([NATIVE, REAL], [], 900, 100) is None


def test_layers_are_named_by_how_they_are_computed() -> None:
    assert containers([NARROW, NATIVE], [], None, 10) == f"fc1: {CONTAINER}"
    said = containers([NARROW, WIDE, WEIGHTS_ALONE], [], None, 10)
    assert said == f"fc1: {CONTAINER}; fc3, fc5: {FLOAT}"
    assert containers([NARROW], ["fc1"], None, 10) == f"fc1: {FLOAT}", "its kernel was seen to be one for floats"


def test_inputs_count_like_weights_and_many_layers_are_cut_short() -> None:
    rows = [row(f"l{i}", "i8", "native", "u6", "container") for i in range(9)]
    assert containers(rows, [], None, None) == f"l0, l1, l2, l3, l4, l5 and 3 more: {CONTAINER}"


def test_bytes_are_said_where_the_file_takes_more() -> None:
    assert containers([NARROW], [], 8000, 3000) == (
        f"fc1: {CONTAINER}; the file stores 8 kB of weights, 3 kB are counted"
    )
    assert containers([NARROW], [], 3100, 3000) == f"fc1: {CONTAINER}"
