"""The README's Python blocks run, its commands exist, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert len(links) >= 6
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_python_interface_block_runs(tmp_path: Path):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (block,) = [b for b in blocks if "nasc.lower" in b]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "graph @sequential" in done.stdout
    assert "ratio to baseline" in done.stdout
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "source.onnx").stat().st_size


def test_deployment_block_names_the_exported_input():
    assert '{"x":' in TEXT
    command = [sys.executable, "-m", "nasc", "lower", "examples/jets.py"]
    lowered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert lowered.splitlines()[1] == "graph @jets(%x: f32[N, 16]) {"
    for line in ("width $fc1 = 64", "%fc1.weight: f32[$fc1, 16] = weight"):
        assert line in lowered
        assert line in TEXT


def test_commands_of_the_table_exist():
    shown = subprocess.run([sys.executable, "-m", "nasc", "--help"], capture_output=True, text=True, check=True).stdout
    commands = set(re.findall(r"^\| `nasc (\w+)", TEXT, re.MULTILINE))
    assert commands == set(re.findall(r"^[│ ]+(\w+)  ", shown, re.MULTILINE)) - {"Options", "Commands"}


def test_the_pipeline_of_the_readme_runs(tmp_path: Path):
    (pipeline,) = re.findall(r"--passes '([^']+)'", TEXT)
    command = [
        sys.executable,
        "-m",
        "nasc",
        "opt",
        "examples/jets.py",
        "--passes",
        pipeline,
        "-o",
        str(tmp_path / "q.nasc"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "q.nasc").read_text()
    assert "width $fc1 = 48" in text
    assert "%fc1.weight: i4<per 0>[$fc1, 16] = weight" in text
