"""Looking between passes, and running a failing pass again from the file it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nasc
import pytest
import torch
from nasc import rewriting
from nasc.cli import app
from nasc.compiler.network import Network
from nasc.compiler.passes import PASSES, Context, Pass, PassError
from nasc.compiler.passes.base import register
from nasc.compiler.reproducer import HEAD, Reproducer
from nasc.ir import NascError, UsageError
from support.networks import free, network_of
from typer.testing import CliRunner

LINES = """
    %a.w: f32[8, 16] = weight
    %a: f32[N, 8] = linear %x, %a.w at "net.py":7
    %b.w: f32[5, 8] = weight
    %b: f32[N, 5] = linear %a, %b.w at "net.py":8
"""
FAILS = "resize{a=6} | quantize{weights=i4, activations=u8} | calibrate"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    network_of(free(LINES)).save(tmp_path / "net.nasc")
    return tmp_path


def run(*command: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["opt", *command])
    return done.exit_code, done.stdout, done.stderr


def test_a_failing_pass_leaves_a_file_that_fails_alike(here: Path) -> None:
    code, _, said = run("net.nasc", "--passes", FAILS)
    assert code == 1
    assert "calibrate needs data" in said
    assert "`nasc opt nasc-reproducer.nasc --run-reproducer` runs it again" in said
    held = Reproducer.load(here / "nasc-reproducer.nasc")
    assert held.pipeline == "calibrate"
    assert held.network.graph.sizes == {"a": 6}, "the network as it was before the pass that failed"
    assert str(held.network.graph).count("i4<per 0 ?>") == 2
    assert "calibrate needs data" in held.error
    assert held.versions["torch"] == str(torch.__version__).split("+")[0] or "torch" in held.versions
    again, _, error = run("nasc-reproducer.nasc", "--run-reproducer")
    assert again == 1
    assert "calibrate needs data" in error
    assert [line for line in error.splitlines() if "wrote" in line] == []


def test_a_reproducer_runs_with_data_where_it_had_none(here: Path) -> None:
    run("net.nasc", "--passes", FAILS, "--reproducer", "kept.nasc")
    (here / "model.py").write_text(
        "import torch\nmodel = torch.nn.Linear(16, 5)\nexample_inputs = torch.rand(64, 16)\n"
    )
    code, shown, _ = run("kept.nasc", "--run-reproducer", "--data", "model.py")
    assert code == 0
    assert "i4<per 0>" in shown
    assert not (here / "nasc-reproducer.nasc").exists()


def test_a_usage_error_or_a_success_leaves_nothing(here: Path) -> None:
    assert run("net.nasc", "--passes", "resize{c=3}")[0] == 2
    assert run("net.nasc", "--passes", "resize{a=3}")[0] == 0
    assert sorted(p.name for p in here.iterdir()) == ["net.nasc", "net.safetensors"]


def test_a_place_that_cannot_be_written_to_does_not_hide_the_error(here: Path) -> None:
    (here / "file").write_text("")
    code, _, said = run("net.nasc", "--passes", FAILS, "--reproducer", "file/r.nasc")
    assert code == 1
    assert "calibrate needs data" in said
    assert "no reproducer was written: " in said


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasc.compiler.passes.base.PASSES", PASSES)
    known = dict(PASSES)

    @register("stumble")
    class Stumble(Pass):
        """Fails in a way no pass should."""

        def __init__(self) -> None:
            pass

        @classmethod
        def of(cls, options: Any) -> Any:
            return cls()

        def text(self, *, complete: bool = False) -> str:
            return "stumble"

        def run(self, network: Network, context: Context) -> Network:
            raise KeyError("nobody thought of this")

    yield  # type: ignore[misc]
    PASSES.clear()
    PASSES.update(known)


def test_a_crash_of_a_pass_is_one_message_with_a_reproducer(here: Path, broken: None) -> None:
    code, _, said = run("net.nasc", "--passes", "resize{a=4} | stumble | cleanup")
    assert code == 1
    assert "stumble failed with KeyError: 'nobody thought of this'" in said
    assert "This is a fault of nasc." in said
    assert "Traceback" not in said
    assert Reproducer.load(here / "nasc-reproducer.nasc").pipeline == "stumble | cleanup"
    with pytest.raises(NascError, match="stumble failed") as raised:
        rewriting.rewrite_again(here / "nasc-reproducer.nasc")
    assert isinstance(raised.value.__cause__, KeyError)


def test_from_python_with_data_that_no_file_names(here: Path) -> None:
    net = nasc.load_network("net.nasc")
    with pytest.raises(PassError):
        rewriting.rewrite(
            net, "quantize{weights=i8} | resize{a=12}", data=torch.rand(4, 16), reproducer=here / "r.nasc"
        )
    with pytest.raises(UsageError, match=r"its data were given from Python\n  Name them"):
        rewriting.rewrite_again(here / "r.nasc")
    with pytest.raises(PassError, match="integer weights cannot grow"):
        rewriting.rewrite_again(here / "r.nasc", data=torch.rand(4, 16))


def test_what_is_no_reproducer(here: Path) -> None:
    assert run("net.nasc", "--run-reproducer")[0] == 2
    assert "net.nasc:1: error: expected '// nasc reproducer 1'" in run("net.nasc", "--run-reproducer")[2]
    assert "has its own pipeline" in run("net.nasc", "--run-reproducer", "--passes", "cleanup")[2]
    assert "there is no such file" in run("gone.nasc", "--run-reproducer")[2]
    (here / "net.nasc").write_text(f"{HEAD}\n// seed: 0\n" + (here / "net.nasc").read_text())
    assert "names no pipeline" in run("net.nasc", "--run-reproducer")[2]


def test_dumps_after_one_pass_after_changes_and_after_all(here: Path) -> None:
    pipeline = "cleanup | resize{a=6} | cleanup | convert{to=f16}"
    _, shown, said = run("net.nasc", "--passes", pipeline, "--dump-ir-after", "resize")
    assert said.count("// after ") == 1
    assert said.startswith("// after resize{a=6}\nnasc 1\n")
    assert "// after" not in shown
    _, _, said = run("net.nasc", "--passes", pipeline, "--dump-ir-after-change")
    assert [line for line in said.splitlines() if line.startswith("// after")] == [
        "// after resize{a=6}",
        "// after convert{to=f16}",
    ]
    run("net.nasc", "--passes", pipeline, "--dump-ir-after-change", "--dump-ir-to", "some")
    assert sorted(p.name for p in (here / "some").iterdir()) == ["02-resize.nasc", "04-convert.nasc"]
    run("net.nasc", "--passes", pipeline, "--dump-ir-after-all", "all")
    assert [p.name for p in sorted((here / "all").iterdir())][:2] == ["00-source.nasc", "01-cleanup.nasc"]
    assert len(list((here / "all").iterdir())) == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [("resiz", "there is no pass 'resiz'\n  Did you mean resize?"), ("quantize", "the pipeline has no quantize")],
)
def test_dumps_after_a_pass_that_does_not_run(here: Path, name: str, message: str) -> None:
    code, _, said = run("net.nasc", "--passes", "resize{a=6}", "--dump-ir-after", name)
    assert code == 2
    assert message in said
