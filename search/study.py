"""The study: trials in Optuna's storage, opened only for the search that it belongs to, safe against being killed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock  # the base class of locks has no public name

from ..ir.errors import NascError, UsageError
from .figures import Direction
from .files import prepare_folder, unusable, write_json
from .records import Record

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

VERSION = 1
JOURNAL = "study.journal"
MARKER = "study.json"
LOCK = ".nasc.lock"
MEASUREMENTS = "measurements.jsonl"
"""One line per measurement, whatever it was taken for: figures name their line."""
_RECORD, _IDENTITY, _INTERRUPTED, _ORIGIN = "record", "identity", "interrupted", "origin"

Identity = Mapping[str, str]
"""What a study was asked for: names that people know (`objectives`, `seed`), with texts to compare and to print."""


class JournalLock(BaseJournalFileLock):
    """A lock that the system releases when its process dies; Optuna's own would keep the next one waiting."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Give it back."""
        self._lock.release()


def journal_storage(path: Path) -> BaseStorage:
    """A storage in one file; a last line that a kill cut off is taken away first.

    Raises:
        NascError: the file is no journal.
    """
    from optuna.storages import JournalStorage

    lock = JournalLock(path)
    lock.acquire()
    try:
        _cut_torn_line(path)
    finally:
        lock.release()
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise NascError(
            f"{path}: the journal of the study is damaged: {error}",
            mend="Move the output folder away and start anew, or put the file back from a copy.",
        ) from error


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def storage_at(url: str | None, output: Path) -> BaseStorage:
    """The storage of a URL, or the journal in the output folder.

    Raises:
        UsageError: Optuna cannot open the URL.
    """
    if url is None:
        return journal_storage(output / JOURNAL)
    from optuna.exceptions import OptunaError
    from optuna.storages import get_storage
    from sqlalchemy.exc import SQLAlchemyError  # comes with optuna

    try:
        return get_storage(url)
    except (OptunaError, SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise _unopened(url, error) from error


def check_storage(url: str | None) -> None:
    """Refuse a storage that cannot be one, without opening it.

    Raises:
        UsageError: it is no URL, or of a database that no installed module speaks to.
    """
    if url is None:
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(url).get_dialect().import_dbapi()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise _unopened(url, error) from error


def _unopened(url: str, error: Exception) -> UsageError:
    return UsageError(
        f"the storage {url!r} cannot be opened: {str(error).splitlines()[0]}",
        mend="Write an Optuna URL such as sqlite:///study.db or postgresql://user@host/name, or leave it out.",
    )


@dataclass(frozen=True)
class Running:
    """A trial that has been asked for and not yet told.

    Args:
        trial: Optuna's.
        origin: who proposed it.
    """

    trial: Trial
    origin: str

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Its parameters."""
        return self.trial.params


class OpenStudy:
    """A study in use; a context manager, since one process at a time may write to its output folder.

    Args:
        output: the output folder.
        storage: an Optuna URL; None for the journal in the output folder.
        identity: what is asked for.
        name: of the network, for the study's name in shared storages.

    Raises:
        UsageError: the folder holds another study, or something else, or another process uses it.
    """

    def __init__(self, output: Path, storage: str | None, identity: Identity, name: str) -> None:
        self.output = output
        self.identity = {"version": str(VERSION), **identity}
        self._url = storage
        self._name = name
        self._study: Study | None = None
        self._records: list[Record] = []
        self._lock = FileLock(str(output / LOCK))

    def __enter__(self) -> OpenStudy:
        prepare_folder(self.output)
        check_folder(self.output, self.identity)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another search is running in {self.output}",
                mend="Wait for it, stop it, or name another folder with --output.",
            ) from None
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    @property
    def exists(self) -> bool:
        """Whether this study has been begun, in this folder or elsewhere on a shared storage."""
        return self._study is not None or self._open(None)

    def create(self, directions: Sequence[Direction]) -> None:
        """Make the study, or continue it; `exists` tells which.

        Args:
            directions: of the values that trials are told with; a study that exists keeps its own.
        """
        if not self.exists:
            self._open(directions)
        if not (self.output / MARKER).exists():
            write_json(self.output / MARKER, self.identity)
        self._take_over()

    def _open(self, directions: Sequence[Direction] | None) -> bool:
        """Open the study; without directions only if there is one."""
        import optuna
        from optuna.study import StudyDirection

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if self._url is None and directions is None and not (self.output / JOURNAL).exists():
            return False
        storage = storage_at(self._url, self.output)
        name = self._study_name()
        known = {s.study_name for s in optuna.get_all_study_summaries(storage, include_best_trial=False)}
        if name not in known:
            if directions is None:
                return False
            sides = [StudyDirection.MINIMIZE if d == "min" else StudyDirection.MAXIMIZE for d in directions]
            self._study = optuna.create_study(storage=storage, study_name=name, directions=sides)
        else:
            self._study = optuna.load_study(study_name=name, storage=storage)
        found = self._study.user_attrs.get(_IDENTITY)
        if found is None:
            self._study.set_user_attr(_IDENTITY, self.identity)
        elif found != self.identity:
            raise UsageError(f"the storage holds another study of this name: {difference(found, self.identity)}")
        return True

    def _study_name(self) -> str:
        if self._url is None:
            return "nasc"
        import hashlib

        text = json.dumps(self.identity, sort_keys=True)
        return f"nasc/{self._name}/{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def study(self) -> Study:
        """Optuna's study."""
        assert self._study is not None, "create() comes first"
        return self._study

    def _take_over(self) -> None:
        """Read what was told, and clear up behind a process that died."""
        from optuna.trial import TrialState

        study = self.study
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            if trial.state == TrialState.RUNNING and _RECORD in trial.user_attrs:
                self._tell(trial.number, Record.of(trial.user_attrs[_RECORD]), trial.user_attrs.get("values"))
                continue
            study._storage.set_trial_user_attr(trial._trial_id, _INTERRUPTED, dict(trial.params))  # pyright: ignore[reportPrivateUsage]
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # pyright: ignore[reportPrivateUsage]
        trials = study.get_trials(deepcopy=False)
        self._records = [Record.of(t.user_attrs[_RECORD]) for t in trials if _RECORD in t.user_attrs]
        told = {json.dumps(t.params, sort_keys=True) for t in trials if _RECORD in t.user_attrs}
        stopped = [
            (t.user_attrs[_INTERRUPTED], t.user_attrs.get(_ORIGIN, "")) for t in trials if _INTERRUPTED in t.user_attrs
        ]
        self.interrupted = [(p, origin) for p, origin in stopped if p and json.dumps(p, sort_keys=True) not in told]

    @property
    def records(self) -> Sequence[Record]:
        """What was told, in order of the trials' numbers."""
        return self._records

    def ask(
        self,
        sampler: BaseSampler,
        distributions: Mapping[str, Any],
        origin: str,
        parameters: Mapping[str, int] | None = None,
    ) -> Running:
        """Begin a trial.

        Args:
            sampler: proposes it.
            distributions: of all parameters.
            origin: who proposes it.
            parameters: what is proposed instead of asking the sampler.
        """
        study = self.study
        study.sampler = sampler
        if parameters is not None:
            study.enqueue_trial(dict(parameters), user_attrs={_ORIGIN: origin})
        trial = study.ask(dict(distributions))
        if parameters is None:
            trial.set_user_attr(_ORIGIN, origin)
        return Running(trial, origin)

    def tell(self, running: Running, record: Record, values: Sequence[float] | None) -> None:
        """End a trial. What is known of it is stored first, so that a kill in between loses nothing."""
        for name, violation in record.violations.items():
            running.trial.set_constraint(name, violation)
        running.trial.set_user_attr("values", None if values is None else list(values))
        running.trial.set_user_attr(_RECORD, record.as_dict())
        self._tell(running.number, record, values)
        self._records.append(record)

    def _tell(self, number: int, record: Record, values: Sequence[float] | None) -> None:
        from optuna.trial import TrialState

        if record.state == "complete":
            self.study.tell(number, list(values or ()))
        else:
            self.study.tell(number, state=TrialState.PRUNED if record.state == "pruned" else TrialState.FAIL)

    def interrupt(self, running: Running) -> None:
        """End a trial that was stopped from outside, as a killed one is ended when the search goes on."""
        from optuna.trial import TrialState

        running.trial.set_user_attr(_INTERRUPTED, dict(running.trial.params))
        self.study.tell(running.number, state=TrialState.FAIL)

    def remember(self, name: str, data: Any) -> None:
        """Keep something with the study."""
        self.study.set_user_attr(name, data)

    def recall(self, name: str) -> Any:
        """What was kept under a name, or None."""
        return self.study.user_attrs.get(name)


def check_output(output: Path) -> None:
    """Refuse an output folder that cannot be any study's, without making it.

    Raises:
        UsageError: it is a file, lies in one, may not be read, or holds files of something else.
    """
    try:
        held = {path.name for path in output.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(output, error) from error
    others = sorted(held - {JOURNAL, f"{JOURNAL}.lock", LOCK, MEASUREMENTS})
    if MARKER not in held and others:
        raise UsageError(
            f"the output folder {output} holds something else: {', '.join(others[:4])}",
            mend="Name a new or empty folder with --output.",
        )


def check_folder(output: Path, identity: Identity) -> None:
    """Refuse a folder that holds another study, or files of something else.

    Raises:
        UsageError: it does.
    """
    check_output(output)
    marker = output / MARKER
    if not marker.exists():
        return
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NascError(f"{marker} cannot be read: {error}", mend="Name another folder with --output.") from error
    if found != identity:
        raise UsageError(
            f"the output folder {output} holds another study: {difference(found, identity)}",
            mend="Go back to its settings to continue it, or name another folder with --output.",
        )


def difference(found: Mapping[str, Any], wanted: Identity) -> str:
    """What differs between two identities, in words."""
    names = [n for n in dict.fromkeys([*wanted, *found]) if found.get(n) != wanted.get(n)]
    return "; ".join(f"its {n} is {_short(found.get(n))}, now asked for is {_short(wanted.get(n))}" for n in names)


def _short(text: object) -> str:
    if text is None:
        return "not given"
    shown = str(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
