"""Converts in processes that are ended in the middle. Driven by test_killed.py through pipes.

Each line on stdin, ``<source> <output> <signal> <seconds>``, forks one converter and sends it the signal after so many
seconds. Reported are its exit status and how many seconds it lived.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from rlinf_isaac.checkpoint.convert import prepare, run


def main() -> None:
    for command in sys.stdin:
        source, output, number, seconds = command.split()
        begin = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                run(prepare(source, output, overwrite=True), verify=False)
            except KeyboardInterrupt:
                os._exit(130)
            os._exit(0)
        end = os.pidfd_open(pid)
        if not select.select([end], [], [], float(seconds))[0]:
            os.kill(pid, int(number))
        os.close(end)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
