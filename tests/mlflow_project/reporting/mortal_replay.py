"""Reports a journal in processes that are killed at a line. Driven by test_tensorboard.py through pipes.

Each line on stdin, a JSON object with ``journal`` and ``line`` (0: not killed), forks one process; reported is its exit
status, or minus the signal, and after a 0 how many lines it has run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mortal import die_at

from mlflow_project.reporting import replay, tensorboard  # noqa: F401  (imported before the fork)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            executed = die_at(("reporting/tensorboard.py", "reporting/replay.py", "ground/atomic.py"), order["line"])
            replay.replay(Path(order["journal"]), "tensorboard")
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
