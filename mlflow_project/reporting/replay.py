"""Reports one journal to one target: what is there, and what is still being written.

    python -m mlflow_project.reporting.replay JOURNAL TARGET [follow]

A verb runs this as a process of its own, so that a target that hangs, leaks or crashes disturbs neither the verb nor
MLflow. With ``follow`` it goes on until its standard input ends, which the verb closes when it has ended, or the system
when the verb was killed.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlflow_project.reporting.target import Progress, alone, open_target, targets_of
from mlflow_project.tracking.journal import open_runs, read_header, read_operations
from mlflow_project.tracking.mlflow_environment import prepare_environment
from mlflow_project.tracking.operations import EndRun, StartRun
from rlinf_isaac.ground.errors import InvalidJob

_READ_BYTES = 1 << 20
_LOOK_S = 1.0
"""Seconds between two looks at a journal that is being written."""


def replay(journal: Path, name: str, goes_on: Callable[[], bool] = lambda: False) -> Progress:
    """Report `journal` to the target `name`, from where an earlier process has stopped.

    Args:
        goes_on: called when everything is reported; whether there may be more. It may wait.

    Raises:
        InvalidJob: another process reports this journal to this target now.
    """
    with alone(journal, name):
        progress = Progress.load(journal, name)
        if is_complete(journal, progress):
            return progress
        target, offset = open_target(name, journal, progress)
        first = read_header(journal)[1]
        offset = offset or first
        running = set(open_runs(each for each in read_operations(journal, first)[0] if each[1] <= offset))
        try:
            while True:
                more = goes_on()
                while (found := read_operations(journal, offset, _READ_BYTES))[0]:
                    operations, offset = found
                    for operation, _ in operations:
                        target.apply(operation)
                        if isinstance(operation, StartRun):
                            running.add(operation.run)
                        elif isinstance(operation, EndRun):
                            running.discard(operation.run)
                    progress = Progress(offset, not running, target.settle())
                    progress.save(journal, name)
                if not more or progress.ended:
                    break
        finally:
            target.close()
        return progress


def is_complete(journal: Path, progress: Progress) -> bool:
    """Whether a target has everything of a journal whose runs have ended."""
    return progress.ended and progress.offset == journal.stat().st_size


def _input_goes_on() -> bool:
    """Wait for the end of the standard input, for `_LOOK_S` seconds; False when it has come."""
    if not select.select([0], [], [], _LOOK_S)[0]:
        return True
    return bool(os.read(0, 1))


def main() -> None:
    """What the module does as a script."""
    journal, name, *rest = sys.argv[1:]
    prepare_environment()
    try:
        replay(Path(journal), name, _input_goes_on if rest else lambda: False)
    except InvalidJob as error:
        sys.exit(str(error))
    if rest:
        _catch_up(Path(journal), name)


def _catch_up(journal: Path, name: str) -> None:
    """Report what is missing of the older journals beside this one, whose verbs were killed or had no time left."""
    for other in sorted(journal.parent.glob("*.jsonl")):
        if name in targets_of(other):
            with suppress(InvalidJob):  # its own verb is at work
                replay(other, name)


if __name__ == "__main__":
    main()
