"""Writes bundles in processes that die by SIGKILL in the middle. Driven by test_bundle_killed.py through pipes.

Each line on stdin, ``<path> <lines> <megabytes> <seconds>``, forks one writer (after torch was imported once). It
executes that many lines of the writing code and then kills itself, or is killed after so many seconds; 0 lets it live.
Reported are its pid when it starts, then its exit status, how many lines it executed, and how many seconds it lived.
"""

from __future__ import annotations

import os
import sys

import torch
from mortal import die_at, wait_or_kill

from rlinf_isaac.checkpoint import weights  # noqa: F401  (imported before the fork)
from rlinf_isaac.checkpoint.write_bundle import write_bundle

WRITING = ("atomic.py", "bundle.py", "weights.py", "manifest.py", "header.py")


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


def main() -> None:
    torch.set_num_threads(1)
    for command in sys.stdin:
        path, lines, megabytes, seconds = command.split()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            executed = die_at(WRITING, int(lines)) if seconds == "0" else [0]
            write(path, int(megabytes))
            sys.settrace(None)
            os.write(writer, str(executed[0]).encode())
            os._exit(0)
        os.close(writer)
        print(pid, flush=True)
        exit_code, lived = wait_or_kill(pid, float(seconds))
        with open(reader) as pipe:
            print(exit_code, pipe.read() or 0, lived, flush=True)


if __name__ == "__main__":
    main()
