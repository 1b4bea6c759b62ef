"""Profiles of loops, branches and local functions: what runs in a body counts for the node around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nasc.targets import target_named
from nasc.targets.device_profile import DeviceProfile, Level
from nasc.targets.onnxruntime.events import calls_of, kernels_of_calls
from nasc.targets.onnxruntime.profiler import with_packed
from nasc.targets.onnxruntime.work import is_counted, macs, tensor
from nasc.targets.profile import COLUMNS, NetworkProfile, profile_model

CPU = target_named("onnxruntime:cpu")
DEVICE = DeviceProfile(
    "t", "d", "r 1", 1, {"f32": 1e9}, (Level("L1", 1000, 1e9), Level("memory", None, 1e8)), 1e-6, 1e-7
)
WIDE, TURNS = 64, 20
FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))


def saved(path: Path, nodes: Sequence[Any], functions: Sequence[Any] = (), turns: int = TURNS) -> Path:
    """A file from a row of 64 numbers to another, with a square `w`, `turns` and what is positive."""
    row = [1, WIDE]
    stored = [
        onnx.numpy_helper.from_array(np.full((WIDE, WIDE), 0.01, np.float32), "w"),
        onnx.numpy_helper.from_array(np.array(turns, np.int64), "turns"),
        onnx.numpy_helper.from_array(np.array(-100.0, np.float32), "low"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [value("x", FLOAT, row)], [value("y", FLOAT, row)], stored)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8), path)
    return path


def loop(name: str, nodes: Sequence[Any], outputs: Sequence[str]) -> Any:
    """A loop that carries a row `v`."""
    body = onnx.helper.make_graph(
        [node("Identity", ["go"], ["on"]), *nodes],
        "body",
        [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT, [1, WIDE])],
        [value("on", BOOL, []), value("next", FLOAT, [1, WIDE])],
    )
    return node("Loop", ["turns", "", "x"], outputs, body=body, name=name)


def profiled(path: Path) -> NetworkProfile:
    return profile_model(CPU, path, budget_s=0.1, device=DEVICE)


def test_the_products_in_a_loop_are_counted_every_turn(tmp_path: Path) -> None:
    product = node("MatMul", ["v", "w"], ["next"], name="product")
    found = profiled(saved(tmp_path / "loop.onnx", [loop("again", [product], ["y"])]))
    (layer,) = found.layers
    assert (layer.layer, layer.macs, layer.stored_bytes) == ("again", TURNS * WIDE**2, TURNS * 4 * WIDE**2)
    by_kind = {k.kernel: k for k in found.kernels}
    assert (by_kind["MatMul"].runs, by_kind["Loop"].runs, layer.runs) == (TURNS, 1, 2 * TURNS + 1)
    assert by_kind["MatMul"].name == "again/product"
    assert by_kind["MatMul"].time_s > 0 and len(by_kind["MatMul"].times_s) == found.calls
    assert (by_kind["Loop"].holds, by_kind["Loop"].time_s, by_kind["Loop"].times_s) == (True, 0.0, ())
    assert found.bound_s is not None and found.bound_s > TURNS * WIDE**2 / 1e9 + (2 * TURNS + 1) * 1e-7
    assert sum(k.share for k in found.kernels) == pytest.approx(1)
    assert any(
        text.startswith("again: its time and work are those of the kernels in its body") for text in found.remarks()
    )
    shown = next(r for r in found.rows(by_kernel=True) if r[COLUMNS.index("kernels")] == "Loop")
    assert shown[COLUMNS.index("time")] == shown[COLUMNS.index("bound")] == shown[COLUMNS.index("achieved")] == ""


def test_bodies_in_bodies_count_for_the_outermost_node(tmp_path: Path) -> None:
    inner = loop("inner", [node("MatMul", ["v", "w"], ["next"])], ["next"])
    inner.input[2] = "v"
    inner.attribute[0].g.CopyFrom(_renamed(inner.attribute[0].g))
    nodes = [node("Relu", ["x"], ["r"], name="before"), loop("outer", [inner], ["y"])]
    nodes[1].input[2] = "r"
    found = profiled(saved(tmp_path / "loops.onnx", nodes, turns=3))
    layers = {k.layer: k for k in found.layers}
    assert set(layers) == {"before", "outer"}
    assert layers["outer"].macs == 9 * WIDE**2
    assert [k.runs for k in found.kernels if k.kernel == "MatMul"] == [9]
    assert [k.name for k in found.kernels if k.holds] == ["outer", "outer/inner"]


def _renamed(graph: Any) -> Any:
    """A body whose values have names of their own."""
    own = {v: f"{v}.inner" for v in [*(i.name for i in graph.input), *(o for n in graph.node for o in n.output)]}
    found = onnx.GraphProto()
    found.CopyFrom(graph)
    for entry in (*found.input, *found.output):
        entry.name = own[entry.name]
    for entry in found.node:
        entry.input[:] = [own.get(v, v) for v in entry.input]
        entry.output[:] = [own.get(v, v) for v in entry.output]
    return found


def test_the_branch_that_runs_counts_for_its_node(tmp_path: Path) -> None:
    def branch(kind: str, *operands: str) -> Any:
        return onnx.helper.make_graph([node(kind, ["x", *operands], [kind])], "b", [], [value(kind, FLOAT, [1, WIDE])])

    nodes = [
        node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Greater", ["top", "low"], ["is"]),
        node("If", ["is"], ["y"], then_branch=branch("MatMul", "w"), else_branch=branch("Neg"), name="choice"),
    ]
    layers = {k.layer: k for k in profiled(saved(tmp_path / "if.onnx", nodes)).layers}
    assert (layers["choice"].kernel, layers["choice"].macs) == ("If + MatMul", WIDE**2)
    assert layers["ReduceMax_0"].macs == 0


def test_a_product_in_a_local_function_is_counted(tmp_path: Path) -> None:
    """The runtime puts it in the place of the call, under a number that the file does not know."""
    opsets = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("own", "F", ["a", "b"], ["c"], [node("MatMul", ["a", "b"], ["c"])], opsets)
    call = node("F", ["x", "w"], ["y"], domain="own", name="call")
    (kernel,) = profiled(saved(tmp_path / "function.onnx", [call], [function])).kernels
    assert (kernel.layer, kernel.macs, kernel.stored_bytes) == ("call", WIDE**2, 4 * WIDE**2)


def test_what_cannot_be_counted_has_no_bound(tmp_path: Path) -> None:
    path = saved(tmp_path / "einsum.onnx", [node("Einsum", ["x", "w"], ["y"], equation="ab,bc->ac", name="sum")])
    found = profiled(path)
    assert found.kernels[0].roof is None and found.kernels[0].achieved is None
    assert found.bound_s is None and found.achieved is None and found.limit is None
    assert len(found.summary()) == 1
    assert "the work of sum (Einsum) is not counted, so there is no bound for it and for the whole" in found.remarks()


def test_time_that_is_in_no_kernel_is_said(tmp_path: Path) -> None:
    found = profiled(saved(tmp_path / "one.onnx", [node("MatMul", ["x", "w"], ["y"], name="product")]))
    (kernel,) = found.kernels
    latency = replace(found.latency, median_s=1e-4)
    short = replace(found, latency=latency, kernels=(replace(kernel, time_s=4e-5),))
    assert short.unattributed_s == pytest.approx(6e-5)
    assert any(text.startswith("60 µs of the latency, 60%, are in no kernel") for text in short.remarks())
    whole = replace(short, kernels=(replace(kernel, time_s=9e-5),))
    assert not any("in no kernel" in text for text in whole.remarks())
    slowed = replace(short, kernels=(replace(kernel, time_s=2e-4),))
    assert any("which slows short ones" in text for text in slowed.remarks())


def event(name: str, ts: int, dur: int, number: str, kind: str) -> dict[str, Any]:
    shape = [{"float": [1, 2]}]
    args = {
        "op_name": kind,
        "node_index": number,
        "provider": "CPU",
        "input_type_shape": shape,
        "output_type_shape": shape,
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def test_events_by_hand() -> None:
    """Numbers start anew in a body; a call that was not noted to its end is left out."""
    events = [
        event("a", 0, 5, "0", "Relu"),
        event("p", 11, 2, "0", "MatMul"),
        event("p", 14, 3, "0", "MatMul"),
        event("L", 10, 9, "1", "Loop"),
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 20},
        event("a", 30, 5, "0", "Relu"),
    ]
    (call,) = calls_of(events, {"Loop"})
    assert call.seconds == pytest.approx(2e-5)
    found = kernels_of_calls([call])
    assert [k.key for k in found] == [(("a", "0"),), (("L", "1"),), (("L", "1"), ("p", "0"))]
    assert [round(k.times_s[0] * 1e6) for k in found] == [5, 9, 5]
    assert [(k.runs.total(), k.holds) for k in found] == [(1, False), (1, True), (2, False)]


def test_operands_that_a_kernel_has_packed_are_taken_from_the_file() -> None:
    x, w, b = tensor("float", (1, 4)), tensor("float", (4, 8)), tensor("float", (8,))
    stored = {"w": w, "b": b}
    assert with_packed(["x", "w", "b"], [x, b], stored) == (x, w, b)
    assert with_packed(["x", "w", "b"], [x, w, b], stored) == (x, w, b)
    assert with_packed(["x", "", "b"], [x], stored) == (x, b)
    assert with_packed([], [x], stored) == (x,)


def test_work_that_has_no_formula_is_known_as_such() -> None:
    sequence, w, r = tensor("float", (7, 2, 3)), tensor("float", (1, 16, 3)), tensor("float", (1, 16, 4))
    assert macs("LSTM", [sequence, w, r], [sequence]) == 7 * 2 * 16 * (3 + 4)
    vector, square = tensor("float", (4,)), tensor("float", (4, 4))
    assert macs("MatMul", [vector, square], [vector]) == macs("MatMul", [square, vector], [vector]) == 16
    assert is_counted("MatMul", 16, [vector]) and is_counted("Relu", 0, [vector])
    assert not is_counted("MatMul", 0, [vector]) and not is_counted("Einsum", 0, [vector])
    assert is_counted("MatMul", 0, [tensor("float", (0, 4))])
