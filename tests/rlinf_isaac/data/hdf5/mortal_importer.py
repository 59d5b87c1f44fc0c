"""Imports demonstrations in processes that die by SIGKILL in the middle. Driven by test_killed.py through pipes.

Each line on stdin, ``<file> <root> <lines>``, forks one importer. It executes that many lines of the importing code and
then kills itself; 0 lets it live. Reported are its exit status and how many lines it executed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd  # noqa: F401  (pyarrow imports it for its first table: once, before the fork)
from mortal import die_at, wait_or_kill

from rlinf_isaac.data.hdf5.choice import Wanted
from rlinf_isaac.data.hdf5.convert import import_demonstrations
from rlinf_isaac.data.hdf5.plan import Request, make_plan
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings

WRITING = ("convert.py", "writer.py", "atomic.py", "recipe.py")


def main() -> None:
    for command in sys.stdin:
        file, root, lines = command.split()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            executed = die_at(WRITING, int(lines))
            plan = make_plan(FoldedFindings(), Request((Path(file),), Wanted(None, None, "actions"), prompt="Stack."))
            assert plan is not None
            list(import_demonstrations(plan, Path(root)))
            sys.settrace(None)
            os.write(writer, str(executed[0]).encode())
            os._exit(0)
        os.close(writer)
        exit_code, _ = wait_or_kill(pid, 0)
        with open(reader) as pipe:
            print(exit_code, pipe.read() or 0, flush=True)


if __name__ == "__main__":
    main()
