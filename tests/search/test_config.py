"""The configuration: strict, with nearest names, and with the origin of every value."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from nasc.ir import UsageError
from nasc.search.config import Settings, configuration, flat
from nasc.search.toml_text import value_text


def write(folder: Path, text: str, name: str = "nasc.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, 'seed = 7\n[search]\ntrials = 50\nstrategy = "random"\n')
    found = configuration({"search.trials": 9, "search.strategy": None}, path=path)
    rows = {row.name: row for row in found.rows}
    assert (found.settings.seed, found.settings.search.trials, found.settings.search.strategy) == (7, 9, "random")
    trials = rows["search.trials"]
    assert (trials.default, trials.file, trials.flag, trials.effective) == (120, 50, 9, 9)
    assert (rows["search.strategy"].file, rows["search.strategy"].flag) == ("random", None)
    assert (rows["target"].file, rows["target"].flag, rows["target"].effective) == (None, None, "auto")
    assert [row.name for row in found.rows] == list(flat(Settings()))


def test_pyproject_counts_where_it_has_a_table(tmp_path: Path) -> None:
    write(tmp_path, "[tool.nasc.search]\ntrials = 3\n", "pyproject.toml")
    assert configuration(folder=tmp_path).settings.search.trials == 3
    assert configuration(path=tmp_path / "pyproject.toml").settings.search.trials == 3
    write(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml")
    assert configuration(folder=tmp_path).path is None
    with pytest.raises(UsageError, match=r"has no table \[tool.nasc\]"):
        configuration(path=tmp_path / "pyproject.toml")


def test_what_is_saved_says_what_the_flags_did(tmp_path: Path) -> None:
    flags = {
        "search.objectives": ["accuracy:max", "size:min"],
        "search.space": [
            "linear: weights=[i2,i4,i8], activations=u4..u8",
            {"layers": ["fc1", "fc2"], "width": "8..32/8"},
        ],
        "search.time_limit_s": 60,
        "search.widths": True,
        "training.learning_rate": 1e-4,
        "seed": 5,
    }
    found = configuration(flags, folder=tmp_path)
    again = configuration(path=write(tmp_path, found.text))
    assert again.settings == found.settings
    assert again.settings.search.space[1] == "[fc1, fc2]: width=[8, 16, 24, 32]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", "there is no setting 'sed'\n  Did you mean seed"),
        ("[search]\ntrails = 3", "there is no setting 'search.trails'\n  Did you mean trials"),
        ("[serach]\ntrials = 3", "Did you mean search"),
        ("search = 3", "search is a table of settings; found 3"),
        ("[search]\ntrials = 'many'", "search.trials must be a valid integer; found 'many'"),
        ("[search]\ntrials = 2.5", "search.trials must be a valid integer"),
        ("[search]\ntrials = 0", "search.trials must be greater than or equal to 1; found 0"),
        ("[search]\nconfidence = 1.0", "search.confidence must be less than 1"),
        ("[calibration]\nmethod = 'best'", "'minmax', 'average', 'percentile', 'mse' or 'entropy'"),
        ("[search]\nspace = ['fc1']", "search space: 'fc1' cannot be read"),
        ("[[search.space]]\nweights = ['i4']", "needs `layers`"),
        ("[[search.space]]\nlayers = 'a'\nweigths = ['i4']", "Did you mean weights"),
        ("[[search.space]]\nlayers = 'a'\neach = 1\nweights = ['i4']", "each must be true or false"),
        ("[search]\nspace = [4]", "search.space.0 must be"),
        ("seed = 2026-01-01", "a setting cannot be a date"),
        ("seed =", "is not valid TOML"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        configuration(path=path)
    assert message in str(refused.value)


def test_flags_are_checked_like_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="flags: there is no setting 'search.trails'"):
        configuration({"search.trails": 3}, folder=tmp_path)
    with pytest.raises(UsageError, match="flags: search.trials must be"):
        configuration({"search.trials": -1}, folder=tmp_path)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        configuration(path=tmp_path / "none.toml")


@pytest.mark.parametrize("value", [True, False, 0, -3, 1.5, 1e-12, "", 'a "b" \\ \n ü', ("x",) * 40, (), (1, 2)])
def test_values_read_back_from_toml(value: object) -> None:
    found = tomllib.loads(f"x = {value_text(value)}")["x"]
    assert found == (list(value) if isinstance(value, tuple) else value)


def test_every_setting_says_what_it_is_for_and_is_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    text = page.read_text()
    for name in flat(Settings()):
        assert f"`{name}`" in text, f"{name} is missing in docs/configuration.md"
