"""How a training ends, as the process that ran it can still tell: by an exception, by ``sys.exit``, or by its end.

What kills the process without a word (SIGKILL, SIGTERM, ``os._exit``) is told by the lock on the journal (`forward`).
"""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from mlflow_project.tracking.operations import Status
from mlflow_project.tracking.redact import redact


class Ending(NamedTuple):
    """How it ended: the status of the run, the reason if there is one, and the traceback if there is one."""

    status: Status
    reason: str | None = None
    trace: str | None = None


def ending_of(error: BaseException | None) -> Ending:
    """The ending that an exception is; a training that ends without one is FINISHED."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return Ending("FINISHED")
    if isinstance(error, KeyboardInterrupt):
        return Ending("KILLED", "SIGINT")
    trace = redact("".join(traceback.format_exception(error)))
    return Ending("FAILED", redact(f"{type(error).__name__}: {error}")[:2000], trace)


class EndOfProcess:
    """Calls a function once, when this process ends, with the `Ending`. Forked children do not call it."""

    def __init__(self, call: Callable[[Ending], None]) -> None:
        self._call, self._pid = call, os.getpid()
        self._ending = Ending("FINISHED")
        self._hook, self._exit = sys.excepthook, sys.exit
        sys.excepthook, sys.exit = self._excepted, self._exited
        atexit.register(self._ended)

    def _excepted(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._ending = ending_of(error.with_traceback(trace))
        self._hook(kind, error, trace)

    def _exited(self, status: Any = None) -> Any:
        """Python tells nobody of a SystemExit that ends the process, nor of the exception because of which it was
        raised, such as by Hydra."""
        cause = sys.exc_info()[1]
        failed = status not in (None, 0) and cause is not None
        self._ending = ending_of(cause if failed else SystemExit(status))
        return self._exit(status)

    def _ended(self) -> None:
        if os.getpid() == self._pid:
            self._call(self._ending)
