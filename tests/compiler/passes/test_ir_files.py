"""Every `.ir` file beside this module: what a pass makes of a graph, or how it refuses it. `--bless` rewrites them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nasc.compiler.network import Network
from nasc.compiler.passes import PASSES
from nasc.compiler.pipeline import parse_pipeline
from nasc.ir import NascError, Op, parse, text, verify
from nasc.ir.axes import size
from support.ir_files import applied, blamed_value, check_files, found, read
from support.networks import difference, inputs_of, network_of, outputs

HERE = Path(__file__).parent
FILES = sorted(HERE.rglob("*.ir"))
NAMES = [str(f.relative_to(HERE)) for f in FILES]
REWRITES = [f for f in FILES if "// ---- becomes" in f.read_text(encoding="utf-8")]
REFUSALS = [f for f in FILES if f not in REWRITES]
PRESERVING = ("cleanup", "equalize", "fold-batch-norm", "merge-linear")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_file(path: Path, request: pytest.FixtureRequest) -> None:
    check_files(path, bless=bool(request.config.getoption("--bless")))


def test_every_pass_has_files_of_both_kinds() -> None:
    assert {f.parent.name for f in REWRITES} == set(PASSES)
    assert {f.parent.name for f in REFUSALS} >= PASSES.keys() - {"cleanup", "fold-batch-norm", "merge-linear"}


@pytest.mark.parametrize("path", REWRITES, ids=lambda p: str(p.relative_to(HERE)))
def test_passes_are_pure_and_leave_a_valid_network(path: Path) -> None:
    case = read(path.read_text(encoding="utf-8"))
    network = case.network
    before, kept = text(network.graph), {n: network.weights.recipe(n) for n in network.weights}
    tensors = {n: network.weights.recipe(n).tensor.clone() for n in network.weights}
    result = applied(case)
    assert text(network.graph) == before
    assert {n: network.weights.recipe(n) for n in network.weights} == kept
    assert all(torch.equal(network.weights.recipe(n).tensor, t) for n, t in tensors.items())
    verify(parse(text(result.graph)))
    assert parse(text(result.graph)) == result.graph
    assert {op.name for op in result.graph.stored} == set(result.weights)
    for op in result.graph.stored:
        assert tuple(result.weights.recipe(op.name).tensor.shape) == shape(op, result)
    assert result.key == applied(case).key
    assert str(parse_pipeline(str(parse_pipeline(case.pipeline)))) == str(parse_pipeline(case.pipeline))


def shape(op: Op, network: Network) -> tuple[int, ...]:
    return tuple(size(a, network.graph.sizes) for a in op.type.axes)


@pytest.mark.parametrize(
    "path", [f for f in REWRITES if f.parent.name in PRESERVING], ids=lambda p: str(p.relative_to(HERE))
)
def test_clean_up_and_folding_keep_the_function(path: Path) -> None:
    case = read(path.read_text(encoding="utf-8"))
    network = network_of(case.graph, dtype=torch.float64)
    x = inputs_of(case.graph, dtype=torch.float64)
    assert difference(network, network.apply(case.pipeline), x) < 1e-12
    left, right = outputs(network, x), outputs(network, inputs_of(case.graph, seed=1, dtype=torch.float64))
    assert any(float((a - b).abs().max()) > 1e-6 for a, b in zip(left, right, strict=True)), "the control: it computes"


@pytest.mark.parametrize("path", REFUSALS, ids=lambda p: str(p.relative_to(HERE)))
def test_refusals_name_the_line_they_blame(path: Path) -> None:
    case = read(path.read_text(encoding="utf-8"))
    value = blamed_value(case)
    with pytest.raises(NascError) as caught:
        applied(case)
    if value is not None:
        line = case.upper[case.blamed or 0]
        place = line.split(' at "')[1].replace('"', "") if ' at "' in line else f"%{value}"
        assert caught.value.message.startswith(f"{place}: error: ")


WRONG = """\
// pass: resize{a=24}
graph @net(%x: f32[N, 3]) {
  width $a = 16
  %a.w: f32[$a, 3] = weight
  %a: f32[N, $a] = linear %x, %a.w
  %b.w: f32[5, $a] = weight
  %b: f32[N, 5] = linear %a, %b.w
  return %b
}
// ---- becomes
graph @net(%x: f32[N, 3]) {
  return %x
}
"""


def test_this_check_can_fail_and_bless_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "wrong.ir"
    path.write_text(WRONG)
    with pytest.raises(AssertionError):
        check_files(path, bless=False)
    assert path.read_text() == WRONG
    check_files(path, bless=True)
    assert "width $a = 24" in path.read_text()
    check_files(path, bless=False)


def test_a_refusal_that_does_not_happen_fails(tmp_path: Path) -> None:
    path = tmp_path / "wrong.ir"
    path.write_text(WRONG.split("// ----")[0] + "// error: never\n")
    with pytest.raises(AssertionError, match="did not refuse"):
        check_files(path, bless=False)
    with pytest.raises(AssertionError, match="expected `// ---- becomes` or"):
        read(WRONG.split("// ----")[0])


def test_another_message_fails_and_bless_rewrites_it(tmp_path: Path) -> None:
    path = tmp_path / "wrong.ir"
    path.write_text(WRONG.split("// ----")[0].replace("{a=24}", "{c=24}") + "// error: never\n")
    with pytest.raises(AssertionError):
        check_files(path, bless=False)
    check_files(path, bless=True)
    assert "// error: no width or layer is called 'c'\n// mend: " in path.read_text()
    assert found(read(path.read_text())) == read(path.read_text())
