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

    Attributes:
        ignore: set it to protect an orderly end. Launchers send two signals: Ctrl-C reaches the whole process group,
            and then ``mlflow run`` sends SIGTERM as well.
    """

    def __init__(self) -> None:
        self.ignore = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.ignore:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
