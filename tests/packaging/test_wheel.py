"""The built wheel: it installs `nasc` and nothing else, works from any folder, and carries its types."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tracked files so that nothing lying about gets in."""
    source = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if (path := ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(path.read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (found,) = out.glob("nasc-*.whl")
    return found


def packages() -> set[str]:
    """Every folder of the package that holds Python modules, as it lies in the repository."""
    homes = ("ir", "compiler", "targets", "search", "cli")
    return {str(p.parent.relative_to(ROOT)) for home in homes for p in (ROOT / home).rglob("__init__.py")}


def test_wheel_holds_only_nasc(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"nasc"}
    assert "nasc/py.typed" in names
    assert not [name for name in names if "/tests/" in name or "/examples/" in name]


def test_wheel_holds_every_package(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {p for p in packages() if f"nasc/{p}/__init__.py" not in names} == set()


def test_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "search").mkdir(parents=True)
    (elsewhere / "search" / "__init__.py").write_text("raise RuntimeError('a folder of the user')\n")
    script = "import nasc, nasc.search.space, nasc.ir; print(nasc.__file__); print(nasc.parse_pipeline('resize{a=3}'))"
    done = subprocess.run(
        [str(home / "bin" / "python"), "-c", script], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    path, pipeline = done.stdout.splitlines()
    assert path == str(site / "nasc" / "__init__.py")
    assert pipeline == "resize{a=3}"
