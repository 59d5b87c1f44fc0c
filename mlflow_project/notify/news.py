"""What of a journal is worth a notification. This module reads operations and sends nothing."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlflow_project.tracking.operations import EndRun, LogMetrics, Operation, SetTags, StartRun
from mlflow_project.tracking.redact import redact
from mlflow_project.vocabulary import ENDED_TAG, FAILURE_TAG, RESULT_TAG, ROLLBACK_TAG, VERB_TAG

Event = Literal["finished", "failed", "killed", "diverged", "rolled_back", "collapsed"]
MOST_METRICS = 100
"""A notification has so many metrics at most: a webhook refuses long messages."""
_MARKS = {"finished": "✅", "failed": "❌", "killed": "🛑", "diverged": "⚠️", "rolled_back": "↩️", "collapsed": "❌"}
_ENDINGS: Mapping[str, Event] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}
_DIVERGED = "TrainingDiverged"
_TOLD = ("success", "loss", "gain")
"""Parts of the names of the metrics that the text of a notification has."""


@dataclass(frozen=True)
class News:
    """One thing that has happened.

    Attributes:
        event: what it is.
        verb: the verb whose run it is.
        name: name of the run.
        run: local uuid of the run.
        status: RUNNING, FINISHED, FAILED or KILLED.
        message: one sentence, empty if there is nothing to add.
        metrics: the last value of each metric of the verb's runs; None is a value that is not finite.
        time_ms: when, in unix milliseconds.
    """

    event: Event
    verb: str
    name: str
    run: str
    status: str
    message: str
    metrics: Mapping[str, float | None]
    time_ms: int

    def as_dict(self, run_id: str | None = None, link: str | None = None) -> dict[str, Any]:
        """A JSON-ready dict. `text` is what Slack, Mattermost, Rocket.Chat and Google Chat show; ntfy and others show
        `message`, and Discord `content`."""
        text = redact(self._text(link))
        return {
            "event": self.event,
            "verb": self.verb,
            "run": self.name,
            "id": run_id,
            "link": link,
            "status": self.status,
            "message": redact(self.message),
            "metrics": dict(self.metrics),
            "host": socket.gethostname(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.time_ms / 1000)),
            "text": text,
            "content": text[:2000],
        }

    def _text(self, link: str | None) -> str:
        lines = [f"{_MARKS[self.event]} {self.name}: {self.event.replace('_', ' ')} on {socket.gethostname()}"]
        if self.message:
            lines.append(self.message)
        told = [(name, value) for name, value in self.metrics.items() if any(part in name for part in _TOLD)]
        if told:
            lines.append(
                ", ".join(f"{name} {'not finite' if value is None else f'{value:.4g}'}" for name, value in told[-8:])
            )
        return "\n".join([*lines, *([link] if link else [])])


@dataclass
class _Run:
    name: str
    verb: str
    reason: str = ""
    times: dict[int, int] = field(default_factory=dict)  # step -> time of its metrics
    diverged: bool = False
    result: str = ""


class Newsroom:
    """Turns the operations of one journal into news, in their order.

    A run that goes on where an interrupted one stopped tells again what that one has measured, with the times of then.
    What happened before this journal was begun is no news.
    """

    def __init__(self, created: float) -> None:
        """`created`: when the journal was begun, in unix seconds."""
        self._created_ms = created * 1000
        self._runs: dict[str, _Run] = {}
        self._metrics: dict[str, float | None] = {}

    def read(self, operation: Operation) -> Iterator[News]:
        """The news in one operation."""
        if isinstance(operation, StartRun):
            outer = self._runs.get(operation.parent or "")
            verb = operation.tags.get(VERB_TAG, outer.verb if outer else "")
            self._runs[operation.run] = _Run(operation.name, verb)
            return
        run = self._runs.get(operation.run)
        if run is None:
            return
        if isinstance(operation, LogMetrics):
            yield from self._measured(run, operation)
        elif isinstance(operation, SetTags):
            run.reason = operation.tags.get(FAILURE_TAG, run.reason)
            run.result = operation.tags.get(RESULT_TAG, run.result)
            yield from self._tagged(run, operation)
        elif isinstance(operation, EndRun) and operation.run == next(iter(self._runs)):
            yield self._ended(run, operation)

    def _measured(self, run: _Run, operation: LogMetrics) -> Iterator[News]:
        run.times[operation.step] = operation.time_ms
        for name, value in operation.values.items():
            self._metrics.pop(name, None)  # the newest come last
            self._metrics[name] = value if math.isfinite(value) else None
        broken = [name for name, value in operation.values.items() if "loss" in name and not math.isfinite(value)]
        if broken and not run.diverged and operation.time_ms >= self._created_ms:
            run.diverged = True
            said = f"{broken[0]} is {operation.values[broken[0]]} at step {operation.step}"
            yield self._news("diverged", run, operation.run, "RUNNING", said, operation.time_ms)

    def _tagged(self, run: _Run, operation: SetTags) -> Iterator[News]:
        for name, said in operation.tags.items():
            if name.startswith(ROLLBACK_TAG):
                iteration = int(name.removeprefix(ROLLBACK_TAG))
                when = run.times.get(iteration, 0)
                if when >= self._created_ms:
                    message = f"iteration {iteration} was a collapse; {said}"
                    yield self._news("rolled_back", run, operation.run, "RUNNING", message, when)
            elif name == ENDED_TAG and said == "collapsed":
                when = max(run.times.values(), default=0)
                if when >= self._created_ms:
                    yield self._news("collapsed", run, operation.run, "RUNNING", run.result, when)

    def _ended(self, run: _Run, operation: EndRun) -> News:
        status = operation.status or "FINISHED"
        diverged = status == "FAILED" and run.reason.startswith(_DIVERGED)
        event: Event = "diverged" if diverged else _ENDINGS[status]
        return self._news(event, run, operation.run, status, run.reason, operation.time_ms)

    def _news(self, event: Event, run: _Run, uuid: str, status: str, message: str, time_ms: int) -> News:
        metrics = dict(list(self._metrics.items())[-MOST_METRICS:])
        return News(event, run.verb, run.name, uuid, status, message, metrics, time_ms)
