"""Products of 8-bit floats on devices: when the CUDA target writes and plans them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from nasc.ir import parse_encoding
from nasc.targets import Node, Placement, TargetError, check_placement
from nasc.targets.latency_model import work_of
from nasc.targets.onnx import emit
from nasc.targets.onnx.float8 import unfit
from nasc.targets.onnxruntime import float8
from nasc.targets.onnxruntime.float8 import MIXED, SINGLE, probe
from nasc.targets.onnxruntime.target import CUDA
from nasc.targets.onnxruntime.work import computes_in, macs, tensor
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from support.graphs import graph_of
from support.networks import network_of

from .test_float8 import F8, UNFIT, GemmFloat8, kinds, layer, quantized


class Coarse(GemmFloat8):
    """The units' fast accumulation: 13 bits behind the largest of 32 products and of the sum so far, cut off."""

    def _run(self, a: Any, b: Any, c: Any = None, scale_a: Any = None, scale_b: Any = None, scale_y: Any = None,
             **given: Any) -> tuple[np.ndarray]:  # fmt: skip
        products = a.astype(np.float64)[:, None, :] * b.astype(np.float64)[None, :, :]
        sums = np.zeros(products.shape[:2])
        for start in range(0, products.shape[-1], 32):
            terms = np.concatenate([products[..., start : start + 32], sums[..., None]], -1)
            unit = 2.0 ** (np.floor(np.log2(np.abs(terms).max(-1, keepdims=True))) - 13)
            sums = (np.trunc(terms / unit) * unit).sum(-1)
        return ((scale_a * scale_b * sums).astype(np.float32),)


def wrong(change: Callable[..., Any]) -> type[GemmFloat8]:
    class Wrong(GemmFloat8):
        def _run(self, *inputs: Any, **given: Any) -> tuple[np.ndarray]:
            return (change(*super()._run(*inputs, **given), *inputs),)

    Wrong.__name__ = "GemmFloat8"
    return Wrong


class Standin:
    """A session whose kernel is a class of the reference evaluator."""

    def __init__(self, model: bytes, op: type[OpRun]) -> None:
        op.__name__ = "GemmFloat8"
        self._run = ReferenceEvaluator(onnx.load_from_string(model), new_ops=[op])

    def run(self, inputs: Any) -> list[np.ndarray]:
        return self._run.run(None, {"x": inputs[0]})


WRONG: dict[str, Callable[..., Any]] = {
    "without the first scale": lambda y, a, b, c, first, *_: y / first,
    "without the second scale": lambda y, a, b, c, first, second, *_: y / second,
    "scales that divide": lambda y, a, b, c, first, *_: y / first**2,
    "columns in another order": lambda y, *_: y[:, ::-1],
    "laid out by columns": lambda y, *_: np.ascontiguousarray(y.T).reshape(y.shape),
    "sums that are not numbers": lambda y, *_: y * np.float32(np.nan),
    "nothing": lambda y, *_: 0 * y,
    "a term left out": lambda y, a, b, *_: y - 0.02 * (a.astype(np.float32)[:, :1] @ b.astype(np.float32)[:, :1].T),
}


@pytest.mark.parametrize("op", [GemmFloat8, Coarse])
def test_a_device_that_gives_the_right_numbers_is_used(op: type[OpRun]) -> None:
    assert probe(lambda model: Standin(model, op), SINGLE + MIXED) == ""


@pytest.mark.parametrize("name", WRONG)
def test_a_device_that_gives_wrong_numbers_is_not(name: str) -> None:
    with np.errstate(all="ignore"):
        why = probe(lambda model: Standin(model, wrong(WRONG[name])), SINGLE)
    assert why.startswith("f8e4m3 x f8e4m3: the runtime's results for ") and "are off by" in why


@pytest.mark.parametrize(
    "error", [TargetError("no algorithm\nof many lines"), RuntimeError("no algorithm"), KeyError()]
)
def test_a_device_that_fails_is_not_either(error: Exception) -> None:
    def load(model: bytes) -> Any:
        raise error

    why = probe(load, MIXED)
    assert why == f"f8e4m3 x f8e5m2: the runtime fails: {'no algorithm' if error.args else 'KeyError'}"


def test_long_messages_are_cut() -> None:
    def load(model: bytes) -> Any:
        raise TargetError("no algorithm " * 100)

    assert len(probe(load)) < 450


def test_formats_are_tried_apart() -> None:
    """A runtime that fails on mixtures alone, as 1.17 did, still multiplies what is of one format."""

    def fails(y: Any, a: Any, b: Any, *_: Any) -> Any:
        if a.dtype != b.dtype:
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")
        return y

    assert probe(lambda model: Standin(model, wrong(fails)), SINGLE) == ""
    assert "f8e4m3 x f8e5m2: the runtime fails: CUBLAS" in probe(lambda model: Standin(model, wrong(fails)), MIXED)


def device(monkeypatch: pytest.MonkeyPatch, single: str, mixed: str) -> list[bool]:
    """Make the CUDA target believe in a device; what it asked of it."""
    asked: list[bool] = []

    def unused(provider: str, options: Any, both: bool) -> str:
        asked.append(both)
        return mixed if both else single

    monkeypatch.setattr(type(CUDA), "unavailable", lambda self: None)
    monkeypatch.setattr("nasc.targets.onnxruntime.target.unused", unused)
    return asked


@pytest.mark.parametrize(("single", "mixed"), [("", ""), ("", "no mixtures"), ("no units", "no units")])
@pytest.mark.parametrize("weights", ["f8e4m3", "f8e5m2"])
def test_the_target_writes_and_plans_what_holds(
    monkeypatch: pytest.MonkeyPatch, single: str, mixed: str, weights: str
) -> None:
    device(monkeypatch, single, mixed)
    network = quantized(layer(), weights)
    why = single if weights == "f8e4m3" else mixed
    model = onnx.load_from_string(CUDA.emit(network.graph, network.weights).model)
    assert ("GemmFloat8" in kinds(model)) == (not why)
    (entry,) = CUDA.plan(network.graph).layers
    assert (entry.integer, entry.f8) == (False, not why)
    assert entry.reason.startswith(f"f8 products are not used: {why}" if why else "f8 products: ")
    support = CUDA.supports(network.graph.types["w"].encoding, "weight")
    assert support.runs == ("float" if why else "native")
    assert (f"f8 products are not used: {why}" if why else "f8 products in linear layers") in support.reason
    nodes = tuple(Node(node.name, node.op_type, "CUDAExecutionProvider") for node in model.graph.node)
    assert check_placement(CUDA.plan(network.graph), Placement(nodes)).as_planned
    gone = tuple(replace(node, kind="Gemm") for node in nodes)
    assert check_placement(CUDA.plan(network.graph), Placement(gone)).as_planned == bool(why)


@pytest.mark.parametrize("name", [name for name in UNFIT if "block" not in name])
def test_plans_say_why_not(name: str) -> None:
    graph = graph_of(UNFIT[name][0], inputs=f"%x: f32[N, {72 if '72' in UNFIT[name][0] else 64}]")
    (entry,) = replace(CUDA, style=F8).plan(graph).layers
    assert not entry.f8 and entry.reason == f"f8 products are not used: {unfit(graph, graph.producers['y'])}"


def test_other_networks_ask_nothing_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = device(monkeypatch, "", "")
    for network in (network_of(layer()), quantized(layer(), "i8", "u8"), quantized(layer(outputs=40))):
        CUDA.emit(network.graph, network.weights)
        assert asked == []
    CUDA.emit(*((net := quantized(layer())).graph, net.weights))
    assert asked == [False]


@pytest.mark.parametrize(
    ("encoding", "role", "runs"),
    [
        ("f8e4m3<0.5>", "activation", "native"), ("f8e5m2<0.5>", "activation", "native"),
        ("f8e4m3<per 0>", "weight", "native"), ("f8e4m3<per 1>", "weight", "float"),
        ("f8e4m3<block 32 on 1>", "weight", "float"), ("f8e4m3<block 32 on 1>", "activation", "no"),
        ("f8e4m3<per 0>", "bias", "float"), ("f6e3m2<per 0>", "weight", "float"), ("u8<0.5>", "activation", "float"),
    ],
)  # fmt: skip
def test_formats_on_a_device_with_units(monkeypatch: pytest.MonkeyPatch, encoding: str, role: Any, runs: str) -> None:
    device(monkeypatch, "", "")
    assert CUDA.supports(parse_encoding(encoding), role).runs == runs


def test_without_a_device_nothing_changes() -> None:
    if CUDA.unavailable() is None:
        pytest.skip("there is a device here")
    network = quantized(layer())
    model = CUDA.emit(network.graph, network.weights).model
    assert model == emit(network.graph, network.weights, style=CUDA.style).SerializeToString()
    (entry,) = CUDA.plan(network.graph).layers
    assert not entry.f8 and entry.reason == f"f8 products are not used: {CUDA.unavailable()}"
    assert CUDA.supports(network.graph.types["w"].encoding, "weight").runs == "float"


@pytest.mark.parametrize(
    ("capability", "why"), [((8, 0), "compute capability 8.0, they need 8.9"), ((9, 0), ""), (None, "")]
)
def test_old_devices_are_not_tried(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, why: str
) -> None:
    tried: list[Any] = []

    def holds(load: Any, pairs: Any) -> str:
        tried.append(pairs)
        return ""

    monkeypatch.setattr(float8, "compute_capability", lambda: capability)
    monkeypatch.setattr(float8, "probe", holds)
    float8.unused.cache_clear()
    found = [float8.unused("Nobody", (), mixed) for mixed in (True, False, True)]
    float8.unused.cache_clear()
    assert all(why in reason if why else not reason for reason in found)
    assert tried == ([] if why else [SINGLE, MIXED]), "once per process"


def test_what_kernels_of_8_bit_floats_do() -> None:
    rows, square, scale = tensor("float8e4m3fn", (4, 32)), tensor("float8e5m2", (16, 32)), tensor("float", ())
    assert macs("GemmFloat8", [rows, square, scale, scale, scale], [tensor("float", (4, 16))]) == 4 * 16 * 32
    assert computes_in("GemmFloat8", [rows, square]) == "f8"
    network = quantized(layer())
    plan = replace(CUDA, style=F8).plan(network.graph)
    (found,) = [work for work in work_of(network.graph, plan) if work.name == "y"]
    assert found.kind[:2] == ("linear", "f8")
