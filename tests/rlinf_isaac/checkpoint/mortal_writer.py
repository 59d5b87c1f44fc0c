"""Writes bundles in processes that die by SIGKILL in the middle. Driven by test_bundle_killed.py through pipes.

Each line on stdin, ``<path> <lines> <megabytes> <seconds>``, forks one writer (after torch was imported once). It
executes that many lines of the writing code and then kills itself, or is killed after so many seconds; 0 lets it live.
Reported are its pid when it starts, then its exit status, how many lines it executed, and how many seconds it lived.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from types import FrameType

import torch

from rlinf_isaac.checkpoint import weights  # noqa: F401  (imported before the fork)
from rlinf_isaac.checkpoint.bundle import write_bundle


def write(path: str, megabytes: int) -> None:
    write_bundle(
        path,
        state_dict={"new": torch.ones(1 + megabytes * 2**18)},
        config={},
        norm_stats=b"{}",
        asset_id="cube",
        step=400,
        lineage={},
        overwrite=True,
    )


def die_at(limit: int) -> list[int]:
    """Count the lines executed in the checkpoint and atomic modules; SIGKILL at line `limit`."""
    executed = [0]

    def trace(frame: FrameType, event: str, argument: object) -> object:
        if not frame.f_code.co_filename.endswith(("atomic.py", "bundle.py", "weights.py", "manifest.py", "header.py")):
            return None
        executed[0] += event == "line"
        if limit and executed[0] == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    return executed


def main() -> None:
    torch.set_num_threads(1)
    for command in sys.stdin:
        path, lines, megabytes, seconds = command.split()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            executed = die_at(int(lines)) if seconds == "0" else [0]
            write(path, int(megabytes))
            sys.settrace(None)
            os.write(writer, str(executed[0]).encode())
            os._exit(0)
        os.close(writer)
        print(pid, flush=True)
        begin = time.perf_counter()
        if float(seconds):
            end = os.pidfd_open(pid)
            if not select.select([end], [], [], float(seconds))[0]:
                os.kill(pid, signal.SIGKILL)
            os.close(end)
        _, status = os.waitpid(pid, 0)
        lived = time.perf_counter() - begin
        with open(reader) as pipe:
            print(os.waitstatus_to_exitcode(status), pipe.read() or 0, lived, flush=True)


if __name__ == "__main__":
    main()
