"""For scripts that fork: processes that die in the middle of their work, or end without a second of tidying up."""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn


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


def leave(end: SystemExit) -> NoReturn:
    """End this process as Python does, with threads joined and what was registered with `atexit` done, but without
    freeing what its parent has imported, which takes a second and a half once torch is among it."""
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
