"""Replays the journals that were not uploaded completely because the server was down or the process was killed.

Runs whose process is dead are ended with status KILLED. `sync` may be called at any time, also several times at once:
only the holder of a journal's lock replays it, and a journal that a living process still writes is skipped.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_project.tracking.answers import Unreachable
from mlflow_project.tracking.cursor import Cursor
from mlflow_project.tracking.journal import Journal, JournalError, open_runs, read_header, read_operations
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.replica import OtherStore
from mlflow_project.tracking.state import State
from mlflow_project.tracking.store import with_credentials

_PAUSES_S = 0.05, 1.0
"""Shortest and longest pause between two attempts, in seconds."""


@dataclass
class SyncReport:
    """Result of one `sync`.

    Attributes:
        journals: number of journals that were read.
        applied: number of operations applied to MLflow.
        pending: number of operations that MLflow does not have yet.
        killed: number of runs ended with status KILLED because their process is gone.
        busy: journals that were skipped because a living process owns them.
        refused: reasons of the operations that MLflow will never accept, including those of earlier calls.
        problems: store -> why operations are pending.
    """

    journals: int = 0
    applied: int = 0
    pending: int = 0
    killed: int = 0
    busy: list[Path] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether MLflow has every operation of the journals whose process has ended."""
        return not self.pending and not self.refused


def sync(
    directory: str | Path, *, tracking_uri: str | None = None, again: bool = False, patience_s: float = 0.0
) -> SyncReport:
    """Replay every journal in `directory`.

    Args:
        tracking_uri: the store to replay into; by default the one that each journal names.
        again: retry refused operations, and replay a journal from its start if another store has replaced its own.
        patience_s: seconds to keep retrying a server that accepts nothing.

    Raises:
        JournalError: a file in `directory` is not a journal.
    """
    report = SyncReport()
    for _ in sync_steps(directory, report, tracking_uri=tracking_uri, again=again, patience_s=patience_s):
        pass
    return report


def sync_steps(
    directory: str | Path,
    report: SyncReport | None = None,
    *,
    tracking_uri: str | None = None,
    again: bool = False,
    patience_s: float = 0.0,
) -> Iterator[SyncReport]:
    """Like `sync`, but yields the report, updated in place, after each step that a server accepted."""
    report = SyncReport() if report is None else report
    for path in sorted(Path(directory).glob("*.jsonl")):
        report.journals += 1
        if not _has_header(path):
            continue
        uri = tracking_uri or with_credentials(read_header(path)[0].tracking_uri)
        if not again and _complete(path, uri, report):
            continue
        journal = Journal.take_over(path)
        if journal is None:
            report.busy.append(path)
            continue
        try:
            for torn in journal.files.rglob(".*.tmp-*"):  # a file that the owner was writing when it was killed
                torn.unlink()
            report.killed += _end_dead_runs(journal)
            cursor = Cursor(path, uri, again=again)
            name = without_credentials(uri)
            try:
                if name not in report.problems:
                    for count in _patiently(cursor, patience_s):
                        report.applied += count
                        yield report
            except Unreachable as error:
                report.problems[name] = f"{name}: {error}"
            report.pending += cursor.pending()
            report.refused += cursor.state.refused
        finally:
            journal.close()


def sync_command(directory: Path, *options: str) -> str:
    """The command that replays the journals of `directory`, which is ``<output>/journal``."""
    return shlex.join(["rlinf-isaac", "sync", *options, "--output", str(directory.parent)])


def _patiently(cursor: Cursor, patience_s: float) -> Iterator[int]:
    """Repeat `Cursor.advance` until the journal is applied or the server has accepted nothing for `patience_s`."""
    last, pause = time.monotonic(), _PAUSES_S[0]
    while True:
        try:
            for count in cursor.advance():
                last, pause = time.monotonic(), _PAUSES_S[0]
                yield count
            return
        except OtherStore:  # waiting does not help
            raise
        except Unreachable:
            if time.monotonic() - last >= patience_s:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _PAUSES_S[1])


def _has_header(path: Path) -> bool:
    """Whether the header line is complete. It is not if the owner was killed at once; the journal is empty then."""
    try:
        read_header(path)
    except JournalError:
        with open(path, "rb") as file:
            if file.readline().endswith(b"\n"):
                raise
        return False
    return True


def _complete(path: Path, uri: str, report: SyncReport) -> bool:
    """Whether every operation is applied and every run has ended. Needs no lock: a complete journal never changes."""
    header, start = read_header(path)
    name = without_credentials(uri)
    state = State.load(path, None if name == header.tracking_uri else name)
    if state.offset != path.stat().st_size or any(not aside.final for aside in state.aside):
        return False
    if open_runs(read_operations(path, start)[0]):
        return False
    report.refused += state.refused
    return True


def _end_dead_runs(journal: Journal) -> int:
    count = len(journal.open_runs)
    if count:
        last_sign = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(journal.path.stat().st_mtime))
        reason = f"the process ended without ending its run; its last record was written at {last_sign}"
        while journal.open_runs:
            Recorder(journal, next(iter(journal.open_runs))).end("KILLED", reason)
    return count
