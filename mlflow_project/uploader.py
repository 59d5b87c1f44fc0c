"""Brings a journal into MLflow: step by step with a durable cursor, or live from a background thread.

The cursor (`state.State`) is saved after every step, so a crash repeats at most
one step, which is harmless. The thread reads the journal file, not a queue in memory: what it sends is on disk already.
While no server answers it backs off and the producer does not notice.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow_project.journal import Journal, JournalError, read_header, read_operations
from mlflow_project.operations import Operation
from mlflow_project.replica import BATCHED, Replica, Unreachable
from mlflow_project.state import State

_READ_BYTES = 1 << 20
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0

logger = logging.getLogger("mlflow_project")


@dataclass(frozen=True)
class Outcome:
    """Where a journal stands when its uploader stops.

    Attributes:
        journal: the file.
        tracking_uri: where it goes.
        pending: operations that are not in MLflow yet; `sync` replays them.
        problem: why not, or None.
        refused: operations MLflow will never accept.
    """

    journal: Path
    tracking_uri: str
    pending: int
    problem: str | None
    refused: tuple[str, ...]


class Cursor:
    """How far one journal is applied; `advance` applies more. Only the journal's owner may use it."""

    def __init__(self, path: Path, tracking_uri: str) -> None:
        self.path = path
        self.tracking_uri = tracking_uri
        self.state = State.load(path)
        self._replica: Replica | None = None

    def advance(self) -> Iterator[int]:
        """Apply everything the journal holds; yields the number of operations after every saved step.

        Raises:
            Unreachable: the server did not take the next step.
        """
        start = self.state.offset or read_header(self.path)[1]
        while operations := read_operations(self.path, start, _READ_BYTES)[0]:
            for step, end in _steps(operations):
                self._connected().apply(step)
                self.state.offset = start = end
                self.state.save(self.path)
                yield len(step)

    def pending(self) -> int:
        """Number of operations that are not applied."""
        start = self.state.offset or read_header(self.path)[1]
        return len(read_operations(self.path, start)[0])

    def _connected(self) -> Replica:
        if self._replica is None:
            prepare_environment()
            from mlflow import MlflowClient

            try:
                self._replica = Replica(MlflowClient(self.tracking_uri), self.state)
            except Exception as error:  # a database that is locked, or on a disk that is not there
                raise Unreachable(str(error)) from error
        return self._replica


class Uploader:
    """Follows an open journal from a daemon thread until `close`."""

    def __init__(self, journal: Journal, tracking_uri: str, first: Callable[[], object] | None = None) -> None:
        """Begin. `first` is called in the thread before anything is sent."""
        self._first = first
        self.cursor = Cursor(journal.path, tracking_uri)
        self._journal = journal
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._follow, name="mlflow-uploader", daemon=True)
        journal.on_append = self._wake.set
        self._thread.start()

    def ids(self, run: str, patience_s: float = 10.0) -> tuple[str, str] | None:
        """(MLflow run id, experiment id) of a local run; None when the server does not have it soon."""
        deadline = time.monotonic() + patience_s
        while run not in self.cursor.state.runs and self._thread.is_alive() and self._problem is None:
            if time.monotonic() > deadline:
                break
            self._thread.join(0.05)
        return self.cursor.state.runs.get(run)

    def delivered(self, patience_s: float = 10.0) -> bool:
        """Wait until MLflow has everything that was recorded before; False when no server takes it for that long."""
        begin, end = time.monotonic(), self._journal.path.stat().st_size
        while self.cursor.state.offset < end and self._thread.is_alive():
            if self._problem is not None and time.monotonic() - begin > patience_s:
                break
            self._thread.join(0.05)
        return self.cursor.state.offset >= end

    def close(self, patience_s: float = 10.0, limit_s: float | None = None) -> Outcome:
        """Send what is left and stop. The process keeps the journal locked until the thread has let go of it.

        Args:
            patience_s: give up when the server has not answered for this long. An upload that moves is waited for.
            limit_s: give up after this long in any case (a job scheduler that is about to kill us).
        """
        begin = time.monotonic()
        self._closing.set()
        self._wake.set()
        while self._thread.is_alive():
            self._thread.join(0.05)
            waited = time.monotonic() - begin
            if (limit_s is not None and waited > limit_s) or (self._problem is not None and waited > patience_s):
                self._abandoned.set()
                break
        try:
            pending = self.cursor.pending()
        except JournalError as error:
            pending, self._problem = 1, str(error)
        problem = (self._problem or "there was no time to send them") if pending else None
        state = self.cursor.state
        return Outcome(self._journal.path, self.cursor.tracking_uri, pending, problem, tuple(state.refused))

    def _follow(self) -> None:
        pause = _FIRST_PAUSE_S
        try:
            self._do_first()
            while not self._abandoned.is_set():
                self._wake.clear()
                last = self._closing.is_set()
                try:
                    for _ in self.cursor.advance():
                        self._problem, pause = None, _FIRST_PAUSE_S
                        if self._abandoned.is_set():
                            return
                except Unreachable as error:
                    if self._problem is None:
                        logger.warning("MLflow at %s does not answer (%s); keeping records in %s", *self._where(error))
                    self._problem = str(error)
                    (self._abandoned if self._closing.is_set() else self._closing).wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_S if not self._closing.is_set() else _FIRST_PAUSE_S)
                    continue
                if last:
                    return
                self._wake.wait()
        except Exception as error:  # a damaged journal, a full disk: the work goes on, `close` tells
            logger.exception("recording to MLflow stopped; %s keeps everything", self._journal.path)
            self._problem = repr(error)
        finally:
            self._journal.close()

    def _do_first(self) -> None:
        try:
            if self._first is not None:
                self._first()
        except Exception as error:  # the trouble of other journals is not that of this one
            logger.warning("older journals beside %s were not replayed: %s", self._journal.path, error)

    def _where(self, error: Exception) -> tuple[str, Exception, Path]:
        return self.cursor.tracking_uri, error, self._journal.path


def prepare_environment() -> None:
    """MLflow's own retries block for minutes (7 tries, doubling pauses); ours do not block anybody. Nor does it print
    links and progress bars of its own between ours."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for noisy in ("alembic", "mlflow.pyfunc", "mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _steps(operations: list[tuple[Operation, int]]) -> Iterator[tuple[list[Operation], int]]:
    """Split into what `Replica.apply` takes at once: runs of batched operations, or a single other one."""
    batch: list[Operation] = []
    batch_end = 0
    for operation, end in operations:
        if isinstance(operation, BATCHED):
            batch.append(operation)
            batch_end = end
            continue
        if batch:
            yield batch, batch_end
            batch = []
        yield [operation], end
    if batch:
        yield batch, batch_end
