"""For the scripts that `support.mortal` starts: processes that die in the middle of their work."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from types import FrameType


def die_at(files: tuple[str, ...], limit: int) -> list[int]:
    """Count, in a list of one, the lines executed from now on in files whose names end so; SIGKILL at line `limit`,
    0 for never."""
    executed = [0]

    def trace(frame: FrameType, event: str, argument: object) -> object:
        if not frame.f_code.co_filename.endswith(files):
            return None
        executed[0] += event == "line"
        if limit and executed[0] == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    return executed


def wait_or_kill(pid: int, seconds: float, number: int = signal.SIGKILL) -> tuple[int, float]:
    """Wait for a child to end, and send it a signal after so many seconds, 0 for never: (exit code, seconds it lived
    from now on)."""
    began = time.perf_counter()
    if seconds:
        end = os.pidfd_open(pid)
        if not select.select([end], [], [], seconds)[0]:
            os.kill(pid, number)
        os.close(end)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - began
