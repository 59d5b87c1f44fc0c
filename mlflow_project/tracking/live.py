"""The sign of life of a verb: a small file beside its journal that says what it is doing now.

The journal has what is worth keeping; ``<journal>.live.json`` has what is only of interest while the verb runs: how far
it is, how fast, its last lines. `rlinf-isaac status` and `watch` read it. It is replaced at most once a second, without
fsync, and never stops the work: what the disk refuses is left out.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_EVERY_S = 1.0
_LINES = 60


@dataclass
class Work:
    """A piece of work that is shown by a bar.

    Attributes:
        label: its name, such as ``sft`` or ``eval 400``.
        done, total, unit, note: as in `events.Progress`.
        rate: items per second; None while it is unknown.
        left_s: estimate of the remaining seconds; None while it is unknown.
        since: unix seconds of the first progress.
        seen: unix seconds of the newest progress.
    """

    label: str
    done: int
    total: int
    unit: str = ""
    note: str = ""
    rate: float | None = None
    left_s: float | None = None
    since: float = 0.0
    seen: float = 0.0


@dataclass
class Life:
    """What a verb says of itself.

    Attributes:
        pid, host: of the process.
        namespace: what the numbers of processes belong to, as Linux names it; a container has its own.
        written: unix seconds of the newest sign of life.
        ended: whether the verb has ended, in any way that it could still report.
        stage: the step of `main` at work, such as ``3/6 fine-tuning``; empty for other verbs.
        header: (name, value) of what the verb has said at its start.
        work: the pieces of work, in the order in which they began.
        lines: the last lines of the log.
    """

    pid: int = 0
    host: str = ""
    namespace: str = ""
    written: float = 0.0
    ended: bool = False
    stage: str = ""
    header: list[tuple[str, str]] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def pid_namespace() -> str:
    """What the numbers of processes belong to here; empty where the system does not say."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def life_path(journal: Path) -> Path:
    """The file beside a journal."""
    return journal.with_name(f"{journal.name}.live.json")


def read_life(journal: Path) -> Life | None:
    """What the verb of a journal has said last; None if there is nothing that can be read."""
    try:
        values: dict[str, Any] = json.loads(life_path(journal).read_text(encoding="utf-8"))
        work = [Work(**each) for each in values.pop("work", [])]
        header = [(str(name), str(value)) for name, value in values.pop("header", [])]
        return Life(**values, work=work, header=header)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


class LifeFile:
    """Writes the sign of life of a verb. May be called from several threads.

    Attributes:
        announced: whether the terminal has been told the link of the run (`announce`).
    """

    def __init__(self, journal: Path) -> None:
        self.announced = False
        self._path = life_path(journal)
        self._life = Life(os.getpid(), socket.gethostname(), pid_namespace())
        self._lock = threading.Lock()
        self._written = 0.0

    def stage(self, text: str) -> None:
        """The step of `main` that begins."""
        with self._lock:
            self._life.stage = text
            self._life.work = []
        self.beat(at_once=True)

    def header(self, rows: list[tuple[str, str]]) -> None:
        """What the verb, or the step of `main`, says at its start."""
        with self._lock:
            self._life.header = list(rows)
        self.beat(at_once=True)

    def work(self, work: Work) -> None:
        """The progress of a piece of work."""
        with self._lock:
            known = [each for each in self._life.work if each.label == work.label]
            work.since, work.seen = (known[0].since if known else time.time()), time.time()
            if known:
                self._life.work[self._life.work.index(known[0])] = work
            else:
                self._life.work.append(work)
        self.beat()

    def line(self, text: str) -> None:
        """A line of the log."""
        with self._lock:
            self._life.lines = [*self._life.lines[1 - _LINES :], f"{time.strftime('%H:%M:%S')} {text}"]
        self.beat(at_once=True)

    def end(self) -> None:
        """The verb ends."""
        with self._lock:
            self._life.ended = True
        self.beat(at_once=True)

    def beat(self, *, at_once: bool = False) -> None:
        """Write what is known, unless that was done less than a second ago."""
        with self._lock:
            now = time.time()
            if not at_once and 0 <= now - self._written < _EVERY_S:
                return
            self._written = self._life.written = now
            temporary = self._path.with_name(f".{self._path.name}.tmp")
            with suppress(OSError):
                temporary.write_text(json.dumps(asdict(self._life)), encoding="utf-8")
                os.replace(temporary, self._path)
