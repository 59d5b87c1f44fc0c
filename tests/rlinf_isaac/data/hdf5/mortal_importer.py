"""Imports demonstrations in processes that die by SIGKILL in the middle. Driven by test_killed.py through pipes.

Each line on stdin, ``<file> <root> <lines>``, forks one importer. It executes that many lines of the importing code and
then kills itself; 0 lets it live. Reported are its exit status, 2 for a file that is refused, and how many lines it
executed.
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
from rlinf_isaac.ground.errors import InvalidJob

WRITING = ("convert.py", "writer.py", "atomic.py", "recipe.py")


def run(file: Path, root: Path) -> None:
    found = FoldedFindings()
    plan = make_plan(found, Request((file,), Wanted(None, None, "actions"), fps=20, prompt="Stack."))
    if plan is None:
        raise InvalidJob([problem for problem in found.problems() if problem.level == "error"])
    list(import_demonstrations(plan, root))


def main() -> None:
    for command in sys.stdin:
        file, root, lines = command.split()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            executed = die_at(WRITING, int(lines))
            try:
                run(Path(file), Path(root))
            except InvalidJob:
                os._exit(2)
            sys.settrace(None)
            os.write(writer, str(executed[0]).encode())
            os._exit(0)
        os.close(writer)
        exit_code, _ = wait_or_kill(pid, 0)
        with open(reader) as pipe:
            print(exit_code, pipe.read() or 0, flush=True)


if __name__ == "__main__":
    main()
