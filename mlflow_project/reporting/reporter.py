"""The follower that reports to other trackers: a process for each of them, which reads the journal (`replay`)."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow_project.reporting.replay import is_complete
from mlflow_project.reporting.target import Progress, targets_of
from mlflow_project.tracking.followers import Followed
from mlflow_project.tracking.sync import sync_command

logger = logging.getLogger("mlflow_project")


class Reporter:
    """Follows one run (`tracking.followers.Follower`)."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = targets
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._journal = Path()

    def start(self, run: Followed) -> None:
        """Start the processes."""
        self._journal = run.recorder.journal.path
        for target in self._targets:
            Progress.load(self._journal, target).save(self._journal, target)  # `sync` knows of it from here on
            self._processes[target] = _spawn(self._journal, target, "follow")

    def close(self, limit_s: float) -> None:
        """Let them report the rest, for `limit_s` seconds at most. `sync` reports what is missing then."""
        deadline = time.monotonic() + limit_s
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        missing = []
        for target, process in self._processes.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)  # harmless: `replay` takes back what it has not noted
                process.wait()
            if not is_complete(self._journal, Progress.load(self._journal, target)):
                missing.append(target)
        if missing:
            logger.warning(
                "%s: not everything is reported (%s). Nothing is lost; report the rest with:\n  %s",
                " and ".join(missing),
                ", ".join(str(log_path(self._journal, target)) for target in missing),
                sync_command(self._journal.parent),
            )


def report_rest(directory: Path, add: Sequence[str] = ()) -> dict[str, str]:
    """Report the journals in `directory` to the targets that each is for, and to those of `add`.

    A journal that a living verb reports itself is left alone.

    Returns:
        ``<journal> to <target>`` -> why something is missing; empty if nothing is.
    """
    problems = {}
    for journal in sorted(directory.glob("*.jsonl")):
        for target in dict.fromkeys([*targets_of(journal), *add]):
            if is_complete(journal, progress := Progress.load(journal, target)):
                continue
            progress.save(journal, target)
            process = _spawn(journal, target)
            assert process.stdin is not None
            process.stdin.close()
            if process.wait():
                problems[f"{journal.name} to {target}"] = _last_line(log_path(journal, target))
    return problems


def log_path(journal: Path, target: str) -> Path:
    """What the process that reports to a target has said."""
    return journal.with_name(f"{journal.name}.{target}.log")


def _spawn(journal: Path, target: str, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlflow_project.reporting.replay", str(journal), target, *words]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    with open(log_path(journal, target), "wb") as log:
        # A session of its own: the signal that ends the verb's process group would end it in the middle.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
