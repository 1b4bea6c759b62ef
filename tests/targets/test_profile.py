"""Profiles: rooflines by hand, the file that keeps a device's profile, and kernels on the installed runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from nasc.ir import UsageError, parse
from nasc.targets import TargetError, target_named
from nasc.targets.cover import Cover, FileNode
from nasc.targets.device_profile import (
    DeviceProfile,
    Level,
    Roof,
    cache_directory,
    device_profile,
    kept_profile,
    profile_path,
)
from nasc.targets.onnxruntime.calibration import (
    PRODUCTS_F8,
    Filled,
    best_s,
    cache_sizes,
    convolution_text,
    monotone,
    overheads,
    product_text,
)
from nasc.targets.onnxruntime.profiler import file_of
from nasc.targets.onnxruntime.work import computes_in, macs, tensor
from nasc.targets.profile import COLUMNS, KernelProfile, NetworkProfile, joined, kernels_of, profile_model, row
from nasc.targets.trace import Trace, TracedNode

from .conftest import graph_of, random_weights

CPU = target_named("onnxruntime:cpu")
DEVICE = DeviceProfile(
    "t", "d", "r 1", 1, {"f32": 1e9, "i8": 4e9}, (Level("L1", 1000, 1e9), Level("memory", None, 1e8)), 1e-6, 1e-7
)


def test_roofs_by_hand() -> None:
    assert DEVICE.roof(1000, [(100, 100)]) == Roof(1e-6, "compute")
    assert DEVICE.roof(1000, [(100, 100)], "i8") == Roof(0.25e-6, "compute")
    assert DEVICE.roof(1000, [(100, 100)], "f16") == Roof(1e-6, "compute")  # not calibrated: as f32
    assert DEVICE.roof(0, [(500, 500)]) == Roof(5e-7, "memory", "L1")
    assert DEVICE.roof(0, []) == Roof(0.0, "compute")


def test_what_does_not_fit_a_cache_comes_from_behind_it() -> None:
    """Of 4000 bytes in turn, a cache of 1000 has a quarter at best."""
    assert DEVICE.moving(400, 4000) == pytest.approx({"L1": 100 / 1e9, "memory": 300 / 1e8})
    roof = DEVICE.roof(0, [(400, 4000)])
    assert (roof.limit, roof.level) == ("memory", "memory")
    assert roof.seconds == pytest.approx(100 / 1e9 + 300 / 1e8)


class Calibrating:
    """A target whose calibration is counted."""

    name = "test:device"

    def __init__(self, runtime: str = "r 1") -> None:
        self.runtime = runtime
        self.times = 0

    def identity(self) -> tuple[str, str]:
        return "d", self.runtime

    def calibrate(self, threads: int) -> DeviceProfile:
        self.times += 1
        return replace(DEVICE, threads=threads, runtime=self.runtime, remarks=("a remark",))


def test_a_device_is_calibrated_once_per_runtime_and_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NASC_CACHE_DIR", str(tmp_path))
    target = Calibrating()
    assert kept_profile(target) is None  # pyright: ignore[reportArgumentType]
    first = device_profile(target)  # pyright: ignore[reportArgumentType]
    assert device_profile(target) == first == kept_profile(target)  # pyright: ignore[reportArgumentType]
    assert target.times == 1
    assert device_profile(target, 2).threads == 2  # pyright: ignore[reportArgumentType]
    device_profile(target, calibrate=True)  # pyright: ignore[reportArgumentType]
    assert target.times == 3
    other = Calibrating("r 2")
    device_profile(other)  # pyright: ignore[reportArgumentType]
    assert other.times == 1
    assert len(list(tmp_path.rglob("*.json"))) == 3


@pytest.mark.parametrize("content", ["", "{}", '{"version": 1}', '{"version": 0, "levels": []}', "[1]"])
def test_a_damaged_file_is_calibrated_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    monkeypatch.setenv("NASC_CACHE_DIR", str(tmp_path))
    target = Calibrating()
    path = profile_path(target)  # pyright: ignore[reportArgumentType]
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert device_profile(target).remarks == ("a remark",)  # pyright: ignore[reportArgumentType]
    assert DeviceProfile.of(json.loads(path.read_text())).peaks == DEVICE.peaks


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NASC_CACHE_DIR", str(tmp_path / "a"))
    assert cache_directory() == tmp_path / "a"
    monkeypatch.delenv("NASC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_directory() == tmp_path / "b" / "nasc"


def test_work_of_kernels_by_hand() -> None:
    image, weight, result = (
        tensor("float", (2, 3, 8, 8)),
        tensor("float", (16, 3, 3, 3)),
        tensor("float", (2, 16, 6, 6)),
    )
    scale = tensor("float", ())
    assert macs("Conv", [image, weight], [result]) == 2 * 16 * 36 * 27
    assert macs("QLinearConv", [image, scale, scale, weight, scale, scale], [result]) == 2 * 16 * 36 * 27
    assert macs("ConvTranspose", [image, tensor("float", (3, 16, 2, 2))], [result]) == 2 * 3 * 64 * 64
    rows, square = tensor("float", (4, 32)), tensor("float", (8, 32))
    assert macs("Gemm", [rows, square], [tensor("float", (4, 8))]) == 4 * 8 * 32
    batched = tensor("float", (5, 4, 32)), tensor("float", (32, 8))
    assert macs("MatMul", batched, [tensor("float", (5, 4, 8))]) == 5 * 4 * 8 * 32
    assert macs("Relu", [rows], [rows]) == macs("Add", [rows, rows], [rows]) == 0
    assert computes_in("QGemm", [tensor("uint8", (1, 2))]) == "i8"
    assert computes_in("Gemm", [tensor("float16", (1, 2))]) == "f16"
    assert tensor("int8", (3, 5)).bytes == 15


def test_faster_levels_are_at_least_as_fast() -> None:
    found = monotone([Level("L1", 1, 5.0), Level("L2", 2, 9.0), Level("L3", 3, 1.0)], memory=2.0)
    assert [e.bytes_per_s for e in found] == [9.0, 9.0, 2.0]


def test_cache_sizes_are_read(tmp_path: Path) -> None:
    for index, (level, kind, held) in enumerate(
        [("1", "Data", "32K"), ("1", "Instruction", "32K"), ("2", "Unified", "1M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", held)):
            (folder / name).write_text(value + "\n")
    assert cache_sizes(tmp_path) == {"L1": 32 << 10, "L2": 1 << 20}
    assert cache_sizes(tmp_path / "none") == {}


def test_nodes_and_calls_cost_something_on_the_installed_runtime() -> None:
    call_s, node_s = overheads((CPU.provider, {}), 1)  # pyright: ignore[reportAttributeAccessIssue]
    assert 1e-8 < node_s < 1e-4
    assert 0 <= call_s < 1e-3


def test_the_best_of_several_calls_counts() -> None:
    calls: list[int] = []
    assert best_s(lambda: calls.append(1), repeat=3, budget_s=0.0) > 0
    assert len(calls) == 15


NET = """
graph @net(%image: f32[N, 3, 12, 12]) {
  %a.w: f32[16, 3, 3, 3] = weight
  %a: f32[N, 16, 12, 12] = conv2d %image, %a.w {padding=[1, 1]} at "net.py":3
  %r: f32[N, 16, 12, 12] = relu %a at "net.py":4
  %q: u8<2^-5>[N, 16, 12, 12] = quantize %r
  %f: u8<2^-5>[N, 2304] = reshape %q {shape=[N, 2304]} at "net.py":5
  %y.w: i8<per 0>[10, 2304] = weight
  %y: f32[N, 10] = linear %f, %y.w at "net.py":6
  return %y
}"""


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> NetworkProfile:
    graph = graph_of(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASC_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
        return profile_model(CPU, CPU.emit(graph, random_weights(graph)), budget_s=0.2, batch=2, device=DEVICE)


def test_every_kernel_counts_for_a_layer_at_the_users_line(profiled: NetworkProfile) -> None:
    found = {k.layer: k for k in profiled.layers}
    assert list(found) == ["a", "q", "f", "y"] or set(found) == {"a", "q", "f", "y", "r"}
    assert found["a"].location == "net.py:3"
    assert found["y"].location == "net.py:6"
    assert found["y"].macs == 2 * 23040
    assert (found["y"].format, found["a"].format) == ("i8", "f32")
    assert "QGemm" in found["y"].kernel
    assert "a" in found["a"].ops
    assert sum(k.share for k in profiled.kernels) == pytest.approx(1)


def test_bounds_stand_beside_times(profiled: NetworkProfile) -> None:
    work_s = sum(k.roof.seconds for k in profiled.kernels if k.roof)
    assert profiled.bound_s == pytest.approx(1e-6 + len(profiled.kernels) * 1e-7 + work_s)
    assert profiled.achieved == pytest.approx(profiled.bound_s / profiled.latency.median_s)
    (dense,) = (replace(k, time_s=1e-4) for k in profiled.kernels if k.kernel == "QGemm")
    assert dense.roof is not None and dense.achieved == pytest.approx(dense.roof.seconds / 1e-4)
    assert len(profiled.rows()) == len(profiled.layers) <= len(profiled.rows(by_kernel=True))
    assert "latency without the profiler" in profiled.summary()[0]


def test_a_record_holds_the_samples_that_its_figures_come_from(profiled: NetworkProfile) -> None:
    record = json.loads(json.dumps(profiled.as_dict()))
    assert len(record["latency"]["rounds_s"]) == record["latency"]["rounds"] > 0
    for kernel in record["kernels"]:
        times_s = kernel["times_s"]
        assert len(times_s) == record["calls"]
        assert all(time_s == round(time_s, 9) for time_s in times_s)
        assert sorted(times_s)[len(times_s) // 10] == pytest.approx(kernel["time_s"], rel=1e-4)
    assert not any("times_s" in layer for layer in record["layers"])


def test_what_a_kernel_of_a_few_microseconds_achieves_is_not_said() -> None:
    """A step is a fifth of 5 µs; two kernels of one layer bring two of them."""

    def kernel(name: str, time_s: float) -> KernelProfile:
        return KernelProfile(name, "K", "CPU", "a", ("a",), "", "f32", time_s, 0.1, 9, 9, 9, Roof(1e-6, "compute"))

    long, short = kernel("long", 5e-6), kernel("short", 4e-6)
    assert (long.achieved, short.achieved) == (pytest.approx(0.2), None)
    assert joined([short, short]).achieved is None  # 8 µs, of which two are steps
    assert joined([short, kernel("longer", 16e-6)]).achieved == pytest.approx(0.1)
    assert row(long)[COLUMNS.index("achieved")] == "20%"
    assert row(short)[COLUMNS.index("achieved")] == row(joined([short, short]))[COLUMNS.index("achieved")] == ""


def test_any_onnx_file_is_profiled_by_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes without names are called by kind and place; lines are not known."""
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))
    helper = onnx.helper
    value = helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first/matmul"),
        helper.make_node("Relu", ["h"], ["r"], doc_string="somewhere"),
        helper.make_node("Softmax", ["r"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N", 4])], [value("y", 1, ["N", 4])], [weight])
    path = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    found = profile_model(CPU, path, budget_s=0.1)
    assert not found.nasc
    assert [k.layer for k in found.kernels] == ["first/matmul", "Relu_1", "Softmax_2"]
    assert found.kernels[0].macs == 16
    assert {k.location for k in found.kernels} == {""}
    assert found.bound_s is None and found.achieved is None and found.limit is None


def test_a_profile_of_no_calls_is_refused(tmp_path: Path) -> None:
    for named in ({"batch": 0}, {"threads": 0}, {"budget_s": -1.0}):
        with pytest.raises(UsageError):
            profile_model(CPU, tmp_path / "never read.onnx", **named)  # pyright: ignore[reportArgumentType]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"\xff\xff\xff nothing")
    with pytest.raises(TargetError):
        CPU.trace(path)
    with pytest.raises(TargetError, match="no ONNX model"):
        file_of(path)


def test_kernels_that_only_convert_count_for_what_needs_them() -> None:
    written = (
        FileNode("w/real", "DequantizeLinear", ("w",), ("w/real",)),
        FileNode("a", "Conv", ("x", "w/real"), ("a",), location="m.py:1"),
        FileNode("r", "Relu", ("a",), ("r",)),
    )
    nodes = (
        TracedNode("w/real", "DequantizeLinear", "CPU", (1e-6,), cover=Cover(("w/real",))),
        TracedNode("ReorderInput", "ReorderInput", "CPU", (1e-6,), cover=Cover((), "x")),
        TracedNode("a", "FusedConv", "CPU", (2e-6,), cover=Cover(("a", "r"))),
        TracedNode("ReorderOutput", "ReorderOutput", "CPU", (4e-6,), cover=Cover((), "r")),
    )
    found = kernels_of(Trace(nodes, (1e-5,), written, {"nasc.version": "0"}))
    assert [k.layer for k in found] == ["a", "a", "a", "a"]
    assert [k.share for k in found] == [0.125, 0.125, 0.25, 0.5]
    assert found[2].ops == ("a", "r")
    assert found[0].location == "m.py:1"


@pytest.mark.parametrize(
    ("kind", "value", "layer"),
    [
        ("ReorderOutput", "r", "a"),  # the convolution that has taken the relu in gives it in blocks
        ("ReorderInput", "s", "b"),  # and not the softmax, which knows no blocks
        ("ReorderOutput", "p", "p"),  # a pool in blocks; the product behind it reads rows
        ("Transpose", "s", "b"),
        ("Transpose", "r", "a"),
        ("Transpose", "p", "y"),
        ("Transpose", "y", "y"),
        ("Transpose", "nothing", "new"),
    ],
)
def test_a_change_of_layout_counts_for_the_kernel_that_needs_it(kind: str, value: str, layer: str) -> None:
    written = (
        FileNode("a", "Conv", ("x", "w"), ("a",)),
        FileNode("r", "Relu", ("a",), ("r",)),
        FileNode("s", "Softmax", ("r",), ("s",)),
        FileNode("b", "Conv", ("s", "v"), ("b",)),
        FileNode("t", "Relu", ("b",), ("t",)),
        FileNode("p", "GlobalAveragePool", ("t",), ("p",)),
        FileNode("y", "Gemm", ("p", "u"), ("y",)),
    )
    merged = (("a", "r"), ("s",), ("b", "t"), ("p",), ("y",))
    ran = tuple(TracedNode(names[-1], "", "CPU", (1e-6,), cover=Cover(names)) for names in merged)
    layout = TracedNode("new", kind, "CPU", (1e-6,), cover=Cover((), value))
    assert kernels_of(Trace((*ran, layout), (1e-5,), written, {"nasc.version": "0"}))[-1].layer == layer


def test_the_end_of_blocks_counts_for_the_convolution_that_has_taken_the_relu_in() -> None:
    """On the installed runtime: `relu` runs inside the convolution and has no kernel of its own."""
    text = """
    graph @net(%x: f32[N, 3, 12, 12]) {
      %a.w: f32[32, 3, 3, 3] = weight
      %a: f32[N, 32, 12, 12] = conv2d %x, %a.w {padding=[1, 1]}
      %r: f32[N, 32, 12, 12] = relu %a
      %s: f32[N, 32, 12, 12] = softmax %r {dim=1}
      return %s
    }"""
    graph = graph_of(text)
    found = kernels_of(CPU.trace(CPU.emit(graph, random_weights(graph)), budget_s=0.05))
    assert [k.layer for k in found if k.kernel == "ReorderOutput"] == ["a"]
    assert {k.layer for k in found} == {"a", "s"}


@pytest.mark.parametrize("format", ["f32", "f16", "i8", "f8"])
def test_what_peaks_are_measured_on_does_the_work_that_is_counted(format: str) -> None:
    """On this processor some compute in float, which changes the kernels and not the multiply-additions."""
    products = PRODUCTS_F8 if format == "f8" else 1
    experiments = [(product_text(32, format), 4, 4 * 32 * 32 * products)]
    if format != "f8":
        experiments.append((convolution_text(16, format), 1, 28 * 28 * 16 * 16 * 9))
    for text, batch, counted in experiments:
        graph = parse(text)
        traced = CPU.trace(CPU.emit(graph, Filled(graph)), batch=batch, budget_s=0)
        assert sum(n.macs for n in traced.nodes) == counted
