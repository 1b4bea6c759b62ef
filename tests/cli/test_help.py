"""`nasc --help` answers at once: it imports none of the heavy libraries."""

import json
import subprocess
import sys

HEAVY = ("torch", "torchmetrics", "pydantic", "onnx", "onnxruntime", "optuna", "numpy", "plotly", "pynvml", "fvcore")

SCRIPT = """
import json, sys
sys.argv = ["nasc", {argument!r}]
try:
    from nasc.__main__ import main
    main()
except SystemExit as exit:
    code = exit.code
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""


def run(argument: str) -> tuple[str, int, list[str]]:
    script = SCRIPT.format(argument=argument)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return done.stdout, code or 0, modules


def test_help_imports_no_heavy_library():
    text, code, modules = run("--help")
    assert code == 0
    for command in ("compile", "lower", "opt", "diff", "space", "measure", "sensitivity", "verify"):
        assert command in text
    assert [name for name in HEAVY if name in modules] == []


def test_version_is_the_packages():
    import nasc

    text, code, _ = run("--version")
    assert (text, code) == (f"nasc {nasc.__version__}\n", 0)


def test_the_check_sees_a_heavy_library():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, numpy; print('numpy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


def test_importing_nasc_costs_nothing():
    heavy = (*HEAVY, "typer", "rich")
    script = f"import sys, nasc; print([n for n in sys.modules if n.split('.')[0] in {heavy!r}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_defaults_in_words_are_shown() -> None:
    from nasc.cli import app
    from typer.testing import CliRunner

    for command, told in (
        ("measure", "[default: two minutes beyond the budgets]"),
        ("compile", "[default: a journal in the folder]"),
        ("profile", "[default: four fifths of the free]"),
    ):
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "250", "TERMINAL_WIDTH": "250"})
        assert told in shown.output


def test_stopped_while_modules_load_is_no_traceback() -> None:
    script = """
import sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "nasc.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from nasc.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "stopped\n")
