"""The process that drives RLinf, under the interpreter that has it; imports nothing of MLflow.

    python -m rlinf_isaac.engines.rlinf.worker.driver RUN_DIRECTORY

``RUN_DIRECTORY/config.yaml`` says what to build. Orders come as JSON lines on stdin; what happens goes to the journal.
When stdin ends, the parent is gone: everything that belongs to this run is killed, then this process.
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
"""RLinf's ``runner.task_type`` -> module and class of what does it."""


def main() -> None:
    """Build what the config says, follow orders until there are no more."""
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
    """How the driver fails: it says why in the journal, and ends.

    RLinf says by SIGUSR1 that a call of a worker failed, and prints why. Its handler for that asks Ray's dashboard,
    which need not run, and ends with a segmentation fault at times. A handler that raises is no better: the exception
    is lost where the main thread happens to be in a destructor. So a thread hears of the signal, as soon as it comes.
    """

    def __init__(self, directory: Path, journal: JournalWriter) -> None:
        self.directory, self.journal = directory, journal
        self._heard, self._signals = socket.socketpair()
        self._signals.setblocking(False)
        signal.set_wakeup_fd(self._signals.fileno())

    def when_a_worker_does(self) -> None:
        """Wait for the signal."""
        while self._heard.recv(1)[0] != signal.SIGUSR1:
            pass
        self.because("")

    def because(self, cause: str) -> NoReturn:
        """End the process. Without a cause, it is what RLinf printed."""
        # A worker whose extension failed fails in many ways, this is why.
        extensions = "; ".join(failed_extensions(self.directory))
        self.journal.write("failed", cause=extensions or cause)
        sys.stdout.flush()
        # Not sys.exit: Ray's and RLinf's threads may wait for workers that are gone.
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
    signal.signal(signal.SIGUSR1, lambda number, frame: None)  # in place of RLinf's; `Failing` does the rest
    work.build()
    if problems := check_sentinels(directory, work.workers()):
        raise RuntimeError("; ".join(problems))
    work.start()
    journal.write("ready", seconds=clock.laps, **work.describe())
    for order in iter(orders.get, {"do": "stop"}):
        getattr(work, order.pop("do"))(**order)
        journal.write("done")


class Clock:
    """Seconds that each part of the start took (`run_journal.STARTING`); says in the journal when one is over."""

    def __init__(self, journal: JournalWriter) -> None:
        self.laps: dict[str, float] = {}
        self._journal = journal
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """What was done since the last lap was `name`."""
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
    # A signal may interrupt the read of a buffered file in a way that raises; a plain readline goes on (PEP 475).
    yield from iter(sys.stdin.readline, "")


def _wait_for_ray() -> None:
    """Wait until the cluster's head listens.

    Raises:
        TimeoutError: it does not.
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
    """Let a cluster that others use have its resources back."""
    if OWNER not in os.environ or os.environ.get("RLINF_ISAAC_OWN_RAY") != "1":
        import ray

        ray.shutdown()


if __name__ == "__main__":
    main()
