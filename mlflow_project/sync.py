"""Replays journals that MLflow does not have in full: the server was down, or the process was killed.

Runs whose process is dead are ended KILLED. Safe to call at any time and several times at once: a journal is replayed
by whoever holds its lock, and one that a living process still writes is left to it.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from mlflow_project.journal import Journal, JournalError, open_runs, read_header, read_operations
from mlflow_project.recorder import Recorder
from mlflow_project.replica import Unreachable
from mlflow_project.state import State
from mlflow_project.store import with_credentials, without_credentials
from mlflow_project.uploader import Cursor


@dataclass(frozen=True)
class SyncReport:
    """What one `sync` did.

    Attributes:
        journals: journals looked at.
        applied: operations brought to MLflow.
        pending: operations that are still missing there.
        killed: runs that were ended KILLED because their process is gone.
        busy: journals left to the living process that owns them.
        refused: operations MLflow will never accept, with the reason.
        problem: why operations are pending, or None.
    """

    journals: int
    applied: int
    pending: int
    killed: int
    busy: tuple[Path, ...]
    refused: tuple[str, ...]
    problem: str | None


def sync(directory: str | Path, *, tracking_uri: str | None = None) -> SyncReport:
    """Replay every journal in `directory`.

    Args:
        tracking_uri: where to; by default each journal's own server.

    Raises:
        JournalError: a file in `directory` is not a journal.
    """
    applied = pending = killed = 0
    busy: list[Path] = []
    refused: list[str] = []
    problems: dict[str, str] = {}
    paths = sorted(Path(directory).glob("*.jsonl"))
    for path in paths:
        if not _has_header(path) or _complete(path):
            continue
        journal = Journal.take_over(path)
        if journal is None:
            busy.append(path)
            continue
        try:
            killed += _end_dead_runs(journal)
            cursor = Cursor(path, tracking_uri or with_credentials(journal.header.tracking_uri))
            before = len(cursor.state.refused)
            if cursor.tracking_uri not in problems:
                try:
                    applied += sum(cursor.advance())
                except Unreachable as error:
                    problems[cursor.tracking_uri] = f"{without_credentials(cursor.tracking_uri)}: {error}"
            pending += cursor.pending()
            refused += cursor.state.refused[before:]
        finally:
            journal.close()
    return SyncReport(
        len(paths), applied, pending, killed, tuple(busy), tuple(refused), next(iter(problems.values()), None)
    )


def sync_command(directory: Path) -> str:
    """The command that replays the journals of `directory`, which is ``<output>/journal``."""
    return shlex.join(["rlinf-isaac", "sync", "--output", str(directory.parent)])


def _has_header(path: Path) -> bool:
    """False for a journal whose owner was killed before its first line was complete: there is nothing in it."""
    try:
        read_header(path)
    except JournalError:
        with open(path, "rb") as file:
            if file.readline().endswith(b"\n"):
                raise
        return False
    return True


def _complete(path: Path) -> bool:
    """Everything is applied and every run ended. Cheap, and without a lock: a complete journal does not change."""
    if State.load(path).offset != path.stat().st_size:
        return False
    return not open_runs(read_operations(path, read_header(path)[1])[0])


def _end_dead_runs(journal: Journal) -> int:
    count = len(journal.open_runs)
    if count:
        last_sign = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(journal.path.stat().st_mtime))
        reason = f"the process ended without a word; its last record is of {last_sign}"
        while journal.open_runs:
            Recorder(journal, next(iter(journal.open_runs))).end("KILLED", reason)
    return count
