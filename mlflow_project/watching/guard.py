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


def main(command: list[str]) -> int:
    """Run the command; its exit code, if it ends first."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_stdin, args=(process,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _end_with_stdin(process: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
