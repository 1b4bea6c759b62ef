"""What a network is measured on: whose batch it is, which lengths are open, which values are numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nasc
import numpy as np
import pytest
from nasc import api
from nasc.cli import app
from nasc.ir import UsageError
from nasc.targets import Artifact, Signature, TargetError, target_named
from nasc.targets.bench import Bench
from nasc.targets.energy import Energy
from nasc.targets.inputs import InputShape, example_arrays, filled
from nasc.targets.measure import Conditions, Measurement
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

CPU = target_named("onnxruntime:cpu")
QUICK = Conditions(budget_s=0.02)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

Entry = tuple[str, int, Sequence[int | str | None] | None]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASC_LOCK_DIR", str(tmp_path / "locks"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, nodes: Sequence[Any], inputs: Sequence[Entry], output: Any = FLOAT, **stored: Any) -> Path:
        """A model from some inputs to `y`, of an element type or a whole description."""
        if isinstance(output, int):
            output = helper.make_tensor_value_info("y", output, None)
        tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in stored.items()]
        given = [helper.make_tensor_value_info(*entry) for entry in inputs]
        graph = helper.make_graph(nodes, name, given, [output], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return written


def relu(write: Write, *shape: int | str | None, name: str = "relu") -> Path:
    return write(name, [helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, shape)])


def cast(write: Write, element: int, *shape: int | str | None, to: int = FLOAT) -> Path:
    return write(f"cast_{element}_{to}", [helper.make_node("Cast", ["x"], ["y"], to=to)], [("x", element, shape)], to)


def measured(model: Path, **conditions: Any) -> Measurement:
    return nasc.measure(model, budget_s=0.02, isolate=False, target="onnxruntime:cpu", **conditions)


def shapes(found: Measurement) -> list[list[int]]:
    return [entry["shape"] for entry in found.provenance["inputs"]]


def test_a_fixed_batch_is_measured_and_told_and_no_other_may_be_asked_for(write: Write) -> None:
    fixed = relu(write, 4, 16)
    for batch in (None, 4):
        found = measured(fixed, batch=batch)
        assert (found.batch, found.as_dict()["batch"], shapes(found)) == (4, 4, [[4, 16]])
        assert found.provenance["inputs"] == [{"name": "x", "dtype": "float32", "shape": [4, 16]}]
    with pytest.raises(UsageError, match=r"the batch is 4 \(x: float32\[4, 16\]\), and 8 was asked for") as caught:
        measured(fixed, batch=8)
    assert caught.value.mend is not None and "Leave --batch out" in caught.value.mend
    refused = CliRunner().invoke(app, ["measure", str(fixed), "--batch", "8", "--budget", "0.02"])
    assert refused.exit_code == 2
    assert "the batch is 4" in refused.output
    told = CliRunner().invoke(app, ["measure", str(fixed), "--budget", "0.02"])
    assert "batch 4, 1 thread(s)" in told.output


def test_a_free_batch_is_one_by_default_and_what_is_asked_for(write: Write) -> None:
    free = relu(write, "N", 16)
    assert [measured(free, batch=batch).batch for batch in (None, 8)] == [1, 8]


def test_a_search_measures_a_fixed_batch_at_its_own(write: Write) -> None:
    fixed = relu(write, 4, 16)
    with Bench(CPU) as bench:
        assert bench.measure(fixed, Conditions(budget_s=0.02, batch=8), fixed).batch == 4


def test_a_baseline_of_other_inputs_is_refused(write: Write) -> None:
    fixed, free = relu(write, 64, 16, name="fixed"), relu(write, "N", 16, name="free")
    said = r"the model reads x: float32\[1, 16\], its baseline x: float32\[64, 16\]"
    with pytest.raises(UsageError, match=said):
        measured(free, baseline=fixed)
    with pytest.raises(UsageError, match=r"fixed.onnx: the batch is 64"):
        measured(free, baseline=fixed, batch=1)
    found = measured(free, baseline=fixed, batch=64)
    assert found.latency is not None and found.latency.ratio is not None
    with pytest.raises(UsageError, match=r"x: float32\[64, 16\], its baseline x: int64\[64, 16\]"):
        measured(fixed, baseline=cast(write, TensorProto.INT64, 64, 16))
    wider = measured(fixed, baseline=cast(write, TensorProto.DOUBLE, 64, 16))
    assert wider.latency is not None and wider.latency.ratio is not None


def test_names_of_a_baselines_inputs_may_differ(write: Write) -> None:
    other = write("other", [helper.make_node("Relu", ["image"], ["y"])], [("image", FLOAT, ("N", 16))])
    assert measured(relu(write, "N", 16), baseline=other).latency is not None


def test_only_axis_0_is_the_batch(write: Write) -> None:
    image = relu(write, "N", 3, "H", None)
    with pytest.raises(UsageError) as caught:
        measured(image)
    assert caught.value.message.endswith(
        "input x: float32[N, 3, H, ?] leaves axis 2 (H) and 3 open, and only axis 0 is taken for the batch"
    )
    assert caught.value.mend == "Say the lengths, such as --input x=1x3x16x16."
    assert shapes(measured(image, inputs="2x3x8x9")) == [[2, 3, 8, 9]]
    assert measured(image, inputs=["x=2x3x8x9"], batch=2).batch == 2


def test_the_command_takes_inputs(write: Write) -> None:
    command = ["measure", str(relu(write, "N", 3, "H", "W")), "--budget", "0.02"]
    assert "--input x=1x3x16x16" in CliRunner().invoke(app, command).output
    done = CliRunner().invoke(app, [*command, "--input", "2x3x8x8"])
    assert done.exit_code == 0, done.output
    assert "batch 2, 1 thread(s)" in done.output


def signature(name: str, *shape: int | str | None, dtype: str = "float32") -> Signature:
    lengths = tuple(n if isinstance(n, int) else None for n in shape)
    return Signature(name, dtype, lengths, tuple(n if isinstance(n, str) else "" for n in shape))


@pytest.mark.parametrize(
    ("signatures", "asked", "expected"),
    [
        ([signature("a", "N", 4), signature("b", 4, "N")], [], [(8, 4), (4, 8)]),
        ([signature("a", "N"), signature("b", "4*N", 2), signature("c", "N*2")], [], [(8,), (32, 2), (16,)]),
        ([signature("a", "B"), signature("b", None, 3), signature("c")], [], [(8,), (8, 3), ()]),
        ([signature("a", "B", "S"), signature("b", "B", "S")], [InputShape((2, 7), "b")], [(2, 7), (2, 7)]),
        ([signature("a", "M"), signature("b", "N", "S")], [InputShape((2, 7), "b")], [(2,), (2, 7)]),
        ([signature("a", "2*N", "N")], [InputShape((6, 3))], [(6, 3)]),
    ],
)
def test_a_symbol_has_one_length_everywhere(
    signatures: list[Signature], asked: list[InputShape], expected: list[tuple[int, ...]]
) -> None:
    assert [s.shape for s in filled(signatures, 8, asked).signatures] == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([InputShape((2, 4))], r"m.onnx: input a is float32\[N, 3\], and 2x4 was asked for"),
        ([InputShape((2, 3, 1))], "and 2x3x1 was asked for"),
        ([InputShape((2, 3), dtype="int64")], "and 2x3 of int64 was asked for"),
        ([InputShape((2, 3), name="b")], "m.onnx: there is no input b"),
        ([InputShape((2, 3))] * 2, r"m.onnx reads 1 input\(s\), found shapes of 2"),
    ],
)
def test_shapes_that_do_not_fit_the_file(asked: list[InputShape], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        filled([signature("a", "N", 3)], 1, asked, place="m.onnx")


def test_one_symbol_cannot_have_two_lengths() -> None:
    two = [signature("a", "N", "S"), signature("b", "N", "S")]
    with pytest.raises(UsageError, match=r"input b is float32\[N, S\], and 2x8 was asked for"):
        filled(two, 1, [InputShape((2, 7)), InputShape((2, 8))])


def test_a_length_that_inputs_share_is_asked_for_once() -> None:
    with pytest.raises(UsageError) as caught:
        filled([signature("a", "N", "S"), signature("b", "N", "S")], 3)
    assert caught.value.mend == "Say the lengths, such as --input a=3x16."


def test_in_what_nasc_emits_the_batch_may_stand_anywhere(write: Write) -> None:
    sequence = relu(write, 5, "N")
    artifact = Artifact(CPU.name, sequence.read_bytes())
    with Bench(CPU) as bench:
        assert shapes(bench.measure(artifact, Conditions(budget_s=0.02, batch=3))) == [[5, 3]]
        with pytest.raises(UsageError, match=r"leaves axis 1 \(N\) open"):
            bench.measure(sequence, QUICK)


def test_whole_numbers_are_zeros_or_random_in_a_range() -> None:
    tokens = [signature("t", "N", 50, dtype="int64")]
    assert not example_arrays(tokens, 2)[0].any()
    drawn = filled(tokens, 2, [InputShape((2, 50), range=(5, 9))]).arrays()[0]
    assert drawn.dtype == np.int64
    assert set(drawn.ravel()) == {5, 6, 7, 8, 9}


@pytest.mark.parametrize(
    "element", ["UINT8", "INT16", "UINT16", "UINT32", "UINT64", "BOOL", "FLOAT16", "DOUBLE", "BFLOAT16"]
)
@pytest.mark.parametrize("shape", [("N", 3), (2, 3), ()])
def test_inputs_of_all_numbers_have_a_floor(write: Write, element: str, shape: tuple[int | str, ...]) -> None:
    found = measured(cast(write, getattr(TensorProto, element), *shape))
    assert found.latency is not None and found.latency.floor_s is not None
    assert found.no_floor is None


def test_where_there_can_be_no_floor_a_remark_says_so(write: Write) -> None:
    nodes, one = [helper.make_node("Relu", ["c"], ["y"])], np.ones(3, "f4")
    models = {
        "the model has no inputs": write("constant", nodes, [], c=one),
        "no node runs when the model is called": write("folded", nodes, [("x", FLOAT, ("N", 3))], c=one),
        "the runtime takes no single element of float8_e4m3fn": cast(write, TensorProto.FLOAT8E4M3FN, 2, 3),
    }
    for said, model in models.items():
        found = measured(model)
        assert found.latency is not None and found.latency.floor_s is None
        assert any(r.startswith("there is no floor to compare with") and said in r for r in found.remarks()), said
        assert said in str(found.as_dict()["no_floor"])


def test_values_that_are_no_numbers_are_named_with_their_type(write: Write) -> None:
    sequence = helper.make_tensor_sequence_value_info("y", FLOAT, None)
    models = {
        "input x is string": write(
            "text", [helper.make_node("Shape", ["x"], ["y"])], [("x", TensorProto.STRING, ["N"])], INT64
        ),
        "output y is string": cast(write, FLOAT, "N", to=TensorProto.STRING),
        "output y is seq(tensor(float))": write(
            "sequence", [helper.make_node("SequenceConstruct", ["x"], ["y"])], [("x", FLOAT, ["N"])], sequence
        ),
        "input x is int4": cast(write, TensorProto.INT4, "N"),
    }
    for said, model in models.items():
        with pytest.raises(TargetError) as caught:
            measured(model)
        assert caught.value.message.startswith(f"{said}; only tensors of numbers"), said


def test_a_model_of_bfloat16_runs(write: Write) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "f"], ["g"]),
        helper.make_node("Cast", ["g"], ["y"], to=TensorProto.BFLOAT16),
    ]
    model = write("half", nodes, [("x", TensorProto.BFLOAT16, ("N", 3))], TensorProto.BFLOAT16)
    session = CPU.load(model)
    (made,) = example_arrays(session.inputs, 2)
    assert made.dtype.name == "bfloat16" and made.any()
    x = np.array([[1, 2, 3]], "f4").astype(made.dtype)
    call = session.bind([x])
    call()
    for (y,) in (session.run([x]), call.outputs()):
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y.astype("f4"), [[1, 4, 9]])
    assert measured(model, batch=5).batch == 5


@pytest.mark.parametrize(("asked", "asker"), [(measured, "measure"), (nasc.profile, "profile")])
def test_what_is_no_onnx_file_is_refused_with_what_makes_one(tmp_path: Path, asked: Any, asker: str) -> None:
    cases = {
        "net.nasc": ("found a .nasc file", "nasc export"),
        "model.py": ("found a .py file", "nasc export"),
        "garbage.onnx": ("found no ONNX model", "torch.onnx.export"),
        "empty.onnx": ("found no ONNX model", "torch.onnx.export"),
    }
    for name, (said, mend) in cases.items():
        path = tmp_path / name
        path.write_bytes(b"" if name == "empty.onnx" else b"\x00garbage\xff" * 9)
        with pytest.raises(UsageError) as caught:
            asked(path)
        assert caught.value.message == f"{path}: error: {asker} takes ONNX files; {said}" + (
            " in this one" if "no ONNX" in said else ""
        )
        assert caught.value.mend is not None and mend in caught.value.mend
    with pytest.raises(UsageError, match="found a folder"):
        asked(tmp_path)
    with pytest.raises(UsageError, match=f"{asker} takes an ONNX file or a network; found bytes"):
        asked(b"x")
    with pytest.raises(UsageError, match=r"gone\.onnx: error: there is no such file"):
        asked(tmp_path / "gone.onnx")


@pytest.mark.parametrize(("asked", "asker"), [(measured, "measure"), (nasc.profile, "profile")])
def test_a_file_that_may_not_be_read_is_named_with_what_would_allow_it(
    write: Write, monkeypatch: pytest.MonkeyPatch, asked: Any, asker: str
) -> None:
    path = relu(write, "N", 4)

    def refused(self: Path, *_: object, **__: object) -> None:  # root may read whatever the mode says
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UsageError, match="may not be read") as caught:
        asked(path)
    assert caught.value.mend is not None and f"chmod a+r {path}" in caught.value.mend


def test_an_input_without_a_shape_is_asked_for_and_taken(write: Write) -> None:
    """The runtime shows it as a scalar, which it was measured as."""
    path = write("unranked", [helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, None)])
    for asked in (measured, nasc.profile):
        with pytest.raises(UsageError, match=r"the file says no shape of input x: float32\[\.\.\.\]") as caught:
            asked(path)
        assert caught.value.mend is not None and "--input x=" in caught.value.mend
    found = measured(path, inputs="2x3")
    assert (found.batch, found.provenance["inputs"]) == (2, [{"name": "x", "dtype": "float32", "shape": [2, 3]}])
    assert found.no_floor is None
    profile = nasc.profile(path, inputs="x=5x3", budget_s=0.02, bounds=False, isolate=False, target="onnxruntime:cpu")
    assert (profile.batch, profile.kernels[0].activation_bytes) == (5, 2 * 5 * 3 * 4)
    with pytest.raises(UsageError, match="2x3 of int64 was asked for"):
        measured(path, inputs="2x3:i64")
    scalar = write("scalar", [helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [])])
    assert measured(scalar).provenance["inputs"][0]["shape"] == []


def test_a_profile_takes_inputs_without_elements(write: Write) -> None:
    path = relu(write, 0, 4)
    assert nasc.profile(path, budget_s=0.02, bounds=False, isolate=False, target="onnxruntime:cpu").batch == 0


@pytest.mark.parametrize(("usable", "of"), [(2, ""), (1, " of 2")])
def test_more_threads_than_usable_processors_are_refused(usable: int, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(usable)), raising=False)
    assert Conditions(threads=usable).threads == usable
    said = f"{usable + 1} threads are more than the {usable} processor(s) that this process may use{of}"
    mend = f"Threads beyond the processors take time from each other: --threads {usable} at most."
    with pytest.raises(UsageError, match=re.escape(f"{said}\n  {mend}")):
        Conditions(threads=usable + 1)


def test_a_measurement_without_a_figure_fails(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(relu(write, "N", 4))

    def none(*_: object, **named: Any) -> Measurement:
        latency = measured(Path(path)).latency if "latency" in named["metrics"] else None
        return Measurement("onnxruntime:cpu", 1, 1, 9, latency, Energy(None, reason="the counter stood still"))

    monkeypatch.setattr(api, "measure", none)
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, ["measure", path, "--metric", "energy", *more])
        assert (done.exit_code, "the counter stood still" in done.output) == (1, True)
        done = CliRunner().invoke(app, ["measure", path, "--metric", "latency", "--metric", "energy", *more])
        assert done.exit_code == 0
