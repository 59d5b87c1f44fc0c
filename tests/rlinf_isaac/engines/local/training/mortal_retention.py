"""Removes checkpoints in processes that are killed at a line. Driven by test_retention.py through pipes.

Each line on stdin, a JSON object with ``output``, ``kept`` (steps) and ``line`` (0: not killed), forks one process;
reported is its exit status, or minus the signal, and after a 0 how many lines it has run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mortal import die_at

from rlinf_isaac.engines.local.training.retention import Retention

FILES = ("training/retention.py", "checkpoint/removal.py", "ground/atomic.py")


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            retention = Retention(Path(order["output"]), ("adapters",), None)
            executed = die_at(FILES, order["line"])
            list(retention.keep(order["kept"]))
            sys.settrace(None)
            os.write(writer, str(executed[0]).encode())
            os._exit(0)
        os.close(writer)
        _, status = os.waitpid(pid, 0)
        lines = int(os.read(reader, 20) or 0)
        os.close(reader)
        print(json.dumps([os.waitstatus_to_exitcode(status), lines]), flush=True)


if __name__ == "__main__":
    main()
