"""Records runs in processes that are killed or interrupted in the middle. Driven by test_first_store.py through pipes.

Each line on stdin, a JSON object with ``directory``, ``name``, ``seconds`` and ``signal``, forks one process. It
records a run with a metric, in a directory where nothing need be, and gets the signal after so many seconds (0: never).
Reported, as JSON: its exit status and the seconds it lived.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import mlflow.models
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (imported before the fork)
from mortal import wait_or_kill

from mlflow_project.tracking.runs import tracked_run


def record(order: dict) -> int:
    os.chdir(order["directory"])
    try:
        with tracked_run("sft", output=Path("out"), name=order["name"]) as run:
            run.recorder.metrics({"loss": 1.0}, 1)
    except KeyboardInterrupt:
        return 130
    return 0 if run.outcome is not None and run.outcome.pending == 0 else 1


def main() -> None:
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # the caller's
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = record(order)
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(json.dumps(wait_or_kill(pid, order["seconds"], order["signal"])), flush=True)


if __name__ == "__main__":
    main()
