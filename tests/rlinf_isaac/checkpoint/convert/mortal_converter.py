"""Converts in processes that are ended in the middle. Driven by test_killed.py through pipes.

Each line on stdin, ``<source> <output> <signal> <seconds>``, forks one converter and sends it the signal after so many
seconds. Reported are its exit status and how many seconds it lived.
"""

from __future__ import annotations

import os
import signal
import sys

import torch  # noqa: F401  (imported before the fork)
from mortal import wait_or_kill

from rlinf_isaac.checkpoint.convert import prepare, run


def main() -> None:
    for command in sys.stdin:
        source, output, number, seconds = command.split()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = 0
            try:
                run(prepare(source, output, overwrite=True), verify=False)
            except KeyboardInterrupt:
                status = 130
            # Here the interrupt is forgotten, and with it frames that it kept from ending: one that came between a
            # `with` and its generator has left that suspended. A command ends such frames, too, before it exits.
            os._exit(status)
        exit_code, lived = wait_or_kill(pid, float(seconds), int(number))
        print(exit_code, lived, flush=True)


if __name__ == "__main__":
    main()
