"""The study in its storage: opened, its trials counted, and what killed processes left undone."""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.trial import FrozenTrial, TrialState

from effnetv2_tf.errors import UsageError
from effnetv2_tf.files import write_text
from effnetv2_tf.search.rewards import Goal
from effnetv2_tf.search.trials import (
    FOLDER,
    INHERITED_FROM,
    POSITION,
    RETRY_OF,
    SAME_AS,
    WORKER,
    counted,
    is_set_aside,
    position,
)

SEARCH = "search"  # user attribute of a study
FOLDER_CLAIM = "study.json"

HEARTBEAT_SECONDS = 15
# After so long without a heartbeat a worker, on whatever machine, is taken for dead.
GRACE_SECONDS = 90
_ATTEMPTS = 10  # to connect
_QUEUED = "fixed_params"  # attribute in which Optuna keeps the choices of a queued trial


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Connects to a database by SQLAlchemy's URL.

    Raises:
      UsageError: if it cannot be reached.
    """
    import sqlalchemy

    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise UsageError(
            "--storage: expected a URL such as sqlite:///search.db or "
            "postgresql://user@host/database, received one that cannot be read"
        ) from error
    for attempt in range(_ATTEMPTS):
        try:
            return _connect(url, parsed.drivername)
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            # Several workers that begin at once make the same tables.
            others = any(word in reason.lower() for word in ("exists", "locked", "unique"))
            if not others or attempt + 1 == _ATTEMPTS:
                shown = parsed.render_as_string(hide_password=True)
                raise UsageError(f"--storage: {shown} cannot be reached: {reason}") from error
            time.sleep(0.1 * (attempt + 1))
    raise AssertionError("the last attempt returns or raises")


def _connect(url: str, driver: str) -> optuna.storages.RDBStorage:
    # Other workers' writes are waited for.
    options = {"connect_args": {"timeout": 60}} if driver.startswith("sqlite") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=try_again,
        )


def turn_lock(url: str, output: Path) -> filelock.FileLock:
    """The lock of whoever takes or queues trials: SQLite would give one to two processes.

    It lies beside the SQLite file, so that all who use the file share it. Other databases see to
    it themselves; there it is in the folder of the search.

    Raises:
      UsageError: if that folder cannot be made.
    """
    file = _sqlite_file(url)
    if file is not None:
        return filelock.FileLock(f"{file}.lock")
    _make_folder(output)
    return filelock.FileLock(output / ".study.lock")


def _sqlite_file(url: str) -> str | None:
    import sqlalchemy

    parsed = sqlalchemy.engine.make_url(url)
    return parsed.database if parsed.drivername.startswith("sqlite") else None


def open_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    description: str,
    directions: Sequence[Goal],
    first: dict | None = None,
) -> optuna.Study:
    """Makes a study, or opens the one that is there; to be called by one process at a time.

    Args:
      storage: of the study.
      name: of the study.
      description: what is searched; a study goes on only with the same.
      directions: of the objectives.
      first: choices of the first trial, or None.

    Raises:
      UsageError: if there is a study of that name with another description.
    """
    study = optuna.create_study(
        study_name=name, storage=storage, directions=list(directions), load_if_exists=True
    )
    known = study.user_attrs.get(SEARCH)
    begun = bool(study.get_trials(deepcopy=False))
    # One without a description was made by a process that was killed at once, or by others.
    if known != description and (known is not None or begun):
        raise UsageError(
            f"--study: {name!r} is there and searches something else (another "
            "configuration); choose another name, or the configuration that it began with"
        )
    if known is None:
        study.set_user_attr(SEARCH, description)
    if not begun and first is not None:
        study.enqueue_trial(first)
    return study


def claim_folder(output: Path, study: str, description: str) -> None:
    """Makes a folder a study's own: runs and step times in it are found by numbers alone.

    Raises:
      UsageError: if it is another study's, or cannot be written to.
    """
    path = output / FOLDER_CLAIM
    claim = {"study": study, "search": description}
    _make_folder(output)
    try:
        if not path.is_file():
            write_text(path, json.dumps(claim, indent=1) + "\n")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: cannot write to {output}: {error}") from error
    try:
        known = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: damaged ({error}); choose another folder") from error
    if known != claim:
        raise UsageError(
            f"--output: {output} holds the trials of another search (study "
            f"{known.get('study')!r}); expected a folder of its own for every search"
        )


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output: cannot write to {output}: {error}") from error


def is_surplus(study: optuna.Study, number: int, budget: int) -> bool:
    """Whether a trial that was just begun is one too many: another worker was faster.

    One that was asked for once more is not.
    """
    trials = study.get_trials(deepcopy=False)
    return RETRY_OF not in trials[number].user_attrs and position(trials, number) >= budget


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues a trial that was set aside once more: the same choices, in the same folder."""
    if is_set_aside(trial) and _choices(trial):
        _queue(study, trial)


def retry_failed(study: optuna.Study) -> int:
    """Queues every network that failed once more, as above; returns their number."""
    trials = counted(study.get_trials(deepcopy=False))
    failed = [
        trial
        for trial in trials
        if trial.state == TrialState.FAIL and trial.params and SAME_AS not in trial.user_attrs
    ]
    for trial in failed:
        _queue(study, trial)
    return len(failed)


def _queue(study: optuna.Study, trial: FrozenTrial) -> None:
    names = (FOLDER, INHERITED_FROM, POSITION)
    kept = {name: trial.user_attrs[name] for name in names if name in trial.user_attrs}
    study.enqueue_trial(_choices(trial), user_attrs={**kept, RETRY_OF: trial.number})


def _choices(trial: FrozenTrial) -> dict[str, Any]:
    """What was decided for a trial, if it was itself queued also what it had not yet taken over."""
    return {**trial.system_attrs.get(_QUEUED, {}), **trial.params}


class Worker:
    """A process that makes trials: a file that is locked as long as it lives, however it ends.

    Args:
      folder: gets the file; workers of one machine share it.
      storage: URL of the database.
    """

    def __init__(self, folder: Path, storage: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._takes_turns_with_all = _sqlite_file(storage) is not None
        self._folder = folder
        self.name = f"{this_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = filelock.FileLock(_lock_file(folder, self.name), timeout=0)
        self._lock.acquire()

    def close(self) -> None:
        """Ends being a worker."""
        self._lock.release()
        _lock_file(self._folder, self.name).unlink(missing_ok=True)

    def set_aside_dead(self, study: optuna.Study) -> list[int]:
        """Sets the trials aside that workers died with; returns those of this machine.

        Workers of other machines are known by their heartbeat, which the engine watches. To be
        called by one process at a time, see `turn_lock`.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        gone = []
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._is_dead(trial):
                continue
            if fail(study, trial):
                gone.append(trial.number)
                try_again(study, study.get_trials(deepcopy=False)[trial.number])
                if WORKER in trial.user_attrs:
                    _lock_file(self._folder, trial.user_attrs[WORKER]).unlink(missing_ok=True)
        return gone

    def _is_dead(self, trial: FrozenTrial) -> bool:
        name = trial.user_attrs.get(WORKER)
        if name is None:  # killed before it could say who it is, or about to say it
            if self._takes_turns_with_all:  # about to say it is nobody while this process has it
                return True
            began = trial.datetime_start or datetime.datetime.now()
            return (datetime.datetime.now() - began).total_seconds() > GRACE_SECONDS
        path = _lock_file(self._folder, name)
        if name == self.name or not path.exists():  # without a file: on another machine
            return False
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            return False
        lock.release()
        return True


def fail(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Marks a running trial as failed; False if another process was faster."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    return True


def _lock_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"


def this_machine() -> str:
    """A name for the machine."""
    return platform.node()
