"""Logs what the machine does (CPU, memory, disk, network, GPUs) to every run that works for longer than a minute.

MLflow's own monitors measure it, under MLflow's names (``system/cpu_utilization_percentage``, ``system/gpu_0_...``), so
that its UI shows them in the tab "System metrics". MLflow's own thread is not used: it asks the server for the run at
each sample, and knows only the run that was active in `mlflow.start_run`. This one writes to the journal.

MLflow's variables are honoured: ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` (``false``: no system metrics; ``true``: from
the first second on), ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` (seconds, by default 10),
``MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING`` (samples whose mean is logged, by default 1), and
``MLFLOW_SYSTEM_METRICS_NODE_ID``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.recorder import Recorder

PATIENCE_S = 60.0
"""A run that ends sooner has no system metrics: they would be a dot on each of a dozen charts."""
INTERVAL_S = 10.0
CLOSING_S = 1.0
"""Longest wait for the thread at the end. A driver that hangs must not hold up a verb."""

logger = logging.getLogger("mlflow_project")

Sample = tuple[float, Mapping[str, float]]
"""Unix seconds, and the values of MLflow's monitors."""


@contextmanager
def measured(journal: Journal) -> Iterator[None]:
    """Measure during the block, unless that is turned off or MLflow's monitors do not work here.

    Begin it in the main thread, where MLflow and what its monitors need may be imported.
    """
    metrics = _start(journal)
    try:
        yield
    finally:
        if metrics is not None:
            metrics.stop()


def _start(journal: Journal) -> SystemMetrics | None:
    from mlflow.environment_variables import (
        MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
        MLFLOW_SYSTEM_METRICS_NODE_ID,
        MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING,
        MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
    )

    asked = MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get() if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.is_set() else None
    if asked is False:
        return None
    try:
        monitors = _monitors()
    except Exception as error:  # they must not stop a verb
        logger.debug("no system metrics: %r", error)
        return None
    node = MLFLOW_SYSTEM_METRICS_NODE_ID.get()
    return SystemMetrics(
        journal,
        monitors,
        patience_s=0.0 if asked else PATIENCE_S,
        interval_s=float(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL_S),
        samples=int(MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.get() or 1),
        prefix=f"system/{node}/" if node else "system/",
    )


class SystemMetrics:
    """Measures in a thread until `stop`, for all runs of a journal that are open meanwhile."""

    def __init__(
        self,
        journal: Journal,
        monitors: list[Any],
        *,
        patience_s: float = PATIENCE_S,
        interval_s: float = INTERVAL_S,
        samples: int = 1,
        prefix: str = "system/",
    ) -> None:
        """Start the thread.

        Args:
            monitors: MLflow's (`mlflow.system_metrics.metrics`).
            patience_s: a run gets its samples, those of its beginning as well, when it is older than this.
            interval_s: seconds between samples.
            samples: number of samples whose mean is logged.
            prefix: beginning of the metrics' names.
        """
        self._journal, self._monitors = journal, monitors
        self._patience_s, self._interval_s, self._samples, self._prefix = patience_s, interval_s, samples, prefix
        self._since: dict[str, float] = {}
        self._held: dict[str, list[Sample]] = defaultdict(list)
        self._steps: dict[str, int] = defaultdict(int)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the journal gets nothing more. Waits for `CLOSING_S` at most."""
        self._ending.set()
        self._thread.join(CLOSING_S)

    def _follow(self) -> None:
        try:
            while not self._ending.is_set():
                for _ in range(self._samples):
                    self._note_runs()
                    for monitor in self._monitors:
                        monitor.collect_metrics()
                    if self._ending.wait(self._interval_s):
                        return
                self._log(time.time(), self._mean())
        except Exception as error:  # e.g. a driver that was unloaded, or a full disk: the verb goes on
            logger.debug("system metrics stopped: %r", error)

    def _note_runs(self) -> None:
        now = time.monotonic()
        for run in list(self._journal.open_runs):
            self._since.setdefault(run, now)

    def _mean(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return {f"{self._prefix}{name}": float(value) for name, value in values.items()}

    def _log(self, when: float, values: Mapping[str, float]) -> None:
        """Give the sample to each run that is open, now or as soon as it is old enough."""
        open_runs = list(self._journal.open_runs)
        for run in [run for run in self._since if run not in open_runs]:
            del self._since[run]
            self._held.pop(run, None)
        for run, since in self._since.items():
            self._held[run].append((when, values))
            if time.monotonic() - since < self._patience_s:
                continue
            for time_s, sample in self._held.pop(run):
                Recorder(self._journal, run).metrics(sample, self._steps[run], time_s=time_s)
                self._steps[run] += 1


def _monitors() -> list[Any]:
    """MLflow's monitors of this machine; those of GPUs if there are any."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for gpu in (GPUMonitor, ROCMMonitor):
        try:
            return [*monitors, gpu()]
        except Exception as error:  # there is no such GPU, or no package for it
            logger.debug("%s: %s", gpu.__name__, error)
    return monitors
