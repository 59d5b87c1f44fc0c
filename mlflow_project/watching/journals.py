"""Reads the journal of a verb that may be at work in another process. Nothing is locked, cut or written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mlflow_project.tracking.journal import Header, JournalError, read_header, read_operations
from mlflow_project.tracking.operations import (
    EndRun,
    LogDataset,
    LogMetrics,
    LogModel,
    Operation,
    SetTags,
    StartRun,
)
from mlflow_project.tracking.state import State
from mlflow_project.vocabulary import FAILURE_TAG, URI_TAG, VERB_TAG


class Point(NamedTuple):
    """A value of a metric: step, unix seconds, value."""

    step: int
    time: float
    value: float


class Made(NamedTuple):
    """A checkpoint that a run has made: its digest, the name of its LoggedModel, step, directory, and unix seconds. The
    journal has no time for it, so that is the time of what it says before."""

    digest: str
    name: str
    step: int
    uri: str
    time: float


@dataclass
class SeenRun:
    """A run as a journal tells it.

    Attributes:
        run, name, parent, tags: as in `operations.StartRun`, with the tags that were set later.
        began, ended: unix seconds; None while it has not ended.
        status: FINISHED, FAILED or KILLED; None while it has not ended.
        metrics: key -> its points, in the order in which they were logged.
        made: the checkpoints that it has made, in their order.
        datasets: names of the datasets that it was trained on.
    """

    run: str
    name: str
    parent: str | None
    began: float
    tags: dict[str, str]
    ended: float | None = None
    status: str | None = None
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)

    @property
    def verb(self) -> str:
        """The verb, as far as it is recorded."""
        return self.tags.get(VERB_TAG, "")

    @property
    def failure(self) -> str:
        """Why it failed or was killed; empty if it did not, or nobody knows."""
        return self.tags.get(FAILURE_TAG, "")


class JournalView:
    """What a journal says; `read` again to follow it.

    Attributes:
        path: the journal.
        header: its first line.
        runs: local uuid -> run, in order of start; the first one is the verb's own.
    """

    def __init__(self, path: Path) -> None:
        """Raises JournalError if the file is not a journal, OSError if it cannot be read."""
        self.path = path
        self.header: Header
        self.header, self._offset = read_header(path)
        self.runs: dict[str, SeenRun] = {}
        self._time = self.header.created
        self.read()

    def read(self) -> bool:
        """Read what was added since; whether there was anything."""
        operations, end = read_operations(self.path, self._offset)
        for operation, _ in operations:
            self._take(operation)
        grown, self._offset = end > self._offset, end
        return grown

    @property
    def root(self) -> SeenRun | None:
        """The verb's own run; None if it was killed before it began."""
        return next(iter(self.runs.values()), None)

    def newest(self, *keys: str) -> tuple[SeenRun, str, Point] | None:
        """The newest point of any of these metrics, of whichever run; with the run and the key."""
        found = [
            (run, key, points[-1]) for run in self.runs.values() for key in keys if (points := run.metrics.get(key))
        ]
        return max(found, key=lambda each: each[2].time, default=None)

    @property
    def size(self) -> int:
        """Bytes that were read; compare with `State.offset` to see what MLflow lacks."""
        return self._offset

    def _take(self, operation: Operation) -> None:
        if isinstance(operation, StartRun):
            began = operation.time_ms / 1000
            self._time = max(self._time, began)
            name, tags = operation.name, dict(operation.tags)
            if (known := self.runs.get(operation.run)) is not None:  # resumed in the same journal
                known.tags |= tags
                known.ended = known.status = None
                return
            self.runs[operation.run] = SeenRun(operation.run, name, operation.parent, began, tags)
            return
        run = self.runs.get(operation.run)
        if run is None:
            return
        if isinstance(operation, LogMetrics):
            time = operation.time_ms / 1000
            self._time = max(self._time, time)
            for key, value in operation.values.items():
                run.metrics.setdefault(key, []).append(Point(operation.step, time, value))
        elif isinstance(operation, SetTags):
            run.tags |= operation.tags
        elif isinstance(operation, LogModel) and operation.role == "output":
            uri = operation.tags.get(URI_TAG, "")
            run.made.append(Made(operation.digest, operation.name, operation.step, uri, self._time))
        elif isinstance(operation, LogDataset) and operation.context != "evaluation":
            run.datasets.append(operation.name)
        elif isinstance(operation, EndRun):
            run.ended, run.status = operation.time_ms / 1000, operation.status or "FINISHED"


def sent(journal: Path) -> State:
    """What MLflow has of a journal: how many bytes, and its ids of the runs. Empty where nobody knows."""
    try:
        return State.load(journal)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return State()


def open_journal(path: Path) -> JournalView | None:
    """The view of a journal; None if it is none, or has no header yet."""
    try:
        return JournalView(path)
    except (JournalError, OSError, UnicodeDecodeError):
        return None


def journals_in(directory: Path) -> list[Path]:
    """The journals of a directory of results, the newest first. Their names begin with the time of their start."""
    return sorted((directory / "journal").glob("*.jsonl"), key=lambda path: path.name, reverse=True)
