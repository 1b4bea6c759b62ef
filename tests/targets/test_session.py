"""Sessions, targets by name, floors, and how runs are compared."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nasc.ir import NascError, UsageError, parse_encoding
from nasc.targets import Session, TargetError, agree, target_named, targets
from nasc.targets.base import Role, Runs
from nasc.targets.onnx import emit
from nasc.targets.onnxruntime.device import compute_capability, missing_device
from nasc.targets.onnxruntime.session import OnnxRuntimeSession

from .conftest import Array, Dictionary, graph_of, random_weights

CPU = target_named("onnxruntime:cpu")

TWO = """
graph @two(%a: f32[N, 4], %b: f32[N, 3]) {
  %w: f32[3, 4] = weight
  %h: f32[N, 3] = linear %a, %w
  %s: f32[N, 3] = add %h, %b
  %m: f32[N] = sum %s {dim=[1]}
  return %s, %m
}"""


@pytest.fixture
def session() -> Session:
    graph = graph_of(TWO)
    return CPU.load(CPU.emit(graph, random_weights(graph)), placed=True)


@pytest.fixture
def inputs(rng: np.random.Generator) -> list[Array]:
    return [rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)]


def test_signatures_name_what_goes_in_and_out(session: Session) -> None:
    assert [(s.name, s.dtype, s.shape) for s in session.inputs] == [
        ("a", "float32", (None, 4)),
        ("b", "float32", (None, 3)),
    ]
    assert [(s.name, s.shape) for s in session.outputs] == [("s", (None, 3)), ("m", (None,))]


def test_inputs_go_in_by_order_or_by_name(session: Session, inputs: list[Array]) -> None:
    first = session.run(inputs)
    second = session.run({"b": inputs[1], "a": inputs[0]})
    for x, y in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_allclose(first[1], first[0].sum(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: [a], "reads 2 inputs, found 1"),
        (lambda a, b: {"a": a, "c": b}, "reads a, b; found a, c"),
        (lambda a, b: [a.astype(np.float64), b], "input a is float32, found float64"),
        (lambda a, b: [a[:, :2], b], r"input a has the shape \[N, 4\], found \[5, 2\]"),
        (lambda a, b: [a, b[0]], r"input b has the shape \[N, 3\], found \[3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    session: Session, inputs: list[Array], change: object, message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        session.run(change(*inputs))  # type: ignore[operator]


def test_a_bound_call_writes_the_same_outputs(session: Session, inputs: list[Array]) -> None:
    assert isinstance(session, OnnxRuntimeSession)
    call = session.bind(inputs)
    call()
    call()
    for expected, found in zip(session.run(inputs), call.outputs(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_inputs_need_not_be_contiguous(session: Session, inputs: list[Array]) -> None:
    turned = [np.asfortranarray(x) for x in inputs]
    for x, y in zip(session.run(inputs), session.run(turned), strict=True):
        np.testing.assert_array_equal(x, y)
    call = session.bind(turned)
    call()


def test_placement_names_nodes_and_providers(session: Session) -> None:
    placement = session.placement()
    assert [(n.name, n.kind, n.provider) for n in placement.nodes] == [
        ("h", "Gemm", "CPUExecutionProvider"),
        ("s", "Add", "CPUExecutionProvider"),
        ("m", "ReduceSum", "CPUExecutionProvider"),
    ]
    graph = graph_of(TWO)
    bare = CPU.load(CPU.emit(graph, random_weights(graph)))
    with pytest.raises(TargetError, match="placed=True"):
        bare.placement()


def test_a_floor_has_as_many_nodes_and_the_same_inputs(session: Session, inputs: list[Array]) -> None:
    graph = graph_of(TWO)
    artifact = CPU.emit(graph, random_weights(graph))
    floor = CPU.load(CPU.floor(artifact), placed=True)
    assert floor.inputs == session.inputs
    assert len(floor.placement().nodes) == 3
    floor.bind(inputs)()


def test_a_floor_of_fixed_lengths_is_not_computed_beforehand() -> None:
    graph = graph_of("graph @t(%x: u8<0.5>[2, 3, 4]) {\n  %y: f32[2, 3, 4] = relu %x\n  return %y\n}")
    artifact = CPU.emit(graph, Dictionary({}))
    nodes = len(CPU.load(artifact, placed=True).placement().nodes)
    floor = CPU.load(CPU.floor(artifact), placed=True)
    assert len(floor.placement().nodes) == nodes == 2
    floor.bind([np.zeros((2, 3, 4), np.uint8)])()


def test_models_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no model at"):
        CPU.load(tmp_path / "none.onnx")
    with pytest.raises(TargetError, match="refuses the model"):
        CPU.load(b"not a model")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(TargetError, match="refuses the model"):
        CPU.load(broken)


def test_targets_by_name() -> None:
    assert list(targets()) == ["onnxruntime:cpu", "onnxruntime:cuda", "onnxruntime:tensorrt"]
    assert CPU.unavailable() is None
    with pytest.raises(UsageError, match="Did you mean onnxruntime:cuda"):
        target_named("onnxruntime:cda")
    expected = "onnxruntime:cpu" if targets()["onnxruntime:cuda"].unavailable() else "onnxruntime:cuda"
    assert target_named("auto").name == expected


@pytest.mark.parametrize("name", ["onnxruntime:cuda", "onnxruntime:tensorrt"])
def test_a_provider_that_cannot_start_is_an_error_and_not_a_fallback(name: str) -> None:
    target = target_named(name)
    if (why := target.unavailable()) is None:
        pytest.skip(f"{name} runs here")
    assert why
    graph = graph_of(TWO)
    artifact = target.emit(graph, random_weights(graph))
    with pytest.raises(TargetError, match=r"could not start|refuses"):
        target.load(artifact)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["onnxruntime:cuda", "onnxruntime:tensorrt"])
def test_devices_agree_with_the_cpu(name: str, inputs: list[Array]) -> None:
    target = target_named(name)
    if why := target.unavailable():
        pytest.skip(why)
    graph = graph_of(TWO)
    weights = random_weights(graph)
    session = target.load(target.emit(graph, weights), placed=True)
    found = agree(CPU.load(CPU.emit(graph, weights)).run, session.run, [inputs])
    assert found.max_difference < 1e-3
    assert {node.provider for node in session.placement().nodes} != {"CPUExecutionProvider"}
    session.bind(inputs)()


def test_a_missing_driver_is_named() -> None:
    assert missing_device("libnone.so.9") == "there is no NVIDIA driver here (libnone.so.9 cannot be loaded)"


@pytest.mark.skipif(sys.platform != "linux", reason="builds a shared library with the system's compiler")
@pytest.mark.parametrize(
    ("init", "status", "count", "answer"),
    [(0, 0, 1, None), (100, 0, 0, "cuInit gives 100"), (0, 3, 0, "gives 3"), (0, 0, 0, "finds no device")],
)
def test_the_driver_is_asked_for_devices(
    tmp_path: Path, init: int, status: int, count: int, answer: str | None
) -> None:
    """Against a stand-in driver, which answers as `cuInit` and `cuDeviceGetCount` document."""
    source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so"
    source.write_text(
        f"int cuInit(unsigned f) {{ return {init}; }}\n"
        f"int cuDeviceGetCount(int *n) {{ *n = {count}; return {status}; }}\n"
    )
    built = subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=False, capture_output=True)
    if built.returncode:
        pytest.skip("there is no C compiler here")
    ctypes.CDLL(str(library))
    found = missing_device(str(library))
    assert found is None if answer is None else answer in str(found)


@pytest.mark.skipif(sys.platform != "linux", reason="builds a shared library with the system's compiler")
@pytest.mark.parametrize(("status", "answer"), [(0, (8, 9)), (101, None)])
def test_the_driver_is_asked_for_the_compute_capability(
    tmp_path: Path, status: int, answer: tuple[int, int] | None
) -> None:
    """Against a stand-in driver; attributes 75 and 76 are the two numbers."""
    source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so"
    source.write_text(
        "int cuInit(unsigned f) { return 0; }\n"
        "int cuDeviceGetCount(int *n) { *n = 2; return 0; }\n"
        f"int cuDeviceGet(int *d, int i) {{ *d = 40 + i; return {status}; }}\n"
        "int cuDeviceGetAttribute(int *v, int a, int d) {\n"
        "  if (d != 41) return 1;\n"
        "  *v = a == 75 ? 8 : a == 76 ? 9 : -1;\n"
        "  return 0;\n"
        "}\n"
    )
    built = subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=False, capture_output=True)
    if built.returncode:
        pytest.skip("there is no C compiler here")
    assert compute_capability(1, str(library)) == answer
    assert compute_capability(0, str(library)) is None
    assert compute_capability(0, "libnone.so.9") is None


@pytest.mark.parametrize(
    ("encoding", "role", "runs"),
    [
        ("u8<?>", "activation", "native"),
        ("u5<?>", "activation", "container"),
        ("i8<per 0 ?>", "weight", "native"),
        ("i4<per 0 ?>", "weight", "container"),
        ("u12<?>", "activation", "float"),
        ("i16<per 0 ?>", "weight", "float"),
        ("u8<per 1 ?>", "activation", "float"),
        ("i32<per 0 ?>", "bias", "native"),
        ("i4<per 0 ?>", "bias", "container"),
        ("f32", "weight", "native"),
        ("f16", "activation", "float"),
        ("bf16", "activation", "no"),
        ("f8e4m3", "weight", "no"),
    ],
)
def test_formats_on_the_cpu(encoding: str, role: Role, runs: Runs) -> None:
    support = CPU.supports(parse_encoding(encoding), role)
    assert support.runs == runs
    assert support.reason


def test_formats_on_other_providers() -> None:
    cuda, tensorrt = target_named("onnxruntime:cuda"), target_named("onnxruntime:tensorrt")
    assert cuda.supports(parse_encoding("u8<?>"), "activation").runs == "float"
    assert cuda.supports(parse_encoding("bf16"), "weight").runs == "native"
    assert tensorrt.supports(parse_encoding("u8<?>"), "activation").runs == "no"
    assert tensorrt.supports(parse_encoding("i8<?>"), "activation").runs == "native"


def test_formats_that_are_refused_are_refused_by_the_runtime_too() -> None:
    for name in ("bf16", "f8e4m3"):
        text = f"""graph @t(%x: f32[N, 4]) {{
          %c: {name}[N, 4] = cast %x
          %w: {name}[3, 4] = weight
          %y: {name}[N, 3] = linear %c, %w
          %o: f32[N, 3] = cast %y
          return %o
        }}"""
        graph = graph_of(text)
        with pytest.raises(TargetError, match="refuses"):
            CPU.load(emit(graph, random_weights(graph)).SerializeToString())


def test_agreement_measures_difference_noise_and_classes() -> None:
    a = np.array([[1.0, 2, 4], [4, 2, 1]])
    b = a + np.array([[0, 0, 0.04], [0, 2.5, 0]])
    found = agree(lambda x: x, lambda x: [b], [a])
    (only,) = found.outputs
    assert only.max_difference == pytest.approx(2.5 / 4)
    assert only.sqnr_db == pytest.approx(10 * math.log10(42 / (0.04**2 + 2.5**2)))
    assert only.top1 == 0.5
    assert only.elements == 6
    same = agree(lambda x: (x, x[:, 0]), lambda x: (x, x[:, 0]), [a])
    assert (same.max_difference, same.sqnr_db, same.top1) == (0, math.inf, 1)
    assert same.outputs[1].top1 is None


def test_agreement_refuses_what_cannot_be_compared() -> None:
    a = np.ones((2, 3))
    with pytest.raises(NascError, match="give 1 and 2 outputs"):
        agree(lambda x: x, lambda x: (x, x), [a])
    with pytest.raises(NascError, match=r"shapes \[2, 3\] and \[2\]"):
        agree(lambda x: x, lambda x: x[:, 0], [a])
    with pytest.raises(NascError, match="not finite"):
        agree(lambda x: x * np.nan, lambda x: x, [a])
    broken = agree(lambda x: x, lambda x: x * np.nan, [a])
    assert broken.max_difference == math.inf
    assert broken.sqnr_db == -math.inf
    zero = agree(lambda x: x * 0, lambda x: x, [a])
    assert zero.sqnr_db == -math.inf
