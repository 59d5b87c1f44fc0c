"""Uploads a journal to MLflow from a background thread while the verb goes on writing it.

The thread reads the journal file, not a queue in memory, so everything it sends is on disk already. While no server
answers, the thread retries with growing pauses and the verb does not wait. `close` waits a limited time; `sync` uploads
what remains after that.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow_project.tracking.answers import Unreachable
from mlflow_project.tracking.cursor import Cursor
from mlflow_project.tracking.journal import Journal, JournalError
from mlflow_project.tracking.redact import without_credentials

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 30.0
_LONGEST_LAST_PAUSE_S = 0.5
"""Longest pause while the verb waits in `close`."""
_WORTH_A_WORD_S = 2.0
"""A server that fails for a shorter time than this causes no warning."""

logger = logging.getLogger("mlflow_project")


@dataclass(frozen=True)
class UploadResult:
    """State of a journal when its uploader stops.

    Attributes:
        journal: the file.
        tracking_uri: the store it is uploaded to, without credentials.
        pending: number of operations that are not in MLflow yet; `sync` replays them.
        problem: why operations are pending, or None.
        refused: reasons of the operations that MLflow will never accept.
    """

    journal: Path
    tracking_uri: str
    pending: int
    problem: str | None
    refused: tuple[str, ...]


class Uploader:
    """Uploads an open journal from a daemon thread until `close`."""

    def __init__(self, journal: Journal, tracking_uri: str, others: Iterator[object] | None = None) -> None:
        """Start the thread.

        Args:
            others: other work for the server; one step is done whenever the journal has nothing to send.
        """
        self.cursor = Cursor(journal.path, tracking_uri)
        self._others = others if others is not None else iter(())
        self._journal = journal
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._problem: str | None = None
        self._trouble_since: float | None = None
        self._thread = threading.Thread(target=self._follow, name="mlflow-uploader", daemon=True)
        journal.on_append = self._wake.set
        self._thread.start()

    def ids(self, run: str, patience_s: float = 10.0) -> tuple[str, str] | None:
        """(MLflow run id, experiment id) of a local run; None if the server does not have it within `patience_s`."""
        deadline = time.monotonic() + patience_s
        while run not in self.cursor.state.runs and self._thread.is_alive() and self._problem is None:
            if time.monotonic() > deadline:
                break
            self._thread.join(0.05)
        return self.cursor.state.runs.get(run)

    def delivered(self, patience_s: float = 10.0) -> bool:
        """Wait until MLflow has everything recorded so far; False if it has accepted nothing for `patience_s`."""
        end = self._journal.path.stat().st_size
        seen, since = self.cursor.state.offset, time.monotonic()
        while (offset := self.cursor.state.offset) < end and self._thread.is_alive():
            if offset != seen:
                seen, since = offset, time.monotonic()
            elif time.monotonic() - since > patience_s:
                break
            self._thread.join(0.05)
        return self.cursor.state.offset >= end

    def close(self, limit_s: float) -> UploadResult:
        """Upload what remains, for `limit_s` seconds at most, and stop.

        The journal stays locked until the thread has ended.
        """
        self._closing.set()
        self._wake.set()
        self._thread.join(limit_s)
        self._abandoned.set()
        try:
            pending = self.cursor.pending()
        except JournalError as error:
            pending, self._problem = 1, str(error)
        problem = (self._problem or "the time to upload them was too short") if pending else None
        uri = without_credentials(self.cursor.tracking_uri)
        return UploadResult(self._journal.path, uri, pending, problem, tuple(self.cursor.state.refused))

    def _follow(self) -> None:
        pause = _FIRST_PAUSE_S
        try:
            while not self._abandoned.is_set():
                self._wake.clear()
                last = self._closing.is_set()
                try:
                    for _ in self.cursor.advance():
                        self._problem, self._trouble_since, pause = None, None, _FIRST_PAUSE_S
                        if self._abandoned.is_set():
                            return
                except Unreachable as error:
                    self._say(error)
                    (self._abandoned if self._closing.is_set() else self._closing).wait(pause)
                    pause = min(2 * pause, _LONGEST_LAST_PAUSE_S if self._closing.is_set() else _LONGEST_PAUSE_S)
                    continue
                if self._work_on_others():
                    continue
                if last:
                    return
                self._wake.wait()
        except Exception as error:  # e.g. a damaged journal or a full disk: the verb goes on, and `close` reports it
            logger.exception("uploading to MLflow stopped; %s has all records", self._journal.path)
            self._problem = repr(error)
        finally:
            self._journal.close()

    def _work_on_others(self) -> bool:
        """Do one step of the other work; False when none is left."""
        try:
            return next(self._others, self) is not self
        except Exception as error:  # must not stop the upload of this journal
            logger.warning("older journals beside %s were not replayed: %s", self._journal.path, error)
            self._others = iter(())
            return False

    def _say(self, error: Unreachable) -> None:
        """Warn once per outage, when it has lasted longer than `_WORTH_A_WORD_S`."""
        self._problem, now = str(error), time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        elif now - self._trouble_since > _WORTH_A_WORD_S:
            self._trouble_since = math.inf
            uri = without_credentials(self.cursor.tracking_uri)
            logger.warning("MLflow at %s does not answer (%s); keeping records in %s", uri, error, self._journal.path)
