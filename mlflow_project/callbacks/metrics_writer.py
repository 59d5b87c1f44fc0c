"""Takes metrics from the training loop and writes them to the journal from a thread, many with one fsync.

The training loop only puts its numbers into a queue (`benchmarks/callback_overhead.py` measures that). What it has put
there is on disk a tenth of a second later; a kill -9 in between loses it, and a disk that refuses is tried again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping

from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.live import LifeFile, Work
from mlflow_project.tracking.operations import LogMetrics
from mlflow_project.tracking.recorder import metric_key

_TOGETHER_S = 0.05
"""Seconds for which reports are gathered before they are written: a thread that woke at each of them would keep taking
the interpreter from the training loop."""
_AGAIN_S = 2.0
"""Pause after a disk has refused."""

logger = logging.getLogger("mlflow_project")

Point = tuple[str, int, int, Mapping[str, float]]
"""Local uuid of a run, step, unix milliseconds, values."""


class MetricsWriter:
    """Writes metrics of the runs of one journal. `put` may be called from any thread; it neither blocks nor raises."""

    def __init__(self, journal: Journal, life: LifeFile, total: int | None) -> None:
        """Start the thread. `total`: the number of training steps, for the sign of life; None where it is not known."""
        self._journal, self._life, self._total = journal, life, total
        self._queue: queue.SimpleQueue[Point | threading.Event] = queue.SimpleQueue()
        self._pending: list[LogMetrics] = []
        self._first: tuple[int, float] | None = None
        self._warned = False
        self._thread = threading.Thread(target=self._follow, name="mlflow-callback", daemon=True)
        self._thread.start()

    def put(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Log scalars of a run at a step, now. `values` must not change afterwards."""
        self._queue.put((run, step, time.time_ns() // 1_000_000, values))

    def flush(self, limit_s: float) -> bool:
        """Wait until all that was put is on disk, for `limit_s` seconds at most; whether it is."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(limit_s)

    def _follow(self) -> None:
        while True:
            waiting = [self._queue.get()]
            if isinstance(waiting[0], tuple):
                time.sleep(_TOGETHER_S)
            while not self._queue.empty():
                waiting.append(self._queue.get())
            points = [each for each in waiting if isinstance(each, tuple)]
            for run, step, time_ms, values in points:
                self._pending.append(
                    LogMetrics(run, step, time_ms, {metric_key(key): value for key, value in values.items()})
                )
            while self._pending and not self._written():
                time.sleep(_AGAIN_S)
            if points:
                self._say(points[-1])
            for each in waiting:
                if isinstance(each, threading.Event):
                    each.set()

    def _written(self) -> bool:
        try:
            self._journal.append(*self._pending)
        except Exception as error:  # the training goes on, and its metrics wait in memory
            if not self._warned:
                logger.warning("%s cannot be written (%s); trying again", self._journal.path, error)
            self._warned = True
            return False
        self._pending, self._warned = [], False
        return True

    def _say(self, newest: Point) -> None:
        _, step, time_ms, _ = newest
        now = time_ms / 1000
        self._first = self._first or (step, now)
        seconds = now - self._first[1]
        rate = (step - self._first[0]) / seconds if seconds > 0 and step > self._first[0] else None
        left = (self._total - step) / rate if rate and self._total else None
        self._life.work(Work("train", step, self._total or step, "steps", "", rate, left))
