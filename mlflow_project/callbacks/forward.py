"""The process beside a training that uploads its journal: ``python -m mlflow_project.callbacks.forward JOURNAL``.

It is not the training's own process, so that neither MLflow's client nor a server that hangs takes anything from it,
and it may run in another interpreter. It only reads the journal while the training lives. It learns of its death, by
whatever cause, from the lock on the journal, and then ends the runs that are still open KILLED, uploads the rest, and
ends. What it has not uploaded by then, `rlinf-isaac sync` does.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from mlflow_project.tracking.answers import Unreachable
from mlflow_project.tracking.cursor import Cursor
from mlflow_project.tracking.journal import Journal, read_header
from mlflow_project.tracking.mlflow_environment import prepare_environment
from mlflow_project.tracking.store import tracking_uri, with_credentials
from mlflow_project.tracking.sync import sync

_LOOK_S = 0.5
"""Pause between two looks at the journal, in seconds."""
_LONGEST_PAUSE_S = 30.0
LAST_PATIENCE_S = 15.0
"""Seconds for which a server that does not answer is tried again after the training has ended."""
NICE = 10
PROJECT = Path(__file__).parents[2]


def start(python: str, journal: Path) -> subprocess.Popen[bytes]:
    """Start the process for a journal, in a session of its own: a Ctrl-C does not reach it, and its files have all that
    it says. The store's credentials go through the environment, as they came.

    Raises:
        OSError: it cannot be started.
    """
    places = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking_uri(), "PYTHONPATH": os.pathsep.join(places)}
    environment.pop("MLFLOW_RUN_ID", None)
    with open(log_path(journal), "ab") as log:
        command = [python, "-m", "mlflow_project.callbacks.forward", str(journal)]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def log_path(journal: Path) -> Path:
    """The file beside a journal with what its forwarder has said."""
    return journal.with_name(f"{journal.name}.forward.log")


def follow(journal: Path) -> bool:
    """Upload a journal until its owner is gone and all is said; whether MLflow has everything. False at once where
    another process does it already."""
    with open(journal.with_name(f".{journal.name}.forward.lock"), "w") as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        cursor = Cursor(journal, with_credentials(read_header(journal)[0].tracking_uri))
        pause, next_try = _LOOK_S, 0.0
        while (owned := Journal.take_over(journal)) is None:
            if time.monotonic() >= next_try:
                try:
                    for _ in cursor.advance():
                        pause = _LOOK_S
                except Unreachable as error:
                    print(f"{cursor.tracking_uri.partition('://')[0]} store: {error}", flush=True)
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
                    next_try = time.monotonic() + pause
            time.sleep(_LOOK_S)
        owned.close()
        return sync(journal.parent, patience_s=LAST_PATIENCE_S).complete


def main() -> None:
    """Follow the journal that the command line names."""
    prepare_environment()
    with suppress(OSError):
        os.nice(NICE)
    sys.exit(0 if follow(Path(sys.argv[1])) else 1)


if __name__ == "__main__":
    main()
