"""Turns termination signals into exceptions, so that a verb can clean up before it ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived. If nothing catches it, the process exits with status 128 + signal number."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(128 + number)

    def __str__(self) -> str:
        return self.signal.name


class Signals:
    """Turns SIGTERM and SIGHUP into `Terminated` and SIGINT into KeyboardInterrupt, until the with block ends.

    Handlers are installed only in the main thread. A signal that nohup or the shell ignores stays ignored.

    A signal may arrive where Python discards exceptions (in a finaliser or a callback of the garbage collector). The
    signal is therefore remembered, and loops call `poll` to raise its exception again.

    Attributes:
        ignore: set to True during shutdown, so that a second signal does not interrupt it. Launchers send two: Ctrl-C
            reaches the whole process group, and then ``mlflow run`` sends SIGTERM as well.
    """

    def __init__(self) -> None:
        self.ignore = False
        self._before: dict[int, Any] = {}
        self._arrived: int | None = None

    def __enter__(self) -> Signals:
        global _current
        self._outer, _current = _current, self
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        global _current
        _current = self._outer
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._arrived = number
        self.poll()

    def poll(self) -> None:
        """Raise the exception of a signal that has arrived, as the handler did."""
        if self._arrived is not None and not self.ignore:
            raise KeyboardInterrupt if self._arrived == signal.SIGINT else Terminated(self._arrived)


def poll() -> None:
    """Raise the exception of a signal that arrived and was lost. Loops in the main thread call this."""
    if _current is not None and threading.current_thread() is threading.main_thread():
        _current.poll()


_current: Signals | None = None
