"""The study: killed at any moment it loses at most the running trial, and nobody else's folder is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic
from nasc.ir import NascError, UsageError
from nasc.search.observer import Observer
from nasc.search.output import write_settings
from nasc.search.records import Record
from nasc.search.result import Result
from nasc.search.run import Interrupted, search
from nasc.search.study import JOURNAL, OpenStudy
from synthetic import SmallBuilder, SmallJudge, configuration, problem

SCRIPT = str(Path(synthetic.__file__))


def run(
    output: Path,
    trials: int = 20,
    observer: Observer | None = None,
    builder: SmallBuilder | None = None,
    judge: SmallJudge | None = None,
    **flags: object,
) -> Result:
    given = {"search.trials": trials, **{k.replace("__", "."): v for k, v in flags.items()}}
    return search(problem(builder, judge), configuration(given, folder=output).settings, output, observer)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_at_most_the_running_trial(tmp_path: Path) -> None:
    """Really killed, twice, and continued by the same command each time."""
    output, paid = tmp_path / "out", tmp_path / "paid"
    command = [sys.executable, SCRIPT, str(output), "--paid", str(paid), "--trials", "18"]
    kills = 0
    for until in (3, 11):
        process = subprocess.Popen([*command, "--delay", "0.05"], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while len(lines(paid)) < until and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        kills += 1
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in lines(output / "trials.jsonl")]
    keys = [t["key"] for t in trials if "duplicate_of" not in t]
    assert len(keys) == len(set(keys)) == 18
    in_trials = len(lines(paid)) - finals(output)
    assert in_trials <= 18 + kills, "a trial that was told has been paid for again"

    whole = tmp_path / "whole"
    run(whole, trials=18)
    straight = [json.loads(line)["pipeline"] for line in lines(whole / "trials.jsonl")]
    assert [t["pipeline"] for t in trials] == straight, "a search that was killed goes on as if never stopped"


def finals(output: Path) -> int:
    """How many networks were made again after the trials: the finalists that were looked at twice, the reference."""
    manifest = json.loads((output / "best" / "manifest.json").read_text())
    return len(manifest["refused"]) + 3


class Stop(Observer):
    """Presses Ctrl-C while a trial runs."""

    def __init__(self, at: int) -> None:
        self.at = at

    def rung(self, number: int, name: str) -> None:
        if number == self.at and name == "quality":
            raise KeyboardInterrupt


@pytest.mark.parametrize("strategy", ["tpe", "random", "brute-force", "nsga2"])
def test_ctrl_c_keeps_all_that_was_told_and_goes_on_the_same(tmp_path: Path, strategy: str) -> None:
    builder = SmallBuilder(tmp_path / "paid")
    for at in (5, 13):
        with pytest.raises(Interrupted, match="The same command continues: nasc compile small.py"):
            run(tmp_path / "out", observer=Stop(at), builder=builder, search__strategy=strategy)
    resumed = run(tmp_path / "out", builder=builder, search__strategy=strategy)
    whole = run(tmp_path / "whole", search__strategy=strategy)
    assert [r.pipeline for r in resumed.trials] == [r.pipeline for r in whole.trials]
    assert resumed.best.pipeline == whole.best.pipeline


def test_a_finished_search_pays_for_nothing_when_called_again(tmp_path: Path) -> None:
    first = run(tmp_path / "out")
    paid, judge = tmp_path / "paid", SmallJudge()
    before = (tmp_path / "out" / "best" / "model.onnx").read_bytes()
    again = run(tmp_path / "out", builder=SmallBuilder(paid), judge=judge)
    assert not lines(paid)
    assert not judge.timed
    assert not judge.tested
    assert (tmp_path / "out" / "best" / "model.onnx").read_bytes() == before
    assert [r.as_dict() for r in again.trials] == [r.as_dict() for r in first.trials]
    assert again.best == first.best


def test_more_trials_continue_the_same_study(tmp_path: Path) -> None:
    first = run(tmp_path / "out", 12)
    more = run(tmp_path / "out", 20)
    assert [r.number for r in more.trials[: len(first.trials)]] == [r.number for r in first.trials]
    assert more.paid == 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"seed": 3}, "its seed is 0, now asked for is 3"),
        ({"search__objectives": ["accuracy", "size"]}, "its objectives is default, now asked for is accuracy, size"),
        ({"search__space": ["linear: weights=[i4, i8]"]}, "its space is 839,808 configurations"),
        ({"search__strategy": "random"}, "its strategy is tpe"),
        ({"calibration__samples": 64}, "its space is"),
        ({"training__epochs": 2}, "its training is"),
    ],
)
def test_other_settings_do_not_continue_a_study(tmp_path: Path, flags: dict[str, object], message: str) -> None:
    run(tmp_path / "out", 4)
    with pytest.raises(UsageError, match=message) as refused:
        run(tmp_path / "out", 4, **flags)
    assert "name another folder with --output" in str(refused.value)


def test_another_network_does_not_continue_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "out", 4)
    monkeypatch.setattr(SmallBuilder, "digest", "another")
    with pytest.raises(UsageError, match="its network is .* now asked for is another"):
        run(tmp_path / "out", 4)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else: thesis.tex"):
        run(tmp_path, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be used"):
        run(tmp_path / "file" / "out", 4)


def test_two_searches_in_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    class Second(Observer):
        def trial_started(self, number: int, origin: str, pipeline: str) -> None:
            with pytest.raises(UsageError, match="another search is running"):
                run(tmp_path / "out", 3)

    assert run(tmp_path / "out", 3, Second()).paid == 3


def test_a_line_that_a_kill_cut_off_is_taken_away(tmp_path: Path) -> None:
    run(tmp_path / "out", 6)
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "worker_id": "x"')
    assert run(tmp_path / "out", 8).paid == 8
    assert journal.read_bytes().endswith(b"\n")


def test_a_damaged_journal_is_told_from_a_cut_one(tmp_path: Path) -> None:
    run(tmp_path / "out", 4)
    journal = tmp_path / "out" / JOURNAL
    content = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*content[:5], b"what is this\n", *content[5:]]))
    with pytest.raises(NascError, match="the journal of the study is damaged"):
        run(tmp_path / "out", 4)


def test_a_trial_whose_result_was_stored_is_told_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between storing the result and telling it."""
    from nasc.search import study

    def killed(self: OpenStudy, number: int, record: Record, values: object) -> None:
        if number == 4:
            raise SystemExit("killed")
        original(self, number, record, values)  # pyright: ignore[reportArgumentType]

    original = study.OpenStudy._tell
    monkeypatch.setattr(study.OpenStudy, "_tell", killed)
    with pytest.raises(SystemExit):
        run(tmp_path / "out", 10)
    monkeypatch.setattr(study.OpenStudy, "_tell", original)
    paid = tmp_path / "paid"
    resumed = run(tmp_path / "out", 10, builder=SmallBuilder(paid))
    assert [r.number for r in resumed.trials] == list(range(10))
    assert resumed.trial(4).key not in lines(paid)[:5]


def test_sqlite_storage_and_a_second_folder_continue_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = run(tmp_path / "here", 5, search__storage=url)
    more = run(tmp_path / "there", 9, search__storage=url)
    assert [r.pipeline for r in more.trials[:5]] == [r.pipeline for r in first.trials]
    assert more.paid == 9


def test_the_password_of_a_storage_is_not_written_down(tmp_path: Path) -> None:
    settings = configuration({"search.storage": "postgresql://me:secret@host/studies"}, folder=tmp_path).settings
    write_settings(tmp_path, settings)
    text = (tmp_path / "nasc.toml").read_text()
    assert "secret" not in text
    assert "postgresql://me:***@host/studies" in text


def test_a_storage_that_cannot_be_opened_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the storage 'nowhere' cannot be opened"):
        run(tmp_path / "out", 3, search__storage="nowhere")


def test_a_failing_candidate_is_a_failed_trial_and_the_search_goes_on(tmp_path: Path) -> None:
    def fail(pipeline: str) -> None:
        if "layers=fc1, weights=i4" in pipeline:
            raise NascError("no kernel for this")
        if "layers=fc2, weights=i4" in pipeline:
            raise ZeroDivisionError("a fault")

    result = run(tmp_path / "out", 30, builder=SmallBuilder(fail=fail))
    failed = [r for r in result.trials if r.state == "failed"]
    assert {r.reason for r in failed} == {"no kernel for this", "ZeroDivisionError: a fault"}
    assert all(("Traceback" in (r.trace or "")) == ("fault" in (r.reason or "")) for r in failed)
    assert all("build" in r.rungs and "calibrate" in r.rungs for r in failed if r.paid)
    assert result.paid == 30


def test_where_every_candidate_fails_the_search_says_why_and_stops(tmp_path: Path) -> None:
    def fail(pipeline: str) -> None:
        raise NascError("no kernel for this")

    with pytest.raises(NascError, match="3 candidates in a row failed; the last one because of: no kernel for this"):
        run(tmp_path / "out", 30, builder=SmallBuilder(fail=fail))


def test_trials_jsonl_is_rebuilt_from_the_study(tmp_path: Path) -> None:
    run(tmp_path / "out", 6)
    path = tmp_path / "out" / "trials.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    run(tmp_path / "out", 6)
    assert path.read_text() == whole
