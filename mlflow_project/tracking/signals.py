"""Signals that end a verb in order instead of on the spot."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived. Leaves all blocks in order and ends the process with 128 + signal number."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(128 + number)

    def __str__(self) -> str:
        return self.signal.name


class Signals:
    """Turns SIGTERM and SIGHUP into `Terminated` and SIGINT into KeyboardInterrupt, until the with block ends.

    Only the main thread may do so; what nohup or the shell have chosen to ignore stays ignored.

    A signal may arrive where Python throws exceptions away (a finaliser, a callback of the garbage collector). So it is
    remembered, and whoever works in a loop calls `poll`.

    Attributes:
        ignore: set it to protect an orderly end. Launchers send two signals: Ctrl-C reaches the whole process group,
            and then ``mlflow run`` sends SIGTERM as well.
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
        """Raise the exception of a signal that has arrived, as its handler did."""
        if self._arrived is not None and not self.ignore:
            raise KeyboardInterrupt if self._arrived == signal.SIGINT else Terminated(self._arrived)


def poll() -> None:
    """Raise the exception of a signal that arrived and was lost. For loops of the main thread."""
    if _current is not None and threading.current_thread() is threading.main_thread():
        _current.poll()


_current: Signals | None = None
