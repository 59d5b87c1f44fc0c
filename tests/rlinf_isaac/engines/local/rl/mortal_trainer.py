"""Trains in processes that die by SIGKILL at any moment. Driven by test_train_killed.py through pipes.

Each line on stdin, a JSON object, forks one trainer (after torch was imported once): ``checkpoint``, ``output``,
``overrides``, and when to die: after ``seconds``, or at line ``lines`` of the code that writes checkpoints (0: never).
Reported are its exit status, how many of those lines it executed, and how many seconds it lived.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch._dynamo  # which an optimiser's first step imports
from mortal import die_at, wait_or_kill

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config import build_config
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.rl import train as _imported_before_the_fork  # noqa: F401

WRITING = (
    *("atomic.py", "bundle.py", "weights.py", "manifest.py", "training_state.py"),
    *("train.py", "course.py", "states.py", "watch.py"),
)


def train(checkpoint: str, output: str, overrides: Sequence[str]) -> None:
    start = read_bundle(checkpoint)
    config = build_config(start.config["job"], "test", overrides)
    for _ in LocalEngine().rl(RlJob(config, start, Path(output))):
        pass


def wait_for_orphans() -> None:
    """Until the trainer's workers are gone, too; gives up, and ends this process, after a minute."""
    signal.alarm(60)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    signal.alarm(0)


def main() -> None:
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphaned workers become children of this process
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            executed = [0] if order["seconds"] else die_at(WRITING, order["lines"])
            train(order["checkpoint"], order["output"], order["overrides"])
            sys.settrace(None)
            os.write(writer, str(executed[0]).encode())
            os._exit(0)
        os.close(writer)
        exit_code, lived = wait_or_kill(pid, order["seconds"])
        wait_for_orphans()
        with open(reader) as pipe:
            print(exit_code, pipe.read() or 0, lived, flush=True)


if __name__ == "__main__":
    main()
