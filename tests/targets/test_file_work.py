"""The estimate of files with local functions and bodies: what stands in them is counted, or named as not counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nasc.targets import target_named
from nasc.targets.energy.estimate import LITERATURE
from nasc.targets.energy.file_work import Counted, Counter
from nasc.targets.measure import Conditions, measure_model

HEAD = '<ir_version: 8, opset_import: ["": 17, "my": 1]>'
LOOP = """g (float[1, 64] x, int64 n) => (float[1, 64] y) <int64 t = {{10}}, bool on = {{1}}> {{
  y = Loop ({count}, {condition}, x) <body = b (int64 i, bool c, float[1, 64] v) => (bool d, float[1, 64] r)
    {{ r = MatMul (v, w)  d = {again} }}>
}}"""
MODELS = {
    "plain": "g (float[1, 64] x) => (float[1, 64] y) { y = MatMul (x, w) }",
    "function": "g (float[1, 64] x) => (float[1, 64] y) { y = my.F (x, w) }",
    "loop": LOOP.format(count="t", condition="", again="Identity (c)"),
    "open": LOOP.format(count="n", condition="", again="Identity (c)"),
    "ended": LOOP.format(count="t", condition="on", again="Not (c)"),
    "scan": """g (float[5, 1, 64] x) => (float[5, 1, 64] y) {
      y = Scan <num_scan_inputs = 1, body = b (float[1, 64] v) => (float[1, 64] r) { r = MatMul (v, w) }> (x)
    }""",
    "if": """g (float[1, 64] x, bool which) => (float[1, 64] y) {
      y = If (which) <then_branch = a () => (float[1, 64] p) { p = Relu (x) },
                      else_branch = b () => (float[1, 64] q) { q = MatMul (x, w) }>
    }""",
}


def written(name: str, folder: Path) -> Path:
    """A model of one product with 64 x 64 weights, somewhere in it."""
    function = '<domain: "my", opset_import: ["": 17]> F (a, b) => (c) { c = MatMul (a, b) }'
    model = onnx.parser.parse_model(f"{HEAD} {MODELS[name]} {function if name == 'function' else ''}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w"))
    onnx.save(model, str(folder / f"{name}.onnx"))
    return folder / f"{name}.onnx"


def counted(name: str, folder: Path) -> Counted:
    target, path = target_named("onnxruntime:cpu"), written(name, folder)
    made = {"float": np.float32, "int64": np.int64, "bool": np.bool_}
    inputs = [np.ones([n or 1 for n in s.shape], made.get(s.dtype, s.dtype)) for s in target.load(path).inputs]
    return Counter(target, 1, LITERATURE).count(path, inputs)


def macs(found: Counted) -> float:
    return sum(work.macs * work.times for work in found.work)


@pytest.mark.parametrize(("name", "times"), [("plain", 1), ("function", 1), ("loop", 10), ("scan", 5), ("if", 1)])
def test_what_stands_in_functions_and_bodies_is_counted(name: str, times: int, tmp_path: Path) -> None:
    found = counted(name, tmp_path)
    assert macs(found) == times * 64 * 64
    assert sum(work.stored_bytes * work.times for work in found.work) == times * 64 * 64 * 4
    assert found.uncounted == ()


def test_rounds_cost_as_many_times_one(tmp_path: Path) -> None:
    one, ten = (LITERATURE.interval(counted(name, tmp_path).work)[0] for name in ("plain", "loop"))
    assert ten == pytest.approx(10 * one, rel=0.01)


@pytest.mark.parametrize(
    ("name", "reason"), [("open", "trip count is no constant"), ("ended", "condition may end it earlier")]
)
def test_bodies_that_run_nobody_knows_how_often_are_named(name: str, reason: str, tmp_path: Path) -> None:
    found = counted(name, tmp_path)
    assert macs(found) == 0
    (told,) = found.uncounted
    assert told.startswith("Loop") and reason in told
    conditions = Conditions(("energy",), meter="estimate")
    measured = measure_model(
        target_named("onnxruntime:cpu"), written(name, tmp_path), conditions=conditions, isolate=False
    )
    record = measured.as_dict()["energy"]
    assert record["flags"] == ["estimated", "incomplete"]
    assert told in record["reason"]
    assert any("not counted: Loop" in remark for remark in measured.remarks())
