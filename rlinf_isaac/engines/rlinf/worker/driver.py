"""The process that drives RLinf, in RLinf's interpreter. It does not import MLflow.

    python -m rlinf_isaac.engines.rlinf.worker.driver RUN_DIRECTORY

``RUN_DIRECTORY/config.yaml`` is RLinf's config. Orders arrive as JSON lines on stdin; results go to the journal. When
stdin is closed, the parent has ended: the driver kills all other processes of the run, and then exits.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from rlinf_isaac.engines.rlinf.processes import OWNER, end_owned
from rlinf_isaac.engines.rlinf.run_journal import DRIVER, JournalWriter
from rlinf_isaac.engines.rlinf.worker.extension import check_sentinels, failed_extensions, register

RAY_SECONDS = 120.0
TASKS = {
    "embodied_eval": (".tasks", "EvaluationTask"),
    "sft": (".training_tasks", "FineTuningTask"),
    "embodied": (".training_tasks", "ReinforcementTask"),
}
"""RLinf's ``runner.task_type`` -> module and class of the task."""


def main() -> None:
    """Build the task of the config, and execute orders until the order to stop."""
    directory = Path(sys.argv[1])
    failing = Failing(directory, JournalWriter(directory / "journal", DRIVER))
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for target in (failing.when_a_worker_does, lambda: _receive(orders)):
        threading.Thread(target=target, daemon=True).start()
    try:
        _run(directory, failing, orders)
    except BaseException as error:
        failing.because(f"{type(error).__name__}: {error}")
    failing.journal.write("stopped")
    sys.stdout.flush()
    _leave_ray()
    os._exit(0)


class Failing:
    """Ends the driver after a failure, with the cause in the journal.

    RLinf reports a failed call of a worker by SIGUSR1, and prints the cause. RLinf's own signal handler asks Ray's
    dashboard, which may not be running, and sometimes crashes with a segmentation fault. A handler that raises would
    not work either: the exception is lost if the main thread is in a destructor. So a thread waits for the signal.
    """

    def __init__(self, directory: Path, journal: JournalWriter) -> None:
        self.directory, self.journal = directory, journal
        self._heard, self._signals = socket.socketpair()
        self._signals.setblocking(False)
        signal.set_wakeup_fd(self._signals.fileno())

    def when_a_worker_does(self) -> None:
        """Wait for the signal of a failed worker call, then end the process."""
        while self._heard.recv(1)[0] != signal.SIGUSR1:
            pass
        self.because("")

    def because(self, cause: str) -> NoReturn:
        """Write the cause to the journal and end the process. If empty, the parent takes it from RLinf's output."""
        # A failed extension is the cause of many other errors of a worker, so it is reported first.
        extensions = "; ".join(failed_extensions(self.directory))
        self.journal.write("failed", cause=extensions or cause)
        sys.stdout.flush()
        # sys.exit could hang, because threads of Ray and RLinf may wait for workers that have ended.
        os._exit(1)


def _run(directory: Path, failing: Failing, orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    from omegaconf import DictConfig, OmegaConf

    journal = failing.journal
    clock = Clock(journal)
    config = OmegaConf.load(directory / "config.yaml")
    assert isinstance(config, DictConfig)
    components = [config.get(name) for name in ("env", "rollout", "actor")]
    os.environ["RLINF_ISAAC_GROUPS"] = ",".join(each.group_name for each in components if each is not None)
    register()
    module, name = TASKS[config.runner.task_type]
    kind = getattr(importlib.import_module(module, __package__), name)
    clock.lap("import")
    _wait_for_ray()
    clock.lap("ray")
    work = kind(config, journal, clock)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)  # replaces RLinf's handler; `Failing` handles the signal
    work.build()
    if problems := check_sentinels(directory, work.workers()):
        raise RuntimeError("; ".join(problems))
    work.start()
    journal.write("ready", seconds=clock.laps, **work.describe())
    for order in iter(orders.get, {"do": "stop"}):
        getattr(work, order.pop("do"))(**order)
        journal.write("done")


class Clock:
    """Measures the seconds of each part of the start (`run_journal.STARTING`), and journals its end."""

    def __init__(self, journal: JournalWriter) -> None:
        self.laps: dict[str, float] = {}
        self._journal = journal
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """End the part `name`, which began with the end of the previous part."""
        now = time.monotonic()
        self.laps[name], self._since = round(now - self._since, 3), now
        self._journal.write("started", part=name)


def _receive(orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in _lines():
        orders.put(json.loads(line))
    if owner := os.environ.get(OWNER):
        end_owned(owner)
    os._exit(1)


def _lines() -> Iterator[str]:
    # Iterating over stdin may raise if a signal interrupts the read; `readline` is retried (PEP 475).
    yield from iter(sys.stdin.readline, "")


def _wait_for_ray() -> None:
    """Wait until the cluster's head accepts connections.

    Raises:
        TimeoutError: it does not within `RAY_SECONDS`.
    """
    address = os.environ["RAY_ADDRESS"].removeprefix("ray://")
    host, _, port = address.rpartition(":")
    limit = time.monotonic() + RAY_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > limit:
                raise TimeoutError(f"no Ray cluster answers at {address}: {error}") from error
            time.sleep(0.05)


def _leave_ray() -> None:
    """Disconnect from a shared cluster, which frees the resources of this driver."""
    if OWNER not in os.environ or os.environ.get("RLINF_ISAAC_OWN_RAY") != "1":
        import ray

        ray.shutdown()


if __name__ == "__main__":
    main()
