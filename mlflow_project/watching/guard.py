"""Runs a program and ends it, with all processes of its group, as soon as stdin closes.

``python -m mlflow_project.watching.guard PROGRAM ARGUMENT...`` is started in a session of its own by a process
(`child_process.Child`) whose end, even by SIGKILL, closes that stdin. So a server with workers never outlives it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_S = 3.0
"""Seconds between SIGTERM for the program and SIGKILL for all."""
_POLL_S = 0.2


def main(command: list[str]) -> int:
    """Run the command; its exit code, if it ends before stdin closes. What it leaves of its group is ended, too."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    ordered = threading.Event()
    threading.Thread(target=_wait_for_order, args=(process, ordered), daemon=True).start()
    while process.poll() is None and not ordered.wait(_POLL_S):
        pass
    if ordered.is_set():
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        os.killpg(0, signal.SIGKILL)  # this process is in the group, too
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _wait_for_order(process: subprocess.Popen[bytes], ordered: threading.Event) -> None:
    sys.stdin.buffer.read()
    process.send_signal(signal.SIGTERM)
    ordered.set()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
